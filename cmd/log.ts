/** The log on stderr: lines for people through consola, or NDJSON with `--json`. */
import { createConsola } from "consola";
import type { TraceLevel } from "../core/base/ports.ts";
import { usageError } from "./exit.ts";
import { type EventPrinter, eventLine } from "./event_log.ts";
import { suggestion } from "./nearest.ts";

/** consola's numbers: 1 warn includes 0 error. */
const LEVELS: Readonly<Record<TraceLevel, number>> = { error: 0, warn: 1, info: 3, debug: 4 };

/** The level from $VSAN_LOG, "info" without it. */
function wantedLevel(): TraceLevel {
  const text = process.env.VSAN_LOG || "info";
  if (Object.hasOwn(LEVELS, text)) return text as TraceLevel;
  throw usageError(`VSAN_LOG: unknown level ${text}${suggestion(text, Object.keys(LEVELS))}`);
}

/** Prints events of the wanted level and worse to stderr. */
export function eventPrinter(json: boolean): EventPrinter {
  const level = LEVELS[wantedLevel()];
  if (json) {
    return (event) => {
      if (LEVELS[event.level] <= level) process.stderr.write(eventLine(event));
    };
  }
  const log = createConsola({
    level,
    stdout: process.stderr,
    stderr: process.stderr,
    formatOptions: { date: true, compact: true, colors: process.stderr.isTTY },
  });
  return (event) => {
    log[event.level](`${event.code}: ${event.text}`);
  };
}

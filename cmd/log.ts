/** The log on stderr: lines for people through consola, or NDJSON with `--json`. */
import { type ConsolaReporter, createConsola } from "consola";
import type { TraceLevel } from "../core/base/ports.ts";
import { type EventPrinter, eventLine } from "./event_log.ts";
import { usageError } from "./exit.ts";
import { suggestion } from "./nearest.ts";
import { showsColors } from "./table.ts";

/** consola's numbers: 1 warn includes 0 error. */
const LEVELS: Readonly<Record<TraceLevel, number>> = { error: 0, warn: 1, info: 3, debug: 4 };
/** SGR: red, yellow, the terminal's own, grey. */
const COLORS: Readonly<Record<TraceLevel, number>> = { error: 31, warn: 33, info: 39, debug: 90 };

/** The level from $VSAN_LOG, "info" without it. */
function wantedLevel(): TraceLevel {
  const text = process.env.VSAN_LOG || "info";
  if (Object.hasOwn(LEVELS, text)) return text as TraceLevel;
  throw usageError(`VSAN_LOG: unknown level ${text}${suggestion(text, Object.keys(LEVELS))}`);
}

/** One event, one line: "2026-01-31T12:00:00.000Z warn view.lost: ...". */
const reporter: ConsolaReporter = {
  log({ date, type, args }) {
    const level = type as TraceLevel;
    const [paint, plain] = showsColors(process.stderr)
      ? [`\u001b[${COLORS[level]}m`, "\u001b[39m"]
      : ["", ""];
    process.stderr.write(`${date.toISOString()} ${paint}${level}${plain} ${args.join(" ")}\n`);
  },
};

/** Prints events of the wanted level and worse to stderr. */
export function eventPrinter(json: boolean): EventPrinter {
  const level = LEVELS[wantedLevel()];
  if (json) {
    return (event) => {
      if (LEVELS[event.level] <= level) process.stderr.write(eventLine(event));
    };
  }
  const log = createConsola({ level, reporters: [reporter] });
  return (event) => {
    log[event.level](`${event.code}: ${event.text}`);
  };
}

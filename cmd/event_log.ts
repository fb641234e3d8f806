/**
 * The event stream (G8): every event of the core and of the transports passes here once. It is
 * written to the log on stderr, kept in a ring of the newest, and given to whoever follows.
 *
 * A follower that does not read loses its oldest lines and is told how many; the ring and every
 * follower's queue are bounded, so a stuck reader costs nothing (G7).
 */
import type { Trace, TraceLevel, TraceValue } from "../core/base/ports.ts";

/** Events kept for `vsan mirror events` of somebody who comes later. */
export const EVENTS_KEPT = 1024;
/** Lines a follower may be behind. */
const FOLLOWER_LINES_MAX = 1024;

export interface EventRecord {
  /** RFC 3339, UTC. */
  readonly time: string;
  readonly host: string;
  readonly level: TraceLevel;
  readonly code: string;
  readonly text: string;
  readonly fields: Readonly<Record<string, TraceValue>>;
}

/** Where events are shown while they happen. */
export type EventPrinter = (event: EventRecord) => void;

interface Follower {
  readonly lines: string[];
  lostCount: number;
  wake: (() => void) | null;
}

/** One event as a line of NDJSON; fields stand beside the fixed keys, which they cannot hide. */
export function eventLine(event: EventRecord): string {
  const { time, host, level, code, text, fields } = event;
  return `${JSON.stringify({ ...fields, time, host, level, code, text })}\n`;
}

export class EventLog implements Trace {
  private readonly kept: string[] = [];
  private next = 0;
  private readonly followers = new Set<Follower>();
  private readonly host: string;
  private readonly print: EventPrinter;

  constructor(host: string, print: EventPrinter) {
    this.host = host;
    this.print = print;
  }

  event(
    level: TraceLevel,
    code: string,
    text: string,
    fields: Readonly<Record<string, TraceValue>> = {},
  ): void {
    const record = { time: new Date().toISOString(), host: this.host, level, code, text, fields };
    this.print(record);
    // Debug events are for a log of one host, not for an operator's stream.
    if (level === "debug") return;
    const line = eventLine(record);
    this.kept[this.next % EVENTS_KEPT] = line;
    this.next += 1;
    for (const follower of this.followers) push(follower, line);
  }

  /** The newest events, oldest first. */
  recent(): string[] {
    const from = Math.max(0, this.next - EVENTS_KEPT);
    const lines: string[] = [];
    for (let at = from; at < this.next; at++) lines.push(this.kept[at % EVENTS_KEPT] as string);
    return lines;
  }

  /** The recent events and then every new one, until `signal` aborts. */
  async *follow(signal: AbortSignal): AsyncGenerator<string> {
    const follower: Follower = { lines: this.recent(), lostCount: 0, wake: null };
    this.followers.add(follower);
    const stop = (): void => follower.wake?.();
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        if (follower.lines.length === 0) {
          await new Promise<void>((wake) => {
            follower.wake = wake;
          });
          continue;
        }
        const lost = follower.lostCount;
        follower.lostCount = 0;
        const text = follower.lines.splice(0).join("");
        yield lost === 0 ? text : lostLine(this.host, lost) + text;
      }
    } finally {
      signal.removeEventListener("abort", stop);
      this.followers.delete(follower);
    }
  }
}

function push(follower: Follower, line: string): void {
  if (follower.lines.length >= FOLLOWER_LINES_MAX) {
    follower.lines.shift();
    follower.lostCount += 1;
  }
  follower.lines.push(line);
  follower.wake?.();
}

function lostLine(host: string, count: number): string {
  return eventLine({
    time: new Date().toISOString(),
    host,
    level: "warn",
    code: "events.lost",
    text: `this reader was too slow and lost ${count} events`,
    fields: { count },
  });
}

/** CPU time of processes and of everything below them, from /proc (man proc(5)). */
import { readdirSync, readFileSync } from "node:fs";

/** Ticks per second of the times in /proc; USER_HZ is 100 on every Linux that runs Bun. */
const TICKS_PER_SECOND = 100;
/** Positions behind the command's closing bracket: parent, utime, stime, cutime, cstime. */
const FIELD = { parent: 1, firstTime: 11, timeCount: 4 } as const;

interface Entry {
  readonly parent: number;
  readonly ticks: number;
}

/**
 * Seconds of CPU that `pids` and their descendants have used, children that ended included.
 * Resolution 10 ms. A process that is gone counts as 0.
 */
export function cpuSecondsOf(pids: readonly number[]): number {
  const entries = new Map<number, Entry>();
  for (const name of readdirSync("/proc")) {
    const entry = /^\d+$/.test(name) ? entryOf(name) : null;
    if (entry !== null) entries.set(Number(name), entry);
  }
  let ticks = 0;
  for (const [pid, entry] of entries) {
    if (isBelow(entries, pid, pids)) ticks += entry.ticks;
  }
  return ticks / TICKS_PER_SECOND;
}

function isBelow(entries: ReadonlyMap<number, Entry>, pid: number, tops: readonly number[]) {
  for (let at = pid; at > 1; at = entries.get(at)?.parent ?? 0) {
    if (tops.includes(at)) return true;
  }
  return false;
}

/** Null if the process is gone. */
function entryOf(pid: string): Entry | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return null;
  }
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const times = fields.slice(FIELD.firstTime, FIELD.firstTime + FIELD.timeCount).map(Number);
  return { parent: Number(fields[FIELD.parent]), ticks: times.reduce((sum, each) => sum + each) };
}

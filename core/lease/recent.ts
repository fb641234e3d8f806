/**
 * Where this host wrote lately, in a small ring: the knowledge by which a holder decides how much
 * to give away (handover.ts) and whether its own writes have the higher priority.
 */
import type { VolumeId } from "../base/units.ts";
import { type Gap, narrow } from "./uses.ts";

/** Uses remembered; a power of two. */
const RECENT_COUNT = 256;

export class Recent {
  private next = 0;
  private readonly times = new Float64Array(RECENT_COUNT).fill(Number.NEGATIVE_INFINITY);
  private readonly volumes = new Float64Array(RECENT_COUNT);
  private readonly starts = new Float64Array(RECENT_COUNT);
  private readonly ends = new Float64Array(RECENT_COUNT);
  private readonly priorities = new Uint8Array(RECENT_COUNT);

  clear(): void {
    this.times.fill(Number.NEGATIVE_INFINITY);
  }

  note(nowMs: number, volume: VolumeId, start: number, end: number, priority: number): void {
    const at = this.next;
    this.next = (at + 1) & (RECENT_COUNT - 1);
    this.times[at] = nowMs;
    this.volumes[at] = volume;
    this.starts[at] = start;
    this.ends[at] = end;
    this.priorities[at] = priority;
  }

  /** Narrows `gap` around `[start, end)` by the writes since `sinceMs`. */
  narrowGap(gap: Gap, volume: VolumeId, start: number, end: number, sinceMs: number): void {
    for (let at = 0; at < RECENT_COUNT; at += 1) {
      if (this.times[at]! < sinceMs || this.volumes[at] !== volume) continue;
      narrow(gap, start, end, this.starts[at]!, this.ends[at]!);
    }
  }

  /** Time of the newest write in `[start, end)` of a priority above `level`; -Infinity if none. */
  lastAbove(level: number, volume: VolumeId, start: number, end: number): number {
    let newest = Number.NEGATIVE_INFINITY;
    for (let at = 0; at < RECENT_COUNT; at += 1) {
      if (this.priorities[at]! <= level || this.volumes[at] !== volume) continue;
      if (this.starts[at]! >= end || this.ends[at]! <= start) continue;
      if (this.times[at]! > newest) newest = this.times[at]!;
    }
    return newest;
  }
}

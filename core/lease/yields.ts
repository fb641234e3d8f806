/**
 * The ranges this host is giving back (R9b), each in one of two states:
 *
 *   begin -> draining --(last use ended)--> ready -> FREE submitted --(FREE applied)--> gone
 *               |                                        |
 *               +---- drop: the own request won ----     +--- a new view ends it as well
 *
 * Invariants: ranges are disjoint; from `begin` on no new write is admitted in them; FREE is
 * submitted only when no use overlaps (rule yieldOnCommit).
 */
import type { VolumeId } from "../base/units.ts";

export interface Yield {
  readonly volume: VolumeId;
  readonly start: number;
  readonly end: number;
  /** Uses in flight in it. */
  pending: number;
  isSent: boolean;
}

export class Yields {
  readonly rows: Yield[] = [];

  clear(): void {
    this.rows.length = 0;
  }

  /** True if a block of `[start, end)` is being given back. Hot: the list is mostly empty. */
  overlap(volume: VolumeId, start: number, end: number): boolean {
    const { rows } = this;
    for (let index = 0; index < rows.length; index += 1) {
      const row = rows[index]!;
      if (row.start < end && row.end > start && row.volume === volume) return true;
    }
    return false;
  }

  begin(volume: VolumeId, start: number, end: number, pending: number): void {
    this.rows.push({ volume, start, end, pending, isSent: false });
  }

  /** A use ended. True if that made a range ready. */
  useEnded(volume: VolumeId, start: number, end: number): boolean {
    let isReady = false;
    for (const row of this.rows) {
      if (row.volume !== volume || row.start >= end || row.end <= start) continue;
      row.pending -= 1;
      if (row.pending === 0) isReady = true;
    }
    return isReady;
  }

  /** The own FREE of exactly this range was applied. */
  freed(volume: VolumeId, start: number, end: number): void {
    const at = this.rows.findIndex(
      (row) => row.isSent && row.volume === volume && row.start === start && row.end === end,
    );
    if (at >= 0) this.rows.splice(at, 1);
  }

  /** Takes back what is not submitted yet in `[start, end)`: the own request came first. */
  drop(volume: VolumeId, start: number, end: number): void {
    for (let index = this.rows.length - 1; index >= 0; index -= 1) {
      const row = this.rows[index]!;
      if (row.isSent || row.volume !== volume) continue;
      if (row.start < end && row.end > start) this.rows.splice(index, 1);
    }
  }

  /** FREEs on their way. */
  get sentCount(): number {
    let count = 0;
    for (const row of this.rows) if (row.isSent) count += 1;
    return count;
  }
}

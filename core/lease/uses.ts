/**
 * Writes in flight at this host, by range: what a hand-over must wait for (R9b).
 *
 * A dense list of distinct (volume, range, grant) with counts, found by a hash table with linear
 * probing; all typed arrays that only grow, so that a use costs no allocation. A hand-over scans
 * the dense list once; every other operation is constant time.
 */
import { assert } from "../base/assert.ts";
import type { VolumeId } from "../base/units.ts";

/** Distinct ranges in flight; past it writers wait for a use to end. */
const USES_MAX = 65536;
const USES_FIRST = 256;

/** A range between the nearest neighbours; see `narrow`. */
export interface Gap {
  low: number;
  high: number;
}

/**
 * Narrows `gap` around `[start, end)` so that a neighbouring range in use keeps the half of the
 * distance that is next to it.
 */
export function narrow(gap: Gap, start: number, end: number, from: number, to: number): void {
  if (from < start) {
    const low = to >= start ? start : to + Math.ceil((start - to) / 2);
    if (low > gap.low) gap.low = low;
  }
  if (to > end) {
    const high = from <= end ? end : end + Math.floor((from - end) / 2);
    if (high < gap.high) gap.high = high;
  }
}

export class Uses {
  private count = 0;
  private capacity = USES_FIRST;
  private volumes = new Float64Array(USES_FIRST);
  private starts = new Float64Array(USES_FIRST);
  private ends = new Float64Array(USES_FIRST);
  private grants = new Float64Array(USES_FIRST);
  private counts = new Uint32Array(USES_FIRST);
  /** Hash table of dense index + 1; 0 = empty. Twice the capacity, a power of two. */
  private slots = new Int32Array(USES_FIRST * 2);

  get isFull(): boolean {
    return this.count >= USES_MAX;
  }

  /** Distinct ranges in flight. */
  get size(): number {
    return this.count;
  }

  clear(): void {
    this.count = 0;
    this.slots.fill(0);
  }

  /** Counts one use. The caller has checked `isFull`. */
  add(volume: VolumeId, start: number, end: number, grant: number): void {
    let slot = this.slotOf(volume, start, end, grant);
    if (this.slots[slot] !== 0) {
      const index = this.slots[slot]! - 1;
      this.counts[index] = this.counts[index]! + 1;
      return;
    }
    if (this.count === this.capacity) {
      this.grow();
      slot = this.slotOf(volume, start, end, grant);
    }
    const index = this.count;
    this.count += 1;
    this.volumes[index] = volume;
    this.starts[index] = start;
    this.ends[index] = end;
    this.grants[index] = grant;
    this.counts[index] = 1;
    this.slots[slot] = index + 1;
  }

  /** Ends one use; false if there is none like it. */
  remove(volume: VolumeId, start: number, end: number, grant: number): boolean {
    const slot = this.slotOf(volume, start, end, grant);
    if (this.slots[slot] === 0) return false;
    const index = this.slots[slot]! - 1;
    this.counts[index] = this.counts[index]! - 1;
    if (this.counts[index] === 0) this.drop(slot, index);
    return true;
  }

  /** Uses that overlap `[start, end)`. */
  countIn(volume: VolumeId, start: number, end: number): number {
    let total = 0;
    for (let index = 0; index < this.count; index += 1) {
      if (this.volumes[index] !== volume) continue;
      if (this.starts[index]! < end && this.ends[index]! > start) total += this.counts[index]!;
    }
    return total;
  }

  /** Narrows `gap` by every use of the volume. */
  narrowGap(gap: Gap, volume: VolumeId, start: number, end: number): void {
    for (let index = 0; index < this.count; index += 1) {
      if (this.volumes[index] !== volume) continue;
      narrow(gap, start, end, this.starts[index]!, this.ends[index]!);
    }
  }

  /** The slot that holds this use, or the empty one where it belongs. */
  private slotOf(volume: number, start: number, end: number, grant: number): number {
    const mask = this.slots.length - 1;
    let slot = hash(volume, start, end, grant) & mask;
    for (;;) {
      const index = this.slots[slot]! - 1;
      if (index < 0) return slot;
      if (
        this.starts[index] === start &&
        this.ends[index] === end &&
        this.volumes[index] === volume &&
        this.grants[index] === grant
      ) {
        return slot;
      }
      slot = (slot + 1) & mask;
    }
  }

  private homeOf(index: number): number {
    const { volumes, starts, ends, grants } = this;
    const mixed = hash(volumes[index]!, starts[index]!, ends[index]!, grants[index]!);
    return mixed & (this.slots.length - 1);
  }

  private drop(slot: number, index: number): void {
    this.closeGap(slot);
    const last = this.count - 1;
    this.count = last;
    if (index === last) return;
    const moved = this.slotOf(
      this.volumes[last]!,
      this.starts[last]!,
      this.ends[last]!,
      this.grants[last]!,
    );
    assert(this.slots[moved] === last + 1, "uses: the last use is not in the hash table");
    this.slots[moved] = index + 1;
    this.volumes[index] = this.volumes[last]!;
    this.starts[index] = this.starts[last]!;
    this.ends[index] = this.ends[last]!;
    this.grants[index] = this.grants[last]!;
    this.counts[index] = this.counts[last]!;
  }

  /** Empties `slot`, moving back what was displaced past it (Knuth, TAOCP 6.4, algorithm R). */
  private closeGap(slot: number): void {
    const mask = this.slots.length - 1;
    let hole = slot;
    let next = slot;
    for (;;) {
      next = (next + 1) & mask;
      const index = this.slots[next]! - 1;
      if (index < 0) break;
      const distance = (next - this.homeOf(index)) & mask;
      if (distance < ((next - hole) & mask)) continue;
      this.slots[hole] = index + 1;
      hole = next;
    }
    this.slots[hole] = 0;
  }

  private grow(): void {
    assert(this.capacity < USES_MAX, "uses: added past the bound");
    this.capacity *= 2;
    this.volumes = widened(this.volumes, this.capacity);
    this.starts = widened(this.starts, this.capacity);
    this.ends = widened(this.ends, this.capacity);
    this.grants = widened(this.grants, this.capacity);
    const counts = new Uint32Array(this.capacity);
    counts.set(this.counts);
    this.counts = counts;
    this.slots = new Int32Array(this.capacity * 2);
    const mask = this.slots.length - 1;
    for (let index = 0; index < this.count; index += 1) {
      let slot = this.homeOf(index);
      while (this.slots[slot] !== 0) slot = (slot + 1) & mask;
      this.slots[slot] = index + 1;
    }
  }
}

function widened(from: Float64Array, length: number): Float64Array<ArrayBuffer> {
  const to = new Float64Array(length);
  to.set(from);
  return to;
}

function hash(volume: number, start: number, end: number, grant: number): number {
  let mixed = Math.imul(start | 0, 0x9e3779b1) ^ Math.imul((end - start) | 0, 0x85ebca6b);
  mixed ^=
    Math.imul((start / 4294967296) | 0, 0xc2b2ae35) ^ volume ^ Math.imul(grant | 0, 0x27d4eb2f);
  mixed ^= mixed >>> 15;
  mixed = Math.imul(mixed, 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

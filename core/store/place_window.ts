/**
 * A bounded set of blocks in the order in which they lie on the disk: what the offline check reads
 * next. Collected in the order of the index, read in the order of the log, so that a store whose
 * blocks were written at random is still read from front to back.
 */
import { assert } from "../base/assert.ts";

/** Blocks in one window: 4 GiB of data, 26 bytes of memory each. */
export const WINDOW_BLOCKS = 1 << 20;
const FIRST_CAPACITY = 1024;
/** Below this many blocks comparing is faster than counting. */
const RADIX_MIN = 8192;
const DIGITS = 65536;

export class PlaceWindow {
  count = 0;
  volumes = new Uint32Array(FIRST_CAPACITY);
  lbas = new Float64Array(FIRST_CAPACITY);
  places = new Float64Array(FIRST_CAPACITY);
  checks = new Uint16Array(FIRST_CAPACITY);
  /** After `sort`: the numbers of the blocks by rising place. */
  order = new Uint32Array(FIRST_CAPACITY);
  private scratch = new Uint32Array(0);
  private readonly counts = new Uint32Array(DIGITS);

  get isFull(): boolean {
    return this.count === WINDOW_BLOCKS;
  }

  add(volume: number, lba: number, place: number, check: number): void {
    assert(this.count < WINDOW_BLOCKS, "place window: added to a full one");
    if (this.count === this.lbas.length) this.grow();
    this.volumes[this.count] = volume;
    this.lbas[this.count] = lba;
    this.places[this.count] = place;
    this.checks[this.count] = check;
    this.count += 1;
  }

  private grow(): void {
    const capacity = this.lbas.length * 4;
    const { volumes, lbas, places, checks } = this;
    this.volumes = new Uint32Array(capacity);
    this.lbas = new Float64Array(capacity);
    this.places = new Float64Array(capacity);
    this.checks = new Uint16Array(capacity);
    this.order = new Uint32Array(capacity);
    this.volumes.set(volumes);
    this.lbas.set(lbas);
    this.places.set(places);
    this.checks.set(checks);
  }

  sort(): void {
    const { count, places } = this;
    const order = this.order.subarray(0, count);
    for (let index = 0; index < count; index += 1) order[index] = index;
    if (count < RADIX_MIN) {
      order.sort((left, right) => places[left]! - places[right]!);
      return;
    }
    if (this.scratch.length < count) this.scratch = new Uint32Array(this.lbas.length);
    const scratch = this.scratch.subarray(0, count);
    // Least significant digit first (Knuth, TAOCP 3, 5.2.5): places have 48 bits. Three passes
    // end in `scratch`. Measured with 2^20 blocks: 60 ms; a sort that compares takes 820.
    this.pass(order, scratch, 1);
    this.pass(scratch, order, DIGITS);
    this.pass(order, scratch, DIGITS * DIGITS);
    order.set(scratch);
  }

  private pass(source: Uint32Array, target: Uint32Array, unit: number): void {
    const { counts, places } = this;
    counts.fill(0);
    for (let index = 0; index < source.length; index += 1) {
      const digit = Math.floor(places[source[index]!]! / unit) % DIGITS;
      counts[digit] = counts[digit]! + 1;
    }
    let sum = 0;
    for (let digit = 0; digit < DIGITS; digit += 1) {
      const here = counts[digit]!;
      counts[digit] = sum;
      sum += here;
    }
    for (let index = 0; index < source.length; index += 1) {
      const block = source[index]!;
      const digit = Math.floor(places[block]! / unit) % DIGITS;
      target[counts[digit]!] = block;
      counts[digit] = counts[digit]! + 1;
    }
  }

  clear(): void {
    this.count = 0;
  }
}

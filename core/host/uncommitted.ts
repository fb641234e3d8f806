/**
 * The records of one sender that this host has appended but does not know committed, in stream
 * order: where each writes. A read that touches one waits for it (R7). Bounded by the window.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { Seq } from "../base/units.ts";

const CAPACITY = LIMITS.windowRecordsMax * 2;
const MASK = CAPACITY - 1;

export class Uncommitted {
  private readonly volumes = new Uint32Array(CAPACITY);
  private readonly lbas = new Float64Array(CAPACITY);
  private readonly counts = new Float64Array(CAPACITY);
  /** Seq of the oldest entry; entries are contiguous in seq. */
  private firstSeq: Seq = 1;
  private count = 0;
  /** Blocks that they write, overlaps counted twice. */
  blockCount = 0;

  clear(): void {
    this.firstSeq = 1;
    this.count = 0;
    this.blockCount = 0;
  }

  /** The record `seq` (the next of the stream) writes `blockCount` blocks from `lba`. */
  push(seq: Seq, volume: number, lba: number, blockCount: number): void {
    assert(this.count < CAPACITY, "uncommitted: window exceeded");
    if (this.count === 0) this.firstSeq = seq;
    assert(seq === this.firstSeq + this.count, "uncommitted: seq out of order");
    const slot = seq & MASK;
    this.volumes[slot] = volume;
    this.lbas[slot] = lba;
    this.counts[slot] = blockCount;
    this.count += 1;
    this.blockCount += blockCount;
  }

  /** Everything up to `seq` is committed. */
  commit(seq: Seq): void {
    const gone = Math.min(this.count, seq - this.firstSeq + 1);
    if (gone <= 0) return;
    for (let index = 0; index < gone; index += 1) {
      this.blockCount -= this.counts[(this.firstSeq + index) & MASK]!;
    }
    this.firstSeq += gone;
    this.count -= gone;
  }

  /** Seq of the newest uncommitted record that touches the blocks; 0 if none does. */
  newestOverlap(volume: number, lba: number, blockCount: number): Seq {
    const end = lba + blockCount;
    for (let index = this.count - 1; index >= 0; index -= 1) {
      const slot = (this.firstSeq + index) & MASK;
      if (this.volumes[slot] !== volume) continue;
      const start = this.lbas[slot]!;
      if (start < end && lba < start + this.counts[slot]!) return this.firstSeq + index;
    }
    return 0;
  }
}

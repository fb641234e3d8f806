/**
 * Records of one stream, byte for byte, in one ring of memory: a sender's window, or what a
 * receiver keeps until it is known committed.
 *
 *      oldest                 write          capacity
 *   ---+======+======+=======+--------------+
 *      each entry contiguous; one that does not fit before the end starts at 0 again
 *
 * Invariants
 *  1. Entries are the seqs [firstSeq, nextSeq), in order, none missing.
 *  2. An entry never wraps: one call to a link may send it, and its neighbours behind it.
 *  3. Memory starts small and doubles up to `maxBytes`: an idle stream costs little, and a busy
 *     one allocates nothing in steady state. Growing moves entries: offsets are not to be kept.
 */
import { assert } from "../base/assert.ts";
import type { Seq } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";

const START_BYTES = 64 * 1024;
const START_SLOTS = 64;

export class RecordRing {
  firstSeq: Seq = 1;
  nextSeq: Seq = 1;
  buffer: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(this.buffer.buffer);
  /** Bytes of all entries. */
  liveBytes = 0;
  private write = 0;
  private slots = START_SLOTS;
  private offsets = new Uint32Array(START_SLOTS);
  private lengths = new Uint32Array(START_SLOTS);
  private tags = new Uint8Array(START_SLOTS);
  private readonly maxBytes: number;
  private readonly maxRecords: number;

  constructor(maxBytes: number, maxRecords: number) {
    this.maxBytes = maxBytes;
    this.maxRecords = maxRecords;
  }

  get count(): number {
    return this.nextSeq - this.firstSeq;
  }

  /** True if an entry of `length` bytes can be appended now. */
  fits(length: number): boolean {
    if (this.count >= this.maxRecords) return false;
    if (this.place(length) >= 0) return true;
    return this.buffer.length < this.maxBytes && this.liveBytes + length <= this.maxBytes;
  }

  /**
   * Makes room for entry `seq` of `length` bytes and returns its offset in `buffer`. The caller
   * asked `fits` first. `seq` must be `nextSeq`, or anything when the ring is empty.
   */
  reserve(seq: Seq, length: number, tag: number): number {
    if (this.count === 0) {
      this.firstSeq = seq;
      this.nextSeq = seq;
      this.write = 0;
    }
    assert(seq === this.nextSeq, "record ring: seq is not the next");
    if (this.count === this.slots) this.growSlots();
    let offset = this.place(length);
    if (offset < 0) {
      this.growBytes(length);
      offset = this.place(length);
    }
    assert(offset >= 0, "record ring: no room");
    const slot = seq % this.slots;
    this.offsets[slot] = offset;
    this.lengths[slot] = length;
    this.tags[slot] = tag;
    this.write = offset + length;
    this.nextSeq = seq + 1;
    this.liveBytes += length;
    return offset;
  }

  has(seq: Seq): boolean {
    return seq >= this.firstSeq && seq < this.nextSeq;
  }

  /** Offset of entry `seq`; the caller knows it is there. */
  at(seq: Seq): number {
    return this.offsets[seq % this.slots]!;
  }

  lengthOf(seq: Seq): number {
    return this.lengths[seq % this.slots]!;
  }

  tagOf(seq: Seq): number {
    return this.tags[seq % this.slots]!;
  }

  /** Drops all entries up to and including `seq`; a number beyond the last drops all. */
  release(seq: Seq): void {
    const end = Math.min(seq + 1, this.nextSeq);
    while (this.firstSeq < end) {
      this.liveBytes -= this.lengthOf(this.firstSeq);
      this.firstSeq += 1;
    }
  }

  /** Where `length` bytes fit without growing, or -1. */
  private place(length: number): number {
    if (this.count === 0) return length <= this.buffer.length ? 0 : -1;
    const oldest = this.at(this.firstSeq);
    const newest = this.at(this.nextSeq - 1);
    if (newest < oldest) return length <= oldest - this.write ? this.write : -1;
    if (length <= this.buffer.length - this.write) return this.write;
    return length <= oldest ? 0 : -1;
  }

  private growBytes(length: number): void {
    let capacity = Math.max(this.buffer.length * 2, START_BYTES);
    while (capacity < this.liveBytes + length) capacity *= 2;
    capacity = Math.min(capacity, this.maxBytes);
    const grown = new Uint8Array(capacity);
    let at = 0;
    for (let seq = this.firstSeq; seq < this.nextSeq; seq += 1) {
      const size = this.lengthOf(seq);
      const from = this.at(seq);
      grown.set(this.buffer.subarray(from, from + size), at);
      this.offsets[seq % this.slots] = at;
      at += size;
    }
    this.buffer = grown;
    this.view = viewOf(grown);
    this.write = at;
  }

  private growSlots(): void {
    const slots = this.slots * 2;
    const offsets = new Uint32Array(slots);
    const lengths = new Uint32Array(slots);
    const tags = new Uint8Array(slots);
    for (let seq = this.firstSeq; seq < this.nextSeq; seq += 1) {
      offsets[seq % slots] = this.at(seq);
      lengths[seq % slots] = this.lengthOf(seq);
      tags[seq % slots] = this.tagOf(seq);
    }
    this.slots = slots;
    this.offsets = offsets;
    this.lengths = lengths;
    this.tags = tags;
  }
}

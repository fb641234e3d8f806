/**
 * A disk on top of another that is never written: what is written stays in memory, in blocks of
 * 4 KiB, and reads see it. So a store can be opened, recovered and read for a check without a
 * byte of it changing.
 */
import { ERRNO, type Disk } from "../core/base/ports.ts";
import { BLOCK_BYTES, MIB } from "../core/base/units.ts";

/** Recovery writes little; past this the store has begun to live, which a check must not. */
const OVERLAY_BYTES_MAX = 512 * MIB;

export class OverlayDisk implements Disk {
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  private readonly below: Disk;
  private readonly blocks = new Map<number, Uint8Array>();
  private readonly complete: (tag: number, result: number) => void;
  /** Reads in flight below: what they read must be covered by the overlay when they are done. */
  private readonly reads = new Map<number, PendingRead>();

  /** `complete` must deliver later, never from inside the call (contract of every port). */
  constructor(below: Disk, complete: (tag: number, result: number) => void) {
    this.below = below;
    this.complete = complete;
    this.sizeBytes = below.sizeBytes;
    this.sectorBytes = below.sectorBytes;
  }

  allocate(lengthBytes: number): Uint8Array {
    return this.below.allocate(lengthBytes);
  }

  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number {
    const result = this.below.readNow(offset, buffer, at, length);
    if (result > 0) this.cover(offset, buffer, at, result);
    return result;
  }

  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.reads.set(tag, { offset, buffer, at });
    this.below.read(tag, offset, buffer, at, length);
  }

  /** To be called with each completion of the disk below, before the store sees it. */
  readDone(tag: number, result: number): void {
    const read = this.reads.get(tag);
    if (read === undefined) return;
    this.reads.delete(tag);
    if (result > 0) this.cover(read.offset, read.buffer, read.at, result);
  }

  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    if (this.blocks.size * BLOCK_BYTES + length > OVERLAY_BYTES_MAX) {
      this.complete(tag, -ERRNO.ENOSPC);
      return;
    }
    let done = 0;
    while (done < length) {
      const index = Math.floor((offset + done) / BLOCK_BYTES);
      const within = (offset + done) % BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, length - done);
      const block = this.blockFor(index);
      block.set(buffer.subarray(at + done, at + done + count), within);
      done += count;
    }
    this.complete(tag, length);
  }

  sync(tag: number): void {
    this.complete(tag, 0);
  }

  discard(tag: number, _offset: number, _length: number): void {
    this.complete(tag, 0);
  }

  private blockFor(index: number): Uint8Array {
    let block = this.blocks.get(index);
    if (block === undefined) {
      block = this.below.allocate(BLOCK_BYTES);
      // A part of a block is written over what lies below; what cannot be read stays zero.
      this.below.readNow(index * BLOCK_BYTES, block, 0, BLOCK_BYTES);
      this.blocks.set(index, block);
    }
    return block;
  }

  private cover(offset: number, buffer: Uint8Array, at: number, length: number): void {
    if (this.blocks.size === 0) return;
    let done = 0;
    while (done < length) {
      const index = Math.floor((offset + done) / BLOCK_BYTES);
      const within = (offset + done) % BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, length - done);
      const block = this.blocks.get(index);
      if (block !== undefined) buffer.set(block.subarray(within, within + count), at + done);
      done += count;
    }
  }
}

interface PendingRead {
  readonly offset: number;
  readonly buffer: Uint8Array;
  readonly at: number;
}

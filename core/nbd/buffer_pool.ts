/**
 * Memory for replies and for payloads that arrive in pieces, in size classes of powers of two,
 * shared by all sessions of a host. Buffers given back are kept up to a bound, the rest goes to
 * the garbage collector; what is out is bounded by each session's own limits.
 */
import { assert } from "../base/assert.ts";
import { BLOCK_BYTES, KIB, MIB } from "../base/units.ts";

/** Room in front of a reply's data for its header. */
export const HEADROOM_BYTES = 64;
/** Every buffer has it on top of its class: headroom, and an unaligned range's extra block. */
const EXTRA_BYTES = HEADROOM_BYTES + BLOCK_BYTES;
const CLASS_BYTES_MIN = 8 * KIB;
/** 8 KiB to 32 MiB. */
const CLASS_COUNT = 13;

export class BufferPool {
  /** Bytes waiting in the pool. */
  keptBytes = 0;
  private readonly free: Uint8Array[][] = [];
  private readonly keptBytesMax: number;

  constructor(keptBytesMax = 16 * MIB) {
    this.keptBytesMax = keptBytesMax;
    for (let index = 0; index < CLASS_COUNT; index += 1) this.free.push([]);
  }

  /**
   * A buffer with room for headroom, a request of `lengthBytes` (at most 32 MiB) and the rest of
   * its first and last block. Its content is anything.
   */
  take(lengthBytes: number): Uint8Array {
    const index = classOf(lengthBytes);
    assert(index < CLASS_COUNT, "nbd: buffer too large");
    const kept = this.free[index]!.pop();
    if (kept === undefined) return new Uint8Array(EXTRA_BYTES + CLASS_BYTES_MIN * 2 ** index);
    this.keptBytes -= kept.length;
    return kept;
  }

  /** Gives back a buffer of `take`; nobody may touch it afterwards. */
  give(buffer: Uint8Array): void {
    if (this.keptBytes + buffer.length > this.keptBytesMax) return;
    this.keptBytes += buffer.length;
    this.free[classOf(buffer.length - EXTRA_BYTES)]!.push(buffer);
  }
}

function classOf(lengthBytes: number): number {
  if (lengthBytes <= CLASS_BYTES_MIN) return 0;
  return 32 - Math.clz32((lengthBytes - 1) / CLASS_BYTES_MIN);
}

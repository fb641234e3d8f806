/**
 * Memory for replies and for payloads that arrive in pieces, in size classes of powers of two,
 * shared by all sessions of a host. Buffers given back are kept up to a bound, the rest goes to
 * the garbage collector; what is out is bounded by each session's own limits.
 */
import { assert } from "../base/assert.ts";
import { KIB, MIB } from "../base/units.ts";

/** Room in front of the data for a reply's header, and alignment slack, in every class. */
export const HEADROOM_BYTES = 64;
const CLASS_BYTES_MIN = 8 * KIB;
/** 64 MiB: the largest request plus two edge blocks fits. */
const CLASS_COUNT = 14;

export class BufferPool {
  private readonly free: Uint8Array[][] = [];
  private readonly keptBytesMax: number;
  /** Bytes waiting in the pool. */
  keptBytes = 0;

  constructor(keptBytesMax = 16 * MIB) {
    this.keptBytesMax = keptBytesMax;
    for (let index = 0; index < CLASS_COUNT; index += 1) this.free.push([]);
  }

  /** A buffer of at least `lengthBytes` + `HEADROOM_BYTES`, with anything in it. */
  take(lengthBytes: number): Uint8Array {
    const index = classOf(lengthBytes);
    assert(index < CLASS_COUNT, "nbd: buffer too large");
    const kept = this.free[index]!.pop();
    if (kept === undefined) return new Uint8Array(HEADROOM_BYTES + CLASS_BYTES_MIN * 2 ** index);
    this.keptBytes -= kept.length;
    return kept;
  }

  /** Gives back a buffer of `take`; nobody may touch it afterwards. */
  give(buffer: Uint8Array): void {
    if (this.keptBytes + buffer.length > this.keptBytesMax) return;
    this.keptBytes += buffer.length;
    this.free[classOf(buffer.length - HEADROOM_BYTES)]!.push(buffer);
  }
}

function classOf(lengthBytes: number): number {
  if (lengthBytes <= CLASS_BYTES_MIN) return 0;
  return 32 - Math.clz32((lengthBytes - 1) / CLASS_BYTES_MIN);
}

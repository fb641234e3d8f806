/**
 * Bytes to one client, in order. Small things collect in an accumulator that goes out in one
 * send per turn; a large buffer is queued as it is, between what came before and after it.
 *
 * Invariants: the queue holds older bytes than the accumulator's open run [runAt, writeAt);
 * `queuedBytes` counts all bytes not yet taken by the link; after a short send nothing is tried
 * until `drained`. Buffers come from the pool and go back when their last byte was taken.
 */
import { assert } from "../base/assert.ts";
import type { ClientLink } from "../base/ports.ts";
import { KIB } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import type { BufferPool } from "./buffer_pool.ts";

const ACCUMULATOR_BYTES = 256 * KIB;
/** The most that one `reserve` may ask for. */
export const RESERVE_BYTES_MAX = 64 * KIB;
const NO_BYTES = new Uint8Array(0);
const NO_VIEW = viewOf(NO_BYTES);

interface Segment {
  readonly buffer: Uint8Array;
  at: number;
  readonly end: number;
  /** Goes back to the pool once this segment is sent. */
  readonly release: Uint8Array | null;
}

export class Output {
  /** The accumulator and its view; valid from `reserve` to the next call. */
  buffer: Uint8Array = NO_BYTES;
  view: DataView = NO_VIEW;
  queuedBytes = 0;
  private readonly link: ClientLink;
  private readonly client: number;
  private readonly pool: BufferPool;
  private runAt = 0;
  private writeAt = 0;
  private queue: Segment[] = [];
  private queueHead = 0;
  /** The link takes no more until `drained`. */
  private full = false;
  /** The connection is gone: everything is dropped. */
  private dead = false;

  constructor(link: ClientLink, client: number, pool: BufferPool) {
    this.link = link;
    this.client = client;
    this.pool = pool;
  }

  /** Position in `buffer` of `lengthBytes` contiguous bytes, which the caller fills now. */
  reserve(lengthBytes: number): number {
    assert(lengthBytes <= RESERVE_BYTES_MAX, "nbd output: reservation too large");
    if (this.writeAt + lengthBytes > this.buffer.length) this.renew();
    const at = this.writeAt;
    this.writeAt += lengthBytes;
    this.queuedBytes += lengthBytes;
    return at;
  }

  /** Queues `buffer[at, end)`, which comes from the pool and goes back there. */
  append(buffer: Uint8Array, at: number, end: number): void {
    this.seal(null);
    this.queue.push({ buffer, at, end, release: buffer });
    this.queuedBytes += end - at;
  }

  /** Hands to the link what it takes. */
  flush(): void {
    if (this.dead) {
      this.drop();
      return;
    }
    while (!this.full && !this.dead && this.queueHead < this.queue.length) this.sendHead();
    if (this.queueHead === this.queue.length && this.queueHead > 0) {
      this.queue.length = 0;
      this.queueHead = 0;
    }
    if (!this.full && !this.dead && this.queue.length === 0) this.sendRun();
    if (this.dead) this.drop();
  }

  drained(): void {
    this.full = false;
  }

  /** The connection is gone: what is queued is dropped, and what will be. */
  kill(): void {
    this.dead = true;
    this.drop();
  }

  private sendRun(): void {
    if (this.runAt < this.writeAt) {
      this.runAt += this.send(this.buffer, this.runAt, this.writeAt);
    }
    if (this.runAt === this.writeAt) this.retire();
  }

  private sendHead(): void {
    const segment = this.queue[this.queueHead]!;
    if (segment.at < segment.end) {
      segment.at += this.send(segment.buffer, segment.at, segment.end);
      if (segment.at < segment.end) return;
    }
    if (segment.release !== null) this.pool.give(segment.release);
    this.queueHead += 1;
  }

  /** Returns the bytes taken; marks the link full or the connection dead. */
  private send(buffer: Uint8Array, at: number, end: number): number {
    const taken = this.link.send(this.client, buffer, at, end - at);
    if (taken < 0) {
      this.dead = true;
      return 0;
    }
    assert(taken <= end - at, "nbd output: the link took more than there was");
    if (taken < end - at) this.full = true;
    this.queuedBytes -= taken;
    return taken;
  }

  /** Ends the open run, so that what follows it in time follows it on the wire. */
  private seal(release: Uint8Array | null): void {
    if (this.runAt < this.writeAt || release !== null) {
      this.queue.push({ buffer: this.buffer, at: this.runAt, end: this.writeAt, release });
    }
    this.runAt = this.writeAt;
  }

  /** A fresh accumulator; the old one is released behind its last byte. */
  private renew(): void {
    if (this.buffer.length > 0) this.seal(this.buffer);
    this.buffer = this.pool.take(ACCUMULATOR_BYTES);
    this.view = viewOf(this.buffer);
    this.runAt = 0;
    this.writeAt = 0;
  }

  /** Gives the accumulator back: an idle session holds no memory. */
  private retire(): void {
    if (this.buffer.length > 0) this.pool.give(this.buffer);
    this.buffer = NO_BYTES;
    this.view = NO_VIEW;
    this.runAt = 0;
    this.writeAt = 0;
  }

  private drop(): void {
    for (let index = this.queueHead; index < this.queue.length; index += 1) {
      const release = this.queue[index]!.release;
      if (release !== null) this.pool.give(release);
    }
    this.queue = [];
    this.queueHead = 0;
    this.queuedBytes = 0;
    this.retire();
  }
}

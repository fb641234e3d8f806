/**
 * Cuts a stream of bytes into frames. Whole frames inside a chunk are handed on where they lie;
 * only a frame that is split over chunks is copied together first.
 *
 * Any bytes at all end in frames that passed their header check, or in `push` answering false;
 * then the stream is lost and nothing more is taken until `reset`.
 */
import { LIMITS } from "../base/limits.ts";
import type { HostId } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import { decodeFrameHeader, FRAME_HEADER_BYTES, FrameHeader } from "../format/mirror_wire.ts";

export interface FrameSink {
  /**
   * One frame; its payload lies at `buffer[at, at + header.length)` during the call. False makes
   * the framer stop: the stream is not worth going on with.
   */
  frame(
    source: Framer,
    header: FrameHeader,
    buffer: Uint8Array,
    view: DataView,
    at: number,
  ): boolean;
}

const START_BYTES = 8 * 1024;

export class Framer {
  /** Who sends these bytes. */
  readonly peer: HostId;
  /** True for the multicast stream. */
  readonly shared: boolean;
  /** True after a refusal, until `reset`. */
  failed = false;
  private readonly sink: FrameSink;
  private readonly header = new FrameHeader();
  private stash = new Uint8Array(0);
  private stashView = viewOf(this.stash);
  private stashed = 0;

  constructor(peer: HostId, shared: boolean, sink: FrameSink) {
    this.peer = peer;
    this.shared = shared;
    this.sink = sink;
  }

  /** The stream starts anew. */
  reset(): void {
    this.failed = false;
    this.stashed = 0;
  }

  /** Takes `buffer[at, end)`. False: these are not frames, or the sink refused one. */
  push(buffer: Uint8Array, at: number, end: number): boolean {
    if (this.failed) return false;
    let position = at;
    if (this.stashed > 0) {
      position = this.fillStash(buffer, position, end);
      if (this.stashed > 0 || this.failed) return !this.failed;
    }
    if (end - position >= FRAME_HEADER_BYTES) {
      const view = viewOf(buffer);
      while (end - position >= FRAME_HEADER_BYTES) {
        if (!decodeFrameHeader(buffer, view, position, this.header)) return this.fail();
        const total = FRAME_HEADER_BYTES + this.header.length;
        if (total > end - position) break;
        const payloadAt = position + FRAME_HEADER_BYTES;
        if (!this.sink.frame(this, this.header, buffer, view, payloadAt)) return this.fail();
        position += total;
      }
    }
    if (position < end) this.stashMore(buffer, position, end - position);
    return true;
  }

  /** Completes the stashed frame if it can; returns how far it read. */
  private fillStash(buffer: Uint8Array, at: number, end: number): number {
    let position = at;
    if (this.stashed < FRAME_HEADER_BYTES) {
      const take = Math.min(FRAME_HEADER_BYTES - this.stashed, end - position);
      this.stashMore(buffer, position, take);
      position += take;
      if (this.stashed < FRAME_HEADER_BYTES) return position;
    }
    if (!decodeFrameHeader(this.stash, this.stashView, 0, this.header)) {
      this.fail();
      return position;
    }
    const total = FRAME_HEADER_BYTES + this.header.length;
    const take = Math.min(total - this.stashed, end - position);
    this.reserve(total);
    this.stashMore(buffer, position, take);
    position += take;
    if (this.stashed < total) return position;
    this.stashed = 0;
    const whole = this.sink.frame(
      this,
      this.header,
      this.stash,
      this.stashView,
      FRAME_HEADER_BYTES,
    );
    if (!whole) this.fail();
    return position;
  }

  private stashMore(buffer: Uint8Array, at: number, length: number): void {
    this.reserve(this.stashed + length);
    this.stash.set(buffer.subarray(at, at + length), this.stashed);
    this.stashed += length;
  }

  /** Lengths were checked against the limit before anything is reserved for them. */
  private reserve(bytes: number): void {
    if (bytes <= this.stash.length) return;
    let capacity = Math.max(START_BYTES, this.stash.length);
    while (capacity < bytes) capacity *= 2;
    const grown = new Uint8Array(Math.min(capacity, LIMITS.dataFrameBytesMax));
    grown.set(this.stash.subarray(0, this.stashed), 0);
    this.stash = grown;
    this.stashView = viewOf(grown);
  }

  private fail(): boolean {
    this.failed = true;
    this.stashed = 0;
    return false;
  }
}

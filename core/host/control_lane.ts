/**
 * The control lane of one peer: frames out (collected, sent once per settle, bounded) and frames
 * in (reassembled from chunks, bounded). Framing: docs/protocol.md, "Control lane".
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import { LANE, type StreamLink } from "../base/ports.ts";
import type { HostId } from "../base/units.ts";
import { type Codec, Writer } from "../format/codec.ts";
import { CONTROL_HEADER_BYTES } from "../format/host_wire.ts";
import { viewOf } from "../format/layout.ts";

/** Takes one message; false if it does not decode, which ends the link. */
export type ControlReceiver = (
  peer: HostId,
  channel: number,
  buffer: Uint8Array,
  at: number,
  length: number,
) => boolean;

export class ControlLane {
  readonly peer: HostId;
  private readonly link: StreamLink;
  private readonly output = new Writer(4096);
  private sentBytes = 0;
  private blocked = false;
  private isUp = false;
  private input: Uint8Array = new Uint8Array(0);

  constructor(peer: HostId, link: StreamLink) {
    this.peer = peer;
    this.link = link;
  }

  get up(): boolean {
    return this.isUp;
  }

  linkUp(): void {
    this.forget();
    this.isUp = true;
  }

  linkDown(): void {
    this.forget();
    this.isUp = false;
  }

  /** Queues one message; dropped when the link is down (the machines resend what matters). */
  queue<T>(channel: number, codec: Codec<T>, message: T): void {
    if (!this.isUp) return;
    const start = this.output.length;
    this.output.u32(0);
    this.output.u8(channel);
    codec.write(this.output, message);
    const bodyBytes = this.output.length - start - 4;
    assert(bodyBytes <= LIMITS.controlFrameBytesMax, "control lane: message too large");
    viewOf(this.output.buffer).setUint32(start, bodyBytes, true);
    if (this.output.length - this.sentBytes > LIMITS.controlQueueBytesMax) {
      this.link.reset(this.peer, "its control connection does not drain");
      this.linkDown();
    }
  }

  /** Sends what is queued as far as the connection takes it. */
  settle(): void {
    if (!this.isUp || this.blocked) return;
    const waiting = this.output.length - this.sentBytes;
    if (waiting === 0) return;
    const taken = this.link.send(
      this.peer,
      LANE.control,
      this.output.buffer,
      this.sentBytes,
      waiting,
    );
    if (taken < 0) return;
    this.sentBytes += taken;
    this.blocked = taken < waiting;
    if (this.sentBytes === this.output.length) {
      this.output.reset();
      this.sentBytes = 0;
    }
  }

  drained(): void {
    this.blocked = false;
    this.settle();
  }

  /** Parses a chunk into frames. False when the peer broke the framing: the link must end. */
  receive(chunk: Uint8Array, take: ControlReceiver): boolean {
    const data = this.joined(chunk);
    const view = viewOf(data);
    let at = 0;
    while (data.length - at >= CONTROL_HEADER_BYTES) {
      const bodyBytes = view.getUint32(at, true);
      if (bodyBytes < 1 || bodyBytes > LIMITS.controlFrameBytesMax) return false;
      if (data.length - at - 4 < bodyBytes) break;
      const channel = view.getUint8(at + 4);
      if (!take(this.peer, channel, data, at + CONTROL_HEADER_BYTES, bodyBytes - 1)) return false;
      // A handler may have dropped the link; what follows then belongs to nobody.
      if (!this.isUp) return true;
      at += 4 + bodyBytes;
    }
    this.input = at === data.length ? this.input.subarray(0, 0) : data.slice(at);
    return true;
  }

  private joined(chunk: Uint8Array): Uint8Array {
    if (this.input.length === 0) return chunk;
    const data = new Uint8Array(this.input.length + chunk.length);
    data.set(this.input);
    data.set(chunk, this.input.length);
    return data;
  }

  private forget(): void {
    this.output.reset();
    this.sentBytes = 0;
    this.blocked = false;
    this.input = new Uint8Array(0);
  }
}

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

/** First size of the input; a chunk that is larger makes it grow for as long as it needs. */
const INPUT_BYTES = 16 * 1024;

export class ControlLane {
  readonly peer: HostId;
  private readonly link: StreamLink;
  private readonly output = new Writer(4096);
  private sentBytes = 0;
  private blocked = false;
  private isUp = false;
  /** What came and is not taken yet: a view of each chunk itself is dear (bench/RESULTS.md). */
  private input = new Uint8Array(INPUT_BYTES);
  private inputView = viewOf(this.input);
  private inputBytes = 0;

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
    this.append(chunk);
    const { input, inputView, inputBytes } = this;
    let at = 0;
    while (inputBytes - at >= CONTROL_HEADER_BYTES) {
      const bodyBytes = inputView.getUint32(at, true);
      if (bodyBytes < 1 || bodyBytes > LIMITS.controlFrameBytesMax) return false;
      if (inputBytes - at - 4 < bodyBytes) break;
      const channel = inputView.getUint8(at + 4);
      if (!take(this.peer, channel, input, at + CONTROL_HEADER_BYTES, bodyBytes - 1)) return false;
      // A handler may have dropped the link; what follows then belongs to nobody.
      if (!this.isUp) return true;
      at += 4 + bodyBytes;
    }
    this.inputBytes -= at;
    if (this.inputBytes > 0) input.copyWithin(0, at, inputBytes);
    else if (input.length > INPUT_BYTES) this.resize(INPUT_BYTES);
    return true;
  }

  private append(chunk: Uint8Array): void {
    const need = this.inputBytes + chunk.length;
    if (need > this.input.length) this.resize(Math.max(need, 2 * this.input.length));
    this.input.set(chunk, this.inputBytes);
    this.inputBytes = need;
  }

  private resize(bytes: number): void {
    const sized = new Uint8Array(bytes);
    sized.set(this.input.subarray(0, this.inputBytes));
    this.input = sized;
    this.inputView = viewOf(sized);
  }

  private forget(): void {
    this.output.reset();
    this.sentBytes = 0;
    this.blocked = false;
    this.inputBytes = 0;
  }
}

/**
 * Everything that comes in: bytes of the data lanes, datagrams, and the control messages about
 * other hosts' streams. Any bytes at all end in a record of the right stream, in a count, or in
 * the reset of the link they came by (G9).
 */
import { LIMITS } from "../base/limits.ts";
import type { Entropy, Mac, MacKey, StreamLink, Trace } from "../base/ports.ts";
import { type Epoch, type HostId, hostId } from "../base/units.ts";
import {
  DATAGRAM_MAC_BYTES,
  DatagramHeader,
  decodeDatagramHeader,
  multicastKeyLabel,
} from "../format/datagram.ts";
import { viewOf } from "../format/layout.ts";
import { FRAME_TYPE, type FrameHeader, type MirrorMessage } from "../format/mirror_wire.ts";
import { RECORD_TYPE, RecordHeader, verifyRecord } from "../format/record.ts";
import { CastReceiver } from "./cast_receiver.ts";
import { type FrameSink, Framer } from "./framer.ts";
import type { Generation } from "./generation.ts";
import type { InStream } from "./in_stream.ts";
import type { MirrorCounters, MirrorSink } from "./mirror_sink.ts";

export class Intake implements FrameSink {
  private readonly framers: Framer[] = [];
  private readonly casts: CastReceiver[] = [];
  private current: Generation | null = null;
  /** The epoch before, until the current one is open here. */
  private previous: Generation | null = null;
  private fuaWanted = false;
  private why = "";
  private readonly record = new RecordHeader();
  private readonly datagram = new DatagramHeader();
  private readonly self: HostId;
  private readonly link: StreamLink;
  private readonly mac: Mac;
  private readonly sink: MirrorSink;
  private readonly trace: Trace;
  private readonly counters: MirrorCounters;

  constructor(
    self: HostId,
    ports: { link: StreamLink; mac: Mac; entropy: Entropy },
    owner: { sink: MirrorSink; trace: Trace; counters: MirrorCounters },
  ) {
    this.self = self;
    this.link = ports.link;
    this.mac = ports.mac;
    this.sink = owner.sink;
    this.trace = owner.trace;
    this.counters = owner.counters;
    for (let index = 0; index < LIMITS.hostCountMax; index += 1) {
      this.framers.push(new Framer(hostId(index), false, this));
      const framer = new Framer(hostId(index), true, this);
      this.casts.push(new CastReceiver(framer, ports.entropy, owner.sink, owner.counters));
    }
  }

  /** A view began, or opened (then nothing before it is needed: `previous` is null). */
  begin(current: Generation, previous: Generation | null): void {
    if (current !== this.current) for (const cast of this.casts) cast.begin(current.epoch);
    this.current = current;
    this.previous = previous;
  }

  /** R2; from now on only RECONCILE frames are taken. */
  seal(): void {
    for (const cast of this.casts) cast.seal();
  }

  deriveKey(epoch: Epoch, host: HostId, secret: Uint8Array): MacKey {
    return this.mac.derive(multicastKeyLabel(epoch, host, secret));
  }

  setKey(host: HostId, key: MacKey): void {
    const cast = this.casts[host];
    if (cast !== undefined) cast.key = key;
  }

  linkUp(peer: HostId): void {
    this.framers[peer]?.reset();
  }

  linkDown(peer: HostId): void {
    this.framers[peer]?.reset();
  }

  /** Bytes of `peer`'s data lane. */
  bytes(peer: HostId, chunk: Uint8Array): void {
    const framer = this.framers[peer];
    if (framer === undefined || framer.failed) return;
    this.why = "";
    const isSound = framer.push(chunk, 0, chunk.length);
    this.tellCommitted(this.current?.ins[peer] ?? null);
    if (!isSound) this.reset(peer, this.whyFailed());
  }

  /** A datagram, from anyone. */
  packet(nowMs: number, chunk: Uint8Array): void {
    const header = this.datagram;
    if (!decodeDatagramHeader(viewOf(chunk), chunk.length, header)) {
      this.counters.datagramsForged += 1;
      return;
    }
    const cast = this.casts[header.sender];
    const current = this.current;
    if (current === null || current.sealed || header.epoch !== current.epoch) {
      this.counters.oldFrames += 1;
      return;
    }
    // Its own datagrams may come back by loopback; without a key nothing can be believed.
    if (cast === undefined || cast.key === null || header.sender === this.self) return;
    const signed = chunk.length - DATAGRAM_MAC_BYTES;
    if (!cast.key.verify(chunk, 0, signed, chunk, signed)) {
      this.counters.datagramsForged += 1;
      return;
    }
    this.why = "";
    const isSound = cast.take(nowMs, header, chunk);
    this.tellCommitted(current.ins[cast.sender] ?? null);
    if (isSound) return;
    cast.stop();
    this.reset(cast.sender, this.whyFailed());
  }

  /** Control messages about the stream of `from`, in the current epoch. */
  control(nowMs: number, from: HostId, message: MirrorMessage): void {
    const stream = this.current?.ins[from] ?? null;
    const cast = this.casts[from];
    if (stream === null || cast === undefined) return;
    switch (message.kind) {
      case "committed":
        stream.learnCommitted(message.seq);
        this.tellCommitted(stream);
        break;
      case "castStatus":
        cast.status(nowMs, message.highest);
        break;
      case "castStart":
        cast.start(nowMs, message.number);
        break;
      case "castStop":
        cast.stop();
        break;
      default:
        break;
    }
  }

  frame(
    source: Framer,
    header: FrameHeader,
    buffer: Uint8Array,
    view: DataView,
    at: number,
  ): boolean {
    switch (header.type) {
      case FRAME_TYPE.record:
        return this.takeRecord(source, header, buffer, view, at);
      case FRAME_TYPE.reconcile:
        return this.takeReconcile(source, header, buffer, view, at);
      default:
        return this.takeBulk(source, buffer, at, header.length);
    }
  }

  /** Offers everything held again (R9c). */
  retryAll(): void {
    for (const stream of this.current?.ins ?? []) this.retry(stream);
    for (const stream of this.previous?.ins ?? []) this.retry(stream);
  }

  /** Offers again what the store had no room for. */
  retryFull(): void {
    for (const stream of this.current?.ins ?? []) if (stream?.retryWanted) this.retry(stream);
    for (const stream of this.previous?.ins ?? []) if (stream?.retryWanted) this.retry(stream);
  }

  /** True if FUA records were appended since the last call. */
  takeFuaWanted(): boolean {
    const isWanted = this.fuaWanted;
    this.fuaWanted = false;
    return isWanted;
  }

  expire(nowMs: number): void {
    for (const cast of this.casts) cast.expire(nowMs);
  }

  nextDeadlineMs(): number {
    let deadlineMs = Infinity;
    for (const cast of this.casts) deadlineMs = Math.min(deadlineMs, cast.nextDeadlineMs());
    return deadlineMs;
  }

  /** Drops the link to `peer`; what it sends until it is new is not looked at. */
  reset(peer: HostId, why: string): void {
    this.counters.resets += 1;
    const framer = this.framers[peer];
    if (framer !== undefined) framer.failed = true;
    this.trace.event("warn", "mirror.reset", `the link to a peer is reset: ${why}`, { peer });
    this.link.reset(peer, why);
  }

  private retry(stream: InStream | null): void {
    if (stream === null) return;
    const before = stream.fuaTop;
    if (!stream.retry()) this.reset(stream.sender, "a held record was refused");
    if (stream.fuaTop !== before) this.fuaWanted = true;
  }

  private takeRecord(
    source: Framer,
    header: FrameHeader,
    buffer: Uint8Array,
    view: DataView,
    at: number,
  ): boolean {
    const current = this.current;
    if (header.sender !== source.peer) return this.bad("it sends another host's stream");
    if (current === null || header.epoch < current.epoch || current.sealed) {
      this.counters.oldFrames += 1;
      return true;
    }
    // A peer sends in a view only after our RESUME for it, so this cannot come in good faith.
    if (header.epoch > current.epoch) return this.bad("it sends in a view that is not ours yet");
    const stream = current.ins[header.sender] ?? null;
    if (stream === null) return this.bad("it sends and is no member");
    if (!this.isOfStream(header, buffer, view, at)) return false;
    stream.learnCommitted(header.committed);
    const before = stream.fuaTop;
    const isTaken = stream.arrive(this.record, buffer, at, header.length);
    if (stream.fuaTop !== before) this.fuaWanted = true;
    if (!isTaken) this.why = "a record was refused";
    return isTaken;
  }

  private takeReconcile(
    source: Framer,
    header: FrameHeader,
    buffer: Uint8Array,
    view: DataView,
    at: number,
  ): boolean {
    if (source.shared) return this.bad("it reconciles by multicast");
    const isCurrent = header.epoch === this.current?.epoch;
    const ended = isCurrent ? this.current : this.previous;
    const stream = ended?.ins[header.sender] ?? null;
    if (stream === null || ended?.sealed !== true || ended.epoch !== header.epoch) {
      this.counters.oldFrames += 1;
      return true;
    }
    if (!this.isOfStream(header, buffer, view, at)) return false;
    if (stream.arrive(this.record, buffer, at, header.length)) return true;
    this.why = "a record to reconcile was refused";
    return false;
  }

  private takeBulk(source: Framer, buffer: Uint8Array, at: number, length: number): boolean {
    if (source.shared) return this.bad("it sends bulk by multicast");
    this.counters.bulkFrames += 1;
    this.sink.bulk(source.peer, buffer, at, length);
    return true;
  }

  /** Verifies every byte of the record and that it is one of the frame's stream. */
  private isOfStream(header: FrameHeader, buffer: Uint8Array, view: DataView, at: number): boolean {
    const record = this.record;
    const isSound =
      verifyRecord(buffer, view, at, header.length, record) &&
      record.epoch === header.epoch &&
      record.sender === header.sender &&
      record.seq >= 1 &&
      (record.type === RECORD_TYPE.write ||
        record.type === RECORD_TYPE.zero ||
        record.type === RECORD_TYPE.mark);
    if (isSound) return true;
    this.counters.badRecords += 1;
    this.why = "a record does not verify";
    return false;
  }

  /** Why a framer stopped: what `frame` found, or else the bytes themselves. */
  private whyFailed(): string {
    if (this.why === "") this.bad("its bytes are no frames");
    return this.why;
  }

  private bad(why: string): boolean {
    this.counters.badFrames += 1;
    this.why = why;
    return false;
  }

  private tellCommitted(stream: InStream | null): void {
    if (stream === null || stream.committed <= stream.committedTold) return;
    stream.committedTold = stream.committed;
    this.sink.committed(stream.sender, stream.committed);
  }
}

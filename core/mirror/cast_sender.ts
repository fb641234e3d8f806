/**
 * Multicast, the sending end: packs the shared records' frames into numbered datagrams, paces
 * them, repairs what receivers miss. Receiver-reliable by negative acknowledgement, after NORM
 * (RFC 5740) and its building blocks (RFC 5401): the sender collects repair requests for a short
 * time, so that several receivers' losses share one repair.
 *
 *   ring frames --pack--> datagram n --multicast--> receivers
 *                           ^   repair: unicast to one, multicast if several miss it
 *   CASTNAK (control lane) -+
 *
 * Datagrams are not stored: a descriptor says which bytes of the ring they carry, and the same
 * bytes give the same datagram again. Records leave the ring when all recipients have them, so
 * the window bounds what repair needs.
 */
import { LIMITS } from "../base/limits.ts";
import type { MacKey, PacketLink } from "../base/ports.ts";
import type { Epoch, HostId, Seq } from "../base/units.ts";
import {
  DATAGRAM_FRESH,
  DATAGRAM_HEADER_BYTES,
  DATAGRAM_KIND,
  DATAGRAM_MAC_BYTES,
  DATAGRAM_PAYLOAD_BYTES_MAX,
  DatagramHeader,
  encodeDatagramHeader,
} from "../format/datagram.ts";
import { viewOf } from "../format/layout.ts";
import type { MirrorCounters } from "./mirror_sink.ts";
import type { OutStream } from "./out_stream.ts";
import { TokenBucket } from "./token_bucket.ts";

/** Datagrams that may be unacknowledged; past it packing waits. */
export const CAST_WINDOW = 4096;
/** Datagrams one request may name; more are asked for after these came. */
export const NAK_DATAGRAMS_MAX = 512;
/** Repairs asked for and not yet sent; past it a request is dropped (it comes again). */
const REPAIRS_MAX = 1024;
/** How long repair requests are collected (NACK aggregation at the sender, RFC 5401). */
const REPAIR_COLLECT_MS = 2;
/** A datagram is repaired at most once in this time. */
const REPAIR_SPACING_MS = 20;
/** Timers are no finer than this, so pacing works in ticks of it. */
const TICK_MS = 1;

export class CastSender {
  readonly epoch: Epoch;
  /** Number of the next datagram. */
  nextNumber = 1;
  /** Oldest datagram that can be sent again. */
  firstNumber = 1;
  /** Next frame to pack, and how many of its bytes are packed already. */
  packSeq: Seq = 1;
  packBytes = 0;
  /** The next datagram is to start with a frame. */
  alignWanted = false;
  /** The next datagram starts a frame stream that does not continue the one before. */
  private isFresh = true;
  private pacedUntilMs = Infinity;
  private readonly seqs = new Float64Array(CAST_WINDOW);
  private readonly lastSeqs = new Float64Array(CAST_WINDOW);
  private readonly starts = new Uint32Array(CAST_WINDOW);
  private readonly sizes = new Uint16Array(CAST_WINDOW);
  private readonly flags = new Uint8Array(CAST_WINDOW);
  private readonly wanted = new Uint16Array(CAST_WINDOW);
  private readonly repairedMs = new Float64Array(CAST_WINDOW);
  private repairs: number[] = [];
  private repairAtMs = Infinity;
  private readonly datagram = new Uint8Array(LIMITS.datagramBytesMax);
  private readonly view = viewOf(this.datagram);
  private readonly header = new DatagramHeader();
  private readonly bucket: TokenBucket;
  private readonly key: MacKey;
  private readonly packets: PacketLink;
  private readonly counters: MirrorCounters;

  constructor(
    identity: { epoch: Epoch; self: HostId; rateBytesPerSecond: number },
    key: MacKey,
    packets: PacketLink,
    counters: MirrorCounters,
  ) {
    this.epoch = identity.epoch;
    this.key = key;
    this.packets = packets;
    this.counters = counters;
    const perTick = (identity.rateBytesPerSecond / 1000) * TICK_MS;
    // A burst must fit the receivers' socket buffers (docs/protocol_mirror.md, "Pace").
    this.bucket = new TokenBucket(
      identity.rateBytesPerSecond,
      Math.max(64 * 1024, Math.min(512 * 1024, perTick * 4)),
    );
    this.header.epoch = identity.epoch;
    this.header.sender = identity.self;
  }

  /** True if something is waiting to be packed. */
  hasWork(stream: OutStream): boolean {
    this.skip(stream);
    return this.packSeq < stream.framed;
  }

  /** A frame is in progress over a datagram's end. */
  get isMidFrame(): boolean {
    return this.packBytes > 0;
  }

  /**
   * Packs and multicasts as much as pace and window allow. If a frame in progress has left the
   * ring, since everybody has it by other ways, the next datagram starts anew.
   */
  send(nowMs: number, stream: OutStream): void {
    this.pacedUntilMs = Infinity;
    if (this.packBytes > 0 && !stream.ring.has(this.packSeq)) this.restart(this.packSeq + 1);
    while (this.hasWork(stream) && this.nextNumber - this.firstNumber < CAST_WINDOW) {
      if (this.alignWanted && this.packBytes === 0) return;
      if (!this.bucket.take(nowMs, LIMITS.datagramBytesMax)) {
        this.pacedUntilMs = nowMs + this.bucket.waitMs(LIMITS.datagramBytesMax, TICK_MS);
        return;
      }
      this.pack(stream);
      this.emit(this.nextNumber - 1, stream, -1);
    }
  }

  /** Nobody listens: nothing is waited for. */
  idle(): void {
    this.pacedUntilMs = Infinity;
  }

  /** The last record of which a byte was sent, or 0. */
  get lastSeq(): Seq {
    return this.nextNumber === 1 ? 0 : this.lastSeqs[(this.nextNumber - 1) % CAST_WINDOW]!;
  }

  /** Starts a frame stream that does not continue the old one. */
  restart(packSeq: Seq): void {
    this.packSeq = Math.max(this.packSeq, packSeq);
    this.packBytes = 0;
    this.isFresh = true;
  }

  /** The ring dropped records up to `seq`: their datagrams are never asked for again. */
  release(seq: Seq): void {
    while (
      this.firstNumber < this.nextNumber &&
      this.lastSeqs[this.firstNumber % CAST_WINDOW]! <= seq
    ) {
      this.firstNumber += 1;
    }
  }

  /** `peer` misses datagram `number`: will it be sent again? `late`: it just was. */
  want(nowMs: number, number: number, peer: HostId, stream: OutStream): "yes" | "late" | "gone" {
    if (number >= this.nextNumber) return "late";
    if (number < this.firstNumber) return "gone";
    const slot = number % CAST_WINDOW;
    if (!stream.ring.has(this.seqs[slot]!)) return "gone";
    if (nowMs - this.repairedMs[slot]! < REPAIR_SPACING_MS) return "late";
    if (this.wanted[slot] === 0) {
      if (this.repairs.length >= REPAIRS_MAX) return "late";
      this.repairs.push(number);
      if (this.repairAtMs === Infinity) this.repairAtMs = nowMs + REPAIR_COLLECT_MS;
    } else if ((this.wanted[slot]! & (1 << peer)) !== 0) return "late";
    this.wanted[slot] = this.wanted[slot]! | (1 << peer);
    return "yes";
  }

  /** Sends the repairs that were collected long enough. */
  repair(nowMs: number, stream: OutStream): void {
    if (nowMs < this.repairAtMs) return;
    this.repairAtMs = Infinity;
    let done = 0;
    for (const number of this.repairs) {
      if (!this.bucket.take(nowMs, LIMITS.datagramBytesMax)) {
        this.repairAtMs = nowMs + this.bucket.waitMs(LIMITS.datagramBytesMax, TICK_MS);
        break;
      }
      done += 1;
      this.repairOne(nowMs, number, stream);
    }
    this.repairs.splice(0, done);
  }

  /** A small datagram that whoever hears it echoes on the control lane. */
  probe(number: number): void {
    this.header.kind = DATAGRAM_KIND.probe;
    this.header.flags = 0;
    this.header.number = number;
    this.header.payloadBytes = 0;
    this.finish(-1);
  }

  nextDeadlineMs(): number {
    return Math.min(this.pacedUntilMs, this.repairAtMs);
  }

  private repairOne(nowMs: number, number: number, stream: OutStream): void {
    if (number < this.firstNumber) return;
    const slot = number % CAST_WINDOW;
    const mask = this.wanted[slot]!;
    this.wanted[slot] = 0;
    if (mask === 0 || !stream.ring.has(this.seqs[slot]!)) return;
    this.repairedMs[slot] = nowMs;
    const isOne = (mask & (mask - 1)) === 0;
    if (isOne) this.counters.repairsUnicast += 1;
    else this.counters.repairsMulticast += 1;
    this.emit(number, stream, isOne ? 31 - Math.clz32(mask) : -1);
  }

  private skip(stream: OutStream): void {
    if (this.packBytes > 0) return;
    if (this.packSeq < stream.ring.firstSeq) this.packSeq = stream.ring.firstSeq;
    while (this.packSeq < stream.framed && !stream.isShared(this.packSeq)) this.packSeq += 1;
  }

  /** Describes the next datagram: as many bytes of the frame stream as fit. */
  private pack(stream: OutStream): void {
    const slot = this.nextNumber % CAST_WINDOW;
    this.seqs[slot] = this.packSeq;
    this.starts[slot] = this.packBytes;
    this.flags[slot] = this.isFresh ? DATAGRAM_FRESH : 0;
    this.isFresh = false;
    this.wanted[slot] = 0;
    this.repairedMs[slot] = -Infinity;
    let size = 0;
    while (this.packSeq < stream.framed && size < DATAGRAM_PAYLOAD_BYTES_MAX) {
      const left = stream.ring.lengthOf(this.packSeq) - this.packBytes;
      const take = Math.min(left, DATAGRAM_PAYLOAD_BYTES_MAX - size);
      size += take;
      this.lastSeqs[slot] = this.packSeq;
      if (take < left) {
        this.packBytes += take;
        break;
      }
      this.packBytes = 0;
      this.packSeq += 1;
      this.skip(stream);
      if (this.alignWanted) break;
    }
    this.sizes[slot] = size;
    this.nextNumber += 1;
  }

  /** Builds datagram `number` from the ring and sends it; `peer` -1 = to the group. */
  private emit(number: number, stream: OutStream, peer: number): void {
    const slot = number % CAST_WINDOW;
    const size = this.sizes[slot]!;
    const ring = stream.ring;
    let seq = this.seqs[slot]!;
    let from = this.starts[slot]!;
    let filled = 0;
    while (filled < size) {
      const take = Math.min(size - filled, ring.lengthOf(seq) - from);
      const at = ring.at(seq) + from;
      this.datagram.set(ring.buffer.subarray(at, at + take), DATAGRAM_HEADER_BYTES + filled);
      filled += take;
      from = 0;
      seq += 1;
      while (filled < size && !stream.isShared(seq)) seq += 1;
    }
    this.header.kind = DATAGRAM_KIND.data;
    this.header.flags = this.flags[slot]!;
    this.header.number = number;
    this.header.payloadBytes = size;
    this.finish(peer);
  }

  private finish(peer: number): void {
    encodeDatagramHeader(this.view, 0, this.header);
    const signed = DATAGRAM_HEADER_BYTES + this.header.payloadBytes;
    this.key.sign(this.datagram, 0, signed, this.datagram, signed);
    const length = signed + DATAGRAM_MAC_BYTES;
    this.counters.datagramsSent += 1;
    if (peer < 0) this.packets.multicast(this.datagram, 0, length);
    else this.packets.unicast(peer as HostId, this.datagram, 0, length);
  }
}

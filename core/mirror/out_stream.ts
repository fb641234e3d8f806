/**
 * The sending end of this host's own stream in one epoch: the window and the commit horizon.
 *
 *   firstSeq        committed                framed       nextSeq
 *   ---+----------------+----------------------+-------------+
 *      | kept: somebody | uncommitted,         | appended,   |
 *      | lacks it still | being sent           | no header   |
 *
 * Invariants
 *  1. A record is committed when every recipient, this host included, has it in its log (R6).
 *  2. The ring keeps every record that some recipient has not acknowledged.
 *  3. A frame's header is written once, at the first `frameAll` after the append and before any
 *     byte of it is sent: bytes on the wire never change under a sender.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Lsn, Seq } from "../base/units.ts";
import {
  encodeFrameHeader,
  FRAME,
  FRAME_HEADER_BYTES,
  FRAME_TYPE,
  FrameHeader,
} from "../format/mirror_wire.ts";
import { LsnTrack } from "./lsn_track.ts";
import { RecordRing } from "./record_ring.ts";

export interface OutStreamOptions {
  readonly self: HostId;
  readonly epoch: Epoch;
  /** Recipients other than this host. */
  readonly peers: readonly HostId[];
  readonly members: readonly HostId[];
  readonly windowBytes: number;
  readonly windowRecords: number;
}

export class OutStream {
  readonly ring: RecordRing;
  readonly track = new LsnTrack();
  readonly peers: readonly HostId[];
  /** False: the ring counts records but does not hold their bytes. */
  readonly hasPeers: boolean;
  /** First record whose frame header is not written yet. */
  framed: Seq = 1;
  committed: Seq = 0;
  /** On stable storage on all recipients. */
  durable: Seq = 0;
  /** Newest FUA record. */
  fuaTop: Seq = 0;
  private released: Seq = 0;
  private readonly isMember = new Uint8Array(LIMITS.hostCountMax);
  private readonly received = new Float64Array(LIMITS.hostCountMax);
  private readonly synced = new Float64Array(LIMITS.hostCountMax);
  /** R16: a recipient that has not acknowledged `markSeq` owes since `markMs`. */
  private readonly markSeq = new Float64Array(LIMITS.hostCountMax);
  private readonly markMs = new Float64Array(LIMITS.hostCountMax);
  /** The same for FUA records on stable storage. */
  private readonly fuaMarkSeq = new Float64Array(LIMITS.hostCountMax);
  private readonly fuaMarkMs = new Float64Array(LIMITS.hostCountMax);
  private readonly header = new FrameHeader();
  private readonly rules: Rules;

  constructor(options: OutStreamOptions, rules: Rules) {
    this.ring = new RecordRing(options.windowBytes, options.windowRecords);
    this.peers = options.peers;
    this.hasPeers = options.peers.length > 0;
    this.rules = rules;
    for (const member of options.members) this.isMember[member] = 1;
    this.header.type = FRAME_TYPE.record;
    this.header.sender = options.self;
    this.header.epoch = options.epoch;
  }

  /** The ring, if it holds the records' bytes. */
  get heldRing(): RecordRing | undefined {
    return this.hasPeers ? this.ring : undefined;
  }

  get appended(): Seq {
    return this.ring.nextSeq - 1;
  }

  /** Every recipient syncs for the newest record, or did. */
  get endsSynced(): boolean {
    return this.fuaTop > 0 && this.fuaTop >= this.appended;
  }

  /** True if a record of `recordBytes` fits the window. */
  fits(recordBytes: number): boolean {
    return this.track.hasRoom && this.ring.fits(FRAME_HEADER_BYTES + recordBytes);
  }

  append(buffer: Uint8Array, at: number, length: number, lsn: Lsn, shared: boolean): void {
    const seq = this.ring.nextSeq;
    const place = this.ring.reserve(seq, FRAME_HEADER_BYTES + length, shared ? 1 : 0);
    // Alone in the view: nobody else was a recipient of this epoch, so nobody asks for its records.
    if (this.hasPeers) {
      this.ring.buffer.set(buffer.subarray(at, at + length), place + FRAME_HEADER_BYTES);
    }
    this.track.push(lsn);
  }

  /** Writes the headers of all frames that have none, with the newest committed position. */
  frameAll(): void {
    const end = this.ring.nextSeq;
    if (!this.hasPeers) {
      this.framed = end;
      return;
    }
    const header = this.header;
    header.committed = this.committed;
    while (this.framed < end) {
      // A record may be acknowledged by all (or have no peer at all) before it was framed.
      if (this.ring.has(this.framed)) {
        header.length = this.ring.lengthOf(this.framed) - FRAME_HEADER_BYTES;
        encodeFrameHeader(this.ring.buffer, this.ring.view, this.ring.at(this.framed), header);
      }
      this.framed += 1;
    }
  }

  /** The committed position that frame `seq` carries. */
  carried(seq: Seq): Seq {
    return FRAME.committed.get(this.ring.view, this.ring.at(seq));
  }

  isShared(seq: Seq): boolean {
    return this.ring.tagOf(seq) !== 0;
  }

  receivedBy(peer: HostId): Seq {
    return this.received[peer]!;
  }

  /** A peer's cumulative acknowledgement. False: it acknowledges what was never sent. */
  ack(peer: HostId, received: Seq, durable: Seq): boolean {
    if (received > this.appended || durable > this.appended) return false;
    if (received > this.received[peer]!) this.received[peer] = received;
    if (durable > this.synced[peer]!) this.synced[peer] = durable;
    return true;
  }

  /** Moves the commit horizon; true if `committed` moved. */
  advance(): boolean {
    let all = this.track.received;
    let waited = this.track.received;
    for (let index = 0; index < this.peers.length; index += 1) {
      const peer = this.peers[index]!;
      const position = this.received[peer]!;
      if (position < all) all = position;
      if (position < waited && this.isWaitedFor(peer)) waited = position;
    }
    this.released = all;
    if (waited <= this.committed) return false;
    this.committed = waited;
    return true;
  }

  /** Moves the durable horizon; true if it moved and a FUA record waited for it. */
  advanceDurable(): boolean {
    let all = this.track.durable;
    for (let index = 0; index < this.peers.length; index += 1) {
      const position = this.synced[this.peers[index]!]!;
      if (position < all) all = position;
    }
    const reported = this.durable;
    if (all > reported) this.durable = all;
    return all > reported && this.fuaTop > reported;
  }

  /** The last record that nobody lacks any more; the window may drop it. */
  get releasable(): Seq {
    return this.released;
  }

  /** Keeps the marks of R16; called once per settle. */
  mark(nowMs: number): void {
    for (let index = 0; index < this.peers.length; index += 1) {
      const peer = this.peers[index]!;
      if (this.received[peer]! >= this.markSeq[peer]!) {
        this.markSeq[peer] = this.appended;
        this.markMs[peer] = nowMs;
      }
      if (this.synced[peer]! >= this.fuaMarkSeq[peer]!) {
        this.fuaMarkSeq[peer] = this.fuaTop;
        this.fuaMarkMs[peer] = nowMs;
      }
    }
  }

  /** True if `peer` has owed one and the same acknowledgement for longer than the bound. */
  owes(peer: HostId, nowMs: number, boundMs: number): boolean {
    const owesAck = this.received[peer]! < this.markSeq[peer]!;
    if (owesAck && nowMs - this.markMs[peer]! > boundMs) return true;
    const owesSync = this.synced[peer]! < this.fuaMarkSeq[peer]!;
    return owesSync && nowMs - this.fuaMarkMs[peer]! > boundMs;
  }

  private isWaitedFor(peer: HostId): boolean {
    assert(peer < LIMITS.hostCountMax, "out stream: no such host");
    if (!this.rules.ackAfterCommit) return false;
    return this.rules.joinersCommit || this.isMember[peer] === 1;
  }
}

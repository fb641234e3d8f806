/**
 * The data lane to one peer: what is sent next, and backpressure.
 *
 *   own stream (ring) --runs of frames--+
 *   RECONCILE jobs -----one frame-------+--> link.send --> full: blocked until drain
 *   bulk queue ---------one frame-------+
 *
 * A peer is a position in the ring of records; runs of neighbouring frames leave with one send.
 * Runs and other frames take turns at frame boundaries.
 *
 * Invariants
 *  1. A frame once begun is finished before anything else is sent. If its bytes may go away (the
 *     window moves on, the view ends), the rest is copied first (`detach`).
 *  2. After `up`, no record of an epoch is sent before the peer's RESUME for that epoch came.
 */
import { LANE, type StreamLink } from "../base/ports.ts";
import { MIB } from "../base/units.ts";
import type { Epoch, HostId, Seq } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import {
  encodeFrameHeader,
  FRAME_HEADER_BYTES,
  FRAME_TYPE,
  FrameHeader,
} from "../format/mirror_wire.ts";
import type { OutStream } from "./out_stream.ts";
import type { RecordRing } from "./record_ring.ts";

/** Bytes of one run; other frames get their turn after each. */
const RUN_BYTES = 256 * 1024;
/** Bytes of bulk frames waiting for one peer. */
export const BULK_BYTES_MAX = 8 * MIB;

/** R5: records (from, to] of one sender that the peer lacks. */
export interface ReconcileJob {
  readonly epoch: Epoch;
  readonly sender: HostId;
  readonly fromSeq: Seq;
  readonly toSeq: Seq;
  next: Seq;
  /** Where the records are; in the ring of the own stream a frame header precedes each. */
  readonly ring: RecordRing;
  readonly isOwn: boolean;
}

export class PeerLane {
  readonly peer: HostId;
  up = false;
  /** The connection is full: nothing is sent until it drains. */
  blocked = false;
  /** Epoch and position of the peer's last RESUME on this link. */
  resumeEpoch: Epoch = 0;
  resumeSeq: Seq = 0;
  /** Next record of the own stream to send here. */
  position: Seq = 1;
  /** Shared records from here on reach this peer by multicast, not by this lane. */
  castFromSeq: Seq = Infinity;
  /** Newest committed position that has left for this peer on this link. */
  committedTold: Seq = 0;
  bulkBytes = 0;
  /** Bulk was refused since the last drain. */
  bulkRefused = false;
  private partialBytes = 0;
  private stub: Uint8Array | null = null;
  private stubAt = 0;
  private isExtraTurn = false;
  private bulk: Uint8Array[] = [];
  private jobs: ReconcileJob[] = [];
  private readonly link: StreamLink;
  private readonly header = new FrameHeader();

  constructor(peer: HostId, link: StreamLink) {
    this.peer = peer;
    this.link = link;
  }

  linkUp(): void {
    this.linkDown();
    this.up = true;
  }

  /** What the connection had is lost: bulk for good, records and jobs are sent again. */
  linkDown(): void {
    this.up = false;
    this.blocked = false;
    this.resumeEpoch = 0;
    this.resumeSeq = 0;
    this.partialBytes = 0;
    this.stub = null;
    this.committedTold = 0;
    this.bulk = [];
    this.bulkBytes = 0;
    for (const job of this.jobs) job.next = job.fromSeq;
  }

  /** A new epoch's stream starts; `ring` is that of the epoch before. */
  newEpoch(ring: RecordRing | null): void {
    if (ring !== null) this.detach(ring);
    this.position = 1;
    this.partialBytes = 0;
    this.castFromSeq = Infinity;
    this.committedTold = 0;
  }

  /** Goes back (or on) to `seq`. */
  seek(ring: RecordRing, seq: Seq): void {
    this.detach(ring);
    this.position = seq;
  }

  /** Copies the rest of a frame in progress, so that the ring may drop it. */
  detach(ring: RecordRing): void {
    if (this.partialBytes === 0) return;
    const at = ring.at(this.position);
    this.stub = ring.buffer.slice(at + this.partialBytes, at + ring.lengthOf(this.position));
    this.stubAt = 0;
    this.partialBytes = 0;
    this.position += 1;
  }

  /** The frame in progress, or 0. */
  get partialSeq(): Seq {
    return this.partialBytes > 0 ? this.position : 0;
  }

  /** Jobs stay until `dropJobs`, also when done: a new link may have to repeat them. */
  reconcile(job: ReconcileJob): void {
    this.jobs.push(job);
  }

  /** R2 or OPEN: the jobs' epoch is over. */
  dropJobs(): void {
    this.jobs = [];
  }

  /** Queues one bulk frame of `bytes`, which are copied. False: the queue is full. */
  pushBulk(sender: HostId, bytes: Uint8Array): boolean {
    const total = FRAME_HEADER_BYTES + bytes.length;
    if (!this.up || (this.bulkBytes > 0 && this.bulkBytes + total > BULK_BYTES_MAX)) {
      this.bulkRefused = true;
      return false;
    }
    const frame = new Uint8Array(total);
    frame.set(bytes, FRAME_HEADER_BYTES);
    this.fillHeader(frame, FRAME_TYPE.bulk, sender, 0);
    this.bulk.push(frame);
    this.bulkBytes += total;
    return true;
  }

  /** Sends until the link is full or nothing is left. `stream` is null if no record may go. */
  pump(stream: OutStream | null): void {
    while (this.up && !this.blocked) {
      if (this.stub !== null) {
        this.flushStub();
        continue;
      }
      if (this.partialBytes === 0 && this.isExtraTurn) {
        this.isExtraTurn = false;
        this.takeExtra();
        if (this.stub !== null) continue;
      }
      if (stream !== null && this.sendRun(stream)) {
        this.isExtraTurn = true;
        continue;
      }
      this.takeExtra();
      if (this.stub === null) return;
    }
  }

  /** Sends one run of frames; false if there is none to send. */
  private sendRun(stream: OutStream): boolean {
    const ring = stream.ring;
    if (this.partialBytes === 0) this.skip(stream);
    if (this.position >= stream.framed) return false;
    const start = ring.at(this.position) + this.partialBytes;
    let end = ring.at(this.position) + ring.lengthOf(this.position);
    let next = this.position + 1;
    while (next < stream.framed && end - start < RUN_BYTES) {
      if (ring.at(next) !== end || this.goesByMulticast(stream, next)) break;
      end += ring.lengthOf(next);
      next += 1;
    }
    const taken = this.link.send(this.peer, LANE.data, ring.buffer, start, end - start);
    if (taken < end - start) this.blocked = true;
    if (taken > 0) this.moveOn(stream, taken);
    return true;
  }

  /** Records that need not go here: multicast, or dropped because this peer has them. */
  private skip(stream: OutStream): void {
    if (this.position < stream.ring.firstSeq) this.position = stream.ring.firstSeq;
    while (this.position < stream.framed && this.goesByMulticast(stream, this.position)) {
      this.position += 1;
    }
  }

  private goesByMulticast(stream: OutStream, seq: Seq): boolean {
    return seq >= this.castFromSeq && stream.isShared(seq);
  }

  private moveOn(stream: OutStream, taken: number): void {
    let left = this.partialBytes + taken;
    let last = 0;
    while (left > 0 && left >= stream.ring.lengthOf(this.position)) {
      left -= stream.ring.lengthOf(this.position);
      last = this.position;
      this.position += 1;
    }
    this.partialBytes = left;
    if (last > 0) this.committedTold = Math.max(this.committedTold, stream.carried(last));
  }

  private flushStub(): void {
    const stub = this.stub;
    if (stub === null) return;
    const left = stub.length - this.stubAt;
    const taken = this.link.send(this.peer, LANE.data, stub, this.stubAt, left);
    if (taken < left) this.blocked = true;
    if (taken > 0) this.stubAt += taken;
    if (taken === left) this.stub = null;
  }

  /** Makes the next frame that does not come from the own stream the stub, if there is one. */
  private takeExtra(): void {
    this.stubAt = 0;
    for (const job of this.jobs) {
      if (job.next < job.ring.firstSeq) job.next = job.ring.firstSeq;
      if (job.next > job.toSeq || job.next >= job.ring.nextSeq) continue;
      this.stub = this.reconcileFrame(job);
      job.next += 1;
      return;
    }
    const bulk = this.bulk.shift();
    if (bulk === undefined) return;
    this.bulkBytes -= bulk.length;
    this.stub = bulk;
  }

  private reconcileFrame(job: ReconcileJob): Uint8Array {
    const prefixBytes = job.isOwn ? FRAME_HEADER_BYTES : 0;
    const at = job.ring.at(job.next) + prefixBytes;
    const length = job.ring.lengthOf(job.next) - prefixBytes;
    const frame = new Uint8Array(FRAME_HEADER_BYTES + length);
    frame.set(job.ring.buffer.subarray(at, at + length), FRAME_HEADER_BYTES);
    this.fillHeader(frame, FRAME_TYPE.reconcile, job.sender, job.epoch);
    return frame;
  }

  private fillHeader(frame: Uint8Array, type: number, sender: HostId, epoch: Epoch): void {
    this.header.type = type;
    this.header.sender = sender;
    this.header.epoch = epoch;
    this.header.committed = 0;
    this.header.length = frame.length - FRAME_HEADER_BYTES;
    encodeFrameHeader(frame, viewOf(frame), 0, this.header);
  }
}

/**
 * The receiving end of one sender's stream in one epoch.
 *
 *   next in order --> sink.record --> appended --> (logged) received --> acked
 *        |               | hold, full
 *        +-- later ------+--> held copies, by seq, until their turn
 *
 * Invariants
 *  1. Records are appended in seq order, each exactly once; `next - 1` is the last appended.
 *  2. `retained` has every appended record above `committed` (R5 may have to pass it on), if there
 *     is a third recipient that it could be passed on to.
 *  3. Held bytes are at most `LIMITS.heldBytesMax`; a sender that sends more breaks its window.
 *  4. Once `sealed`, records go to `sink.reconciled` only, nothing is acknowledged (R2).
 */
import { LIMITS } from "../base/limits.ts";
import type { HostId, Lsn, Seq } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import { decodeRecordHeader, RecordHeader } from "../format/record.ts";
import { LsnTrack } from "./lsn_track.ts";
import { type MirrorCounters, type MirrorSink, RECEIVE, type Receive } from "./mirror_sink.ts";
import { RecordRing } from "./record_ring.ts";

/** Bit 0 of a record's flags. */
export const FLAG_FUA = 1;

export class InStream {
  readonly sender: HostId;
  next: Seq = 1;
  committed: Seq = 0;
  /** Last position told to the host through `sink.committed`. */
  committedTold: Seq = 0;
  /** A window, and in R5 at most another one on top of it. */
  readonly retained = new RecordRing(2 * LIMITS.heldBytesMax, 2 * LIMITS.windowRecordsMax);
  readonly track = new LsnTrack();
  sealed = false;
  /** Newest FUA record appended. */
  fuaTop: Seq = 0;
  heldBytes = 0;
  /** True if the store was busy: `settle` offers the next record again. */
  retryWanted = false;
  private heldCount = 0;
  private readonly held = new Map<Seq, Uint8Array>();
  private ackedReceived: Seq = 0;
  private ackedDurable: Seq = 0;
  private readonly retains: boolean;
  private readonly scratch = new RecordHeader();
  private readonly sink: MirrorSink;
  private readonly counters: MirrorCounters;

  constructor(sender: HostId, retains: boolean, sink: MirrorSink, counters: MirrorCounters) {
    this.sender = sender;
    this.retains = retains;
    this.sink = sink;
    this.counters = counters;
  }

  /** A verified record of this stream, by whatever path. False: the sender breaks its bounds. */
  arrive(header: RecordHeader, buffer: Uint8Array, at: number, length: number): boolean {
    const seq = header.seq;
    if (seq < this.next) {
      this.counters.duplicates += 1;
      return true;
    }
    if (seq > this.next) return this.hold(seq, buffer, at, length);
    if (this.heldCount > 0 && this.held.has(seq)) {
      this.counters.duplicates += 1;
      return true;
    }
    const result = this.offer(header, buffer, at, length);
    if (result === RECEIVE.appended) return this.heldCount > 0 ? this.retry() : true;
    if (result === RECEIVE.refuse) return false;
    if (result === RECEIVE.full) this.retryWanted = true;
    return this.hold(seq, buffer, at, length);
  }

  /** Offers what is held and next. False: a record was refused. */
  retry(): boolean {
    this.retryWanted = false;
    while (this.heldCount > 0) {
      const bytes = this.held.get(this.next);
      if (bytes === undefined) return true;
      // It was verified on arrival; this only reads the header again.
      if (!decodeRecordHeader(bytes, viewOf(bytes), 0, this.scratch)) return false;
      const seq = this.next;
      const result = this.offer(this.scratch, bytes, 0, bytes.length);
      if (result === RECEIVE.hold) return true;
      if (result === RECEIVE.full) {
        this.retryWanted = true;
        return true;
      }
      this.drop(seq, bytes);
      if (result === RECEIVE.refuse) return false;
    }
    return true;
  }

  /** The sender says that its stream is committed up to `seq`. */
  learnCommitted(seq: Seq): void {
    if (seq <= this.committed) return;
    this.committed = seq;
    this.retained.release(seq);
  }

  /** R2: what is held was never appended and never will be. */
  seal(): void {
    this.sealed = true;
    this.dropHeld();
  }

  dropHeld(): void {
    this.held.clear();
    this.heldCount = 0;
    this.heldBytes = 0;
    this.retryWanted = false;
  }

  /** True if an ack says something new: received moved, or durable moved past a FUA record. */
  get ackDue(): boolean {
    if (this.track.received > this.ackedReceived) return true;
    return this.fuaTop > this.ackedDurable && this.track.durable > this.ackedDurable;
  }

  ackSent(): void {
    this.ackedReceived = this.track.received;
    this.ackedDurable = this.track.durable;
  }

  logged(lsn: Lsn): void {
    this.track.logged(lsn);
  }

  synced(lsn: Lsn): void {
    this.track.synced(lsn);
  }

  private offer(header: RecordHeader, buffer: Uint8Array, at: number, length: number): Receive {
    const seq = this.next;
    if (!this.track.hasRoom && !this.sealed) return RECEIVE.full;
    const mustRetain = this.retains && seq > this.committed;
    if (mustRetain && !this.retained.fits(length)) return RECEIVE.refuse;
    const flags = header.flags;
    const result = this.sealed
      ? this.sink.reconciled(this.sender, header, buffer, at, length)
        ? RECEIVE.appended
        : RECEIVE.full
      : this.sink.record(this.sender, header, buffer, at, length);
    if (result !== RECEIVE.appended) {
      if (result === RECEIVE.refuse) this.counters.refusedRecords += 1;
      return result;
    }
    this.next = seq + 1;
    this.counters.recordsAppended += 1;
    if (!this.sealed) this.track.push(this.sink.appendedLsn);
    if (mustRetain) {
      const place = this.retained.reserve(seq, length, 0);
      this.retained.buffer.set(buffer.subarray(at, at + length), place);
    }
    if ((flags & FLAG_FUA) !== 0) this.fuaTop = seq;
    return RECEIVE.appended;
  }

  private hold(seq: Seq, buffer: Uint8Array, at: number, length: number): boolean {
    if (this.held.has(seq)) {
      this.counters.duplicates += 1;
      return true;
    }
    if (seq >= this.next + 2 * LIMITS.windowRecordsMax) return false;
    if (this.heldBytes + length > LIMITS.heldBytesMax) return false;
    // A copy: the chunk it came in may be much larger and would be kept alive whole.
    this.held.set(seq, buffer.slice(at, at + length));
    this.heldCount += 1;
    this.heldBytes += length;
    this.counters.heldRecords += 1;
    return true;
  }

  private drop(seq: Seq, bytes: Uint8Array): void {
    this.held.delete(seq);
    this.heldCount -= 1;
    this.heldBytes -= bytes.length;
  }
}

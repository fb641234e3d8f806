/**
 * One lane of the log: batches that follow each other through segments of their own.
 *
 *   append -> collecting -> sealed -> in flight -> written (logged) -> synced (durable)
 *
 * Invariants:
 *  1. One write in flight per lane, in order; so the lane's log on disk has a gap only where the
 *     disk lost something, never because a later batch overtook an earlier one.
 *  2. No durable byte is written again: a batch may begin in the last page of the one before
 *     only while no sync covers or awaits it (`mayPack`).
 *  3. At most one batch per log buffer; records never straddle buffers or segments.
 */
import { assert } from "../base/assert.ts";
import { roundUp } from "../base/units.ts";
import {
  BATCH_HEADER_BYTES,
  BatchHeader,
  DIRECTORY_ENTRY_BYTES,
  encodeBatchHeader,
  PLACE_UNIT,
} from "../format/segment.ts";
import type { LaneCut } from "../format/superblock.ts";
import type { Geometry } from "./geometry.ts";
import { BATCH_ITEMS_MAX, BATCH_STATE, LogBatch } from "./log_batch.ts";
import { NO_SEGMENT, type SegmentTable } from "./segment_table.ts";

const PAGE = 4096;

/** Answer of `room`. */
export const ROOM = { ok: 0, busy: 1, noSegment: 2, tooLong: 3 } as const;

/** Numbers the batches of both lanes. */
export interface BatchCounter {
  /** Number of the newest batch. */
  seq: number;
}

export class LogLane {
  readonly lane: number;
  /** Where the item just reserved goes: array, position, and place on disk. */
  itemBatch: LogBatch;
  itemAt = 0;
  itemPlace = 0;
  /** Log positions, bytes of items since open: appended, written, on stable storage. */
  appended = 0;
  logged = 0;
  durable = 0;
  /** Number of the last batch sealed, completed, durable. */
  lastSeq = 0;
  completedSeq = 0;
  durableSeq = 0;
  segment = NO_SEGMENT;
  /** Byte offset in the segment behind the last batch. */
  tail = 0;
  successor = NO_SEGMENT;
  collecting: LogBatch | null = null;
  /** Sealed and in flight, in order. */
  readonly queue: LogBatch[] = [];
  private readonly batches: LogBatch[];
  private readonly geometry: Geometry;
  private readonly segments: SegmentTable;
  private readonly packs: boolean;
  private readonly counter: BatchCounter;
  /** The tail's page is covered by a sync. */
  private mustAlign = false;
  /** The last page written, if the tail lies inside it. */
  private readonly tailPage = new Uint8Array(PAGE);
  private readonly header = new BatchHeader();

  constructor(
    lane: number,
    geometry: Geometry,
    segments: SegmentTable,
    buffers: readonly Uint8Array[],
    packs: boolean,
    counter: BatchCounter,
  ) {
    this.lane = lane;
    this.counter = counter;
    this.geometry = geometry;
    this.segments = segments;
    this.batches = buffers.map((buffer) => new LogBatch(buffer));
    this.itemBatch = this.batches[0] as LogBatch;
    this.packs = packs;
  }

  /** Begins in fresh segments (after format and at every open). False if none is free. */
  start(lastSeq: number): boolean {
    assert(this.queue.length === 0 && this.collecting === null, "log lane: started twice");
    this.segment = this.segments.allocate();
    this.successor = this.segments.allocate();
    this.tail = 0;
    this.lastSeq = lastSeq;
    this.completedSeq = lastSeq;
    this.durableSeq = lastSeq;
    return this.successor !== NO_SEGMENT;
  }

  /** Longest item that fits into a buffer and a segment. */
  get itemBytesMax(): number {
    const buffer = this.itemBatch.buffer.length;
    const room = Math.min(buffer, this.geometry.segmentBytes);
    return room - PAGE - BATCH_HEADER_BYTES - DIRECTORY_ENTRY_BYTES;
  }

  /** Whether `reserve(length)` would work now, leaving `floor` segments free. */
  room(length: number, floor: number): number {
    const batch = this.collecting;
    if (batch !== null && fits(batch, length)) return ROOM.ok;
    if (length > this.itemBytesMax) return ROOM.tooLong;
    const inUse = this.queue.length + (batch === null ? 0 : 1);
    if (inUse === this.batches.length) return ROOM.busy;
    const tail = batch === null ? this.tail : this.tailAfter(batch);
    const need = BATCH_HEADER_BYTES + length + DIRECTORY_ENTRY_BYTES;
    if (roundUp(tail, PAGE) + need <= this.geometry.segmentBytes) return ROOM.ok;
    return this.segments.freeCount > floor ? ROOM.ok : ROOM.noSegment;
  }

  /** Bytes an item may have without beginning a new batch or segment; may be negative. */
  get spaceLeft(): number {
    const batch = this.collecting;
    if (batch !== null) return batch.limit - batch.end - DIRECTORY_ENTRY_BYTES;
    const room = Math.min(
      this.itemBatch.buffer.length,
      this.geometry.segmentBytes - roundUp(this.tail, PAGE),
    );
    return room - BATCH_HEADER_BYTES - DIRECTORY_ENTRY_BYTES;
  }

  /** Room for an item: fill `itemBatch.buffer` at `itemAt`, then `commit`. */
  reserve(length: number, mayPack: boolean): void {
    assert(length % PLACE_UNIT === 0, "log lane: item is not a multiple of the place unit");
    let batch = this.collecting;
    if (batch !== null && !fits(batch, length)) {
      this.sealCollecting();
      batch = null;
    }
    if (batch === null) batch = this.begin(length, mayPack);
    this.itemBatch = batch;
    this.itemAt = batch.at;
    this.itemPlace = (batch.diskOffset + batch.at) / PLACE_UNIT;
  }

  /** The item reserved is complete. `stamp`: age of its data, for the cleaner. */
  commit(
    type: number,
    volume: number,
    lba: number,
    count: number,
    length: number,
    stamp: number,
  ): void {
    const batch = this.itemBatch;
    batch.add(type, volume, lba, count, length);
    this.appended += length;
    batch.endLsn = this.appended;
    if (stamp > this.segments.stamp[batch.segment]!) this.segments.stamp[batch.segment] = stamp;
  }

  private begin(length: number, mayPack: boolean): LogBatch {
    const batch = this.batches.find((candidate) => candidate.state === BATCH_STATE.free);
    assert(batch !== undefined, "log lane: no free buffer (admit first)");
    // A sealed batch has no header yet that its last page could be repeated with.
    const before = this.queue[this.queue.length - 1];
    const isAfterSealed = before !== undefined && before.state === BATCH_STATE.sealed;
    const pack = this.packs && mayPack && !this.mustAlign && !isAfterSealed;
    let start = pack ? this.tail : roundUp(this.tail, PAGE);
    const need = BATCH_HEADER_BYTES + length + DIRECTORY_ENTRY_BYTES;
    if (start + need > this.geometry.segmentBytes) {
      this.nextSegment();
      start = 0;
    }
    const inPage = start % PAGE;
    batch.state = BATCH_STATE.collecting;
    batch.segment = this.segment;
    batch.successor = this.successor;
    batch.diskOffset = this.geometry.offsetOf(this.segment) + start - inPage;
    batch.headerAt = inPage;
    batch.at = inPage + BATCH_HEADER_BYTES;
    batch.limit = Math.min(batch.buffer.length, this.geometry.segmentBytes - (start - inPage));
    batch.itemCount = 0;
    batch.itemsCheck = 0;
    batch.isPacked = inPage !== 0;
    batch.endLsn = this.appended;
    if (batch.isPacked) batch.buffer.set(this.tailPage.subarray(0, inPage), 0);
    this.mustAlign = false;
    this.collecting = batch;
    return batch;
  }

  private nextSegment(): void {
    this.segments.lastSeq[this.segment] = this.lastSeq;
    this.segments.seal(this.segment);
    this.segment = this.successor;
    this.successor = this.segments.allocate();
    assert(this.successor !== NO_SEGMENT, "log lane: no free segment (admit first)");
    this.tail = 0;
    this.mustAlign = false;
  }

  private tailAfter(batch: LogBatch): number {
    return batch.diskOffset + batch.end - this.geometry.offsetOf(batch.segment);
  }

  /**
   * Closes the batch that collects: number, directory, padding; it waits to be submitted. What a
   * segment reused for it held before was dead durably by then, hence in batches of lower numbers.
   */
  private sealCollecting(): void {
    const batch = this.collecting;
    assert(batch !== null && batch.itemCount > 0, "log lane: sealed an empty batch");
    this.counter.seq += 1;
    batch.seq = this.counter.seq;
    batch.previousSeq = this.lastSeq;
    this.lastSeq = batch.seq;
    const end = batch.closeBody();
    batch.at = end;
    const padded = roundUp(end, PAGE);
    batch.buffer.fill(0, end, padded);
    if (end !== padded) this.tailPage.set(batch.buffer.subarray(padded - PAGE, padded));
    this.tail = batch.diskOffset + end - this.geometry.offsetOf(batch.segment);
    batch.state = BATCH_STATE.sealed;
    this.queue.push(batch);
    this.collecting = null;
  }

  /** The batch to write now, its header encoded; null if one is in flight or there is none. */
  submit(session: number, storeId: readonly [number, number]): LogBatch | null {
    let batch = this.queue[0];
    if (batch === undefined) {
      if (this.collecting === null || this.collecting.itemCount === 0) return null;
      this.sealCollecting();
      batch = this.queue[0] as LogBatch;
    }
    if (batch.state !== BATCH_STATE.sealed) return null;
    batch.state = BATCH_STATE.inFlight;
    const header = this.header;
    header.storeIdLow = storeId[0];
    header.storeIdHigh = storeId[1];
    header.session = session;
    header.lane = this.lane;
    header.seq = batch.seq;
    header.previousSeq = batch.previousSeq;
    header.durableSeq = this.durableSeq;
    header.place = (batch.diskOffset + batch.headerAt) / PLACE_UNIT;
    header.lengthBytes = batch.at - batch.headerAt;
    header.itemCount = batch.itemCount;
    header.successor = batch.successor;
    encodeBatchHeader(batch.buffer, batch.view, batch.headerAt, header, batch.itemsCheck);
    // The next batch may repeat this page, header included.
    if (this.queue.length === 1 && this.collecting === null) this.keepTailPage(batch);
    return batch;
  }

  /** If a batch's header lies in its last page, the copy of that page must have it, too. */
  private keepTailPage(batch: LogBatch): void {
    const padded = roundUp(batch.at, PAGE);
    if (batch.at === padded) return;
    this.tailPage.set(batch.buffer.subarray(padded - PAGE, padded));
  }

  /** The batch in flight was written; its buffer is free again. */
  completed(): LogBatch {
    const batch = this.queue.shift();
    assert(batch !== undefined, "log lane: a completion without a write");
    batch.state = BATCH_STATE.free;
    this.completedSeq = batch.seq;
    this.logged = batch.endLsn;
    return batch;
  }

  /** False while a batch not yet written repeats a page that a sync would make durable. */
  get maySync(): boolean {
    const head = this.queue[0] ?? this.collecting;
    return head === null || !head.isPacked;
  }

  /** A sync that covers everything completed so far was submitted. */
  syncBegan(): void {
    if (this.queue.length === 0 && this.collecting === null) this.mustAlign = true;
  }

  /** Ends the batch that collects; tells where the next one begins. */
  cut(out: LaneCut): void {
    if (this.collecting !== null) this.sealCollecting();
    out.seq = this.lastSeq;
    out.segment = this.segment;
    out.offset = this.tail;
    out.successor = this.successor;
  }

  /** The batch in memory that holds this place; null if it is on disk. */
  find(place: number): LogBatch | null {
    const offset = place * PLACE_UNIT;
    const collecting = this.collecting;
    if (collecting !== null && holds(collecting, offset)) return collecting;
    for (let index = 0; index < this.queue.length; index += 1) {
      const batch = this.queue[index] as LogBatch;
      if (holds(batch, offset)) return batch;
    }
    return null;
  }
}

function fits(batch: LogBatch, length: number): boolean {
  const directory = (batch.itemCount + 1) * DIRECTORY_ENTRY_BYTES;
  return batch.at + length + directory <= batch.limit && batch.itemCount < BATCH_ITEMS_MAX;
}

function holds(batch: LogBatch, offset: number): boolean {
  return offset >= batch.diskOffset + batch.headerAt && offset < batch.diskOffset + batch.at;
}

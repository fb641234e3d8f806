/**
 * Walks the batches of one lane from a checkpoint's cut to the end of the log, through segments
 * that each name their successor. Read-only; used by recovery and by the offline check.
 *
 * The next batch of a lane lies right behind the last one, or at the next multiple of 4096, or
 * at the start of the successor; it is the one that names the last batch as `previousSeq`. If
 * there is none, either the log ends here (a write was torn, or never made), or something rotted.
 * `findNext` then looks further: a later batch whose `durableSeq` covers the gap proves rot.
 */
import { roundUp } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import {
  BATCH_HEADER_BYTES,
  BATCH_MAGIC,
  BatchHeader,
  decodeBatchHeader,
  PLACE_UNIT,
} from "../format/segment.ts";
import type { LaneCut } from "../format/superblock.ts";
import { crc32 } from "../base/checksum.ts";
import type { Geometry } from "./geometry.ts";
import type { Task, TaskIo } from "./task.ts";

const PAGE = 4096;
/** Longest batch; log buffers are never larger. */
export const BATCH_BYTES_MAX = 4 * 1024 * 1024;

/** Bytes a cursor's window needs for stores with such segments. */
export function windowBytes(segmentBytes: number): number {
  return Math.min(segmentBytes, BATCH_BYTES_MAX + 2 * PAGE);
}

export interface CursorIdentity {
  readonly lane: number;
  readonly session: number;
  readonly storeId: readonly [number, number];
}

export class LogCursor {
  /** The batch found by `next`, and where it lies in `buffer`. */
  readonly header = new BatchHeader();
  at = 0;
  /** Its body's checksum holds. */
  isWhole = false;
  /** Batches are missing before it: they lay in `[gapSegment, gapOffset)` and after. */
  isAfterGap = false;
  gapSegment = 0;
  gapOffset = 0;
  gapSeq = 0;
  /** Segment of the batch. */
  segment: number;
  readonly buffer: Uint8Array;
  readonly view: DataView;
  /** The same bytes; everything in the log lies at multiples of 16. */
  private readonly words: Uint32Array;
  /** Segments the log was found in. */
  readonly visited: number[] = [];
  private offset: number;
  private successor: number;
  private lastSeq: number;
  private windowOffset = -1;
  private windowLength = 0;
  private readonly io: TaskIo;
  private readonly geometry: Geometry;
  private readonly identity: CursorIdentity;

  constructor(
    io: TaskIo,
    geometry: Geometry,
    identity: CursorIdentity,
    cut: LaneCut,
    buffer: Uint8Array,
  ) {
    this.io = io;
    this.geometry = geometry;
    this.identity = identity;
    this.buffer = buffer;
    this.view = viewOf(buffer);
    this.words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.byteLength / 4);
    this.segment = cut.segment;
    this.offset = cut.offset;
    this.successor = cut.successor;
    this.lastSeq = cut.seq;
    this.visited.push(cut.segment);
  }

  /** Finds the next batch; false at the end of what can be found. */
  *next(): Task<boolean> {
    this.isAfterGap = false;
    if (yield* this.tryAt(this.segment, this.offset, true)) return true;
    const aligned = roundUp(this.offset, PAGE);
    if (aligned !== this.offset && (yield* this.tryAt(this.segment, aligned, true))) return true;
    if (yield* this.tryAt(this.successor, 0, true)) return true;
    return yield* this.findNext();
  }

  /** Looks for any later batch of this lane: in the rest of the segment, then in the successor. */
  private *findNext(): Task<boolean> {
    this.gapSegment = this.segment;
    this.gapOffset = this.offset;
    this.gapSeq = this.lastSeq;
    const { segment, successor } = this;
    if (yield* this.scan(segment, this.offset)) return true;
    return yield* this.scan(successor, 0);
  }

  private *scan(segment: number, from: number): Task<boolean> {
    const end = this.geometry.segmentBytes - BATCH_HEADER_BYTES;
    for (let offset = from; offset <= end; ) {
      const at = yield* this.ensure(segment, offset, BATCH_HEADER_BYTES);
      const inWindow = this.windowLength - at - BATCH_HEADER_BYTES;
      for (let step = 0; step <= inWindow && offset + step <= end; step += PLACE_UNIT) {
        if (this.words[(at + step) >>> 2] !== BATCH_MAGIC) continue;
        if (!(yield* this.tryAt(segment, offset + step, false))) continue;
        this.isAfterGap = true;
        return true;
      }
      offset += roundUp(Math.max(PLACE_UNIT, inWindow + 1), PLACE_UNIT);
    }
    return false;
  }

  /** Takes the batch at this place if it is one of this log and newer than the last. */
  private *tryAt(segment: number, offset: number, isChained: boolean): Task<boolean> {
    if (offset + BATCH_HEADER_BYTES > this.geometry.segmentBytes) return false;
    let at = yield* this.ensure(segment, offset, BATCH_HEADER_BYTES);
    const { header } = this;
    if (!decodeBatchHeader(this.buffer, this.view, at, header)) return false;
    if (!this.isOurs(segment, offset)) return false;
    if (isChained ? header.previousSeq !== this.lastSeq : header.previousSeq < this.lastSeq) {
      return false;
    }
    at = yield* this.ensure(segment, offset, header.lengthBytes);
    const body = at + BATCH_HEADER_BYTES;
    this.isWhole =
      header.bodyCheck === crc32(this.buffer, body, header.lengthBytes - BATCH_HEADER_BYTES);
    this.at = at;
    if (segment !== this.segment) this.visited.push(segment);
    this.segment = segment;
    this.offset = offset + header.lengthBytes;
    this.successor = header.successor;
    this.lastSeq = header.seq;
    return true;
  }

  private isOurs(segment: number, offset: number): boolean {
    const { header, identity, geometry } = this;
    if (header.storeIdLow !== identity.storeId[0]) return false;
    if (header.storeIdHigh !== identity.storeId[1]) return false;
    if (header.session !== identity.session || header.lane !== identity.lane) return false;
    if (header.place * PLACE_UNIT !== geometry.offsetOf(segment) + offset) return false;
    if (header.successor >= geometry.segmentCount) return false;
    if (header.lengthBytes > BATCH_BYTES_MAX) return false;
    return offset + header.lengthBytes <= geometry.segmentBytes;
  }

  /** Disk place of a position in the buffer. */
  placeAt(at: number): number {
    return (this.windowOffset + at) / PLACE_UNIT;
  }

  /** Brings `[offset, offset + length)` of the segment into the buffer; its position there. */
  *ensure(segment: number, offset: number, length: number): Task<number> {
    const from = this.geometry.offsetOf(segment) + offset;
    const isInside = this.windowOffset >= 0 && from >= this.windowOffset;
    if (isInside && from + length <= this.windowOffset + this.windowLength) {
      return from - this.windowOffset;
    }
    const start = from - (from % PAGE);
    const segmentEnd = this.geometry.offsetOf(segment) + this.geometry.segmentBytes;
    const want = Math.min(this.buffer.length, segmentEnd - start);
    const got = yield* this.io.read(start, this.buffer, 0, want);
    this.windowOffset = start;
    this.windowLength = want;
    if (got !== want) yield* this.readPages(start, want);
    return from - start;
  }

  /** The disk cannot read the window as a whole: page by page, zeros for what it cannot read. */
  private *readPages(start: number, want: number): Task<void> {
    for (let at = 0; at < want; at += PAGE) {
      const got = yield* this.io.read(start + at, this.buffer, at, PAGE);
      if (got !== PAGE) this.buffer.fill(0, at, at + PAGE);
    }
  }
}

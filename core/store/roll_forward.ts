/**
 * Roll-forward: applies the log since the checkpoint to the state, both lanes merged in the order
 * in which their batches were numbered.
 *
 * First each lane is walked to find its end (`findEnd`): the last batch before which everything
 * is whole, or was known durable to a later batch and is therefore damaged, not torn. Then it is
 * walked again and applied. Damage never ends the log: what verifies is applied, blocks that do
 * not are applied as bad places (a read finds them bad and a mirror heals them), records whose
 * header is gone are named by the batch's directory, and only what not even that names is lost.
 */
import { LIMITS } from "../base/limits.ts";
import { viewOf } from "../format/layout.ts";
import {
  decodeRecordHeader,
  ENTRY,
  hasBlocks,
  RECORD_HEADER_BYTES,
  RECORD_TYPE,
  RecordHeader,
  STORED_BLOCK_BYTES,
  verifyEntry,
} from "../format/record.ts";
import {
  BATCH_HEADER_BYTES,
  DIRECTORY,
  DIRECTORY_ENTRY_BYTES,
  decodeItemHeader,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
  ItemHeader,
  itemBodyIsWhole,
  MOVE_SOURCE,
  movedBytes,
  PLACE_UNIT,
} from "../format/segment.ts";
import type { Superblock } from "../format/superblock.ts";
import { crc32 } from "../base/checksum.ts";
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import {
  applyBlocks,
  applyEmpty,
  applyMove,
  applyRecord,
  applySnapshot,
  isApplicable,
} from "./apply.ts";
import type { Damage } from "./damage.ts";
import { LOST_PLACE } from "./index_pool.ts";
import { LogCursor } from "./log_cursor.ts";
import type { PageLoader } from "./page_loader.ts";
import type { StoreState } from "./state.ts";
import type { Task, TaskIo } from "./task.ts";

const POINT_MAX = 0xffffffff;

export class RollForward {
  /** Highest batch number seen, applied or not. */
  highestSeq = 0;
  batchCount = 0;
  /** Blocks found bad on the way, for the sink (bounded by Damage's list, too). */
  readonly visited = new Set<number>();
  private readonly io: TaskIo;
  private readonly state: StoreState;
  private readonly superblock: Superblock;
  private readonly damage: Damage;
  private readonly pages: PageLoader;
  private readonly windows: readonly [Uint8Array, Uint8Array];
  private readonly record = new RecordHeader();
  private readonly item = new ItemHeader();

  constructor(
    io: TaskIo,
    state: StoreState,
    superblock: Superblock,
    damage: Damage,
    pages: PageLoader,
    windows: readonly [Uint8Array, Uint8Array],
  ) {
    this.io = io;
    this.state = state;
    this.superblock = superblock;
    this.damage = damage;
    this.pages = pages;
    this.windows = windows;
    this.highestSeq = superblock.cutSeq;
  }

  *run(): Task<void> {
    const ends = [yield* this.findEnd(0), yield* this.findEnd(1)] as const;
    const cursors = [this.cursor(0), this.cursor(1)] as const;
    const alive = [false, false];
    for (const lane of [0, 1]) alive[lane] = yield* advance(cursors[lane]!, ends[lane]!);
    while (alive[0] || alive[1]) {
      const isHot =
        alive[0] && (!alive[1] || cursors[0].header.seq < cursors[1].header.seq) ? 0 : 1;
      const cursor = cursors[isHot];
      if (cursor.isAfterGap) yield* this.salvageGap(cursor, ends[isHot]);
      yield* this.applyBatch(cursor);
      this.batchCount += 1;
      alive[isHot] = yield* advance(cursor, ends[isHot]);
    }
    for (const cursor of cursors) for (const segment of cursor.visited) this.visited.add(segment);
  }

  private cursor(lane: 0 | 1): LogCursor {
    const identity = {
      lane,
      session: this.superblock.session,
      storeId: this.superblock.storeId,
    };
    const cut = this.superblock.cuts[lane];
    return new LogCursor(this.io, this.state.geometry, identity, cut, this.windows[lane]);
  }

  /** Number of the last batch of the lane to apply. */
  private *findEnd(lane: 0 | 1): Task<number> {
    const cursor = this.cursor(lane);
    let end = this.superblock.cuts[lane].seq;
    let durable = end;
    /** Numbers that must prove durable for the log to go on past them. */
    const problems: number[] = [];
    while (yield* cursor.next()) {
      const { header } = cursor;
      if (header.durableSeq > durable) durable = header.durableSeq;
      if (cursor.isAfterGap) problems.push(header.previousSeq);
      if (!cursor.isWhole) problems.push(header.seq);
      if (header.seq > this.highestSeq) this.highestSeq = header.seq;
      end = header.seq;
    }
    for (const problem of problems) {
      if (problem > durable) {
        // The torn end: nothing from here on was ever known durable.
        return yield* this.lastBefore(lane, problem);
      }
    }
    return end;
  }

  /** Number of the last batch before the first problem that is a torn end. */
  private *lastBefore(lane: 0 | 1, problem: number): Task<number> {
    const cursor = this.cursor(lane);
    let last = this.superblock.cuts[lane].seq;
    while (yield* cursor.next()) {
      if (cursor.isAfterGap && cursor.header.previousSeq >= problem) break;
      if (cursor.header.seq >= problem) break;
      last = cursor.header.seq;
    }
    return last;
  }

  private *applyBatch(cursor: LogCursor): Task<void> {
    const { header } = cursor;
    const end = cursor.at + header.lengthBytes - header.itemCount * DIRECTORY_ENTRY_BYTES;
    const directory = cursor.isWhole || this.directoryIsWhole(cursor) ? end : -1;
    if (!cursor.isWhole) {
      this.damage.add("batch", 0, 0, 0, cursor.segment, "a durable batch does not verify");
    }
    let at = cursor.at + BATCH_HEADER_BYTES;
    for (let number = 0; number < header.itemCount; number += 1) {
      const length = yield* this.applyItem(cursor, at, end, cursor.isWhole);
      if (length > 0) {
        at += length;
        continue;
      }
      if (directory < 0) {
        // Neither the item nor the directory says how long it is.
        this.damage.lostRecords += header.itemCount - number;
        return;
      }
      at += yield* this.applyFromDirectory(
        cursor,
        directory + number * DIRECTORY_ENTRY_BYTES,
        at,
        end,
      );
    }
  }

  private directoryIsWhole(cursor: LogCursor): boolean {
    const bytes = cursor.header.itemCount * DIRECTORY_ENTRY_BYTES;
    const at = cursor.at + cursor.header.lengthBytes - bytes;
    return cursor.header.directoryCheck === crc32(cursor.buffer, at, bytes);
  }

  /** Applies the item at `at`; its length, or 0 if its header does not verify. */
  private *applyItem(cursor: LogCursor, at: number, end: number, isWhole: boolean): Task<number> {
    const { buffer, view } = cursor;
    if (at + ITEM_HEADER_BYTES > end) return 0;
    if (decodeItemHeader(buffer, view, at, this.item)) {
      const length = ITEM_HEADER_BYTES + this.item.bodyBytes;
      if (at + length > end) return 0;
      const { kind, subject, number } = this.item;
      if (kind === ITEM_KIND.move) yield* this.applyMoves(cursor, at, isWhole);
      else applySnapshot(this.state, kind, subject, number);
      return length;
    }
    if (at + RECORD_HEADER_BYTES > end) return 0;
    const { record } = this;
    if (!decodeRecordHeader(buffer, view, at, record)) return 0;
    const length = RECORD_HEADER_BYTES + record.bodyBytes;
    if (at + length > end) return 0;
    yield* this.applyOne(cursor, at, length, isWhole);
    return length;
  }

  private *applyOne(cursor: LogCursor, at: number, length: number, isWhole: boolean): Task<void> {
    const { record, state } = this;
    const { buffer, view } = cursor;
    if (!isApplicable(state, record)) {
      this.damage.add(
        "record",
        record.volume,
        record.lba,
        record.blockCount,
        cursor.segment,
        "is of no volume of this store",
      );
      return;
    }
    if (!isWhole && record.type === RECORD_TYPE.meta) {
      const bodyAt = at + RECORD_HEADER_BYTES;
      if (crc32(buffer, bodyAt, record.bodyBytes) !== metaCheck(view, at)) {
        this.damage.lostRecords += 1;
        return;
      }
    }
    if (!isWhole && hasBlocks(record.type)) {
      this.checkBlocks(cursor, at + RECORD_HEADER_BYTES, record.volume, record.lba, length);
    }
    const volume = state.volume(record.volume);
    const isOfBlocks = record.type !== RECORD_TYPE.meta && record.type !== RECORD_TYPE.mark;
    if (isOfBlocks && volume !== undefined) {
      yield* this.pages.ready(volume, record.lba, record.blockCount);
    }
    applyRecord(state, record, buffer, view, at, cursor.placeAt(at));
  }

  /** Reports the blocks of a record that do not verify. */
  private checkBlocks(
    cursor: LogCursor,
    bodyAt: number,
    volume: number,
    lba: number,
    length: number,
  ): void {
    const count = (length - RECORD_HEADER_BYTES) / STORED_BLOCK_BYTES;
    for (let index = 0; index < count; index += 1) {
      const entryAt = bodyAt + index * STORED_BLOCK_BYTES;
      if (verifyEntry(cursor.buffer, cursor.view, entryAt, volume, lba + index)) continue;
      this.damage.add("block", volume, lba + index, 1, cursor.segment, "does not verify");
    }
  }

  private *applyMoves(cursor: LogCursor, at: number, isWhole: boolean): Task<void> {
    const { view, buffer } = cursor;
    const { item } = this;
    const count = item.number;
    let entryAt = at + ITEM_HEADER_BYTES;
    let sourceAt = entryAt + movedBytes(count);
    // A move that does not verify is not made: the block may still lie where it was.
    const isListed = isWhole || itemBodyIsWhole(buffer, at, item);
    for (let index = 0; index < count; index += 1) {
      const volume = ENTRY.volume.get(view, entryAt);
      const lba = ENTRY.lba.get(view, entryAt);
      const source = MOVE_SOURCE.place.get(view, sourceAt);
      if (!isListed || (!isWhole && !verifyEntry(buffer, view, entryAt, volume, lba))) {
        this.damage.add("block", 0, 0, 1, cursor.segment, "a moved block does not verify");
      } else if (source > LOST_PLACE) {
        const check = ENTRY.check.get(view, entryAt);
        yield* this.readyToMove(volume as VolumeId, lba);
        applyMove(this.state, volume, lba, source, cursor.placeAt(entryAt), check);
      }
      entryAt += STORED_BLOCK_BYTES;
      sourceAt += MOVE_SOURCE.sizeBytes;
    }
  }

  private *readyToMove(volume: VolumeId, lba: number): Task<void> {
    const { state, pages } = this;
    if (!state.pool.graveyard.isEmpty) yield* pages.settleGraves(volume, lba);
    const region = Math.floor(lba / REGION_BLOCKS);
    for (const version of state.versionsOf(volume)) {
      yield* pages.readyPage(version.pageOf(lba), volume, region);
    }
  }

  /** The item at `at` has no header any more; the directory says what it was. Its length. */
  private *applyFromDirectory(
    cursor: LogCursor,
    entryAt: number,
    at: number,
    end: number,
  ): Task<number> {
    const { view } = cursor;
    const type = DIRECTORY.type.get(view, entryAt);
    const volumeId = DIRECTORY.volume.get(view, entryAt);
    const count = DIRECTORY.count.get(view, entryAt);
    const lba =
      DIRECTORY.lbaLow.get(view, entryAt) + DIRECTORY.lbaHigh.get(view, entryAt) * 4294967296;
    // Items of the store's own: pages are checked when they are loaded, moves are not made.
    if (type >= 128) {
      applySnapshot(this.state, type - 128, volumeId, lba);
      return ITEM_HEADER_BYTES + count;
    }
    this.damage.add("record", volumeId, lba, count, cursor.segment, "its header does not verify");
    if (type === RECORD_TYPE.meta) {
      this.damage.lostRecords += 1;
      return RECORD_HEADER_BYTES + count;
    }
    const length = RECORD_HEADER_BYTES + (hasBlocks(type) ? count * STORED_BLOCK_BYTES : 0);
    const volume = this.state.volume(volumeId as VolumeId);
    if (count === 0 || volume === undefined || lba + count > volume.blocks) return length;
    yield* this.pages.ready(volume, lba, count);
    if (hasBlocks(type)) {
      if (at + length > end) return length;
      applyBlocks(volume, lba, count, view, at, cursor.placeAt(at));
      this.checkBlocks(cursor, at + RECORD_HEADER_BYTES, volumeId, lba, length);
    } else if (type !== RECORD_TYPE.copyLost || count <= LIMITS.recordBlocksMax) {
      applyEmpty(volume, type, lba, count);
    }
    // Its tag is gone: it changed as late as can be.
    volume.tagRange(lba, count, Math.max(1, this.state.streamEpoch), POINT_MAX);
    return length;
  }

  /**
   * Batches before the cursor's lost their headers, though they were durable. Their items are
   * looked for where they must begin and applied one by one as far as their own headers go.
   */
  private *salvageGap(cursor: LogCursor, _end: number): Task<void> {
    const { header, gapSegment, gapOffset } = cursor;
    this.damage.add("batch", 0, 0, 0, gapSegment, "the header of a durable batch does not verify");
    const isSameSegment = cursor.segment === gapSegment;
    const batchOffset = header.place * PLACE_UNIT - this.state.geometry.offsetOf(cursor.segment);
    const stop = isSameSegment ? batchOffset : this.state.geometry.segmentBytes;
    const isWhole = yield* this.salvage(cursor, gapSegment, gapOffset, stop);
    if (!isWhole) this.damage.lostRecords += 1;
    const at = yield* cursor.ensure(cursor.segment, batchOffset, header.lengthBytes);
    cursor.at = at;
  }

  /** Walks the items from a batch's start; true if they end with a directory that names them. */
  private *salvage(
    cursor: LogCursor,
    segment: number,
    offset: number,
    stop: number,
  ): Task<boolean> {
    for (const start of offset % 4096 === 0
      ? [offset]
      : [offset, offset + 4096 - (offset % 4096)]) {
      const length = Math.min(stop - start, cursor.buffer.length - 8192);
      if (length <= BATCH_HEADER_BYTES) continue;
      const base = yield* cursor.ensure(segment, start, length);
      const end = base + length;
      let at = base + BATCH_HEADER_BYTES;
      let count = 0;
      for (;;) {
        const step = yield* this.applyItem(cursor, at, end, false);
        if (step === 0) break;
        at += step;
        count += 1;
      }
      if (count === 0) continue;
      const isNamed = this.namesAll(cursor, base + BATCH_HEADER_BYTES, at, count, end);
      // Two headers lost in a row: the second batch is not found again.
      const batchEnd = start + at - base + count * DIRECTORY_ENTRY_BYTES;
      const isLast = stop - batchEnd < 4096 || stop === this.state.geometry.segmentBytes;
      return isNamed && isLast;
    }
    return false;
  }

  /** True if `count` directory entries at `at` tell the lengths of the items before it. */
  private namesAll(
    cursor: LogCursor,
    from: number,
    at: number,
    count: number,
    end: number,
  ): boolean {
    if (at + count * DIRECTORY_ENTRY_BYTES > end) return false;
    let length = 0;
    const view = viewOf(cursor.buffer);
    for (let index = 0; index < count; index += 1) {
      const entryAt = at + index * DIRECTORY_ENTRY_BYTES;
      const type = DIRECTORY.type.get(view, entryAt);
      const blocks = DIRECTORY.count.get(view, entryAt);
      if (type >= 128) length += ITEM_HEADER_BYTES + blocks;
      else if (hasBlocks(type)) length += RECORD_HEADER_BYTES + blocks * STORED_BLOCK_BYTES;
      else length += RECORD_HEADER_BYTES + (type === RECORD_TYPE.meta ? blocks : 0);
    }
    return length === at - from;
  }
}

function* advance(cursor: LogCursor, end: number): Task<boolean> {
  if (!(yield* cursor.next())) return false;
  return cursor.header.seq <= end;
}

function metaCheck(view: DataView, at: number): number {
  return view.getUint32(at + RECORD_HEADER_BYTES - 4, true);
}

/**
 * Moves what is live out of a segment, so that the segment becomes free.
 *
 * It finds live blocks by asking the index: at every multiple of 16 bytes an entry may begin; if
 * any version of the volume says that the block it names lies exactly there, it is live. So it
 * needs no log structure, and damage in one record does not hide the others. Moved blocks keep
 * their bytes, checksums and age, and go to the cold lane: apart from what clients write now.
 *
 * Pages of the newest checkpoint that have not changed since are copied as they lie, and the
 * nodes that hold them are written anew by the next checkpoint.
 *
 * A block that does not verify is left where it is and reported; its segment stays until the
 * block was healed or overwritten.
 */
import { viewOf } from "../format/layout.ts";
import { ENTRY, STORED_BLOCK_BYTES, verifyEntry } from "../format/record.ts";
import {
  decodeItemHeader,
  encodeItemHeader,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
  ITEM_MAGIC,
  ItemHeader,
  itemBodyIsWhole,
  MOVE_SOURCE,
  moveBodyBytes,
  movedBytes,
  PLACE_UNIT,
} from "../format/segment.ts";
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { applyMove, STORED_BLOCK_PLACES } from "./apply.ts";
import { PAGE_ITEM_BYTES_MAX } from "./checkpoint_items.ts";
import { NO_PAGE } from "./index_node.ts";
import type { LogWriter } from "./log_writer.ts";
import type { StoreState } from "./state.ts";
import type { PageCache } from "./page_cache.ts";
import { type Task, type TaskIo, WAIT } from "./task.ts";
import { HEAD, type VolumeIndex } from "./volume_index.ts";

/** Bytes read in one turn. */
const WINDOW_BYTES = 256 * 1024;
/** Blocks in one move item. */
const MOVE_BLOCKS_MAX = 60;
const SCAN_BLOCKS_MAX = Math.ceil((WINDOW_BYTES + 8192) / STORED_BLOCK_BYTES) + 1;

export class Cleaner {
  /** The store is closing: end at the next window. */
  isStopping = false;
  segmentsCleaned = 0;
  movedBlocks = 0;
  private readonly io: TaskIo;
  private readonly state: StoreState;
  private readonly writer: LogWriter;
  private readonly cache: PageCache;
  private readonly buffer: Uint8Array;
  private readonly view: DataView;
  private readonly words: Uint32Array;
  /** 1 at the low 16 bits of every volume's id: what cannot be an entry is passed over fast. */
  private readonly isVolume = new Uint8Array(65536);
  private readonly report: (volume: VolumeId, lba: number, why: string) => void;
  private readonly verifies: boolean;
  /** Positions of live blocks in the window. */
  private readonly found = new Int32Array(SCAN_BLOCKS_MAX);
  private foundCount = 0;
  /** Positions where a live entry begins, or may. */
  private readonly candidates = new Int32Array((WINDOW_BYTES + 8192) / PLACE_UNIT);
  private candidateCount = 0;
  /** Positions of pages of the newest checkpoint in the window. */
  private readonly foundPages: number[] = [];
  private readonly item = new ItemHeader();

  constructor(
    io: TaskIo,
    state: StoreState,
    writer: LogWriter,
    cache: PageCache,
    verifies: boolean,
    report: (volume: VolumeId, lba: number, why: string) => void,
  ) {
    this.io = io;
    this.state = state;
    this.writer = writer;
    this.cache = cache;
    this.verifies = verifies;
    this.report = report;
    this.buffer = io.disk.allocate(WINDOW_BYTES + 8192);
    this.view = viewOf(this.buffer);
    this.words = new Uint32Array(
      this.buffer.buffer,
      this.buffer.byteOffset,
      this.buffer.byteLength / 4,
    );
  }

  /** Empties one segment. */
  *clean(segment: number): Task<void> {
    const { geometry, segments } = this.state;
    const start = geometry.offsetOf(segment);
    const end = start + geometry.segmentBytes;
    this.isVolume.fill(0);
    for (const id of this.state.volumes.keys()) this.isVolume[id & 0xffff] = 1;
    let position = start;
    while (position < end && this.isWorth(segment)) {
      // A checkpoint must come first when many pages are dirty; the rest is cleaned after it.
      if (this.isStopping || this.state.pool.clock.wantsCheckpoint) return;
      const windowStart = position - (position % 4096);
      const length = Math.min(this.buffer.length, end - windowStart);
      const isWhole = (yield* this.io.read(windowStart, this.buffer, 0, length)) === length;
      if (!isWhole) yield* this.readPages(windowStart, length);
      const stop = yield* this.scan(
        windowStart,
        position - windowStart,
        length,
        windowStart + length === end,
      );
      yield* this.move(segment, windowStart);
      yield* this.movePages(segment, windowStart);
      position = windowStart + stop;
      yield WAIT.turn;
    }
    this.segmentsCleaned += 1;
    // What is left could not be found or read; do not come here again for nothing. Unless it is
    // about to be given up.
    if (!this.state.pool.graveyard.isEmpty) return;
    if (segments.liveBlocks[segment] !== 0) segments.stuck[segment] = 1;
    else if (segments.liveMeta[segment] !== 0) segments.cleaned[segment] = 1;
  }

  private isWorth(segment: number): boolean {
    const { segments } = this.state;
    return segments.liveBlocks[segment] !== 0 || segments.liveMeta[segment] !== 0;
  }

  private *readPages(offset: number, length: number): Task<void> {
    for (let at = 0; at < length; at += 4096) {
      const got = yield* this.io.read(offset + at, this.buffer, at, 4096);
      if (got !== 4096) this.buffer.fill(0, at, at + 4096);
    }
  }

  /**
   * Notes the live blocks of the window from `from` on; returns where the next window begins (in
   * this one): the first position whose block might not be in it as a whole.
   */
  private *scan(windowStart: number, from: number, length: number, isLast: boolean): Task<number> {
    const next = this.findCandidates(windowStart, from, length, isLast);
    let foundCount = 0;
    let skipTo = from;
    for (let index = 0; index < this.candidateCount; index += 1) {
      const at = this.candidates[index]!;
      if (at < skipTo) continue;
      while (!this.isReady(at)) yield WAIT.page;
      if (this.versionOf(windowStart, at) === null) continue;
      this.found[foundCount] = at;
      foundCount += 1;
      skipTo = at + STORED_BLOCK_BYTES;
    }
    this.foundCount = foundCount;
    return isLast ? length : Math.max(next, skipTo);
  }

  /**
   * Notes where live entries begin, or may: those of which the index is not in memory are on their
   * way all together when the first is waited for. Returns the first position not looked at.
   */
  private findCandidates(
    windowStart: number,
    from: number,
    length: number,
    isLast: boolean,
  ): number {
    const { words, isVolume, candidates } = this;
    this.foundPages.length = 0;
    let count = 0;
    const last = length - STORED_BLOCK_BYTES;
    const stop = isLast ? length - ITEM_HEADER_BYTES : length - PAGE_ITEM_BYTES_MAX;
    let at = from;
    while (at <= stop) {
      const word = at >>> 2;
      if (words[word] === ITEM_MAGIC) this.noteItem(windowStart, at, length);
      let step = PLACE_UNIT;
      // The second word of an entry is its volume (ENTRY.volume.at = 4).
      if (isVolume[words[word + 1]! & 0xffff] === 1 && at <= last) {
        const isReady = this.isReady(at);
        const isLive = isReady && this.versionOf(windowStart, at) !== null;
        if (isLive) step = STORED_BLOCK_BYTES;
        if (isLive || !isReady) {
          candidates[count] = at;
          count += 1;
        }
      }
      at += step;
    }
    this.candidateCount = count;
    return at;
  }

  /** True if all that the index says of the block named at `at` is in memory; else on its way. */
  private isReady(at: number): boolean {
    while (!this.isThere(at)) if (!this.bring(at)) return false;
    return true;
  }

  private isThere(at: number): boolean {
    const lba = this.lbaAt(at);
    const versions = this.versionsAt(at);
    const { pool } = this.state;
    for (let index = 0; index < versions.length; index += 1) {
      if (!pool.isThere(versions[index]!.pageOf(lba))) return false;
    }
    return true;
  }

  /** False if a page must be waited for. One that came at once may have taken another's place. */
  private bring(at: number): boolean {
    const lba = this.lbaAt(at);
    let isThere = true;
    for (const version of this.versionsAt(at)) {
      if (!this.cache.bring(version, lba)) isThere = false;
    }
    return isThere;
  }

  /** The versions of the volume that the entry at `at` names (ENTRY.volume.at = 4). */
  private versionsAt(at: number): readonly VolumeIndex[] {
    return this.state.versionsOf(this.words[(at >>> 2) + 1]!);
  }

  /** The block that the entry at `at` names (ENTRY.lba.at = 8); it may be anything. */
  private lbaAt(at: number): number {
    const word = (at >>> 2) + 2;
    return this.words[word]! + this.words[word + 1]! * 4294967296;
  }

  /** A version of its volume that says that the block named at `at` lies there; null if none. */
  private versionOf(windowStart: number, at: number): VolumeIndex | null {
    const place = (windowStart + at) / PLACE_UNIT;
    const lba = this.lbaAt(at);
    const versions = this.versionsAt(at);
    for (let index = 0; index < versions.length; index += 1) {
      const version = versions[index] as VolumeIndex;
      if (version.placeAt(lba) === place) return version;
    }
    return null;
  }

  /** A page or node of the newest checkpoint. A node is simply written anew by the next one. */
  private noteItem(windowStart: number, at: number, length: number): void {
    const { item, state } = this;
    if (!decodeItemHeader(this.buffer, this.view, at, item)) return;
    if (item.kind === ITEM_KIND.page) {
      const isInside = at + ITEM_HEADER_BYTES + item.bodyBytes <= length;
      if (isInside && this.pageAt(windowStart, at) !== NO_PAGE) this.foundPages.push(at);
    } else if (item.kind === ITEM_KIND.node) {
      const place = (windowStart + at) / PLACE_UNIT;
      for (const version of state.versionsOf(item.subject)) {
        const node = version.nodes[item.number];
        if (node && node.place === place) state.pool.touchNode(node);
      }
    }
  }

  /** The page whose stored version is the item at `at`, its header in `item`. */
  private pageAt(windowStart: number, at: number): number {
    const place = (windowStart + at) / PLACE_UNIT;
    const { places } = this.state.pool.pages;
    for (const version of this.state.versionsOf(this.item.subject)) {
      const page = version.pageOf(this.item.number * REGION_BLOCKS);
      if (page !== NO_PAGE && places[page] === place) return page;
    }
    return NO_PAGE;
  }

  private *movePages(segment: number, windowStart: number): Task<void> {
    for (const at of this.foundPages) {
      decodeItemHeader(this.buffer, this.view, at, this.item);
      this.io.roomBytes = ITEM_HEADER_BYTES + this.item.bodyBytes;
      yield WAIT.room;
      this.movePage(segment, windowStart, at);
    }
  }

  /** Copies a page as it lies, unless the next checkpoint writes it anyway. */
  private movePage(segment: number, windowStart: number, at: number): void {
    const { item, state } = this;
    const { pool } = state;
    decodeItemHeader(this.buffer, this.view, at, item);
    const page = this.pageAt(windowStart, at);
    if (page === NO_PAGE || pool.pages.dirty[page] === 1) return;
    for (const version of state.versionsOf(item.subject)) {
      const lba = item.number * REGION_BLOCKS;
      if (version.pageOf(lba) === page) version.touchNodeOf(lba);
    }
    if (!itemBodyIsWhole(this.buffer, at, item)) {
      // Written anew from memory; if it is not there, it is found lost now rather than later.
      if (pool.isThere(page)) pool.pages.markDirty(page);
      else this.cache.bringPage(page, item.subject as VolumeId, item.number);
      return;
    }
    const { cold } = this.writer;
    const length = ITEM_HEADER_BYTES + item.bodyBytes;
    cold.reserve(length, false);
    cold.itemBatch.buffer.set(this.buffer.subarray(at, at + length), cold.itemAt);
    const stamp = state.segments.stamp[segment]!;
    cold.commit(128 + item.kind, item.subject, 0, item.bodyBytes, length, stamp);
    this.writer.noteAppended();
    state.segments.addMeta(cold.itemPlace, length);
    pool.retire(pool.pages.places[page]!, pool.pages.units[page]! * PLACE_UNIT);
    pool.pages.places[page] = cold.itemPlace;
  }

  private *move(segment: number, windowStart: number): Task<void> {
    const lane = this.writer.cold;
    let index = 0;
    while (index < this.foundCount) {
      const fitting = blocksIn(lane.spaceLeft);
      const most = Math.min(blocksIn(lane.itemBytesMax), this.blocksAtOnce);
      const count = Math.min(
        this.foundCount - index,
        MOVE_BLOCKS_MAX,
        fitting >= 1 ? Math.min(fitting, most) : most,
      );
      const bytes = ITEM_HEADER_BYTES + moveBodyBytes(count);
      while (!this.areReady(index, count)) yield WAIT.page;
      if (lane.room(bytes, 0) !== 0) {
        this.io.roomBytes = bytes;
        yield WAIT.room;
        // Pages may have gone meanwhile.
        continue;
      }
      this.moveSome(segment, windowStart, index, count);
      index += count;
    }
  }

  /** Blocks of which all pages fit into memory together, whatever else is there. */
  private get blocksAtOnce(): number {
    let versions = 1;
    for (const id of this.state.volumes.keys()) {
      versions = Math.max(versions, this.state.versionsOf(id).length);
    }
    return Math.max(1, Math.floor(this.state.pool.clock.limit / (4 * versions)));
  }

  private areReady(from: number, count: number): boolean {
    for (;;) {
      let areThere = true;
      let mustWait = false;
      for (let index = from; index < from + count; index += 1) {
        const at = this.found[index]!;
        if (this.isThere(at)) continue;
        areThere = false;
        if (!this.bring(at)) mustWait = true;
      }
      if (areThere || mustWait) return areThere;
    }
  }

  /** Moves those of `count` blocks that are still live; clients may have written meanwhile. */
  private moveSome(segment: number, windowStart: number, from: number, count: number): void {
    // What was given up meanwhile must be counted as dead before what it shared is moved.
    if (!this.state.pool.graveyard.isEmpty) return;
    let kept = 0;
    for (let index = from; index < from + count; index += 1) {
      const at = this.found[index]!;
      const version = this.versionOf(windowStart, at);
      if (version === null || !this.isGood(version, at)) continue;
      this.found[from + kept] = at;
      kept += 1;
    }
    if (kept === 0) return;
    const { cold } = this.writer;
    const { item } = this;
    item.kind = ITEM_KIND.move;
    item.form = 0;
    item.count = 0;
    item.bodyBytes = moveBodyBytes(kept);
    item.subject = segment;
    item.number = kept;
    const length = ITEM_HEADER_BYTES + item.bodyBytes;
    cold.reserve(length, false);
    const { buffer, view } = cold.itemBatch;
    let at = cold.itemAt + ITEM_HEADER_BYTES;
    let sourceAt = at + movedBytes(kept);
    buffer.fill(0, sourceAt, cold.itemAt + length);
    for (let index = from; index < from + kept; index += 1) {
      const source = this.found[index]!;
      buffer.set(this.buffer.subarray(source, source + STORED_BLOCK_BYTES), at);
      MOVE_SOURCE.place.set(view, sourceAt, (windowStart + source) / PLACE_UNIT);
      at += STORED_BLOCK_BYTES;
      sourceAt += MOVE_SOURCE.sizeBytes;
    }
    encodeItemHeader(buffer, view, cold.itemAt, item);
    const stamp = this.state.segments.stamp[segment]!;
    cold.commit(128 + ITEM_KIND.move, segment, 0, item.bodyBytes, length, stamp);
    this.writer.noteAppended();
    this.point(windowStart, cold.itemPlace, from, kept);
    this.movedBlocks += kept;
  }

  /** Points the index at the moved blocks. */
  private point(windowStart: number, itemPlace: number, from: number, count: number): void {
    let place = itemPlace + ITEM_HEADER_BYTES / PLACE_UNIT;
    for (let index = from; index < from + count; index += 1) {
      const at = this.found[index]!;
      const volume = ENTRY.volume.get(this.view, at);
      const lba = ENTRY.lba.get(this.view, at);
      const check = ENTRY.check.get(this.view, at);
      applyMove(this.state, volume, lba, (windowStart + at) / PLACE_UNIT, place, check);
      place += STORED_BLOCK_PLACES;
    }
  }

  private isGood(version: VolumeIndex, at: number): boolean {
    if (!this.verifies) return true;
    const { id } = version;
    const lba = ENTRY.lba.get(this.view, at);
    const isWhole = verifyEntry(this.buffer, this.view, at, id, lba);
    if (isWhole && version.checkAt(lba) === (ENTRY.check.get(this.view, at) & 0xffff)) return true;
    if (version.snapshot === HEAD)
      this.report(id, lba, "its checksum does not match (found by the cleaner)");
    return false;
  }
}

/** Blocks that a move item of at most so many bytes can hold. */
function blocksIn(bytes: number): number {
  const room = bytes - ITEM_HEADER_BYTES - MOVE_SOURCE.sizeBytes;
  return Math.floor(room / (STORED_BLOCK_BYTES + MOVE_SOURCE.sizeBytes));
}

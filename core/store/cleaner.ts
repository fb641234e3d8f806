/**
 * Moves what is live out of a segment, so that the segment becomes free.
 *
 * It finds live blocks by asking the index: at every multiple of 16 bytes an entry may begin; if
 * the index says that the block it names lies exactly there, it is live. So it needs no log
 * structure, and damage in one record does not hide the others. Moved blocks keep their bytes,
 * checksums and age, and go to the cold lane: apart from what clients write now.
 *
 * A block that does not verify is left where it is and reported; its segment stays until the
 * block was healed or overwritten.
 */
import { viewOf } from "../format/layout.ts";
import { ENTRY, STORED_BLOCK_BYTES, verifyEntry } from "../format/record.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import {
  decodeItemHeader,
  encodeItemHeader,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
  ITEM_MAGIC,
  ItemHeader,
  PLACE_UNIT,
} from "../format/segment.ts";
import type { VolumeId } from "../base/units.ts";
import type { LogWriter } from "./log_writer.ts";
import type { StoreState } from "./state.ts";
import { type Task, type TaskIo, WAIT } from "./task.ts";

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
  private readonly item = new ItemHeader();

  constructor(
    io: TaskIo,
    state: StoreState,
    writer: LogWriter,
    verifies: boolean,
    report: (volume: VolumeId, lba: number, why: string) => void,
  ) {
    this.io = io;
    this.state = state;
    this.writer = writer;
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
      if (this.isStopping) return;
      const windowStart = position - (position % 4096);
      const length = Math.min(this.buffer.length, end - windowStart);
      const isWhole = (yield* this.io.read(windowStart, this.buffer, 0, length)) === length;
      if (!isWhole) yield* this.readPages(windowStart, length);
      const stop = this.scan(
        windowStart,
        position - windowStart,
        length,
        windowStart + length === end,
      );
      yield* this.move(segment, windowStart);
      position = windowStart + stop;
      yield WAIT.turn;
    }
    this.segmentsCleaned += 1;
    // What is left could not be found or read; do not come here again for nothing.
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
  private scan(windowStart: number, from: number, length: number, isLast: boolean): number {
    this.foundCount = 0;
    const { words, isVolume } = this;
    const last = length - STORED_BLOCK_BYTES;
    let at = from;
    while (at <= (isLast ? length - ITEM_HEADER_BYTES : last)) {
      const word = at >>> 2;
      if (words[word] === ITEM_MAGIC) this.noteItem(windowStart, at);
      // The second word of an entry is its volume (ENTRY.volume.at = 4).
      if (isVolume[words[word + 1]! & 0xffff] === 1 && at <= last && this.isLive(windowStart, at)) {
        this.found[this.foundCount] = at;
        this.foundCount += 1;
        at += STORED_BLOCK_BYTES;
      } else {
        at += PLACE_UNIT;
      }
    }
    return isLast ? length : at;
  }

  private isLive(windowStart: number, at: number): boolean {
    const volume = this.state.volume(ENTRY.volume.get(this.view, at));
    if (volume === undefined) return false;
    const lba = ENTRY.lba.get(this.view, at);
    if (lba < 0 || lba >= volume.blocks) return false;
    return volume.placeAt(lba) === (windowStart + at) / PLACE_UNIT;
  }

  /** A page or node of the newest checkpoint: it must be written anew by the next one. */
  private noteItem(windowStart: number, at: number): void {
    const { item, state } = this;
    if (!decodeItemHeader(this.buffer, this.view, at, item)) return;
    const volume = state.volume(item.subject);
    if (volume === undefined) return;
    const place = (windowStart + at) / PLACE_UNIT;
    if (item.kind === ITEM_KIND.page) {
      const node = volume.nodes[Math.floor(item.number / NODE_REGIONS)];
      const region = item.number % NODE_REGIONS;
      if (node && node.pagePlaces[region] === place) volume.markChanged(node, region);
    } else if (item.kind === ITEM_KIND.node) {
      const node = volume.nodes[item.number];
      if (node && node.place === place) volume.touch(node);
    }
  }

  private *move(segment: number, windowStart: number): Task<void> {
    const lane = this.writer.cold;
    let index = 0;
    while (index < this.foundCount) {
      const left = lane.spaceLeft;
      const fitting = Math.floor((left - ITEM_HEADER_BYTES) / STORED_BLOCK_BYTES);
      const most = Math.floor((lane.itemBytesMax - ITEM_HEADER_BYTES) / STORED_BLOCK_BYTES);
      const count = Math.min(
        this.foundCount - index,
        MOVE_BLOCKS_MAX,
        fitting >= 1 ? Math.min(fitting, most) : most,
      );
      const bytes = ITEM_HEADER_BYTES + count * STORED_BLOCK_BYTES;
      if (lane.room(bytes, 0) !== 0) {
        this.io.roomBytes = bytes;
        yield WAIT.room;
      }
      this.moveSome(segment, windowStart, index, count);
      index += count;
    }
  }

  /** Moves those of `count` blocks that are still live; clients may have written meanwhile. */
  private moveSome(segment: number, windowStart: number, from: number, count: number): void {
    let kept = 0;
    for (let index = from; index < from + count; index += 1) {
      const at = this.found[index]!;
      if (!this.isLive(windowStart, at) || !this.isGood(at)) continue;
      this.found[from + kept] = at;
      kept += 1;
    }
    if (kept === 0) return;
    const { cold } = this.writer;
    const length = ITEM_HEADER_BYTES + kept * STORED_BLOCK_BYTES;
    cold.reserve(length, false);
    const { buffer, view } = cold.itemBatch;
    let at = cold.itemAt + ITEM_HEADER_BYTES;
    for (let index = from; index < from + kept; index += 1) {
      const source = this.found[index]!;
      buffer.set(this.buffer.subarray(source, source + STORED_BLOCK_BYTES), at);
      at += STORED_BLOCK_BYTES;
    }
    const { item } = this;
    item.kind = ITEM_KIND.move;
    item.form = 0;
    item.count = 0;
    item.bodyBytes = kept * STORED_BLOCK_BYTES;
    item.subject = segment;
    item.number = 0;
    encodeItemHeader(buffer, view, cold.itemAt, item);
    const stamp = this.state.segments.stamp[segment]!;
    cold.commit(128 + ITEM_KIND.move, segment, 0, item.bodyBytes, length, stamp);
    this.writer.noteAppended();
    this.point(cold.itemPlace, from, kept);
    this.movedBlocks += kept;
  }

  /** Points the index at the moved blocks. */
  private point(itemPlace: number, from: number, count: number): void {
    let place = itemPlace + ITEM_HEADER_BYTES / PLACE_UNIT;
    for (let index = from; index < from + count; index += 1) {
      const at = this.found[index]!;
      const volume = this.state.volume(ENTRY.volume.get(this.view, at));
      const check = ENTRY.check.get(this.view, at) & 0xffff;
      volume?.set(ENTRY.lba.get(this.view, at), place, check);
      place += STORED_BLOCK_BYTES / PLACE_UNIT;
    }
  }

  private isGood(at: number): boolean {
    if (!this.verifies) return true;
    const volumeId = ENTRY.volume.get(this.view, at);
    const lba = ENTRY.lba.get(this.view, at);
    const volume = this.state.volume(volumeId);
    const isWhole = verifyEntry(this.buffer, this.view, at, volumeId, lba);
    if (isWhole && volume?.checkAt(lba) === (ENTRY.check.get(this.view, at) & 0xffff)) return true;
    this.report(volumeId as VolumeId, lba, "its checksum does not match (found by the cleaner)");
    return false;
  }
}

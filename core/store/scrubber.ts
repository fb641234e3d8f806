/**
 * The scrub: reads every block of every volume from the medium, past the page cache, and verifies
 * it, so that rot is found while a mirror still has a good copy. (Schwarz et al., "Disk Scrubbing
 * in Large Archival Storage Systems", MASCOTS 2004; Bairavasundaram et al., "An Analysis of Latent
 * Sector Errors in Disk Drives", SIGMETRICS 2007: most are found by scrubbing.)
 *
 *   waiting --a pass is due--> region --places, sorted--> window --read, verified--> next region
 *      ^                                                                                |
 *      +----------------------------- last region: pass ends ---------------------------+
 *
 * Region by region, since the index knows what must be there: what lies on the medium is not asked
 * what it is. A region's blocks are read in the order in which they lie, neighbours in one window.
 *
 * Invariants:
 *  1. One read at a time, at most `WINDOW_BYTES`; no more than the rate allows; clients go first.
 *  2. A block is called bad only if the index still points at the place that was read.
 *  3. Where it is survives restarts, give or take `SAVE_MS`; so does that blocks were forgotten.
 */
import { decode, encode } from "../format/codec.ts";
import { ENTRY, STORED_BLOCK_BYTES, verifyEntry } from "../format/record.ts";
import { SCRUB_SLOT, SCRUB_STATE, type ScrubState } from "../format/scrub.ts";
import { PLACE_UNIT } from "../format/segment.ts";
import { type Disk, MEDIUM_ALIGN, type Trace } from "../base/ports.ts";
import { MIB, REGION_BLOCKS, roundUp, type VolumeId } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import type { ScrubOptions, ScrubStats, StoreOptions } from "./contract.ts";
import type { Checkpointer } from "./checkpointer.ts";
import { type DiskOps, OP } from "./disk_ops.ts";
import type { LogWriter } from "./log_writer.ts";
import type { PageCache } from "./page_cache.ts";
import { PlacedBlocks } from "./placed_blocks.ts";
import { type ScrubItem, ScrubItems } from "./scrub_items.ts";
import type { StoreState } from "./state.ts";
import { ABSENT_PLACE, HOLE_PLACE, LOST_PLACE } from "./index_pool.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** Bytes of one read, and of a gap between blocks that is read along. */
const WINDOW_BYTES = 128 * 1024;
const GAP_BYTES = 16 * 1024;
/**
 * A read waits so long for a moment in which nothing else was at the disk for `QUIET_MS` (a client
 * with one request at a time comes back sooner than that), looking so often.
 */
const GIVE_WAY_MS_MAX = 250;
const QUIET_MS = 5;
const LOOK_MS = 10;
/** What a late timer may be made good for; a wait for clients is not. */
const CREDIT_MS = 20;
/** How often the cursor is saved. */
const SAVE_MS = 60_000;
/** Without a configured rate a pass takes half the time between passes, within these bounds. */
const RATE_MIN = MIB;
const RATE_MAX = 32 * MIB;
const BLOCKS_PER_TURN = 4 * REGION_BLOCKS;

interface ScrubberParts {
  readonly disk: Disk;
  readonly ops: DiskOps;
  readonly state: StoreState;
  readonly writer: LogWriter;
  readonly checkpointer: Checkpointer;
  readonly cache: PageCache;
  readonly trace: Trace;
  report(volume: VolumeId, lba: number, why: string): void;
  save(bytes: Uint8Array): void;
}

export class Scrubber {
  /** Its owner has enough bad blocks to heal: it waits. */
  isHeld = false;
  private readonly parts: ScrubberParts;
  private readonly options: ScrubOptions;
  private rate: number | null;
  private readonly at: ScrubState;
  private readonly buffer: Uint8Array;
  private readonly view: DataView;
  /** The region at hand: blocks that are on disk, sorted by place. */
  private volume: VolumeIndex | null = null;
  private readonly items: ScrubItems;
  /** The item that is being read instead of blocks. */
  private item: ScrubItem | null = null;
  private hasAddedRoots = false;
  private readonly blocks = new PlacedBlocks();
  private next = 0;
  /** The window being read: blocks [next, windowEnd), and where on disk. */
  private windowEnd = 0;
  private windowOffset = 0;
  private windowBytes = 0;
  private isReading = false;
  private pinned = 0;
  /** Blocks below this one of the region are read one by one: a read of several failed. */
  private singleUntil = 0;
  private dueMs = 0;
  private lookMs = 0;
  private busyMs = 0;
  private savedMs = 0;
  private passBad = 0;
  private isWanted = false;

  /** The scrub of a store, going on where it was; null if the store is to have none. */
  static of(parts: ScrubberParts, options: StoreOptions): Scrubber | null {
    if (options.scrub === undefined) return null;
    return new Scrubber(parts, options.scrub, parts.state.metas[SCRUB_SLOT] ?? null);
  }

  constructor(parts: ScrubberParts, options: ScrubOptions, saved: Uint8Array | null) {
    this.parts = parts;
    this.options = options;
    this.rate = options.bytesPerSecond;
    this.items = new ScrubItems(parts.state, parts.writer, parts.checkpointer, parts.trace);
    const found = saved === null ? null : decode(SCRUB_STATE, saved);
    this.at = found ?? {
      volume: 0,
      region: 0,
      isSearching: 0,
      passes: 0,
      // A new store has nothing that could have rotted.
      beganMs: this.wallMs,
      endedMs: 0,
      passBlocks: 0,
      checkedBlocks: 0,
      badBlocks: 0,
    };
    this.buffer = parts.disk.allocate(WINDOW_BYTES + 2 * MEDIUM_ALIGN);
    this.view = viewOf(this.buffer);
    this.savedMs = found === null ? Number.NEGATIVE_INFINITY : parts.ops.nowMs;
    // What is due waits for the start to be over.
    this.dueMs = parts.ops.nowMs + LOOK_MS;
  }

  /** Bytes per second; 0 stops it, null chooses. */
  setRate(bytesPerSecond: number | null): void {
    this.rate = bytesPerSecond;
    this.dueMs = this.parts.ops.nowMs;
  }

  /** A pass begins now, unless one is under way. */
  begin(): void {
    this.isWanted = true;
    this.dueMs = this.parts.ops.nowMs;
  }

  /** Bad blocks were reported and forgotten: a pass begins now, at the highest rate. */
  again(): void {
    this.at.isSearching = 1;
    this.endPass(false);
    this.dueMs = this.parts.ops.nowMs;
  }

  /** `isBusy`: clients or tasks have operations at the disk. Called once per settle. */
  settle(isBusy: boolean): void {
    const { nowMs } = this.parts.ops;
    if (isBusy && !this.isReading) this.busyMs = nowMs;
    if (this.isReading || this.isHeld || this.rate === 0 || nowMs < this.lookMs) return;
    if (nowMs < this.dueMs) return;
    if (this.at.volume === 0 && !this.beginPass()) return;
    if (nowMs < this.busyMs + QUIET_MS && nowMs < this.dueMs + GIVE_WAY_MS_MAX) {
      this.lookMs = nowMs + LOOK_MS;
      return;
    }
    const { volume, next, blocks } = this;
    if (volume !== null && next < blocks.count && !this.bring(volume, blocks.lbas[next]!)) return;
    if (this.findWork()) this.readWindow();
  }

  /** False while the index of a block is on its way into memory. */
  private bring(volume: VolumeIndex, lba: number): boolean {
    if (this.parts.cache.bring(volume, lba)) return true;
    this.lookMs = this.parts.ops.nowMs + 1;
    return false;
  }

  nextDeadlineMs(): number {
    if (this.isReading || this.isHeld || this.rate === 0) return Number.POSITIVE_INFINITY;
    return Math.max(this.dueMs, this.lookMs);
  }

  /** Saves the cursor: the store is closing. */
  close(): void {
    this.save();
  }

  stats(): ScrubStats {
    const { at } = this;
    const used = Math.max(1, this.usedBlocks);
    const isRunning = at.volume !== 0 && this.rate !== 0;
    return {
      bytesPerSecond: this.bytesPerSecond,
      isRunning,
      share: isRunning ? Math.min(1, at.passBlocks / used) : 0,
      passes: at.passes,
      endedMs: at.endedMs,
      checkedBlocks: at.checkedBlocks,
      badBlocks: at.badBlocks,
      readsMedium: this.parts.disk.readsMedium,
    };
  }

  private get wallMs(): number {
    return Math.max(0, Math.floor(this.options.wallOffsetMs + this.parts.ops.nowMs));
  }

  private get usedBlocks(): number {
    let blocks = 0;
    for (const volume of this.parts.state.volumes.values()) blocks += volume.usedBlocks;
    return blocks;
  }

  private get bytesPerSecond(): number {
    if (this.rate === 0) return 0;
    if (this.at.isSearching !== 0) return Math.max(RATE_MAX, this.rate ?? 0);
    if (this.rate !== null) return this.rate;
    const bytes = this.usedBlocks * STORED_BLOCK_BYTES;
    const wanted = (bytes * 2000) / this.options.everyMs;
    return Math.min(RATE_MAX, Math.max(RATE_MIN, Math.ceil(wanted)));
  }

  /** True if a pass is due; else `dueMs` says when to look again. */
  private beginPass(): boolean {
    const { at, options } = this;
    const { nowMs } = this.parts.ops;
    const sinceMs = this.wallMs - at.beganMs;
    // A clock that went back must not put the pass off for years.
    const isAsked = this.isWanted || at.isSearching !== 0;
    const isDue = isAsked || sinceMs >= options.everyMs || sinceMs < 0;
    if (!isDue) {
      this.dueMs = nowMs + Math.min(options.everyMs - sinceMs, SAVE_MS);
      if (this.savedMs === Number.NEGATIVE_INFINITY) this.save();
      return false;
    }
    const first = this.parts.state.volumes.keys().next().value;
    if (first === undefined) return false;
    at.volume = first;
    at.region = 0;
    at.passBlocks = 0;
    at.beganMs = this.wallMs;
    this.isWanted = false;
    this.passBad = 0;
    return true;
  }

  /** Goes on to a window that must be read; false if the pass ended or the turn is over. */
  private findWork(): boolean {
    for (let looked = 0; looked < BLOCKS_PER_TURN; looked += REGION_BLOCKS) {
      if (this.planWindow()) return true;
      if (!this.items.isEmpty && this.items.mustWait) {
        this.lookMs = this.parts.ops.nowMs + LOOK_MS;
        return false;
      }
      if (this.planItem()) return true;
      if (!this.nextRegion()) return false;
    }
    return false;
  }

  /** Gathers the next region with data; false at the end of the pass. */
  private nextRegion(): boolean {
    const { at } = this;
    const { volumes } = this.parts.state;
    if (this.volume !== null) at.region += 1;
    this.volume = null;
    for (;;) {
      const volume = volumes.get(at.volume);
      const region = volume?.nextRegion(at.region) ?? -1;
      if (volume !== undefined && region >= 0) {
        at.region = region;
        if (!this.bring(volume, region * REGION_BLOCKS)) return false;
        this.saveSometimes();
        this.gather(volume, region);
        this.items.addRegion(volume, region);
        return true;
      }
      const ids = [...volumes.keys()];
      const following = ids[ids.indexOf(at.volume) + 1];
      if (volume === undefined || following === undefined) {
        if (volume !== undefined && !this.hasAddedRoots) {
          this.hasAddedRoots = true;
          this.items.addRoots();
          return true;
        }
        this.endPass(volume !== undefined);
        return false;
      }
      at.volume = following;
      at.region = 0;
    }
  }

  private gather(volume: VolumeIndex, region: number): void {
    const { hot, cold } = this.parts.writer;
    const first = region * REGION_BLOCKS;
    const end = Math.min(first + REGION_BLOCKS, volume.blocks);
    this.volume = volume;
    this.blocks.count = 0;
    this.next = 0;
    this.singleUntil = 0;
    for (let lba = first; lba < end; lba += 1) {
      const place = volume.placeAt(lba);
      if (place === HOLE_PLACE) continue;
      if (place === LOST_PLACE) {
        this.found(volume, lba, "the page of the index that knew its place is damaged");
      } else if (hot.find(place) === null && cold.find(place) === null) {
        this.blocks.insert(lba, place);
      }
    }
  }

  /** Chooses the next blocks to read in one go; false if the region has none left. */
  private planWindow(): boolean {
    const volume = this.volume;
    while (volume !== null && this.next < this.blocks.count) {
      const place = this.blocks.places[this.next]!;
      if (volume.placeAt(this.blocks.lbas[this.next]!) === place) break;
      this.next += 1;
    }
    if (this.next >= this.blocks.count) return false;
    const { geometry } = this.parts.state;
    const start = this.blocks.places[this.next]! * PLACE_UNIT;
    const segment = geometry.segmentOf(this.blocks.places[this.next]!);
    let end = start + STORED_BLOCK_BYTES;
    this.windowEnd = this.next + 1;
    while (this.windowEnd < this.blocks.count && this.next >= this.singleUntil) {
      const from = this.blocks.places[this.windowEnd]! * PLACE_UNIT;
      if (from - end > GAP_BYTES || from + STORED_BLOCK_BYTES - start > WINDOW_BYTES) break;
      if (geometry.segmentOf(this.blocks.places[this.windowEnd]!) !== segment) break;
      end = from + STORED_BLOCK_BYTES;
      this.windowEnd += 1;
    }
    this.windowOffset = start - (start % MEDIUM_ALIGN);
    this.windowBytes = roundUp(end - this.windowOffset, MEDIUM_ALIGN);
    return true;
  }

  /** The store's own items of the region; false if there are none left. */
  private planItem(): boolean {
    this.item = this.items.next();
    if (this.item === null) return false;
    const { offset, lengthBytes } = this.item;
    this.windowOffset = offset - (offset % MEDIUM_ALIGN);
    this.windowBytes = roundUp(offset + lengthBytes - this.windowOffset, MEDIUM_ALIGN);
    return true;
  }

  private readWindow(): void {
    const { disk, ops } = this.parts;
    this.isReading = true;
    const start = this.item?.offset ?? this.blocks.places[this.next]! * PLACE_UNIT;
    this.pinned = this.item?.what === "superblock" ? -1 : this.segmentAt(start);
    this.pin(1);
    const base = Math.max(this.dueMs, ops.nowMs - CREDIT_MS);
    this.dueMs = base + (this.windowBytes * 1000) / Math.max(1, this.bytesPerSecond);
    const tag = ops.begin(OP.scrub, 0);
    disk.readMedium(tag, this.windowOffset, this.buffer, 0, this.windowBytes);
  }

  /** A window's blocks lie in one segment, which must not be used anew while it is read. */
  private pin(by: number): void {
    const { pins } = this.parts.state.segments;
    if (this.pinned < 0) return;
    pins[this.pinned] = pins[this.pinned]! + by;
  }

  private segmentAt(offset: number): number {
    return this.parts.state.geometry.segmentOf(offset / PLACE_UNIT);
  }

  /** The read completed. */
  finished(result: number): void {
    this.isReading = false;
    this.pin(-1);
    if (this.item !== null) {
      const { item, windowOffset, windowBytes } = this;
      this.item = null;
      // What a checkpoint moved meanwhile is looked at again.
      if (this.items.mustWait || this.items.next() !== item) return;
      const isRead = result === windowBytes;
      this.items.judge(item, this.buffer, this.view, item.offset - windowOffset, isRead);
      return;
    }
    // A pass that began anew meanwhile has nothing to do with this window.
    if (this.volume === null) return;
    // Without the index nothing is called bad: read again when it is back.
    if (this.volume.placeAt(this.blocks.lbas[this.next]!) === ABSENT_PLACE) return;
    if (result !== this.windowBytes && this.windowEnd - this.next > 1) {
      // One bad sector must not take its neighbours with it.
      this.singleUntil = this.windowEnd;
      return;
    }
    this.verify(this.volume, result);
    this.next = this.windowEnd;
  }

  private verify(volume: VolumeIndex, result: number): void {
    for (let index = this.next; index < this.windowEnd; index += 1) {
      const lba = this.blocks.lbas[index]!;
      const place = this.blocks.places[index]!;
      if (volume.placeAt(lba) !== place) continue;
      this.at.passBlocks += 1;
      this.at.checkedBlocks += 1;
      const why = this.whyBad(volume, lba, place, result);
      if (why !== "") this.found(volume, lba, why);
    }
  }

  private whyBad(volume: VolumeIndex, lba: number, place: number, result: number): string {
    if (result !== this.windowBytes) return `the disk does not read it (${result}; scrub)`;
    const at = place * PLACE_UNIT - this.windowOffset;
    if (!verifyEntry(this.buffer, this.view, at, volume.id, lba)) {
      return "it does not verify (scrub)";
    }
    const check = ENTRY.check.get(this.view, at) & 0xffff;
    return check === volume.checkAt(lba) ? "" : "an older version lies there (lost write; scrub)";
  }

  private found(volume: VolumeIndex, lba: number, why: string): void {
    this.at.badBlocks += 1;
    this.passBad += 1;
    this.parts.report(volume.id, lba, why);
  }

  private endPass(isWhole: boolean): void {
    const { at } = this;
    at.volume = 0;
    at.region = 0;
    this.items.clear();
    this.hasAddedRoots = false;
    this.volume = null;
    this.blocks.count = 0;
    this.next = 0;
    if (isWhole) {
      at.isSearching = 0;
      at.passes += 1;
      at.endedMs = this.wallMs;
      const text = `scrub: ${at.passBlocks} blocks verified, ${this.passBad} bad`;
      const fields = { blocks: at.passBlocks, bad: this.passBad };
      this.parts.trace.event("info", "store.scrubbed", text, fields);
    }
    this.save();
  }

  private saveSometimes(): void {
    if (this.parts.ops.nowMs - this.savedMs >= SAVE_MS) this.save();
  }

  private save(): void {
    this.savedMs = this.parts.ops.nowMs;
    this.parts.save(encode(SCRUB_STATE, this.at));
  }
}

/**
 * Pages of the index that are not in memory, brought back while the store runs: for reads, for
 * writers, for tasks.
 *
 *   want -> in a log buffer, or in the page cache?  taken at once
 *        -> else queued -> read by a slot -> verified -> in memory (or lost) -> told
 *
 * Invariants:
 *  1. A page is read once however many want it; at most `PAGE_SLOTS` are at the disk.
 *  2. Who is told that a page came finds it in memory: nothing else happens before.
 *  3. A page that cannot be read or does not verify is lost: damage of its blocks, never the
 *     failure of the store.
 *  4. What waits is bounded by who asks: reads (reader.ts, 3), one write, one task's window.
 */
import type { Disk } from "../base/ports.ts";
import { REGION_BLOCKS, roundUp, type VolumeId } from "../base/units.ts";
import { PAGE_WORDS } from "../format/checkpoint.ts";
import { viewOf } from "../format/layout.ts";
import {
  decodeItemHeader,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
  ItemHeader,
  itemBodyIsWhole,
  PLACE_UNIT,
} from "../format/segment.ts";
import { type DiskOps, OP } from "./disk_ops.ts";
import { NO_PAGE } from "./index_node.ts";
import type { LogWriter } from "./log_writer.ts";
import { decodePage, type PageCounts } from "./page_codec.ts";
import type { PageLost } from "./page_loader.ts";
import type { StoreState } from "./state.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** Pages at the disk at once. */
const PAGE_SLOTS = 16;
/** A page's item, unaligned at both ends. */
const SLOT_BYTES = 3 * 4096;
/** A read that fails is made again so often before its page is given up. */
const TRIES = 2;

interface Wanted {
  readonly page: number;
  readonly volume: VolumeId;
  readonly region: number;
  /** Of its stored version when it was asked for: if that changed, it is not this page any more. */
  readonly place: number;
  tries: number;
}

interface Slot {
  readonly buffer: Uint8Array;
  readonly view: DataView;
  wanted: Wanted | null;
  /** Position of the item in the buffer, and bytes read. */
  at: number;
  lengthBytes: number;
}

export class PageCache {
  /** Pages read from the log. */
  misses = 0;
  private readonly disk: Disk;
  private readonly ops: DiskOps;
  private readonly state: StoreState;
  private readonly writer: LogWriter;
  private readonly lost: PageLost;
  private readonly slots: Slot[] = [];
  private readonly freeSlots: number[] = [];
  private readonly now: Slot;
  /** Queued or at the disk. */
  private readonly pending = new Set<number>();
  private readonly queue: Wanted[] = [];
  private readonly header = new ItemHeader();
  private readonly words = new Uint32Array(PAGE_WORDS);
  private readonly counts: PageCounts = { entries: 0, losts: 0 };

  constructor(disk: Disk, ops: DiskOps, state: StoreState, writer: LogWriter, lost: PageLost) {
    this.disk = disk;
    this.ops = ops;
    this.state = state;
    this.writer = writer;
    this.lost = lost;
    for (let slot = 0; slot < PAGE_SLOTS; slot += 1) {
      this.slots.push(newSlot(disk));
      this.freeSlots.push(slot);
    }
    this.now = newSlot(disk);
  }

  /** True if the block's entry is in memory now; else its page is on its way. */
  bring(version: VolumeIndex, lba: number): boolean {
    const page = version.pageOf(lba);
    return page === NO_PAGE || this.bringPage(page, version.id, Math.floor(lba / REGION_BLOCKS));
  }

  /** The same of both ends of a range, and of the version before, as a change needs it. */
  bringEnds(version: VolumeIndex, lba: number, blockCount: number): boolean {
    const last = lba + Math.max(1, blockCount) - 1;
    const isFirst = this.bringBoth(version, lba);
    if (last - lba < REGION_BLOCKS - (lba % REGION_BLOCKS)) return isFirst;
    return this.bringBoth(version, last) && isFirst;
  }

  private bringBoth(version: VolumeIndex, lba: number): boolean {
    if (version.older === null) return this.bring(version, lba);
    const older = version.olderPage(lba);
    const region = Math.floor(lba / REGION_BLOCKS);
    const isOlder = older === NO_PAGE || this.bringPage(older, version.id, region);
    return this.bring(version, lba) && isOlder;
  }

  /** The same of a page, and keeps it from being taken for what comes next. */
  bringPage(page: number, volume: VolumeId, region: number): boolean {
    const { pool } = this.state;
    pool.pages.used[page] = 1;
    pool.clock.guard(page);
    if (pool.isThere(page)) return true;
    if (this.pending.has(page)) return false;
    const wanted = { page, volume, region, place: pool.pages.places[page]!, tries: 0 };
    if (this.takeAtOnce(wanted)) return true;
    this.pending.add(page);
    this.queue.push(wanted);
    this.submit();
    return false;
  }

  /** From a log buffer, where it was put a moment ago, or from the system's page cache. */
  private takeAtOnce(wanted: Wanted): boolean {
    const { place } = wanted;
    const batch = this.writer.cold.find(place);
    if (batch !== null) {
      const at = place * PLACE_UNIT - batch.diskOffset;
      this.take(wanted, batch.buffer, batch.view, at, batch.at);
      return true;
    }
    const slot = this.now;
    const offset = this.locate(slot, wanted);
    if (this.disk.readNow(offset, slot.buffer, 0, slot.lengthBytes) !== slot.lengthBytes) {
      return false;
    }
    this.take(wanted, slot.buffer, slot.view, slot.at, slot.lengthBytes);
    return true;
  }

  private locate(slot: Slot, wanted: Wanted): number {
    const { units } = this.state.pool.pages;
    const from = wanted.place * PLACE_UNIT;
    const { sectorBytes } = this.disk;
    slot.at = from % sectorBytes;
    slot.lengthBytes = roundUp(slot.at + units[wanted.page]! * PLACE_UNIT, sectorBytes);
    return from - slot.at;
  }

  private submit(): void {
    while (this.queue.length > 0 && this.freeSlots.length > 0) {
      this.start(this.freeSlots.pop() as number, this.queue.shift() as Wanted);
    }
  }

  private start(number: number, wanted: Wanted): void {
    const slot = this.slots[number] as Slot;
    slot.wanted = wanted;
    const offset = this.locate(slot, wanted);
    this.pin(wanted.place, 1);
    const tag = this.ops.begin(OP.page, number);
    this.disk.read(tag, offset, slot.buffer, 0, slot.lengthBytes);
  }

  /** The page's segment must not be used anew while it is read. */
  private pin(place: number, by: number): void {
    const { segments, geometry } = this.state;
    const segment = geometry.segmentOf(place);
    segments.pins[segment] = segments.pins[segment]! + by;
  }

  /**
   * The read in this slot completed. Returns its page, which is in memory now unless it was given
   * up or copied elsewhere meanwhile; NO_PAGE if it is read once more.
   */
  finished(number: number, result: number): number {
    const slot = this.slots[number] as Slot;
    const wanted = slot.wanted as Wanted;
    const { page, place } = wanted;
    slot.wanted = null;
    this.pin(place, -1);
    wanted.tries += 1;
    const isSame = this.state.pool.pages.places[page] === place;
    if (isSame && result !== slot.lengthBytes && wanted.tries < TRIES) {
      this.start(number, wanted);
      return NO_PAGE;
    }
    this.freeSlots.push(number);
    this.pending.delete(page);
    const end = result === slot.lengthBytes ? result : 0;
    if (isSame && !this.state.pool.isThere(page)) {
      this.take(wanted, slot.buffer, slot.view, slot.at, end);
    }
    this.submit();
    return page;
  }

  private take(wanted: Wanted, buffer: Uint8Array, view: DataView, at: number, end: number): void {
    const { page, volume, region } = wanted;
    const { pool, geometry } = this.state;
    this.misses += 1;
    if (this.isWhole(wanted, buffer, view, at, end)) {
      pool.adoptPage(page, this.words);
      return;
    }
    const segment = geometry.segmentOf(pool.pages.places[page]!);
    const blocks = this.state.losePage(page, volume, region);
    this.lost(volume, region * REGION_BLOCKS, blocks, segment);
  }

  /** True if the item at `at` is the page's stored version; its words are then in `words`. */
  private isWhole(
    wanted: Wanted,
    buffer: Uint8Array,
    view: DataView,
    at: number,
    end: number,
  ): boolean {
    const { header, words, counts } = this;
    const { pages } = this.state.pool;
    const lengthBytes = pages.units[wanted.page]! * PLACE_UNIT;
    if (at + lengthBytes > end || !decodeItemHeader(buffer, view, at, header)) return false;
    if (header.kind !== ITEM_KIND.page || header.subject !== wanted.volume) return false;
    if (header.number !== wanted.region) return false;
    if (ITEM_HEADER_BYTES + header.bodyBytes !== lengthBytes) return false;
    if (!itemBodyIsWhole(buffer, at, header)) return false;
    const { geometry } = this.state;
    const body = at + ITEM_HEADER_BYTES;
    if (!decodePage(buffer, view, body, header, geometry, words, counts)) return false;
    return (
      counts.entries === pages.counts[wanted.page] && counts.losts === pages.losts[wanted.page]
    );
  }
}

function newSlot(disk: Disk): Slot {
  const buffer = disk.allocate(SLOT_BYTES);
  return { buffer, view: viewOf(buffer), wanted: null, at: 0, lengthBytes: 0 };
}

/**
 * The store's own items as the scrub sees them: pages and nodes of the index, chunks of the root,
 * copies of the superblock. What is bad on the medium is in memory: it is marked, and a checkpoint
 * asked for, which writes it anew (a superblock and a root with every checkpoint).
 *
 * While a checkpoint runs, items are on their way from one place to another: they wait.
 */
import type { Trace } from "../base/ports.ts";
import { REGION_BLOCKS } from "../base/units.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import {
  decodeItemHeader,
  ITEM_KIND,
  ItemHeader,
  itemBodyIsWhole,
  PLACE_UNIT,
} from "../format/segment.ts";
import {
  decodeSuperblock,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_COPIES,
  superblockOffset,
} from "../format/superblock.ts";
import type { Checkpointer } from "./checkpointer.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import type { LogWriter } from "./log_writer.ts";
import { NO_SLOT } from "./page_table.ts";
import type { StoreState } from "./state.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** One thing to read and judge. */
export interface ScrubItem {
  readonly what: "page" | "node" | "root" | "superblock";
  /** Where on disk, and how long, in bytes. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** Page, region and volume of a page; the node; the copy of a superblock. */
  readonly page: number;
  readonly region: number;
  readonly volume: number;
  readonly node: IndexNode | null;
  readonly copy: number;
}

const NOTHING = { page: NO_PAGE, region: 0, volume: 0, node: null, copy: 0 } as const;

export class ScrubItems {
  /** What was found bad. */
  badCount = 0;
  /** Bounded: what one region has, or the end of a pass. */
  private queue: ScrubItem[] = [];
  /** The volume and the node whose regions come now. */
  private lastVolume = 0;
  private lastNode = -1;
  private readonly header = new ItemHeader();
  private readonly state: StoreState;
  private readonly writer: LogWriter;
  private readonly checkpointer: Checkpointer;
  private readonly trace: Trace;

  constructor(state: StoreState, writer: LogWriter, checkpointer: Checkpointer, trace: Trace) {
    this.state = state;
    this.writer = writer;
    this.checkpointer = checkpointer;
    this.trace = trace;
  }

  get isEmpty(): boolean {
    return this.queue.length === 0;
  }

  /** A checkpoint runs: come back later. */
  get mustWait(): boolean {
    return this.checkpointer.isRunning;
  }

  clear(): void {
    this.queue = [];
    this.lastNode = -1;
  }

  /** The pages of a region, and their nodes when the region is the first of it in this pass. */
  addRegion(volume: VolumeIndex, region: number): void {
    const number = Math.floor(region / NODE_REGIONS);
    const { pages } = this.state.pool;
    const seen = new Set<number>();
    const isFirst = number !== this.lastNode || volume.id !== this.lastVolume;
    for (const version of this.state.versionsOf(volume.id)) {
      const node = version.nodes[number] ?? null;
      if (node !== null && isFirst && node.place !== 0 && !seen.has(node.place)) {
        seen.add(node.place);
        this.add("node", node.place * PLACE_UNIT, node.bytes, { ...NOTHING, node });
      }
      const page = version.pageOf(region * REGION_BLOCKS);
      const place = page === NO_PAGE ? 0 : pages.places[page]!;
      if (place === 0 || seen.has(place)) continue;
      seen.add(place);
      const of = { ...NOTHING, page, region, volume: volume.id };
      this.add("page", place * PLACE_UNIT, pages.units[page]! * PLACE_UNIT, of);
    }
    this.lastNode = number;
    this.lastVolume = volume.id;
  }

  /** Root and superblocks, at the end of a pass. */
  addRoots(): void {
    for (const { place, bytes } of this.checkpointer.rootItems()) {
      this.add("root", place * PLACE_UNIT, bytes, NOTHING);
    }
    for (let copy = 0; copy < SUPERBLOCK_COPIES; copy += 1) {
      this.add("superblock", superblockOffset(copy), SUPERBLOCK_BYTES, { ...NOTHING, copy });
    }
  }

  /** The next one that is on disk and still counts; null if none is left. */
  next(): ScrubItem | null {
    while (this.queue.length > 0) {
      const item = this.queue[0] as ScrubItem;
      const place = item.offset / PLACE_UNIT;
      if (this.isCurrent(item) && this.writer.cold.find(place) === null) return item;
      this.queue.shift();
    }
    return null;
  }

  /** The item lies at `buffer[at]`, or could not be read (`isRead` false). Not while `mustWait`. */
  judge(item: ScrubItem, buffer: Uint8Array, view: DataView, at: number, isRead: boolean): void {
    this.queue.shift();
    if (!this.isCurrent(item) || (isRead && this.isGood(item, buffer, view, at))) return;
    this.badCount += 1;
    const text = `a ${item.what} does not verify on the medium; it is written anew (scrub)`;
    this.trace.event("warn", "store.bad_item", text, { item: item.what, offset: item.offset });
    this.rewrite(item);
    this.checkpointer.isWanted = true;
  }

  private add(
    what: ScrubItem["what"],
    offset: number,
    lengthBytes: number,
    of: Omit<ScrubItem, "what" | "offset" | "lengthBytes">,
  ): void {
    this.queue.push({ what, offset, lengthBytes, ...of });
  }

  /** Nothing newer has taken its place. */
  private isCurrent(item: ScrubItem): boolean {
    const place = item.offset / PLACE_UNIT;
    switch (item.what) {
      case "page":
        return this.state.pool.pages.places[item.page] === place;
      case "node":
        return item.node !== null && item.node.refs > 0 && item.node.place === place;
      case "root":
        return this.checkpointer.rootItems().some((each) => each.place === place);
      default:
        return true;
    }
  }

  private isGood(item: ScrubItem, buffer: Uint8Array, view: DataView, at: number): boolean {
    if (item.what === "superblock") {
      const found = decodeSuperblock(buffer, at, item.copy);
      const { generation } = this.checkpointer.superblock;
      return found.kind === "good" && found.value.generation === generation;
    }
    const { header } = this;
    if (!decodeItemHeader(buffer, view, at, header)) return false;
    if (header.kind !== ITEM_KIND[item.what]) return false;
    if (item.what === "page" && (header.subject !== item.volume || header.number !== item.region)) {
      return false;
    }
    return itemBodyIsWhole(buffer, at, header);
  }

  private rewrite(item: ScrubItem): void {
    const { state } = this;
    if (item.what === "node" && item.node !== null) state.pool.touchNode(item.node);
    // A page that is not in memory is found out when it is needed: its blocks are lost then.
    if (item.what !== "page" || state.pool.pages.slots[item.page] === NO_SLOT) return;
    const lba = item.region * REGION_BLOCKS;
    for (const version of state.versionsOf(item.volume)) {
      if (version.pageOf(lba) === item.page) version.touchNodeOf(lba);
    }
    state.pool.pages.markDirty(item.page);
  }
}

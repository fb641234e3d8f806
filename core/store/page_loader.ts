/** Brings pages of the index into memory, for tasks; and counts all pages after damage. */
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { NODE_REGIONS, PAGE_WORDS } from "../format/checkpoint.ts";
import { ITEM_HEADER_BYTES, ITEM_KIND, PLACE_UNIT } from "../format/segment.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import { LOST_PLACE } from "./index_pool.ts";
import type { ItemReader } from "./item_reader.ts";
import { decodePage, type PageCounts } from "./page_codec.ts";
import { NO_SLOT } from "./page_table.ts";
import type { StoreState } from "./state.ts";
import type { Task } from "./task.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** Pages closer to each other than this are read at once. */
const GAP_PLACES_MAX = (16 * 1024) / PLACE_UNIT;

interface Stored {
  readonly page: number;
  readonly volume: VolumeId;
  readonly region: number;
}

/** Told of every page that does not verify: its blocks are lost from now on. */
export type PageLost = (volume: VolumeId, lba: number, count: number, segment: number) => void;

export class PageLoader {
  private readonly state: StoreState;
  private readonly reader: ItemReader;
  private readonly lost: PageLost;
  private readonly words = new Uint32Array(PAGE_WORDS);
  private readonly olderWords = new Uint32Array(PAGE_WORDS);
  private readonly counts: PageCounts = { entries: 0, losts: 0 };

  constructor(state: StoreState, reader: ItemReader, lost: PageLost) {
    this.state = state;
    this.reader = reader;
    this.lost = lost;
  }

  /** All pages that are not in memory, in the order in which they lie. */
  *loadAll(): Task<void> {
    const { pages } = this.state.pool;
    const absent = this.inOrder(this.all().filter(({ page }) => pages.slots[page] === NO_SLOT));
    for (let index = 0; index < absent.length; index += 1) {
      const each = absent[index]!;
      yield* this.load(each.page, each.volume, each.region, this.aheadOf(absent, index));
    }
  }

  private aheadOf(stored: readonly Stored[], index: number): number {
    const { pages } = this.state.pool;
    let end = 0;
    for (let next = index; next < stored.length && next < index + 64; next += 1) {
      const { page } = stored[next]!;
      if (end !== 0 && pages.places[page]! - end > GAP_PLACES_MAX) break;
      end = pages.places[page]! + pages.units[page]!;
    }
    return end;
  }

  /** Every page of every version and of the graveyard, each once. */
  private all(): Stored[] {
    const { state } = this;
    const found: Stored[] = [];
    const seen = new Set<number>();
    for (const node of state.allNodes()) {
      for (let region = 0; region < NODE_REGIONS; region += 1) {
        const page = node.pages[region]!;
        if (page === NO_PAGE || seen.has(page)) continue;
        seen.add(page);
        found.push({ page, volume: node.volume, region: node.number * NODE_REGIONS + region });
      }
    }
    return found.concat(state.pool.graveyard.pages);
  }

  /** Brings one page into memory, whole or as lost. */
  *load(page: number, volume: VolumeId, region: number, ahead: number): Task<void> {
    const { pool } = this.state;
    const isWhole = yield* this.read(page, volume, region, ahead, this.words);
    if (pool.pages.slots[page] !== NO_SLOT) return;
    if (isWhole) pool.adoptPage(page, this.words);
    else this.lose({ page, volume, region });
  }

  /** Reads a page's stored version into `words`; false if it does not verify. */
  private *read(
    page: number,
    volume: VolumeId,
    region: number,
    ahead: number,
    words: Uint32Array,
  ): Task<boolean> {
    const { reader, counts } = this;
    const { pages } = this.state.pool;
    const length = pages.units[page]! * PLACE_UNIT;
    const at = yield* reader.read(pages.places[page]!, length, ITEM_KIND.page, ahead);
    if (at < 0 || reader.header.subject !== volume || reader.header.number !== region) return false;
    const body = at + ITEM_HEADER_BYTES;
    const { geometry } = this.state;
    const { buffer, view, header } = reader;
    if (!decodePage(buffer, view, body, header, geometry, words, counts)) return false;
    return counts.entries === pages.counts[page] && counts.losts === pages.losts[page];
  }

  /** Brings the pages of both ends of a range into memory, as applying a record to it needs. */
  *ready(version: VolumeIndex, lba: number, blockCount: number): Task<void> {
    for (const at of [lba, lba + Math.max(1, blockCount) - 1]) {
      const region = Math.floor(at / REGION_BLOCKS);
      yield* this.readyPage(version.pageOf(at), version.id, region);
      yield* this.readyPage(version.olderPage(at), version.id, region);
    }
  }

  *readyPage(page: number, volume: VolumeId, region: number): Task<void> {
    const { pool } = this.state;
    if (page === NO_PAGE) return;
    pool.clock.guard(page);
    if (!pool.isThere(page)) yield* this.load(page, volume, region, 0);
  }

  /**
   * Before a move of a block is applied: what was given up of its region is given up for good, as
   * it was when the move was made.
   */
  *settleGraves(volume: VolumeId, lba: number): Task<void> {
    const { pool } = this.state;
    const region = Math.floor(lba / REGION_BLOCKS);
    const { pages, nodes } = pool.graveyard;
    for (const grave of pages.filter((each) => each.region === region && each.volume === volume)) {
      yield* this.settle(grave.page, volume, region, grave.order);
      pages.splice(pages.indexOf(grave), 1);
      pool.dropPage(grave.page);
    }
    const inNode = region % NODE_REGIONS;
    for (const { node, order } of nodes) {
      const page = node.pages[inNode]!;
      const isHere = node.volume === volume && node.number === Math.floor(region / NODE_REGIONS);
      if (!isHere || page === NO_PAGE || node.refs > 1) continue;
      yield* this.settle(page, volume, region, order);
      node.pages[inNode] = NO_PAGE;
      node.pageCount -= 1;
      pool.touchNode(node);
      pool.dropPage(page);
    }
  }

  private *settle(page: number, volume: VolumeId, region: number, order: number): Task<void> {
    const older = this.state.pageUpTo(volume, order, region * REGION_BLOCKS);
    yield* this.readyPage(page, volume, region);
    yield* this.readyPage(older, volume, region);
    this.state.pool.uncount(page, older, NO_PAGE);
  }

  /** Counts what is live anew, from all pages: after damage the stored counts are too high. */
  *recount(): Task<void> {
    const { state } = this;
    state.segments.forgetBlocks();
    for (const volume of state.volumes.keys()) {
      for (const version of state.versionsOf(volume)) {
        for (const node of version.nodes) {
          if (node === null) continue;
          yield* this.recountNode(node, (lba) => version.olderPage(lba));
        }
      }
    }
    const { nodes, pages } = state.pool.graveyard;
    for (const { node, order } of nodes) {
      yield* this.recountNode(node, (lba) => state.pageUpTo(node.volume, order, lba));
    }
    for (const { page, volume, region, order } of pages) {
      const older = state.pageUpTo(volume, order, region * REGION_BLOCKS);
      yield* this.recountPage({ page, volume, region }, older);
    }
    state.pool.isInexact = false;
  }

  private *recountNode(node: IndexNode, older: (lba: number) => number): Task<void> {
    for (let inNode = 0; inNode < NODE_REGIONS; inNode += 1) {
      const page = node.pages[inNode]!;
      const region = node.number * NODE_REGIONS + inNode;
      const stored = { page, volume: node.volume, region };
      if (page !== NO_PAGE) yield* this.recountPage(stored, older(region * REGION_BLOCKS));
    }
  }

  /** Counts the entries of a page that the version before does not have. */
  private *recountPage(stored: Stored, older: number): Task<void> {
    if (stored.page === older) return;
    const words = yield* this.wordsOf(stored, this.words);
    const before =
      older === NO_PAGE ? null : yield* this.wordsOf({ ...stored, page: older }, this.olderWords);
    for (let word = 0; word < PAGE_WORDS; word += 2) {
      const place = words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
      if (place <= LOST_PLACE) continue;
      const isOlder =
        before !== null &&
        before[word] === words[word] &&
        ((before[word + 1]! ^ words[word + 1]!) & 0xffff) === 0;
      if (!isOlder) this.state.segments.addBlock(place);
    }
  }

  /** A page's words, in memory or read into `spare`; as lost if it does not verify. */
  private *wordsOf(stored: Stored, spare: Uint32Array): Task<Uint32Array> {
    const { pool } = this.state;
    if (!pool.isThere(stored.page)) {
      const { page, volume, region } = stored;
      if (yield* this.read(page, volume, region, 0, spare)) return spare;
      this.lose(stored);
    }
    return pool.pageWords(stored.page);
  }

  private inOrder(stored: Stored[]): Stored[] {
    const { places } = this.state.pool.pages;
    return stored.sort((left, right) => places[left.page]! - places[right.page]!);
  }

  private lose({ page, volume, region }: Stored): void {
    const { pool, geometry } = this.state;
    const segment = geometry.segmentOf(pool.pages.places[page]!);
    const blocks = this.state.losePage(page, volume, region);
    this.lost(volume, region * REGION_BLOCKS, blocks, segment);
  }
}

/** Brings pages of the index into memory, for tasks; and counts all pages after damage. */
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { NODE_REGIONS, PAGE_WORDS } from "../format/checkpoint.ts";
import { ITEM_HEADER_BYTES, ITEM_KIND, PLACE_UNIT } from "../format/segment.ts";
import { NO_PAGE } from "./index_node.ts";
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
    const isWhole = yield* this.read(page, volume, region, ahead);
    if (pool.pages.slots[page] !== NO_SLOT) return;
    if (isWhole) pool.adoptPage(page, this.words);
    else this.lose({ page, volume, region });
  }

  /** Reads a page's stored version into `words`; false if it does not verify. */
  private *read(page: number, volume: VolumeId, region: number, ahead: number): Task<boolean> {
    const { reader, counts, words } = this;
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
    yield* this.readyAt(version, lba);
    if (blockCount > 1) yield* this.readyAt(version, lba + blockCount - 1);
  }

  *readyAt(version: VolumeIndex, lba: number): Task<void> {
    const { pool } = this.state;
    const page = version.pageOf(lba);
    if (page === NO_PAGE) return;
    pool.clock.guard(page);
    if (pool.isThere(page)) return;
    yield* this.load(page, version.id, Math.floor(lba / REGION_BLOCKS), 0);
  }

  /** Counts what is live anew, from all pages: after damage the stored counts are too high. */
  *recount(): Task<void> {
    const { segments, pool } = this.state;
    segments.forgetBlocks();
    for (const each of this.inOrder(this.all())) {
      if (!pool.isThere(each.page)) {
        const isWhole = yield* this.read(each.page, each.volume, each.region, 0);
        if (!isWhole) this.lose(each);
      }
      const words = pool.isThere(each.page) ? pool.pageWords(each.page) : this.words;
      for (let word = 0; word < PAGE_WORDS; word += 2) {
        const place = words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
        if (place > LOST_PLACE) segments.addBlock(place);
      }
    }
    pool.isInexact = false;
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

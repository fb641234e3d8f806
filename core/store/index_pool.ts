/**
 * What all versions of all volumes share: pages and their memory, lives of nodes and pages, what
 * the next checkpoint must write, what it makes superfluous, what is to be given back.
 *
 * A version that changes a node or a page that others hold, too, gets a copy of its own first
 * (copy on write). A snapshot is a second holder of every node; so is a running checkpoint of the
 * nodes that it is about to write, which is why it says exactly what was true at its cut.
 *
 * Invariants:
 *  1. segments.liveBlocks counts exactly the blocks that any version of a volume, or what is in
 *     the graveyard, has an entry for, each block once (after damage more, never less:
 *     `isInexact`).
 *  2. Every node that holds a dirty page is dirty, or held by the running checkpoint.
 *  3. A place of the last checkpoint that is no longer needed is on `retired`, and counts as live
 *     until a checkpoint that no longer mentions it is complete.
 *  4. A node or page with more than one holder is changed only by the cleaner's moves, which say
 *     the same of every holder, and never while a checkpoint holds nodes.
 *  5. The versions that have a block at one place follow each other without gap, since a place is
 *     written once and moves tell all. So a version that gives up a block has to look only at its
 *     neighbours to know whether it was the last.
 */
import { assert } from "../base/assert.ts";
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { NODE_REGIONS, PAGE_BYTES, PAGE_WORDS } from "../format/checkpoint.ts";
import { Graveyard } from "./graveyard.ts";
import { IndexArena } from "./index_arena.ts";
import { IndexNode, NO_PAGE, NODE_MEMORY_BYTES } from "./index_node.ts";
import { NO_SLOT, PageTable } from "./page_table.ts";
import type { SegmentTable } from "./segment_table.ts";
import { SLOTS_MIN, SlotClock } from "./slot_clock.ts";

/** Place of a block that never had data or was trimmed. */
export const HOLE_PLACE = 0;
/** Place of a block whose index page rotted: there may be data, nobody knows where. */
export const LOST_PLACE = 1;
/** Answer for a block whose page is not in memory. */
export const ABSENT_PLACE = -1;

/** Places in the log that a coming checkpoint makes superfluous. */
export class RetiredPlaces {
  readonly places: number[] = [];
  readonly bytes: number[] = [];

  push(place: number, bytes: number): void {
    if (place === 0) return;
    this.places.push(place);
    this.bytes.push(bytes);
  }
}

export class IndexPool {
  readonly pages = new PageTable();
  readonly arena = new IndexArena();
  readonly clock = new SlotClock(this.pages, this.arena);
  readonly segments: SegmentTable;
  readonly graveyard = new Graveyard();
  /** A checkpoint holds nodes. */
  isFrozen = false;
  /** Pages were lost: segments.liveBlocks may count entries that are no more. */
  isInexact = false;
  private dirtyNodes: IndexNode[] = [];
  private retired = new RetiredPlaces();
  private readonly memoryBytes: number;
  private nodeCount = 0;
  private slotsLeast = SLOTS_MIN;

  /** `memoryBytes`: what pages, nodes and what is known of them may take. */
  constructor(segments: SegmentTable, memoryBytes: number) {
    this.segments = segments;
    this.memoryBytes = memoryBytes;
    this.noteNodes(0);
  }

  /** So many nodes came (or went): what they take is not there for pages. */
  private noteNodes(count: number): void {
    this.nodeCount += count;
    const fixedBytes = this.nodeCount * NODE_MEMORY_BYTES + this.pages.memoryBytes;
    const slots = Math.floor((this.memoryBytes - fixedBytes) / PAGE_BYTES);
    this.clock.limit = Math.max(this.slotsLeast, slots);
  }

  /** A volume has so many versions: a block's page of each must fit into memory together. */
  noteVersions(count: number): void {
    this.slotsLeast = Math.max(this.slotsLeast, SLOTS_MIN + 4 * count);
    this.noteNodes(0);
  }

  /** Memory in use, bytes. */
  get usedBytes(): number {
    const pageBytes = this.arena.slotCount * PAGE_BYTES;
    return pageBytes + this.nodeCount * NODE_MEMORY_BYTES + this.pages.memoryBytes;
  }

  /** A node for one holder: empty, or a copy that holds the pages of `from`, too. */
  createNode(volume: VolumeId, number: number, from: IndexNode | null): IndexNode {
    const node = new IndexNode(volume, number, from);
    if (from !== null) this.holdPages(node);
    this.noteNodes(1);
    return node;
  }

  /** A page of holes, in memory. */
  createPage(): number {
    const page = this.pages.create();
    this.arena.clear(this.clock.take(page));
    this.pages.markDirty(page);
    return page;
  }

  /** A copy of a page in memory for one of its holders, who gives up the page itself. */
  clonePage(from: number): number {
    const { pages, arena } = this;
    const page = pages.create();
    this.clock.guard(from);
    const slot = this.clock.take(page);
    arena.copy(pages.slots[from]!, slot);
    pages.counts[page] = pages.counts[from]!;
    pages.losts[page] = pages.losts[from]!;
    pages.markDirty(page);
    pages.refs[from] = pages.refs[from]! - 1;
    return page;
  }

  /** A holder gives up the page; the last one frees it. What its entries count is not changed. */
  dropPage(page: number): void {
    const { pages } = this;
    pages.refs[page] = pages.refs[page]! - 1;
    if (pages.refs[page] !== 0) return;
    this.clock.release(page);
    pages.markClean(page);
    this.retired.push(pages.places[page]!, pages.units[page]! * 16);
    pages.forget(page);
  }

  /** True if what is needed to tell which entries of `page` the `older` one lacks is in memory. */
  mayUncount(page: number, older: number): boolean {
    const { slots } = this.pages;
    if (page === older) return true;
    return slots[page] !== NO_SLOT && (older === NO_PAGE || slots[older] !== NO_SLOT);
  }

  /**
   * A version gives up a page: its blocks are live no more, but for those that its neighbours, the
   * versions before and after it, have in their pages of the same region.
   */
  uncount(page: number, older: number, newer: number): void {
    if (page === older || page === newer) return;
    for (let block = 0; block < REGION_BLOCKS; block += 1) {
      const place = this.placeIn(page, block);
      if (place <= LOST_PLACE) continue;
      if (older !== NO_PAGE && this.placeIn(older, block) === place) continue;
      if (newer !== NO_PAGE && this.placeIn(newer, block) === place) continue;
      this.segments.dropBlock(place);
    }
  }

  /**
   * The page's stored version does not verify: all of its `blocks` are lost. The page's holders
   * must be touched by the caller. What its entries counted can only be found by counting all.
   */
  losePage(page: number, blocks: number): void {
    const { pages, arena } = this;
    const slot = pages.slots[page] === NO_SLOT ? this.clock.take(page) : pages.slots[page]!;
    arena.clear(slot);
    const base = arena.base(slot);
    const words = arena.slab(slot);
    for (let block = 0; block < blocks; block += 1) words[base + block * 2] = LOST_PLACE;
    pages.counts[page] = blocks;
    pages.losts[page] = blocks;
    pages.markDirty(page);
    this.isInexact = true;
  }

  /** The stored version of a page that is not in memory was read: these are its words. */
  adoptPage(page: number, words: Uint32Array): void {
    const slot = this.clock.take(page);
    this.arena.slab(slot).set(words, this.arena.base(slot));
  }

  /** The words of a page in memory. */
  pageWords(page: number): Uint32Array {
    const slot = this.pages.slots[page]!;
    const base = this.arena.base(slot);
    return this.arena.slab(slot).subarray(base, base + PAGE_WORDS);
  }

  isThere(page: number): boolean {
    return page === NO_PAGE || this.pages.slots[page] !== NO_SLOT;
  }

  /** Place of a block (0 to 511) of a page in memory. */
  placeIn(page: number, block: number): number {
    const slot = this.pages.slots[page]!;
    const words = this.arena.slab(slot);
    const word = this.arena.base(slot) + block * 2;
    return words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
  }

  /** The 16 check bits of a block (0 to 511) of a page in memory. */
  checkIn(page: number, block: number): number {
    const slot = this.pages.slots[page]!;
    return this.arena.slab(slot)[this.arena.base(slot) + block * 2 + 1]! >>> 16;
  }

  /**
   * Sets one entry of a page in memory; returns the place it had. Keeps what is known of the page,
   * not what is counted in segments: that is a matter of versions.
   */
  putIn(page: number, block: number, place: number, check: number): number {
    const { pages, arena } = this;
    const slot = pages.slots[page]!;
    const words = arena.slab(slot);
    const word = arena.base(slot) + block * 2;
    const before = words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
    if (before === HOLE_PLACE) pages.counts[page] = pages.counts[page]! + 1;
    else if (before === LOST_PLACE) pages.losts[page] = pages.losts[page]! - 1;
    words[word] = place >>> 0;
    words[word + 1] = (Math.floor(place / 4294967296) | (check << 16)) >>> 0;
    if (place === LOST_PLACE) pages.losts[page] = pages.losts[page]! + 1;
    else if (place === HOLE_PLACE) pages.counts[page] = pages.counts[page]! - 1;
    return before;
  }

  touchNode(node: IndexNode): void {
    if (node.isDirty) return;
    node.isDirty = true;
    this.dirtyNodes.push(node);
  }

  private holdPages(node: IndexNode): void {
    const { refs } = this.pages;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const page = node.pages[region]!;
      if (page !== NO_PAGE) refs[page] = refs[page]! + 1;
    }
  }

  /** A holder gives up the node; the last one frees it and gives up its pages. */
  dropNode(node: IndexNode): void {
    assert(node.refs > 0, "index: dropped a node that nobody holds");
    node.refs -= 1;
    if (node.refs !== 0) return;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const page = node.pages[region]!;
      if (page !== NO_PAGE) this.dropPage(page);
    }
    this.retired.push(node.place, node.bytes);
    this.noteNodes(-1);
  }

  /** What a complete next checkpoint makes superfluous: the caller's from now on. */
  takeRetired(): RetiredPlaces {
    const taken = this.retired;
    this.retired = new RetiredPlaces();
    return taken;
  }

  /** An item of the newest checkpoint was copied elsewhere or is superseded. */
  retire(place: number, bytes: number): void {
    this.retired.push(place, bytes);
  }

  /** The nodes to write, each held for the caller; what changes from now on is for the next. */
  freeze(): IndexNode[] {
    assert(!this.isFrozen, "index: frozen twice");
    this.noteNodes(0);
    this.isFrozen = true;
    const nodes: IndexNode[] = [];
    for (const node of this.dirtyNodes) {
      node.isDirty = false;
      if (node.refs === 0) continue;
      node.refs += 1;
      nodes.push(node);
    }
    this.dirtyNodes = [];
    return nodes;
  }
}

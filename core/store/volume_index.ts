/**
 * The index of one volume: lba -> place in the log and 16 bits of checksum; region -> tag.
 *
 *   volume -> nodes (512 MiB each) -> pages (2 MiB each) in the arena -> entries of 8 bytes
 *
 * Every change of an entry keeps the segment table's counts, so that space comes back.
 * Invariants:
 *  1. segments.liveBlocks counts exactly the entries above LOST_PLACE of all volumes.
 *  2. A region whose entries or tag changed since the last checkpoint began is in a node on the
 *     list of dirty nodes; if entries changed, `changed` is set.
 *  3. A place of the last checkpoint that is no longer needed is on `retired`, and counts as live
 *     until a checkpoint that no longer mentions it is complete.
 */
import { assert } from "../base/assert.ts";
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { NODE_REGIONS, PAGE_WORDS } from "../format/checkpoint.ts";
import type { IndexArena } from "./index_arena.ts";
import { IndexNode, NO_PAGE } from "./index_node.ts";
import type { SegmentTable } from "./segment_table.ts";

/** Place of a block that never had data or was trimmed. */
export const HOLE_PLACE = 0;
/** Place of a block whose index page rotted: there may be data, nobody knows where. */
export const LOST_PLACE = 1;
/** Blocks a node covers. */
export const NODE_BLOCKS = NODE_REGIONS * REGION_BLOCKS;

/** Places in the log that a coming checkpoint makes superfluous. */
export class RetiredPlaces {
  readonly places: number[] = [];
  readonly bytes: number[] = [];

  push(place: number, bytes: number): void {
    this.places.push(place);
    this.bytes.push(bytes);
  }
}

export class VolumeIndex {
  readonly id: VolumeId;
  blocks: number;
  /** Blocks with data. */
  usedBlocks = 0;
  nodes: (IndexNode | null)[];
  /** Tags of whole nodes; a region's tag is the greater of this and its own. */
  wideEpochs: Float64Array;
  widePoints: Uint32Array;
  dirtyNodes: IndexNode[] = [];
  readonly retired: { now: RetiredPlaces };
  private readonly arena: IndexArena;
  private readonly segments: SegmentTable;

  constructor(
    id: VolumeId,
    blocks: number,
    arena: IndexArena,
    segments: SegmentTable,
    retired: { now: RetiredPlaces },
  ) {
    this.id = id;
    this.blocks = blocks;
    this.arena = arena;
    this.segments = segments;
    this.retired = retired;
    const nodeCount = Math.ceil(blocks / NODE_BLOCKS);
    this.nodes = new Array<IndexNode | null>(nodeCount).fill(null);
    this.wideEpochs = new Float64Array(nodeCount);
    this.widePoints = new Uint32Array(nodeCount);
  }

  grow(blocks: number): void {
    const nodeCount = Math.ceil(blocks / NODE_BLOCKS);
    while (this.nodes.length < nodeCount) this.nodes.push(null);
    const epochs = new Float64Array(nodeCount);
    epochs.set(this.wideEpochs);
    const points = new Uint32Array(nodeCount);
    points.set(this.widePoints);
    this.wideEpochs = epochs;
    this.widePoints = points;
    this.blocks = blocks;
  }

  /** Place of a block: HOLE_PLACE, LOST_PLACE, or where its entry lies in 16-byte units. */
  placeAt(lba: number): number {
    const number = Math.floor(lba / NODE_BLOCKS);
    const node = this.nodes[number];
    if (node === null || node === undefined) return HOLE_PLACE;
    const inNode = lba - number * NODE_BLOCKS;
    const page = node.pages[inNode >>> 9]!;
    if (page === NO_PAGE) return HOLE_PLACE;
    const words = this.arena.slab(page);
    const word = this.arena.base(page) + (inNode & 511) * 2;
    return words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
  }

  /** The 16 check bits of a block; 0 for holes. */
  checkAt(lba: number): number {
    const number = Math.floor(lba / NODE_BLOCKS);
    const node = this.nodes[number];
    if (node === null || node === undefined) return 0;
    const inNode = lba - number * NODE_BLOCKS;
    const page = node.pages[inNode >>> 9]!;
    if (page === NO_PAGE) return 0;
    return this.arena.slab(page)[this.arena.base(page) + (inNode & 511) * 2 + 1]! >>> 16;
  }

  /** Sets one entry. `place` is LOST_PLACE or a place in a segment, never a hole. */
  set(lba: number, place: number, check: number): void {
    const node = this.nodeOf(Math.floor(lba / NODE_BLOCKS));
    const inNode = lba - node.number * NODE_BLOCKS;
    const region = inNode >>> 9;
    let page = node.pages[region]!;
    if (page === NO_PAGE) {
      page = this.arena.allocate();
      node.pages[region] = page;
      node.pageCount += 1;
    }
    const words = this.arena.slab(page);
    const word = this.arena.base(page) + (inNode & 511) * 2;
    const high = words[word + 1]!;
    const before = words[word]! + (high & 0xffff) * 4294967296;
    if (before === HOLE_PLACE) node.counts[region] = node.counts[region]! + 1;
    else if (before > LOST_PLACE) this.dropData(before);
    words[word] = place >>> 0;
    words[word + 1] = (Math.floor(place / 4294967296) | (check << 16)) >>> 0;
    if (place > LOST_PLACE) {
      this.segments.addBlock(place);
      this.usedBlocks += 1;
    }
    node.changed[region] = 1;
    if (!node.isDirty) this.touch(node);
  }

  /** Makes `[lba, lba + count)` holes; whole pages and nodes at once. */
  clear(lba: number, count: number): void {
    const end = lba + count;
    let at = lba;
    while (at < end) {
      const number = Math.floor(at / NODE_BLOCKS);
      const nodeEnd = (number + 1) * NODE_BLOCKS;
      const node = this.nodes[number];
      if (node === null || node === undefined) {
        at = nodeEnd;
        continue;
      }
      const stop = Math.min(end, nodeEnd);
      this.clearInNode(node, at - number * NODE_BLOCKS, stop - number * NODE_BLOCKS);
      at = stop;
    }
  }

  private clearInNode(node: IndexNode, from: number, to: number): void {
    let at = from;
    while (at < to) {
      const region = at >>> 9;
      const stop = Math.min(to, (region + 1) * REGION_BLOCKS);
      if (node.pages[region] !== NO_PAGE) this.clearInPage(node, region, at & 511, stop - at);
      at = stop;
    }
  }

  private clearInPage(node: IndexNode, region: number, block: number, count: number): void {
    const page = node.pages[region]!;
    const words = this.arena.slab(page);
    const first = this.arena.base(page) + block * 2;
    let cleared = 0;
    for (let word = first; word < first + count * 2; word += 2) {
      const before = words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
      if (before === HOLE_PLACE) continue;
      cleared += 1;
      if (before > LOST_PLACE) this.dropData(before);
      words[word] = 0;
      words[word + 1] = 0;
    }
    if (cleared === 0) return;
    node.counts[region] = node.counts[region]! - cleared;
    node.changed[region] = 1;
    if (node.counts[region] === 0) {
      this.arena.release(page);
      node.pages[region] = NO_PAGE;
      node.pageCount -= 1;
      this.retirePage(node, region);
    }
    this.touch(node);
  }

  private dropData(place: number): void {
    this.segments.dropBlock(place);
    this.usedBlocks -= 1;
  }

  /** Raises the tags of the regions that `[lba, lba + count)` touches to at least this tag. */
  tagRange(lba: number, count: number, epoch: number, point: number): void {
    const last = Math.floor((lba + count - 1) / REGION_BLOCKS);
    let region = Math.floor(lba / REGION_BLOCKS);
    while (region <= last) {
      const number = Math.floor(region / NODE_REGIONS);
      const isWhole = region % NODE_REGIONS === 0 && region + NODE_REGIONS - 1 <= last;
      if (isWhole) {
        this.tagNode(number, epoch, point);
        region += NODE_REGIONS;
      } else {
        this.tagRegion(region, epoch, point);
        region += 1;
      }
    }
  }

  tagRegion(region: number, epoch: number, point: number): void {
    const number = Math.floor(region / NODE_REGIONS);
    const wideEpoch = this.wideEpochs[number]!;
    if (epoch < wideEpoch) return;
    if (epoch === wideEpoch && point <= this.widePoints[number]!) return;
    const node = this.nodeOf(number);
    if (node.raiseTag(region - number * NODE_REGIONS, epoch, point) && !node.isDirty) {
      this.touch(node);
    }
  }

  /** Tags all regions of a node, and forgets the node if it has nothing else to say. */
  private tagNode(number: number, epoch: number, point: number): void {
    const wideEpoch = this.wideEpochs[number]!;
    if (epoch > wideEpoch || (epoch === wideEpoch && point > this.widePoints[number]!)) {
      this.wideEpochs[number] = epoch;
      this.widePoints[number] = point;
    }
    const node = this.nodes[number];
    if (node === null || node === undefined || node.pageCount > 0) return;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      if (node.tagEpochs[region]! > epoch) return;
      if (node.tagEpochs[region] === epoch && node.tagPoints[region]! > point) return;
    }
    for (let region = 0; region < NODE_REGIONS; region += 1) this.retirePage(node, region);
    if (node.place !== 0) this.retired.now.push(node.place, node.bytes);
    node.isGone = true;
    this.nodes[number] = null;
  }

  tagOf(region: number, out: { epoch: number; point: number }): void {
    const number = Math.floor(region / NODE_REGIONS);
    out.epoch = this.wideEpochs[number] ?? 0;
    out.point = this.widePoints[number] ?? 0;
    const node = this.nodes[number];
    if (node === null || node === undefined) return;
    const inNode = region - number * NODE_REGIONS;
    const epoch = node.tagEpochs[inNode]!;
    const point = node.tagPoints[inNode]!;
    if (epoch > out.epoch || (epoch === out.epoch && point > out.point)) {
      out.epoch = epoch;
      out.point = point;
    }
  }

  /** First region at or after `from` that has data or a tag above zero; -1 if none. */
  nextRegion(from: number): number {
    const regionCount = Math.ceil(this.blocks / REGION_BLOCKS);
    let region = from;
    while (region < regionCount) {
      const number = Math.floor(region / NODE_REGIONS);
      if (this.wideEpochs[number]! > 0 || this.widePoints[number]! > 0) return region;
      const node = this.nodes[number];
      const end = (number + 1) * NODE_REGIONS;
      if (node === null || node === undefined) {
        region = end;
        continue;
      }
      for (; region < end && region < regionCount; region += 1) {
        const inNode = region - number * NODE_REGIONS;
        if (node.pages[inNode] !== NO_PAGE) return region;
        if (node.tagEpochs[inNode]! > 0 || node.tagPoints[inNode]! > 0) return region;
      }
    }
    return -1;
  }

  /** Blocks from `lba` on (at most `count`) that are alike: all data or all holes. */
  runLength(lba: number, count: number): number {
    const isData = this.placeAt(lba) !== HOLE_PLACE;
    let length = 1;
    while (length < count) {
      const at = lba + length;
      if (!isData) {
        const skip = this.holeRun(at);
        if (skip > 0) {
          length += skip;
          continue;
        }
      }
      if ((this.placeAt(at) !== HOLE_PLACE) !== isData) break;
      length += 1;
    }
    return Math.min(length, count);
  }

  /** Blocks to the end of the node or page if `at` lies in one without data, else 0. */
  private holeRun(at: number): number {
    const number = Math.floor(at / NODE_BLOCKS);
    const node = this.nodes[number];
    const inNode = at - number * NODE_BLOCKS;
    if (node === null || node === undefined) return NODE_BLOCKS - inNode;
    if (node.pages[inNode >>> 9] === NO_PAGE) return REGION_BLOCKS - (inNode & 511);
    return 0;
  }

  /** A node's entry in the table, made if it is not there. */
  nodeOf(number: number): IndexNode {
    const found = this.nodes[number];
    if (found !== null && found !== undefined) return found;
    assert(number < this.nodes.length, "index: block past the end of its volume");
    const node = new IndexNode(number);
    this.nodes[number] = node;
    return node;
  }

  /** Marks a region for the next checkpoint though nothing changed (its item must move). */
  markChanged(node: IndexNode, region: number): void {
    node.changed[region] = 1;
    this.touch(node);
  }

  touch(node: IndexNode): void {
    if (node.isDirty) return;
    node.isDirty = true;
    this.dirtyNodes.push(node);
  }

  private retirePage(node: IndexNode, region: number): void {
    const place = node.pagePlaces[region]!;
    if (place === 0) return;
    this.retired.now.push(place, node.pageUnits[region]! * 16);
    node.pagePlaces[region] = 0;
    node.pageUnits[region] = 0;
  }

  /** The words of a region's page: array and first word; null if it has no data. */
  pageWords(node: IndexNode, region: number): Uint32Array | null {
    const page = node.pages[region]!;
    if (page === NO_PAGE) return null;
    const base = this.arena.base(page);
    return this.arena.slab(page).subarray(base, base + PAGE_WORDS);
  }
}

/**
 * One version of a volume's index, the head or a snapshot: lba -> place in the log and 16 bits of
 * checksum; region -> tag.
 *
 *   version -> nodes (512 MiB each) -> pages (2 MiB each) -> entries of 8 bytes
 *
 * Nodes and pages may be shared with other versions; what is changed is copied first (see
 * `index_pool.ts`). Snapshots never change but by the cleaner's moves and by damage.
 */
import { assert } from "../base/assert.ts";
import { REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import { ABSENT_PLACE, HOLE_PLACE, type IndexPool, LOST_PLACE } from "./index_pool.ts";

/** Blocks a node covers. */
export const NODE_BLOCKS = NODE_REGIONS * REGION_BLOCKS;

/** `snapshot` of the version that clients write. */
export const HEAD = 0;

export class VolumeIndex {
  readonly id: VolumeId;
  /** Number of the snapshot, HEAD for the volume itself. */
  readonly snapshot: number;
  /** Of a snapshot: its place among all that were ever made. */
  readonly order: number;
  /** The version before this one, in the order of their making; null for the first. */
  older: VolumeIndex | null = null;
  /** A snapshot that is being given up, region by region. */
  isDying = false;
  blocks: number;
  /** Blocks with data. */
  usedBlocks = 0;
  nodes: (IndexNode | null)[];
  /** Tags of whole nodes; a region's tag is the greater of this and its own. Heads only. */
  wideEpochs: Float64Array;
  widePoints: Uint32Array;
  private readonly pool: IndexPool;

  constructor(id: VolumeId, snapshot: number, order: number, blocks: number, pool: IndexPool) {
    this.id = id;
    this.snapshot = snapshot;
    this.order = order;
    this.blocks = blocks;
    this.pool = pool;
    const nodeCount = Math.ceil(blocks / NODE_BLOCKS);
    this.nodes = new Array<IndexNode | null>(nodeCount).fill(null);
    this.wideEpochs = new Float64Array(snapshot === HEAD ? nodeCount : 0);
    this.widePoints = new Uint32Array(snapshot === HEAD ? nodeCount : 0);
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

  /** The page that holds the block's entry, NO_PAGE if its region has no data. */
  pageOf(lba: number): number {
    // What the cleaner takes for an entry may be anything.
    if (lba < 0 || lba >= this.blocks) return NO_PAGE;
    const number = Math.floor(lba / NODE_BLOCKS);
    const node = this.nodes[number];
    if (node === null || node === undefined) return NO_PAGE;
    return node.pages[(lba - number * NODE_BLOCKS) >>> 9]!;
  }

  /**
   * The page of this region in the nearest version before this one that has not given it up.
   * (The versions that have a block follow each other, so nobody further back has what it lacks.)
   */
  olderPage(lba: number): number {
    let version = this.older;
    while (version !== null) {
      const page = version.pageOf(lba);
      if (page !== NO_PAGE || !version.isDying) return page;
      version = version.older;
    }
    return NO_PAGE;
  }

  /**
   * Place of a block: HOLE_PLACE, LOST_PLACE, ABSENT_PLACE if its page is not in memory, or where
   * its entry lies in 16-byte units.
   */
  placeAt(lba: number): number {
    const page = this.pageOf(lba);
    if (page === NO_PAGE) return HOLE_PLACE;
    return this.pool.isThere(page) ? this.pool.placeIn(page, lba & 511) : ABSENT_PLACE;
  }

  /** The 16 check bits of a block whose page is in memory; 0 for holes. */
  checkAt(lba: number): number {
    const page = this.pageOf(lba);
    return page === NO_PAGE ? 0 : this.pool.checkIn(page, lba & 511);
  }

  /** The check bits of blocks whose pages are in memory. */
  checksOf(lba: number, count: number): Uint16Array {
    const checks = new Uint16Array(count);
    for (let index = 0; index < count; index += 1) checks[index] = this.checkAt(lba + index);
    return checks;
  }

  /** The node of this block says something new: a page of it changed for all its holders. */
  touchNodeOf(lba: number): void {
    const node = this.nodes[Math.floor(lba / NODE_BLOCKS)];
    if (node !== null && node !== undefined) this.pool.touchNode(node);
  }

  /** Sets one entry. `place` is LOST_PLACE or a place in a segment, never a hole. */
  set(lba: number, place: number, check: number): void {
    const page = this.writablePage(lba);
    const before = this.pool.putIn(page, lba & 511, place, check);
    if (before > LOST_PLACE) this.uncount(lba, before);
    if (place <= LOST_PLACE) return;
    this.pool.segments.addBlock(place);
    this.usedBlocks += 1;
  }

  /** This version has the block at `place` no more; it is dead unless the one before has it. */
  private uncount(lba: number, place: number): void {
    this.usedBlocks -= 1;
    if (this.older !== null) {
      const page = this.olderPage(lba);
      if (page !== NO_PAGE && this.pool.placeIn(page, lba & 511) === place) return;
    }
    this.pool.segments.dropBlock(place);
  }

  /** The block's page, this version's own and in the next checkpoint. */
  private writablePage(lba: number): number {
    const number = Math.floor(lba / NODE_BLOCKS);
    const node = this.ownNode(number);
    return this.ownPage(node, (lba - number * NODE_BLOCKS) >>> 9);
  }

  private ownPage(node: IndexNode, region: number): number {
    const { pool } = this;
    const page = node.pages[region]!;
    if (page === NO_PAGE) {
      node.pageCount += 1;
      node.pages[region] = pool.createPage();
    } else if (pool.pages.refs[page]! > 1) {
      node.pages[region] = pool.clonePage(page);
    } else {
      pool.pages.markDirty(page);
    }
    return node.pages[region]!;
  }

  /** A snapshot of this version as it is now: it holds the same nodes. */
  fork(snapshot: number, order: number): VolumeIndex {
    const copy = new VolumeIndex(this.id, snapshot, order, this.blocks, this.pool);
    copy.nodes = this.nodes.slice();
    for (const node of copy.nodes) if (node !== null) node.refs += 1;
    copy.usedBlocks = this.usedBlocks;
    copy.older = this.older;
    this.older = copy;
    return copy;
  }

  /** Makes `[lba, lba + count)` holes; whole pages and nodes at once. */
  clear(lba: number, count: number): void {
    const end = lba + count;
    let at = lba;
    while (at < end) {
      const number = Math.floor(at / NODE_BLOCKS);
      const first = number * NODE_BLOCKS;
      const nodeEnd = Math.min(first + NODE_BLOCKS, this.blocks);
      const node = this.nodes[number];
      const stop = Math.min(end, nodeEnd);
      if (node !== null && node !== undefined && node.pageCount > 0) {
        if (at === first && stop === nodeEnd) this.clearNode(node);
        else this.clearInNode(number, at - first, stop - first);
      }
      at = stop;
    }
  }

  /** Puts a node without pages in the place of one; its pages are given up in the background. */
  private clearNode(node: IndexNode): void {
    this.usedBlocks -= node.usedBlocks(this.pool.pages);
    const bare = node.hasTags ? this.pool.createNode(this.id, node.number, null) : null;
    if (bare !== null) {
      bare.tagEpochs.set(node.tagEpochs);
      bare.tagPoints.set(node.tagPoints);
      this.pool.touchNode(bare);
    }
    this.nodes[node.number] = bare;
    this.pool.graveyard.nodes.push({ node, order: this.older?.order ?? 0 });
  }

  private clearInNode(number: number, from: number, to: number): void {
    const inVolume = this.blocks - number * NODE_BLOCKS;
    let at = from;
    while (at < to) {
      const region = at >>> 9;
      const regionEnd = Math.min((region + 1) * REGION_BLOCKS, inVolume);
      const stop = Math.min(to, regionEnd);
      const page = this.nodes[number]!.pages[region]!;
      if (page !== NO_PAGE) {
        const isWhole = (at & 511) === 0 && stop === regionEnd;
        if (isWhole) this.removePage(number, region);
        else this.clearInPage(number, region, at & 511, stop - at);
      }
      at = stop;
    }
  }

  private removePage(number: number, region: number): void {
    const { pool } = this;
    const node = this.ownNode(number);
    const page = node.pages[region]!;
    this.usedBlocks -= pool.pages.counts[page]! - pool.pages.losts[page]!;
    node.pages[region] = NO_PAGE;
    node.pageCount -= 1;
    const inVolume = number * NODE_REGIONS + region;
    const older = this.olderPage(inVolume * REGION_BLOCKS);
    if (pool.mayUncount(page, older)) {
      pool.uncount(page, older, NO_PAGE);
      pool.dropPage(page);
    } else {
      const order = this.older?.order ?? 0;
      pool.graveyard.pages.push({ page, volume: this.id, region: inVolume, order });
    }
  }

  private clearInPage(number: number, region: number, block: number, count: number): void {
    const { pool } = this;
    let page = NO_PAGE;
    for (let at = block; at < block + count; at += 1) {
      const before = pool.placeIn(this.nodes[number]!.pages[region]!, at);
      if (before === HOLE_PLACE) continue;
      // The first that is no hole makes the page this version's own.
      if (page === NO_PAGE) page = this.ownPage(this.ownNode(number), region);
      pool.putIn(page, at, HOLE_PLACE, 0);
      if (before > LOST_PLACE)
        this.uncount(number * NODE_BLOCKS + region * REGION_BLOCKS + at, before);
    }
    if (page !== NO_PAGE && pool.pages.counts[page] === 0) this.removePage(number, region);
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
    const inNode = region - number * NODE_REGIONS;
    const node = this.nodes[number];
    if (node !== null && node !== undefined && !node.isBelow(inNode, epoch, point)) return;
    this.ownNode(number).raiseTag(inNode, epoch, point);
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
    this.nodes[number] = null;
    this.pool.dropNode(node);
  }

  tagOf(region: number, out: { epoch: number; point: number }): void {
    const number = Math.floor(region / NODE_REGIONS);
    out.epoch = this.wideEpochs[number] ?? 0;
    out.point = this.widePoints[number] ?? 0;
    const node = this.nodes[number];
    if (node === null || node === undefined) return;
    const inNode = region - number * NODE_REGIONS;
    if (!node.isBelow(inNode, out.epoch, out.point)) {
      out.epoch = node.tagEpochs[inNode]!;
      out.point = node.tagPoints[inNode]!;
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

  /**
   * Blocks from `lba` on (at most `count`) that are alike, all data or all holes, as far as pages
   * are in memory; 0 if the first is not.
   */
  runLength(lba: number, count: number): number {
    const first = this.placeAt(lba);
    if (first === ABSENT_PLACE) return 0;
    let length = 1;
    while (length < count) {
      const at = lba + length;
      if (first === HOLE_PLACE) {
        const skip = this.holeRun(at);
        if (skip > 0) {
          length += skip;
          continue;
        }
      }
      const place = this.placeAt(at);
      if (place === ABSENT_PLACE || (place !== HOLE_PLACE) !== (first !== HOLE_PLACE)) break;
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

  /** The node of this number, this version's own and in the next checkpoint; made if missing. */
  private ownNode(number: number): IndexNode {
    const { pool } = this;
    const found = this.nodes[number];
    if (found !== null && found !== undefined && found.refs === 1) {
      pool.touchNode(found);
      return found;
    }
    assert(number < this.nodes.length, "index: block past the end of its volume");
    const node = pool.createNode(this.id, number, found ?? null);
    if (found !== null && found !== undefined) pool.dropNode(found);
    this.nodes[number] = node;
    pool.touchNode(node);
    return node;
  }
}

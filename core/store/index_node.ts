/**
 * A node of a volume's index: 256 regions of 512 blocks, the pages that say where their blocks
 * lie, and their tags (R10). Versions of a volume (the head, snapshots) share nodes; a node that
 * more than one of them holds is never changed, it is copied first.
 */
import type { VolumeId } from "../base/units.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import type { PageTable } from "./page_table.ts";

export const NO_PAGE = -1;

/** What a node takes in memory, about: three arrays and their heads. */
export const NODE_MEMORY_BYTES = NODE_REGIONS * 16 + 512;

export class IndexNode {
  readonly volume: VolumeId;
  readonly number: number;
  /** Page per region, NO_PAGE if no block has data. */
  readonly pages: Int32Array;
  readonly tagEpochs: Float64Array;
  readonly tagPoints: Uint32Array;
  /** Versions that hold it; the graveyard and a running checkpoint count as one each. */
  refs = 1;
  /** In the list of nodes that the next checkpoint writes. */
  isDirty = false;
  /** Item of the node in the log; 0 = never stored. */
  place = 0;
  bytes = 0;
  /** Regions with a page. */
  pageCount = 0;

  constructor(volume: VolumeId, number: number, from: IndexNode | null = null) {
    this.volume = volume;
    this.number = number;
    this.pages = from === null ? new Int32Array(NODE_REGIONS).fill(NO_PAGE) : from.pages.slice();
    this.tagEpochs = from?.tagEpochs.slice() ?? new Float64Array(NODE_REGIONS);
    this.tagPoints = from?.tagPoints.slice() ?? new Uint32Array(NODE_REGIONS);
    this.pageCount = from?.pageCount ?? 0;
  }

  raiseTag(region: number, epoch: number, point: number): void {
    if (!this.isBelow(region, epoch, point)) return;
    this.tagEpochs[region] = epoch;
    this.tagPoints[region] = point;
  }

  /** True if the region's own tag is below this one. */
  isBelow(region: number, epoch: number, point: number): boolean {
    const ownEpoch = this.tagEpochs[region]!;
    return ownEpoch < epoch || (ownEpoch === epoch && this.tagPoints[region]! < point);
  }

  get hasTags(): boolean {
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      if (this.tagEpochs[region] !== 0 || this.tagPoints[region] !== 0) return true;
    }
    return false;
  }

  /** Blocks with data in all its pages. */
  usedBlocks(pages: PageTable): number {
    let used = 0;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const page = this.pages[region]!;
      if (page !== NO_PAGE) used += pages.counts[page]! - pages.losts[page]!;
    }
    return used;
  }
}

/**
 * A node of a volume's index: 256 regions of 512 blocks, their pages in memory, where their
 * newest checkpointed version lies in the log, and their tags (R10).
 */
import { NODE_REGIONS } from "../format/checkpoint.ts";

export const NO_PAGE = -1;

export class IndexNode {
  readonly number: number;
  /** Arena page per region, NO_PAGE if no block has data. */
  readonly pages = new Int32Array(NODE_REGIONS).fill(NO_PAGE);
  /** Entries of the page that are not holes. */
  readonly counts = new Uint16Array(NODE_REGIONS);
  readonly tagEpochs = new Float64Array(NODE_REGIONS);
  readonly tagPoints = new Uint32Array(NODE_REGIONS);
  /** Item of the page in the log and its length in 16-byte units; 0 = never checkpointed. */
  readonly pagePlaces = new Float64Array(NODE_REGIONS);
  readonly pageUnits = new Uint16Array(NODE_REGIONS);
  /** 1: the page differs from its checkpointed version. */
  readonly changed = new Uint8Array(NODE_REGIONS);
  /** In its volume's list of nodes to checkpoint. */
  isDirty = false;
  /** Replaced or dropped: no longer in its volume's table. */
  isGone = false;
  /** Item of the node in the log; 0 = never checkpointed. */
  place = 0;
  bytes = 0;
  /** Regions with a page. */
  pageCount = 0;

  constructor(number: number) {
    this.number = number;
  }

  raiseTag(region: number, epoch: number, point: number): boolean {
    const ownEpoch = this.tagEpochs[region]!;
    if (epoch < ownEpoch) return false;
    if (epoch === ownEpoch && point <= this.tagPoints[region]!) return false;
    this.tagEpochs[region] = epoch;
    this.tagPoints[region] = point;
    return true;
  }
}

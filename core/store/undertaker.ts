/**
 * Gives up, page by page, what no version has any more: first what is in the graveyard, then
 * snapshots that were dropped. In that order: what a volume trimmed compares itself with the
 * snapshots that were there, so they must not be gone before.
 *
 * A page is given up when it and its neighbours in time are in memory: the same region's pages in
 * the version before and after. A block that neither has is dead.
 */
import { REGION_BLOCKS } from "../base/units.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import type { GraveNode, GravePage } from "./graveyard.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import type { PageCache } from "./page_cache.ts";
import type { StoreState } from "./state.ts";
import { type Task, WAIT } from "./task.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** Pages given up in one turn. */
const PAGES_PER_TURN = 512;

export class Undertaker {
  private readonly state: StoreState;
  private readonly cache: PageCache;
  private readonly mustStop: () => boolean;
  private count = 0;

  /** `mustStop`: something presses more; what is left is done another time. */
  constructor(state: StoreState, cache: PageCache, mustStop: () => boolean) {
    this.state = state;
    this.cache = cache;
    this.mustStop = mustStop;
  }

  *run(): Task<boolean> {
    for (;;) {
      const { pages, nodes } = this.state.pool.graveyard;
      const dying = this.state.snapshots.find((each) => each.isDying);
      if (pages[0] !== undefined) yield* this.giveUpPage(pages[0]);
      else if (nodes[0] !== undefined) yield* this.giveUpNode(nodes[0]);
      else if (dying !== undefined) yield* this.giveUpSome(dying);
      else return true;
      if (this.count < PAGES_PER_TURN) continue;
      this.count = 0;
      if (this.mustStop()) return true;
      yield WAIT.turn;
    }
  }

  private *giveUpPage(grave: GravePage): Task<void> {
    const { pool } = this.state;
    const { page, volume, region, order } = grave;
    yield* this.uncount(page, grave, () => [
      this.state.pageUpTo(volume, order, region * REGION_BLOCKS),
      NO_PAGE,
    ]);
    pool.graveyard.pages.splice(pool.graveyard.pages.indexOf(grave), 1);
    pool.dropPage(page);
  }

  /** One region of a node that only the graveyard holds, or the hold of one that others have. */
  private *giveUpNode(grave: GraveNode): Task<void> {
    const { pool } = this.state;
    const { node, order } = grave;
    const region = node.refs > 1 ? -1 : node.pages.findIndex((page) => page !== NO_PAGE);
    if (region < 0) {
      pool.graveyard.nodes.splice(pool.graveyard.nodes.indexOf(grave), 1);
      pool.dropNode(node);
      this.count += 1;
      return;
    }
    const at = { volume: node.volume, region: node.number * NODE_REGIONS + region };
    yield* this.uncount(node.pages[region]!, at, () => [
      this.state.pageUpTo(node.volume, order, at.region * REGION_BLOCKS),
      NO_PAGE,
    ]);
    this.removePage(node, region);
  }

  /** One region, or one node, of a snapshot that was dropped. */
  private *giveUpSome(snapshot: VolumeIndex): Task<void> {
    const { pool } = this.state;
    const number = snapshot.nodes.findIndex((node) => node !== null);
    const node = snapshot.nodes[number];
    if (node === null || node === undefined) {
      this.state.forgetSnapshot(snapshot);
      return;
    }
    const region = node.refs > 1 ? -1 : node.pages.findIndex((page) => page !== NO_PAGE);
    if (region < 0) {
      snapshot.nodes[number] = null;
      pool.dropNode(node);
      this.count += 1;
      return;
    }
    const at = { volume: snapshot.id, region: number * NODE_REGIONS + region };
    const lba = at.region * REGION_BLOCKS;
    const isDone = yield* this.uncount(node.pages[region]!, at, () => {
      // What was trimmed during the wait comes first.
      if (!pool.graveyard.isEmpty) return null;
      return [snapshot.olderPage(lba), this.state.newerPage(snapshot, lba)];
    });
    if (isDone) this.removePage(node, region);
  }

  /** Its stored version still has the page: a checkpoint before the rest must write it anew. */
  private removePage(node: IndexNode, region: number): void {
    const { pool } = this.state;
    const page = node.pages[region]!;
    node.pages[region] = NO_PAGE;
    node.pageCount -= 1;
    pool.touchNode(node);
    pool.dropPage(page);
  }

  /**
   * Waits until a page and its neighbours, looked up anew each time, are in memory together, and
   * counts as dead what neither has. False if the neighbours cannot be told now.
   */
  private *uncount(
    page: number,
    at: Pick<GravePage, "volume" | "region">,
    neighbours: () => readonly [number, number] | null,
  ): Task<boolean> {
    const { cache } = this;
    for (;;) {
      const { misses } = cache;
      const found = neighbours();
      if (found === null) return false;
      const [older, newer] = found;
      let areThere = true;
      for (const each of [page, older, newer]) {
        const isThere = each === NO_PAGE || cache.bringPage(each, at.volume, at.region);
        areThere &&= isThere;
      }
      if (areThere && misses === cache.misses) {
        this.state.pool.uncount(page, older, newer);
        this.count += 1;
        return true;
      }
      if (!areThere) yield WAIT.page;
    }
  }
}

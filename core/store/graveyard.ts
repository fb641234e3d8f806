/**
 * What no version has any more but is still counted: nodes, whose pages are given up one by one,
 * and pages that were not in memory when they were given up, so that their entries must be read
 * before their blocks can be counted as dead. Drained in the background; every checkpoint names
 * what is in it, and roll-forward fills it again.
 */
import type { VolumeId } from "../base/units.ts";
import type { IndexNode } from "./index_node.ts";

/** A page, held by the graveyard. */
export interface GravePage {
  readonly page: number;
  readonly volume: VolumeId;
  readonly region: number;
}

export class Graveyard {
  /** Each held by the graveyard. */
  readonly nodes: IndexNode[] = [];
  readonly pages: GravePage[] = [];

  get isEmpty(): boolean {
    return this.nodes.length === 0 && this.pages.length === 0;
  }
}

/**
 * What a volume gave up while not all of it was in memory: nodes, whose pages are given up one by
 * one, and single pages. Their entries must be read before their blocks can be counted as dead,
 * but for those that a snapshot has, too. Drained in the background; every checkpoint names what is
 * in it, and roll-forward fills it again.
 */
import type { VolumeId } from "../base/units.ts";
import type { IndexNode } from "./index_node.ts";

/** A page, held by the graveyard. */
export interface GravePage {
  readonly page: number;
  readonly volume: VolumeId;
  readonly region: number;
  /** Newest snapshot of the volume when it was given up; 0 = none. Later ones have none of it. */
  readonly order: number;
}

/** A node, held by the graveyard. */
export interface GraveNode {
  readonly node: IndexNode;
  readonly order: number;
}

export class Graveyard {
  readonly nodes: GraveNode[] = [];
  readonly pages: GravePage[] = [];

  get isEmpty(): boolean {
    return this.nodes.length === 0 && this.pages.length === 0;
  }
}

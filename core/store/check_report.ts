/**
 * What an offline check found: damage of the store's own structures as rows, blocks that cannot be
 * read as ranges of their volumes. Bounded, with counts that are always right.
 */
import type { DamageRow } from "./damage.ts";

/** Blocks listed one by one; beyond it they are counted only, and repaired by another round. */
export const BAD_BLOCKS_MAX = 1 << 20;
/** Ranges of blocks listed. */
export const RANGES_MAX = 10_000;

/** Why a block that the index calls lost is not there. */
export const WHY_LOST = "it is lost: no copy of it is left here";

/** Neighbouring blocks that cannot be read, all for one reason. */
export interface BadRange {
  readonly volume: number;
  readonly lba: number;
  count: number;
  readonly why: string;
}

/** A block that lies at `place` but is not what the index says. */
export interface BadBlock {
  readonly volume: number;
  readonly lba: number;
  readonly place: number;
  readonly why: string;
}

export interface CheckReport {
  readonly ok: true;
  /** Nothing is damaged, nothing is lost. */
  readonly isSound: boolean;
  readonly blocksChecked: number;
  readonly batchesChecked: number;
  /** Of the store's own structures. */
  readonly damageCount: number;
  /** The first 10 000. */
  readonly damage: readonly DamageRow[];
  /** Blocks whose bytes are not what was written. `repair` makes them lost. */
  readonly badCount: number;
  readonly badBlocks: readonly BadBlock[];
  /** Blocks that the index says are lost: reading them is an error until they are healed. */
  readonly lostCount: number;
  /** Bad and lost blocks, by volume and address; the first 10 000 ranges. */
  readonly ranges: readonly BadRange[];
  readonly isCut: boolean;
  /** Records that were durable and cannot be told any more: other blocks may be stale. */
  readonly lostRecords: number;
  readonly segmentsTotal: number;
  readonly segmentsFree: number;
  /** In use for nothing any more: free with the next start. */
  readonly segmentsDead: number;
}

/** Collects blocks as they are found, in any order. */
export class BadBlocks {
  badCount = 0;
  lostCount = 0;
  readonly blocks: BadBlock[] = [];
  private readonly lost: BadRange[] = [];
  private lostIsCut = false;

  bad(volume: number, lba: number, place: number, why: string): void {
    this.badCount += 1;
    if (this.blocks.length < BAD_BLOCKS_MAX) this.blocks.push({ volume, lba, place, why });
  }

  /** Blocks that the index calls lost; called in the order of their addresses. */
  addLost(volume: number, lba: number, count: number): void {
    this.lostCount += count;
    const last = this.lost.at(-1);
    if (last?.volume === volume && last.lba + last.count === lba) last.count += count;
    else if (this.lost.length < RANGES_MAX) this.lost.push({ volume, lba, count, why: WHY_LOST });
    else this.lostIsCut = true;
  }

  /** All of it by volume and address. */
  ranges(): { readonly ranges: BadRange[]; readonly isCut: boolean } {
    const singles = this.blocks.map(({ volume, lba, why }) => ({ volume, lba, count: 1, why }));
    const all = [...this.lost, ...singles];
    all.sort((left, right) => left.volume - right.volume || left.lba - right.lba);
    const ranges: BadRange[] = [];
    let isCut = this.lostIsCut || this.badCount > this.blocks.length;
    for (const { volume, lba, count, why } of all) {
      const last = ranges.at(-1);
      const isNext = last?.volume === volume && last.lba + last.count === lba;
      if (isNext && last.why === why) last.count += count;
      else if (ranges.length < RANGES_MAX) ranges.push({ volume, lba, count, why });
      else isCut = true;
    }
    return { ranges, isCut };
  }
}

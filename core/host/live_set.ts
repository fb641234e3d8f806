/**
 * Blocks that a joining host has written live (from the mirror's streams) in this session: copies
 * never overwrite them (R11). One bit a block, kept per region; regions that the copy has passed
 * are forgotten, since no copy comes for them any more.
 */
import { REGION_BLOCKS } from "../base/units.ts";

const WORDS = REGION_BLOCKS / 32;

export class LiveSet {
  private readonly volumes = new Map<number, Map<number, Uint32Array>>();

  clear(): void {
    this.volumes.clear();
  }

  mark(volume: number, lba: number, blockCount: number): void {
    const end = lba + blockCount;
    for (let block = lba; block < end; ) {
      const region = Math.floor(block / REGION_BLOCKS);
      const regionEnd = Math.min(end, (region + 1) * REGION_BLOCKS);
      const words = this.words(volume, region);
      if (block === region * REGION_BLOCKS && regionEnd - block === REGION_BLOCKS) {
        words.fill(0xffffffff);
      } else {
        for (let each = block; each < regionEnd; each += 1) {
          const bit = each - region * REGION_BLOCKS;
          words[bit >>> 5] = words[bit >>> 5]! | (1 << (bit & 31));
        }
      }
      block = regionEnd;
    }
  }

  has(volume: number, lba: number): boolean {
    const region = Math.floor(lba / REGION_BLOCKS);
    const words = this.volumes.get(volume)?.get(region);
    if (words === undefined) return false;
    const bit = lba - region * REGION_BLOCKS;
    return (words[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  /**
   * Calls `visit(lba, count)` for each longest run of blocks in `[lba, lba + blockCount)`, inside
   * one region, that were not written live.
   */
  gaps(
    volume: number,
    lba: number,
    blockCount: number,
    visit: (lba: number, blockCount: number) => void,
  ): void {
    const region = Math.floor(lba / REGION_BLOCKS);
    const words = this.volumes.get(volume)?.get(region);
    if (words === undefined) {
      visit(lba, blockCount);
      return;
    }
    let start = -1;
    const end = lba + blockCount;
    for (let block = lba; block <= end; block += 1) {
      const isGap = block < end && !this.has(volume, block);
      if (isGap && start < 0) start = block;
      if (!isGap && start >= 0) {
        visit(start, block - start);
        start = -1;
      }
    }
  }

  /** The copy has passed `region`. */
  forget(volume: number, region: number): void {
    this.volumes.get(volume)?.delete(region);
  }

  private words(volume: number, region: number): Uint32Array {
    let regions = this.volumes.get(volume);
    if (regions === undefined) {
      regions = new Map();
      this.volumes.set(volume, regions);
    }
    let words = regions.get(region);
    if (words === undefined) {
      words = new Uint32Array(WORDS);
      regions.set(region, words);
    }
    return words;
  }
}

/** Data and holes of a range, as far as the index is in memory. */
import { HOLE_PLACE } from "./index_pool.ts";
import type { PageCache } from "./page_cache.ts";
import type { VolumeIndex } from "./volume_index.ts";

export type Visit = (blockCount: number, isData: boolean) => void;

/** See `Store.extents`; returns the blocks told, from `lba` on. */
export function tellExtents(
  cache: PageCache,
  index: VolumeIndex,
  lba: number,
  blockCount: number,
  visit: Visit,
): number {
  let at = lba;
  const end = Math.min(lba + blockCount, index.blocks);
  while (at < end) {
    const length = index.runLength(at, end - at);
    if (length === 0) {
      if (!cache.bring(index, at)) break;
      continue;
    }
    visit(length, index.placeAt(at) !== HOLE_PLACE);
    at += length;
  }
  return at - lba;
}

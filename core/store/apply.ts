/**
 * What an item of the log does to the state; the same code when it is appended and when it is
 * rolled forward, so both always agree.
 */
import { assert } from "../base/assert.ts";
import { REGION_BLOCKS } from "../base/units.ts";
import { META_SLOTS } from "../format/checkpoint.ts";
import {
  ENTRY,
  hasBlocks,
  RECORD_HEADER_BYTES,
  RECORD_TYPE,
  type RecordHeader,
  STORED_BLOCK_BYTES,
} from "../format/record.ts";
import { ITEM_KIND, PLACE_UNIT } from "../format/segment.ts";
import { NO_PAGE } from "./index_node.ts";
import { LOST_PLACE } from "./index_pool.ts";
import type { StoreState } from "./state.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** Distance of blocks in the log, in places. */
export const STORED_BLOCK_PLACES = STORED_BLOCK_BYTES / PLACE_UNIT;
export const RECORD_HEADER_PLACES = RECORD_HEADER_BYTES / PLACE_UNIT;

/** True if the record can be applied: a known volume, inside it; a known meta slot. */
export function isApplicable(state: StoreState, header: RecordHeader): boolean {
  switch (header.type) {
    case RECORD_TYPE.meta:
      return header.lba < META_SLOTS && header.blockCount <= header.bodyBytes;
    case RECORD_TYPE.mark:
      return true;
    default: {
      const volume = state.volume(header.volume);
      return volume !== undefined && header.lba + header.blockCount <= volume.blocks;
    }
  }
}

/** Applies an applicable record whose header lies at `buffer[at]` and on disk at `place`. */
export function applyRecord(
  state: StoreState,
  header: RecordHeader,
  buffer: Uint8Array,
  view: DataView,
  at: number,
  place: number,
): void {
  if (header.type === RECORD_TYPE.meta) {
    const body = at + RECORD_HEADER_BYTES;
    state.metas[header.lba] = buffer.slice(body, body + header.blockCount);
    return;
  }
  if (header.seq > 0) state.noteStream(header.epoch, header.sender, header.seq);
  if (header.type === RECORD_TYPE.mark) return;
  const volume = state.volume(header.volume) as VolumeIndex;
  if (hasBlocks(header.type)) {
    applyBlocks(volume, header.lba, header.blockCount, view, at, place);
  } else {
    applyEmpty(volume, header.type, header.lba, header.blockCount);
  }
  applyTag(volume, header.lba, header.blockCount, header.epoch, header.tagPoint);
}

/** Points the index at the blocks of a record whose header lies at `at` and at `place`. */
export function applyBlocks(
  volume: VolumeIndex,
  lba: number,
  blockCount: number,
  view: DataView,
  at: number,
  place: number,
): void {
  let entryAt = at + RECORD_HEADER_BYTES;
  let entryPlace = place + RECORD_HEADER_PLACES;
  for (let index = 0; index < blockCount; index += 1) {
    volume.set(lba + index, entryPlace, ENTRY.check.get(view, entryAt) & 0xffff);
    entryAt += STORED_BLOCK_BYTES;
    entryPlace += STORED_BLOCK_PLACES;
  }
}

/** Blocks without bytes: holes, or lost. */
export function applyEmpty(
  volume: VolumeIndex,
  type: number,
  lba: number,
  blockCount: number,
): void {
  if (type !== RECORD_TYPE.copyLost) {
    volume.clear(lba, blockCount);
    return;
  }
  for (let index = 0; index < blockCount; index += 1) volume.set(lba + index, LOST_PLACE, 0);
}

function applyTag(
  volume: VolumeIndex,
  lba: number,
  blockCount: number,
  epoch: number,
  point: number,
): void {
  const region = Math.floor(lba / REGION_BLOCKS);
  if (lba + blockCount <= (region + 1) * REGION_BLOCKS) volume.tagRegion(region, epoch, point);
  else volume.tagRange(lba, blockCount, epoch, point);
}

/** Applies an item that keeps or gives up a snapshot; others are nothing to the state. */
export function applySnapshot(
  state: StoreState,
  kind: number,
  volumeId: number,
  snapshot: number,
): void {
  if (kind === ITEM_KIND.snapshot) state.addSnapshot(volumeId, snapshot);
  else if (kind === ITEM_KIND.drop) state.dropSnapshot(volumeId, snapshot);
}

/**
 * Applies one moved block to every version of its volume whose entry is exactly the place it was
 * moved from. Everywhere else it was overwritten or trimmed meanwhile, or moved already. A page
 * that versions share is changed once for all of them.
 */
export function applyMove(
  state: StoreState,
  volumeId: number,
  lba: number,
  from: number,
  to: number,
  check: number,
): void {
  const { pool } = state;
  assert(!pool.isFrozen, "apply: moved a block while a checkpoint holds nodes");
  let isMoved = false;
  for (const version of state.versionsOf(volumeId)) {
    const page = version.pageOf(lba);
    if (page === NO_PAGE) continue;
    const now = pool.placeIn(page, lba & 511);
    if (now === from) {
      pool.putIn(page, lba & 511, to, check & 0xffff);
      pool.pages.markDirty(page);
      isMoved = true;
    }
    // Every holder of a page that changed must name its next stored version.
    if (now === from || now === to) version.touchNodeOf(lba);
  }
  if (!isMoved) return;
  state.segments.dropBlock(from);
  state.segments.addBlock(to);
}

/** What a read consists of: a job, its runs of blocks that lie together, slots that read them. */
import type { ReadPairs } from "../base/ports.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import { ENTRY, verifyPair } from "../format/record.ts";
import type { VolumeIndex } from "./volume_index.ts";

/** The index says nothing of the block's checksum any more. */
export const ANY_CHECK = -1;

export interface ReadJob {
  token: number;
  volume: VolumeIndex;
  out: Uint8Array;
  /** Runs and parts not finished. */
  pending: number;
  failed: boolean;
}

export interface Run {
  job: ReadJob;
  lba: number;
  count: number;
  place: number;
  /** Check bits of the blocks, since the page may be gone when the disk answers. */
  checks: Uint16Array;
  outAt: number;
}

/** Blocks of one region whose page is not in memory. */
export interface Part {
  readonly job: ReadJob;
  readonly lba: number;
  readonly count: number;
  readonly outAt: number;
}

/** Entries that were read apart from their blocks, and blocks in place. */
export interface Parted extends ReadPairs {
  readonly view: DataView;
}

export interface Slot {
  readonly buffer: Uint8Array;
  readonly view: DataView;
  run: Run | null;
  /** Position of the first entry in the buffer. */
  at: number;
  length: number;
}

/** Names what `isGood` refused. */
export function whyBad(
  volume: VolumeIndex,
  lba: number,
  entries: Uint8Array,
  view: DataView,
  entryAt: number,
  blocks: Uint8Array,
  blockAt: number,
): string {
  if (verifyPair(entries, view, entryAt, blocks, blockAt, volume.id, lba)) {
    return "an older version lies there (lost write)";
  }
  const foundVolume = ENTRY.volume.get(view, entryAt);
  const foundLba = ENTRY.lba.get(view, entryAt);
  if (verifyPair(entries, view, entryAt, blocks, blockAt, foundVolume, foundLba)) {
    return "another block lies there (misdirected or lost write)";
  }
  return "its checksum does not match";
}

/** Copies the block that lies at `blockAt`. */
export function copyBlock(
  buffer: Uint8Array,
  blockAt: number,
  out: Uint8Array,
  outAt: number,
): void {
  out.set(buffer.subarray(blockAt, blockAt + BLOCK_BYTES), outAt);
}

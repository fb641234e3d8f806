/**
 * The superblock: what a store is and where its newest checkpoint lies. Four copies at fixed
 * places; a new generation is written to copies 0 and 1, synced, then to 2 and 3, synced, so at
 * every moment two whole copies of one durable generation exist.
 *
 * A copy is one block of 4096 bytes; its checksum covers all of it after the checksum itself.
 */
import { crc32 } from "../base/checksum.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import { layout, viewOf } from "./layout.ts";

/** "vsSB" little-endian. */
export const SUPERBLOCK_MAGIC = 0x42537376;
export const FORMAT_VERSION = 1;
/** Features without which a store can still be read and written: none yet. */
export const COMPAT_KNOWN = 0;
/** Features without which a store must not be opened: none yet. */
export const INCOMPAT_KNOWN = 0;

export const SUPERBLOCK_COPIES = 4;
export const SUPERBLOCK_BYTES = BLOCK_BYTES;
/** Distance between copies. */
export const SUPERBLOCK_STRIDE = 64 * 1024;
/** Where the segments begin. */
export const AREA_OFFSET = SUPERBLOCK_COPIES * SUPERBLOCK_STRIDE;

export const SUPERBLOCK = layout(
  "superblock",
  { endian: "little", sizeBytes: 160 },
  {
    magic: "u32",
    /** CRC-32 of bytes 8 to 4095. */
    check: "u32",
    version: "u32",
    compat: "u32",
    incompat: "u32",
    /** Which copy this is, 0 to 3. */
    copy: "u32",
    generation: "u64",
    storeIdLow: "u32",
    storeIdHigh: "u32",
    clusterId: "u32",
    hostId: "u32",
    /** Bytes of the file or device when the store was made. */
    storeBytes: "u64",
    segmentBytes: "u64",
    segmentCount: "u32",
    /** Bit 0: closed in order. */
    flags: "u32",
    /** Batches of this session are the log since the checkpoint. */
    session: "u32",
    /** Highest session number ever given out. */
    attempt: "u32",
    /** Where the last chunk of the root lies, twice, in units of 16 bytes from the start. */
    rootPlaceA: "u64",
    rootPlaceB: "u64",
    /** Bytes of the encoded root. */
    rootBytes: "u64",
    /** Highest batch number given out when the checkpoint was cut. */
    cutSeq: "u64",
    /** Per lane: where the first batch after the cut begins, and the batch before it. */
    hotSegment: "u32",
    hotOffset: "u32",
    hotSeq: "u64",
    coldSegment: "u32",
    coldOffset: "u32",
    coldSeq: "u64",
    hotSuccessor: "u32",
    coldSuccessor: "u32",
    /** Durable records that were lost to damage and not made good since; see `Superblock`. */
    lostRecords: "u64",
  },
);

/** Where a lane's first batch after a checkpoint's cut begins. */
export interface LaneCut {
  segment: number;
  /** Byte offset in the segment. */
  offset: number;
  /** Number of the lane's last batch before the cut. */
  seq: number;
  /** Segment the lane goes on in when this one is full. */
  successor: number;
}

/** A superblock as a value. */
export interface Superblock {
  version: number;
  compat: number;
  incompat: number;
  generation: number;
  storeId: readonly [number, number];
  clusterId: number;
  hostId: number;
  sizeBytes: number;
  segmentBytes: number;
  segmentCount: number;
  clean: boolean;
  session: number;
  attempt: number;
  /** Two copies; 0 = none. */
  rootPlaces: readonly [number, number];
  rootBytes: number;
  cutSeq: number;
  cuts: readonly [LaneCut, LaneCut];
  /**
   * Records that were durable once and that recovery could not tell any more, over the store's
   * life; back to 0 when its host has everything from a mirror. Above 0, blocks may be stale.
   */
  lostRecords: number;
}

export function superblockOffset(copy: number): number {
  return copy * SUPERBLOCK_STRIDE;
}

/** Encodes copy `copy` into `buffer[at, at + 4096)`. */
export function encodeSuperblock(
  buffer: Uint8Array,
  at: number,
  copy: number,
  value: Superblock,
): void {
  const view = viewOf(buffer);
  buffer.fill(0, at, at + SUPERBLOCK_BYTES);
  SUPERBLOCK.magic.set(view, at, SUPERBLOCK_MAGIC);
  SUPERBLOCK.version.set(view, at, value.version);
  SUPERBLOCK.compat.set(view, at, value.compat);
  SUPERBLOCK.incompat.set(view, at, value.incompat);
  SUPERBLOCK.copy.set(view, at, copy);
  SUPERBLOCK.generation.set(view, at, value.generation);
  SUPERBLOCK.storeIdLow.set(view, at, value.storeId[0]);
  SUPERBLOCK.storeIdHigh.set(view, at, value.storeId[1]);
  SUPERBLOCK.clusterId.set(view, at, value.clusterId);
  SUPERBLOCK.hostId.set(view, at, value.hostId);
  SUPERBLOCK.storeBytes.set(view, at, value.sizeBytes);
  SUPERBLOCK.segmentBytes.set(view, at, value.segmentBytes);
  SUPERBLOCK.segmentCount.set(view, at, value.segmentCount);
  SUPERBLOCK.flags.set(view, at, value.clean ? 1 : 0);
  SUPERBLOCK.session.set(view, at, value.session);
  SUPERBLOCK.attempt.set(view, at, value.attempt);
  SUPERBLOCK.rootPlaceA.set(view, at, value.rootPlaces[0]);
  SUPERBLOCK.rootPlaceB.set(view, at, value.rootPlaces[1]);
  SUPERBLOCK.rootBytes.set(view, at, value.rootBytes);
  SUPERBLOCK.cutSeq.set(view, at, value.cutSeq);
  const [hot, cold] = value.cuts;
  SUPERBLOCK.hotSegment.set(view, at, hot.segment);
  SUPERBLOCK.hotOffset.set(view, at, hot.offset);
  SUPERBLOCK.hotSeq.set(view, at, hot.seq);
  SUPERBLOCK.hotSuccessor.set(view, at, hot.successor);
  SUPERBLOCK.coldSegment.set(view, at, cold.segment);
  SUPERBLOCK.coldOffset.set(view, at, cold.offset);
  SUPERBLOCK.coldSeq.set(view, at, cold.seq);
  SUPERBLOCK.coldSuccessor.set(view, at, cold.successor);
  SUPERBLOCK.lostRecords.set(view, at, value.lostRecords);
  SUPERBLOCK.check.set(view, at, crc32(buffer, at + 8, SUPERBLOCK_BYTES - 8));
}

/** What lies where a superblock copy should be. */
export type SuperblockCopy =
  | { readonly kind: "good"; readonly value: Superblock }
  | { readonly kind: "blank" | "foreign" | "damaged" };

/** Decodes copy `copy` at `buffer[at, at + 4096)`. Values are not yet checked for sense. */
export function decodeSuperblock(buffer: Uint8Array, at: number, copy: number): SuperblockCopy {
  const view = viewOf(buffer);
  if (SUPERBLOCK.magic.get(view, at) !== SUPERBLOCK_MAGIC) {
    return { kind: isBlank(buffer, at) ? "blank" : "foreign" };
  }
  if (SUPERBLOCK.check.get(view, at) !== crc32(buffer, at + 8, SUPERBLOCK_BYTES - 8)) {
    return { kind: "damaged" };
  }
  // A copy in the wrong place was misdirected by the disk.
  if (SUPERBLOCK.copy.get(view, at) !== copy) return { kind: "damaged" };
  const value: Superblock = {
    version: SUPERBLOCK.version.get(view, at),
    compat: SUPERBLOCK.compat.get(view, at),
    incompat: SUPERBLOCK.incompat.get(view, at),
    generation: SUPERBLOCK.generation.get(view, at),
    storeId: [SUPERBLOCK.storeIdLow.get(view, at), SUPERBLOCK.storeIdHigh.get(view, at)],
    clusterId: SUPERBLOCK.clusterId.get(view, at),
    hostId: SUPERBLOCK.hostId.get(view, at),
    sizeBytes: SUPERBLOCK.storeBytes.get(view, at),
    segmentBytes: SUPERBLOCK.segmentBytes.get(view, at),
    segmentCount: SUPERBLOCK.segmentCount.get(view, at),
    clean: (SUPERBLOCK.flags.get(view, at) & 1) === 1,
    session: SUPERBLOCK.session.get(view, at),
    attempt: SUPERBLOCK.attempt.get(view, at),
    rootPlaces: [SUPERBLOCK.rootPlaceA.get(view, at), SUPERBLOCK.rootPlaceB.get(view, at)],
    rootBytes: SUPERBLOCK.rootBytes.get(view, at),
    cutSeq: SUPERBLOCK.cutSeq.get(view, at),
    cuts: [
      {
        segment: SUPERBLOCK.hotSegment.get(view, at),
        offset: SUPERBLOCK.hotOffset.get(view, at),
        seq: SUPERBLOCK.hotSeq.get(view, at),
        successor: SUPERBLOCK.hotSuccessor.get(view, at),
      },
      {
        segment: SUPERBLOCK.coldSegment.get(view, at),
        offset: SUPERBLOCK.coldOffset.get(view, at),
        seq: SUPERBLOCK.coldSeq.get(view, at),
        successor: SUPERBLOCK.coldSuccessor.get(view, at),
      },
    ],
    lostRecords: SUPERBLOCK.lostRecords.get(view, at),
  };
  return { kind: "good", value };
}

function isBlank(buffer: Uint8Array, at: number): boolean {
  for (let index = at; index < at + SUPERBLOCK_BYTES; index += 1) {
    if (buffer[index] !== 0) return false;
  }
  return true;
}

/** True if the geometry and the places of a checked superblock lie within each other. */
export function superblockIsSound(value: Superblock): boolean {
  const { segmentBytes, segmentCount, sizeBytes } = value;
  if (segmentBytes < 65536 || segmentBytes > 2 ** 30) return false;
  if ((segmentBytes & (segmentBytes - 1)) !== 0 || segmentCount < 1) return false;
  const end = AREA_OFFSET + segmentCount * segmentBytes;
  if (sizeBytes < end || sizeBytes > 2 ** 52) return false;
  const placeEnd = end / 16;
  if (value.rootBytes < 1 || value.rootBytes > 2 ** 31) return false;
  for (const place of value.rootPlaces) {
    if (place < AREA_OFFSET / 16 || place >= placeEnd) return false;
  }
  for (const cut of value.cuts) {
    if (cut.segment >= segmentCount || cut.offset > segmentBytes || cut.seq < 0) return false;
    if (cut.offset % 16 !== 0 || cut.successor >= segmentCount) return false;
  }
  if (value.lostRecords < 0) return false;
  return value.generation >= 1 && value.cutSeq >= 0 && value.attempt >= value.session;
}

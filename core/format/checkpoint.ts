/**
 * What a checkpoint consists of, each an item of the log (`segment.ts`):
 *
 *   superblock -> root -> node (256 regions = 512 MiB of a volume) -> page (512 blocks = 2 MiB)
 *
 * A page is 512 index entries of 8 bytes: the block's place in the log in units of 16 bytes
 * (48 bits; 0 = hole, 1 = lost) and the low 16 bits of its entry's checksum, so that a lost write
 * is noticed. Pages with few blocks are stored sparse. A checkpoint writes the pages and nodes
 * that changed since the one before, and the root, twice.
 */
import { LIMITS } from "../base/limits.ts";
import { REGION_BLOCKS } from "../base/units.ts";
import { blob, list, struct, u16, u32, u64, u8 } from "./codec.ts";
import { layout } from "./layout.ts";

/** Regions in a node. */
export const NODE_REGIONS = 256;
/** Slots for documents (`Store.putMeta`). */
export const META_SLOTS = 16;
/** Bytes of a root chunk; all but the last are whole. */
export const ROOT_CHUNK_BYTES = 65536;
/** Words (u32) of a page. */
export const PAGE_WORDS = REGION_BLOCKS * 2;
export const PAGE_BYTES = PAGE_WORDS * 4;

export const PAGE_ENTRY = layout(
  "page entry (dense)",
  { endian: "little", sizeBytes: 8 },
  {
    placeLow: "u32",
    placeHigh: "u16",
    check: "u16",
  },
);

export const SPARSE_ENTRY = layout(
  "page entry (sparse)",
  { endian: "little", sizeBytes: 12 },
  {
    placeLow: "u32",
    placeHigh: "u16",
    check: "u16",
    /** Block within the region, 0 to 511. */
    block: "u16",
    reserved: "u16",
  },
);
/** Up to so many blocks a page is stored sparse. */
export const SPARSE_MAX = Math.floor(PAGE_BYTES / SPARSE_ENTRY.sizeBytes) - 1;

/** A node's item holds one of these per region that has data or a tag; ITEM.count says how many. */
export const NODE_REGION = layout(
  "node region",
  { endian: "little", sizeBytes: 32 },
  {
    /** Where the page's item lies; 0 = no block of the region has data. */
    pagePlace: "u64",
    tagEpoch: "u64",
    tagPoint: "u32",
    /** Region within the node. */
    region: "u16",
    /** Length of the page's item in units of 16 bytes. */
    pageUnits: "u16",
    /** Entries of the page that are not holes, and how many of those are lost. */
    entryCount: "u16",
    lostCount: "u16",
    reserved: "u32",
  },
);

/** Segment states as stored. On disk: append only. */
export const STORED_SEGMENT = { free: 0, used: 1 } as const;

/** What is not exact in a checkpoint. Bits of the root's `flags`. */
export const ROOT_FLAG = {
  /** Pages were lost to damage: `liveBlocks` may be too high until all pages are counted. */
  inexact: 1,
} as const;

/** Snapshots in a store, those being given up included. */
export const SNAPSHOTS_MAX = 1024;

/** Nodes and pages that nobody holds but that are still counted. More of them hold up writes. */
export const GRAVE_MAX = 2 ** 20;

export const ROOT = struct({
  flags: u32,
  volumes: list(
    struct({
      id: u32,
      blocks: u64,
      /**
       * Nodes in order. `place` 0: no node is stored (no data, no tags of single regions), only
       * the tag of whole nodes, and `run` nodes in a row have the same.
       */
      nodes: list(
        struct({ number: u32, run: u32, place: u64, bytes: u32, tagEpoch: u64, tagPoint: u32 }),
        2 ** 22,
      ),
    }),
    LIMITS.volumeCountMax * 2,
  ),
  /**
   * Snapshots, oldest first. `order` numbers all that were ever made, of all volumes. `isDying`: it
   * is being given up, region by region.
   */
  snapshots: list(
    struct({
      volume: u32,
      id: u32,
      order: u64,
      isDying: u8,
      blocks: u64,
      nodes: list(struct({ number: u32, place: u64, bytes: u32 }), 2 ** 22),
    }),
    SNAPSHOTS_MAX,
  ),
  /** `order` of the snapshot made last; 0 = none ever. */
  lastOrder: u64,
  /**
   * What a volume gave up and `segments` still counts: all of its blocks but those that the
   * snapshots up to `order` have, too.
   */
  graveNodes: list(
    struct({ volume: u32, number: u32, place: u64, bytes: u32, order: u64 }),
    GRAVE_MAX,
  ),
  gravePages: list(
    struct({
      volume: u32,
      region: u64,
      place: u64,
      units: u16,
      entryCount: u16,
      lostCount: u16,
      order: u64,
    }),
    GRAVE_MAX,
  ),
  /** `liveBlocks`: entries of all pages, each page once, that point into the segment. */
  segments: list(struct({ state: u8, stamp: u64, lastSeq: u64, liveBlocks: u32 }), 2 ** 24),
  metas: list(struct({ slot: u16, bytes: blob(LIMITS.metaBytesMax) }), META_SLOTS),
  streamEpoch: u64,
  streamSeqs: list(u64, LIMITS.hostCountMax),
});

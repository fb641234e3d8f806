/**
 * What the store promises its owner and what it asks of it: options, identity, sink, statistics.
 * The methods themselves are documented in `store.ts`.
 */
import type { Outcome } from "../base/outcome.ts";
import { type Epoch, type HostId, MIB, type Point, type VolumeId } from "../base/units.ts";

/** Memory for the index if nothing is said: all of it up to 128 GiB of data. */
export const INDEX_BYTES_DEFAULT = 256 * MIB;

export interface StoreVolume {
  readonly id: VolumeId;
  /** Size in blocks of 4 KiB, 1 to 2^38. May grow from one open to the next; never shrinks. */
  readonly blocks: number;
}

export interface ScrubOptions {
  /** Bytes a second; 0 = no scrub, null = as many as a pass in half of `everyMs` needs. */
  readonly bytesPerSecond: number | null;
  /** Time from the beginning of one pass to that of the next. */
  readonly everyMs: number;
  /** Milliseconds since 1970 when the owner's clock was 0: when passes were is for people. */
  readonly wallOffsetMs: number;
}

export interface StoreOptions {
  /**
   * Bytes per segment of a store made by `format`, a power of two; without, by the disk's size.
   * `open` reads it from disk.
   */
  readonly segmentBytes?: number | undefined;
  readonly volumes: readonly StoreVolume[];
  /** A disk operation that takes longer fails the disk (milliseconds). */
  readonly diskTimeoutMs: number;
  /** Bytes of one log buffer; at least two largest records. Default 4 MiB, at most a segment. */
  readonly logBufferBytes?: number;
  /** Reads that may be at the disk at once. Default 64. */
  readonly readSlots?: number;
  /** Bytes that the index may take in memory. Default `INDEX_BYTES_DEFAULT`. */
  readonly indexBytes?: number;
  /** Log bytes after which a checkpoint begins. Default: see `Geometry`. */
  readonly checkpointBytes?: number;
  /** Count live blocks anew at open instead of believing the root: for a repair. */
  readonly recount?: boolean;
  /** Without it nothing is scrubbed. */
  readonly scrub?: ScrubOptions;
}

/**
 * Who asks for room, in the order in which they are turned away as the store fills up: writes of
 * clients; those over blocks that have data (`Store.isAllData`); records that a mirror has already
 * taken; records that give space back or carry no data (TRIM, marks).
 */
export type AdmitClass = "client" | "overwrite" | "mirror" | "reserve";

export interface StoreIdentity {
  /** CRC-32 of the cluster's name. */
  readonly clusterId: number;
  readonly hostId: HostId;
  /** Random, so that two stores are never taken for each other. */
  readonly storeId: readonly [number, number];
}

/** Why a store does not open. Stable: printed, tested, documented in docs/store.md. */
export type StoreRefusal =
  | "blank" // no store was ever made here
  | "foreign" // something else lies here
  | "damaged" // was a store; no superblock or no checkpoint is readable
  | "truncated" // smaller than it was when made
  | "version" // a format version this program does not know
  | "feature" // an incompatible feature this program does not know
  | "cluster" // of another cluster
  | "host" // of another host
  | "volume" // a volume would shrink
  | "small" // too small for a store
  | "io"; // the disk failed

export type StoreOpened =
  | {
      readonly ok: true;
      readonly fresh: boolean;
      /** The last close was orderly: nothing had to be rolled forward. */
      readonly clean: boolean;
      /**
       * Log records that were durable once and cannot be told any more (not even which blocks
       * they held). Above 0 the store's older blocks may be stale: its host must treat it as
       * having an unknown history (R11: K unknown) or compare it with a mirror. Says so at every
       * open until `Store.forgetLosses`.
       */
      readonly lostRecords: number;
    }
  | { readonly ok: false; readonly code: StoreRefusal; readonly why: string };

/** Called only while the store handles an event, never from inside a request. */
export interface StoreSink {
  storeOpened(result: StoreOpened): void;
  storeClosed(): void;
  /** Everything appended below `lsn` is in the operating system's hands. */
  logged(lsn: number): void;
  /** Answer to `sync(token)`: all appended before that call is on stable storage, or not. */
  synced(token: number, ok: boolean): void;
  /** Answer to a pending `read`; `io`: at least one block could not be read (see badBlock). */
  readDone(token: number, outcome: Outcome): void;
  /** This copy of the block is bad; `Store.heal` takes a good one. */
  badBlock(volume: VolumeId, lba: number, why: string): void;
  /** An `admit` or `prepare` that answered `pending` may be tried again. */
  storeWritable(): void;
  /** The disk failed for good; everything answers `io` from now on. Called once. */
  storeFailed(why: string): void;
}

export interface RegionTag {
  epoch: Epoch;
  point: Point;
}

/** Counts are of the store's whole life. */
export interface ScrubStats {
  /** What it may read a second now; 0 = it is off. */
  readonly bytesPerSecond: number;
  /** A pass is under way, and how much of it is done: 0 to 1. */
  readonly isRunning: boolean;
  readonly share: number;
  /** Whole passes, and when the last one ended (milliseconds since 1970; 0 = never). */
  readonly passes: number;
  readonly endedMs: number;
  readonly checkedBlocks: number;
  readonly badBlocks: number;
  /** False if the page cache may stand between the scrub and the medium. */
  readonly readsMedium: boolean;
}

export interface StoreStats {
  /** Bytes of volume data that fit. */
  sizeBytes: number;
  /** Bytes of volume data that are there. */
  usedBytes: number;
  segmentsFree: number;
  segmentsTotal: number;
  /** Bytes written to the disk per byte of records appended; 1 before any. */
  writeAmplification: number;
  /** Blocks found bad since the store was opened. */
  badBlocks: number;
  /** Blocks rewritten by `heal`. */
  healedBlocks: number;
  bytesWritten: number;
  recordBytes: number;
  checkpoints: number;
  segmentsCleaned: number;
  syncs: number;
  /** Memory that the index takes, bytes, and pages of it that had to be read again. */
  indexBytes: number;
  indexMisses: number;
  /** Null while there is no scrub. */
  scrub: ScrubStats | null;
}

/**
 * Where segments lie, and how much of them may be filled. Pure arithmetic over the superblock.
 *
 * Floors of free segments; each user of segments stops at its own, so that whoever gives space
 * back can always go on:
 *
 *   0            the cleaner and checkpoints; a victim is given back as soon as its moves are
 *                durable, so the cleaner never holds more than one segment it did not have before
 *   floorSmall   records without blocks (TRIM, marks, metas) and healed blocks. What it keeps: two
 *                segments per lane for a start after a crash, a whole checkpoint, and another one
 *   floorClient  everything else; below it clients wait for the cleaner
 */
import { BLOCK_BYTES, KIB, MIB } from "../base/units.ts";
import { STORED_BLOCK_BYTES } from "../format/record.ts";
import { PLACE_UNIT } from "../format/segment.ts";
import { AREA_OFFSET } from "../format/superblock.ts";

/**
 * Shares of the usable segments that live data may fill, by who asks. The cleaner needs the rest.
 * An overwrite leaves as much live data as it found, so a full store still takes it (a block that
 * is no hole must never be refused: NBD, "NBD_STATE_HOLE"); a mirror cannot refuse at all.
 */
export const FILL = { client: 0.93, overwrite: 0.95, mirror: 0.97 } as const;
export type FillClass = keyof typeof FILL;

/** Fewer segments cannot hold the floors and data as well. */
export const SEGMENT_COUNT_MIN = 24;
export const SEGMENT_BYTES_MIN = 64 * KIB;
export const SEGMENT_BYTES_MAX = 1024 * MIB;

/** A store has at least this many segments where it can, so that some are cheap to clean. */
const SEGMENT_COUNT_WANTED = 64;
const SEGMENT_BYTES_MOST = 32 * MIB;
/** The log buffers hold two largest records and fit a segment. */
const SEGMENT_BYTES_LEAST = 4 * MIB;

/** Bytes per segment of a new store: the largest power of two that gives it enough of them. */
export function segmentBytesFor(sizeBytes: number): number {
  let bytes = SEGMENT_BYTES_MOST;
  while (bytes > SEGMENT_BYTES_LEAST && sizeBytes / bytes < SEGMENT_COUNT_WANTED) bytes /= 2;
  return bytes;
}

export class Geometry {
  readonly segmentBytes: number;
  readonly segmentCount: number;
  /** Segments a whole checkpoint may take. */
  readonly checkpointSegments: number;
  readonly floorSmall: number;
  readonly floorClient: number;
  /** The cleaner works while fewer segments are free. */
  readonly cleanBelow: number;
  /** On a thin disk: while fewer segments are reserved, more are asked for. */
  readonly reserveBelow: number;
  /** Live bytes that fit into one segment after cleaning, pessimistically. */
  readonly packedBytes: number;
  private readonly segmentPlaces: number;
  private readonly perPlace: number;

  constructor(segmentBytes: number, segmentCount: number) {
    this.segmentBytes = segmentBytes;
    this.segmentCount = segmentCount;
    this.checkpointSegments = 1 + Math.ceil(segmentCount / 100);
    this.floorSmall = 4 + 2 * this.checkpointSegments + 2;
    this.floorClient = this.floorSmall + 1;
    this.cleanBelow = this.floorClient + Math.max(2, Math.ceil(segmentCount / 64));
    this.reserveBelow = this.cleanBelow + 2;
    this.packedBytes = segmentBytes - 3 * STORED_BLOCK_BYTES - segmentBytes / 64;
    this.segmentPlaces = segmentBytes / PLACE_UNIT;
    this.perPlace = 1 / this.segmentPlaces;
  }

  /** Byte offset on disk of a segment's start. */
  offsetOf(segment: number): number {
    return AREA_OFFSET + segment * this.segmentBytes;
  }

  /** Segment in which a place (16-byte units, from the start of the disk) lies. */
  segmentOf(place: number): number {
    // Exact: the divisor is a power of two.
    return Math.floor((place - AREA_OFFSET / PLACE_UNIT) * this.perPlace);
  }

  /** True if a place can be one of a stored block or item. */
  isPlace(place: number): boolean {
    if (place < AREA_OFFSET / PLACE_UNIT) return false;
    return place < AREA_OFFSET / PLACE_UNIT + this.segmentCount * this.segmentPlaces;
  }

  /** True if a whole block with its entry can lie there: blocks never straddle segments. */
  isBlockPlace(place: number): boolean {
    return this.holdsItem(place, STORED_BLOCK_BYTES);
  }

  /** True if an item of so many bytes can lie there: in one segment. */
  holdsItem(place: number, lengthBytes: number): boolean {
    if (!this.isPlace(place) || lengthBytes <= 0) return false;
    const inArea = place - AREA_OFFSET / PLACE_UNIT;
    const inSegment = inArea - Math.floor(inArea * this.perPlace) * this.segmentPlaces;
    return inSegment + lengthBytes / PLACE_UNIT <= this.segmentPlaces;
  }

  /**
   * Live bytes (blocks with entries, and checkpoint) past which records of a class are refused as
   * full, if `segments` of all can be written (a thin disk may have no room for the others).
   */
  liveBytesMax(segments: number, from: FillClass): number {
    // Two segments per lane are in use by the lanes themselves.
    const usable = Math.max(0, segments - 4 - this.cleanBelow);
    return Math.floor(usable * this.packedBytes * FILL[from]);
  }

  /** Segments of which clients may fill so many live bytes: the inverse of `liveBytesMax`. */
  segmentsFor(liveBytes: number): number {
    return Math.ceil(liveBytes / (this.packedBytes * FILL.client)) + 4 + this.cleanBelow;
  }

  /** Bytes of volume data that fit into so many segments. */
  sizeBytes(segments: number): number {
    return Math.floor(this.liveBytesMax(segments, "client") / STORED_BLOCK_BYTES) * BLOCK_BYTES;
  }
}

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

/** Fewer segments cannot hold the floors and data as well. */
export const SEGMENT_COUNT_MIN = 24;
export const SEGMENT_BYTES_MIN = 64 * KIB;
export const SEGMENT_BYTES_MAX = 1024 * MIB;

export class Geometry {
  readonly segmentBytes: number;
  readonly segmentCount: number;
  /** Segments a whole checkpoint may take. */
  readonly checkpointSegments: number;
  readonly floorSmall: number;
  readonly floorClient: number;
  /** The cleaner works while fewer segments are free. */
  readonly cleanBelow: number;
  /** Live bytes (blocks with entries, and checkpoint) past which writes are refused as full. */
  readonly liveBytesMax: number;
  /** The same for records that a mirror has taken already: a little more. */
  readonly mirrorBytesMax: number;
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
    this.packedBytes = segmentBytes - 3 * STORED_BLOCK_BYTES - segmentBytes / 64;
    // Two segments per lane are in use by the lanes themselves.
    const usable = Math.max(0, segmentCount - 4 - this.cleanBelow);
    this.liveBytesMax = Math.floor(usable * this.packedBytes * 0.93);
    this.mirrorBytesMax = Math.floor(usable * this.packedBytes * 0.95);
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
    if (!this.isPlace(place)) return false;
    const inSegment = (place - AREA_OFFSET / PLACE_UNIT) % this.segmentPlaces;
    return inSegment + STORED_BLOCK_BYTES / PLACE_UNIT <= this.segmentPlaces;
  }

  /** Bytes of volume data that fit. */
  get sizeBytes(): number {
    return Math.floor(this.liveBytesMax / STORED_BLOCK_BYTES) * BLOCK_BYTES;
  }
}

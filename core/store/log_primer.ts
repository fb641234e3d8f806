/**
 * Zeros written ahead of the log where the disk was never written and little is flushed at a time.
 *
 * A preallocated file is made of unwritten extents (ext4, XFS): the first sync after each write to
 * one also has to turn it into a written one, through the file system's journal and its worker
 * threads. Two hosts on two cores, 4 KiB write + flush: 1310 op/s with that, 1890 without. So the
 * write that passes the end of what is primed takes zeros behind it along, in the same operation,
 * and one conversion serves many syncs.
 *
 * Nothing depends on it: zeros behind the log's end read as what was there before. Only the hot
 * lane's open segment is written to, behind its newest batch, where nothing is kept any more; the
 * next batch overwrites them later, since a lane has one write in flight.
 */
import type { Disk } from "../base/ports.ts";
import type { Geometry } from "./geometry.ts";
import type { LogBatch } from "./log_batch.ts";
import { NO_SEGMENT } from "./segment_table.ts";

/** Zeros at a time: 30 us to copy, and one conversion in 32 to 64 small batches. */
const PRIME_BYTES = 256 * 1024;
/** Who flushes more at a time needs few syncs for it, and would write twice as much. */
const SYNC_BYTES_MAX = 256 * 1024;
/** Syncs in a row for no more than that before zeros are written. */
const STREAK_MIN = 4;

export class LogPrimer {
  private segment = NO_SEGMENT;
  /** Bytes of the segment up to which nothing is left to do. */
  private primedTo = 0;
  private streak = 0;
  private readonly disk: Disk;
  private readonly geometry: Geometry;

  constructor(disk: Disk, geometry: Geometry) {
    this.disk = disk;
    this.geometry = geometry;
  }

  /** A sync begins that covers `bytes` of the hot lane. */
  syncing(bytes: number): void {
    if (bytes > 0) this.streak = bytes <= SYNC_BYTES_MAX ? this.streak + 1 : 0;
  }

  /**
   * Puts zeros behind the batch, which takes the first `length` bytes of its buffer (a multiple of
   * 4096); returns how many of them are to be written with it.
   */
  extend(batch: LogBatch, length: number): number {
    const { disk, geometry } = this;
    if (this.streak < STREAK_MIN || disk.isUnwritten === undefined) return 0;
    if (batch.segment !== this.segment) {
      this.segment = batch.segment;
      this.primedTo = 0;
    }
    const end = batch.diskOffset + length;
    const endInSegment = end - geometry.offsetOf(batch.segment);
    if (endInSegment <= this.primedTo) return 0;
    const room = Math.min(geometry.segmentBytes - endInSegment, batch.buffer.length - length);
    const zeros = Math.min(room, PRIME_BYTES);
    if (zeros === 0) return 0;
    this.primedTo = endInSegment + zeros;
    if (!disk.isUnwritten(end, zeros)) return 0;
    batch.buffer.fill(0, length, length + zeros);
    return zeros;
  }
}

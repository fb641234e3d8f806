/**
 * The room that the disk's owner below gives and gets: free segments are discarded, and on a thin
 * disk segments are reserved before anything is written there. So a full file system below is a
 * full store (ENOSPC to clients, TRIM and cleaning go on) and never a failed write, which would
 * poison the store.
 *
 * One discard and one reservation at a time; neither waits for the other.
 */
import { type Disk, ERRNO, type Trace } from "../base/ports.ts";
import type { Background } from "./background.ts";
import { type DiskOps, OP } from "./disk_ops.ts";
import { NO_SEGMENT } from "./segment_table.ts";
import type { StoreState } from "./state.ts";

/** How soon a file system that was full is asked for room again. */
const RETRY_MS = 1000;

export class SpaceBelow {
  private discarding = NO_SEGMENT;
  private reserving = NO_SEGMENT;
  /** After a reservation that failed: the time of the next. */
  private reserveAtMs = 0;
  private readonly disk: Disk;
  private readonly ops: DiskOps;
  private readonly trace: Trace;
  private readonly state: StoreState;
  private readonly background: Background;

  constructor(disk: Disk, ops: DiskOps, trace: Trace, state: StoreState, background: Background) {
    this.disk = disk;
    this.ops = ops;
    this.trace = trace;
    this.state = state;
    this.background = background;
  }

  settle(): void {
    if (this.discarding === NO_SEGMENT && this.disk.keepsSpace !== true) this.discard();
    if (this.reserving === NO_SEGMENT && this.ops.nowMs >= this.reserveAtMs) this.reserve();
  }

  private discard(): void {
    const { geometry, segments } = this.state;
    // Two more than are asked for, so that none is given back and taken again in turn.
    const least = geometry.reserveBelow + 2;
    const spare = segments.reservedCount - this.background.reservedLeast - 2;
    // A thin file takes little more than its data; warm segments are faster to write again.
    const keepWarm = segments.isThin
      ? Math.max(least, segments.freeCount - spare)
      : Math.max(least, Math.ceil(geometry.segmentCount / 16));
    const segment = segments.beginDiscard(keepWarm);
    if (segment === NO_SEGMENT) return;
    this.discarding = segment;
    const tag = this.ops.begin(OP.discard, segment);
    this.disk.discard(tag, geometry.offsetOf(segment), geometry.segmentBytes);
  }

  private reserve(): void {
    if (!this.background.wantsReserve || this.disk.reserve === undefined) return;
    const { geometry, segments } = this.state;
    const segment = segments.beginReserve();
    if (segment === NO_SEGMENT) return;
    this.reserving = segment;
    const tag = this.ops.begin(OP.reserve, segment);
    this.disk.reserve(tag, geometry.offsetOf(segment), geometry.segmentBytes);
  }

  /** A discard ended. It is only a hint to the disk: whether it worked does not matter. */
  discarded(): void {
    const { segments } = this.state;
    segments.endDiscard(this.discarding);
    this.discarding = NO_SEGMENT;
    if (!segments.isBelowFull) return;
    // There is room below now, unless somebody else was faster.
    segments.isBelowFull = false;
    this.reserveAtMs = 0;
    this.tell(false);
  }

  /** A reservation ended: there is a segment more to write to, or there is known to be none. */
  reserved(result: number): void {
    const { segments } = this.state;
    // Where room cannot be promised at all (no fallocate), writes find out.
    const isFull = result === -ERRNO.ENOSPC;
    segments.endReserve(this.reserving, !isFull);
    this.reserving = NO_SEGMENT;
    if (isFull) this.reserveAtMs = this.ops.nowMs + RETRY_MS;
    if (isFull !== segments.isBelowFull) this.tell(isFull);
    segments.isBelowFull = isFull;
  }

  private tell(isFull: boolean): void {
    if (isFull) {
      const text = "the file system below is full: the store cannot grow";
      this.trace.event("warn", "store.below_full", text);
    } else {
      this.trace.event("info", "store.below_free", "the file system below has room again");
    }
  }

  nextDeadlineMs(): number {
    const waits = this.reserveAtMs > this.ops.nowMs && this.background.wantsReserve;
    return waits ? this.reserveAtMs : Number.POSITIVE_INFINITY;
  }
}

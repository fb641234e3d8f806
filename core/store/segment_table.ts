/**
 * The segments: which are free, how much of each is live, when one may be used again.
 *
 *          allocate            seal             last live byte gone
 *   free ------------> open ----------> sealed ---------------------> dead
 *     ^                                                                 |
 *     |              its records are below the newest checkpoint, and   |
 *     +----- what emptied it is durable (reclaim) ----------------------+
 *
 * Invariants:
 *  1. liveBlocks counts index entries that point into the segment (index_pool.ts, 1); liveMeta the
 *     bytes of pages, nodes and roots of the newest complete checkpoint in it.
 *  2. A segment is reused only when a power cut at any moment can neither bring an index entry
 *     into it back (what emptied it is durable) nor need its records for roll-forward.
 */
import { assert } from "../base/assert.ts";
import type { Geometry } from "./geometry.ts";

export const SEGMENT = { free: 0, discarding: 1, open: 2, sealed: 3, dead: 4 } as const;

/** No segment. */
export const NO_SEGMENT = 0xffffffff;

export class SegmentTable {
  readonly state: Uint8Array;
  readonly liveBlocks: Int32Array;
  /** Bytes of checkpoint items. */
  readonly liveMeta: Float64Array;
  /** Age of the youngest data, as a log position of the writer; for cost and benefit. */
  readonly stamp: Float64Array;
  /** Number of the last batch written into it; infinite while more may come. */
  readonly lastSeq: Float64Array;
  /** Segments that the cleaner could not empty (bad blocks in them). */
  readonly stuck: Uint8Array;
  /** Emptied of blocks; its pages leave it with the next checkpoint. */
  readonly cleaned: Uint8Array;
  /** Reads at the disk; a pinned segment is not reused. */
  readonly pins: Int32Array;
  /** Lane positions that must be durable before the segment may be reclaimed. */
  private readonly deadHot: Float64Array;
  private readonly deadCold: Float64Array;
  private readonly dead: number[] = [];
  /** Free segments whose space the file system may still hold (fast to write again). */
  private readonly warm: number[] = [];
  /** Free and discarded. */
  private readonly blank: number[] = [];
  private readonly geometry: Geometry;
  /** A reservation found the file system below full: blank segments cannot be had now. */
  isBelowFull = false;
  /** Room must be reserved below: blank segments may not be written. Set before settleStates. */
  isThin = false;
  /** The lanes' append positions now; kept current by the log writer. */
  appendedHot = 0;
  appendedCold = 0;
  liveBlockCount = 0;
  liveMetaBytes = 0;
  /**
   * More blocks were dropped than were live: the counts that the root brought along are wrong, by
   * our own fault or somebody's intent. No segment may be reused any more; the engine stops.
   */
  isMiscounted = false;

  constructor(geometry: Geometry) {
    const count = geometry.segmentCount;
    this.geometry = geometry;
    this.state = new Uint8Array(count);
    this.liveBlocks = new Int32Array(count);
    this.liveMeta = new Float64Array(count);
    this.stamp = new Float64Array(count);
    this.lastSeq = new Float64Array(count);
    this.stuck = new Uint8Array(count);
    this.cleaned = new Uint8Array(count);
    this.pins = new Int32Array(count);
    this.deadHot = new Float64Array(count);
    this.deadCold = new Float64Array(count);
  }

  get freeCount(): number {
    return this.isThin ? this.warm.length : this.warm.length + this.blank.length;
  }

  /** Segments that can be had, as far as is known. */
  get usableCount(): number {
    return this.isBelowFull ? this.reservedCount : this.state.length;
  }

  /** Segments with room below, in use or not. */
  get reservedCount(): number {
    return this.state.length - this.unreservedCount;
  }

  /** Free segments that have no room below yet; 0 unless the disk is thin. */
  get unreservedCount(): number {
    return this.isThin ? this.blank.length : 0;
  }

  get deadCount(): number {
    return this.dead.length;
  }

  /** After load: builds the free list from the states; sealed segments without data are dead. */
  settleStates(): void {
    this.warm.length = 0;
    this.blank.length = 0;
    this.dead.length = 0;
    for (let segment = this.state.length - 1; segment >= 0; segment -= 1) {
      // What roll-forward emptied was on the list that is made anew here.
      if (this.state[segment] === SEGMENT.dead) this.state[segment] = SEGMENT.sealed;
      if (this.state[segment] !== SEGMENT.free) this.checkDead(segment);
      else if (this.isThin) this.blank.push(segment);
      else this.warm.push(segment);
    }
  }

  /** Takes a free segment, or NO_SEGMENT. The least recently discarded space first. */
  allocate(): number {
    const segment = this.warm.pop() ?? (this.isThin ? NO_SEGMENT : this.blank.pop()) ?? NO_SEGMENT;
    if (segment === NO_SEGMENT) return segment;
    assert(this.state[segment] === SEGMENT.free, "segments: allocated one that is not free");
    this.state[segment] = SEGMENT.open;
    this.lastSeq[segment] = Number.MAX_SAFE_INTEGER;
    this.stamp[segment] = 0;
    this.stuck[segment] = 0;
    this.cleaned[segment] = 0;
    return segment;
  }

  /** No further batch begins in it. `lastSeq` is set when its last batch is submitted. */
  seal(segment: number): void {
    this.state[segment] = SEGMENT.sealed;
    this.checkDead(segment);
  }

  addBlock(place: number): void {
    const segment = this.geometry.segmentOf(place);
    this.liveBlocks[segment] = this.liveBlocks[segment]! + 1;
    this.liveBlockCount += 1;
  }

  dropBlock(place: number): void {
    const segment = this.geometry.segmentOf(place);
    const left = this.liveBlocks[segment]! - 1;
    if (left < 0) {
      this.isMiscounted = true;
      return;
    }
    this.liveBlocks[segment] = left;
    this.liveBlockCount -= 1;
    if (left === 0) this.checkDead(segment);
  }

  /** All entries are counted anew. */
  forgetBlocks(): void {
    this.liveBlocks.fill(0);
    this.liveBlockCount = 0;
  }

  addMeta(place: number, bytes: number): void {
    const segment = this.geometry.segmentOf(place);
    this.liveMeta[segment] = this.liveMeta[segment]! + bytes;
    this.liveMetaBytes += bytes;
  }

  dropMeta(place: number, bytes: number): void {
    const segment = this.geometry.segmentOf(place);
    const left = this.liveMeta[segment]! - bytes;
    assert(left >= 0, "segments: more checkpoint bytes dropped than were live");
    this.liveMeta[segment] = left;
    this.liveMetaBytes -= bytes;
    if (left === 0) this.checkDead(segment);
  }

  private checkDead(segment: number): void {
    if (this.state[segment] !== SEGMENT.sealed) return;
    if (this.liveBlocks[segment] !== 0 || this.liveMeta[segment] !== 0) return;
    this.state[segment] = SEGMENT.dead;
    this.deadHot[segment] = this.appendedHot;
    this.deadCold[segment] = this.appendedCold;
    this.dead.push(segment);
  }

  /** Frees the dead segments that invariant 2 allows; returns how many. */
  reclaim(durableHot: number, durableCold: number, checkpointSeq: number): number {
    if (this.isMiscounted) return 0;
    let kept = 0;
    for (const segment of this.dead) {
      const isDurable =
        this.deadHot[segment]! <= durableHot && this.deadCold[segment]! <= durableCold;
      if (isDurable && this.pins[segment] === 0 && this.lastSeq[segment]! <= checkpointSeq) {
        this.state[segment] = SEGMENT.free;
        this.warm.push(segment);
      } else {
        this.dead[kept] = segment;
        kept += 1;
      }
    }
    const freed = this.dead.length - kept;
    this.dead.length = kept;
    return freed;
  }

  /** Segments that the next checkpoint would make free. */
  waitingForCheckpoint(checkpointSeq: number): number {
    let count = 0;
    for (const segment of this.dead) if (this.lastSeq[segment]! > checkpointSeq) count += 1;
    for (let segment = 0; segment < this.cleaned.length; segment += 1) {
      if (this.cleaned[segment] === 1 && this.liveBlocks[segment] === 0) count += 1;
    }
    return count;
  }

  /** Dead segments that only a sync keeps from being free. */
  waitingForSync(checkpointSeq: number): number {
    let count = 0;
    for (const segment of this.dead) if (this.lastSeq[segment]! <= checkpointSeq) count += 1;
    return count;
  }

  /** A free segment to discard when more than `keepWarm` are warm; NO_SEGMENT otherwise. */
  beginDiscard(keepWarm: number): number {
    if (this.warm.length <= keepWarm) return NO_SEGMENT;
    const segment = this.warm.shift() as number;
    this.state[segment] = SEGMENT.discarding;
    return segment;
  }

  endDiscard(segment: number): void {
    this.state[segment] = SEGMENT.free;
    this.blank.push(segment);
  }

  /** True while more segments may be had from below. */
  get canGrow(): boolean {
    return this.unreservedCount > 0 && !this.isBelowFull;
  }

  /** A blank segment to reserve room for; NO_SEGMENT if there is none. */
  beginReserve(): number {
    const segment = this.blank.pop() ?? NO_SEGMENT;
    if (segment !== NO_SEGMENT) this.state[segment] = SEGMENT.discarding;
    return segment;
  }

  /** `isReserved` false: others are tried before it is again. */
  endReserve(segment: number, isReserved: boolean): void {
    this.state[segment] = SEGMENT.free;
    if (isReserved) this.warm.push(segment);
    else this.blank.unshift(segment);
  }

  /**
   * The segment whose cleaning pays best: (1 - u) * age / (1 + u), Rosenblum and Ousterhout, "The
   * Design and Implementation of a Log-Structured File System", 1992. Only segments below the
   * checkpoint, since only those can be reused at once. NO_SEGMENT if none would give space.
   */
  victim(now: number, checkpointSeq: number): number {
    let best = NO_SEGMENT;
    let bestScore = 0;
    const full = this.geometry.packedBytes * 0.97;
    for (let segment = 0; segment < this.state.length; segment += 1) {
      if (this.state[segment] !== SEGMENT.sealed) continue;
      if (this.stuck[segment] === 1 || this.cleaned[segment] === 1) continue;
      if (this.lastSeq[segment]! > checkpointSeq) continue;
      const live = this.liveBlocks[segment]! * 4112 + this.liveMeta[segment]!;
      if (live >= full) continue;
      const used = live / this.geometry.segmentBytes;
      const age = Math.max(1, now - this.stamp[segment]!);
      const score = ((1 - used) * age) / (1 + used);
      if (score > bestScore) {
        bestScore = score;
        best = segment;
      }
    }
    return best;
  }
}

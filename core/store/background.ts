/**
 * Chooses what the store does beside serving clients, one task at a time:
 *
 *   a checkpoint when enough log was written since the last one, or when it would free segments;
 *   a sync when it is all that keeps emptied segments from being free;
 *   giving up what is in the graveyard;
 *   cleaning while fewer than `cleanBelow` segments are free.
 */
import type { Checkpointer } from "./checkpointer.ts";
import type { Cleaner } from "./cleaner.ts";
import { MIB } from "../base/units.ts";
import type { LogWriter } from "./log_writer.ts";
import type { PageCache } from "./page_cache.ts";
import { NO_SEGMENT } from "./segment_table.ts";
import type { StoreState } from "./state.ts";
import { type Task, WAIT } from "./task.ts";
import { Undertaker } from "./undertaker.ts";

/** Share of live data in the segments in use below which they are cleaned rather than added to. */
const THIN_FILL = 0.7;
/** The same while clients wait. */
const THIN_FILL_URGENT = 0.55;

/** Log after which a checkpoint begins at the latest: a start after a crash is soon over. */
const LOG_BYTES_MAX = 512 * MIB;

export class Background {
  /** Nothing can free more segments; only clients can, by trimming or overwriting. */
  isExhausted = false;
  private exhaustedAt = -1;
  private progressMark = -1;
  private progressCount = 0;
  private readonly intervalBytes: number;
  private readonly state: StoreState;
  private readonly writer: LogWriter;
  private readonly checkpointer: Checkpointer;
  private readonly cleaner: Cleaner;
  private readonly undertaker: Undertaker;

  constructor(
    state: StoreState,
    writer: LogWriter,
    checkpointer: Checkpointer,
    cleaner: Cleaner,
    cache: PageCache,
    intervalBytes: number | undefined,
  ) {
    this.state = state;
    this.writer = writer;
    this.checkpointer = checkpointer;
    this.cleaner = cleaner;
    this.undertaker = new Undertaker(state, cache, () => this.mustStop);
    const { segmentBytes, segmentCount } = state.geometry;
    // About 3 % of the store, so that rewriting its whole index costs a tenth of the log.
    const share = Math.ceil(segmentCount / 32);
    const wanted = Math.max(Math.min(64 * MIB, 8 * segmentBytes), share * segmentBytes);
    this.intervalBytes =
      intervalBytes ?? Math.max(4 * segmentBytes, Math.min(LOG_BYTES_MAX, wanted));
  }

  /** Clients wait for segments: no pauses. */
  get isUrgent(): boolean {
    const { segments, geometry, pool } = this.state;
    return segments.freeCount <= geometry.floorClient + 1 || pool.clock.isTight;
  }

  /**
   * A thin disk's room below is to grow: what is live nearly fills what it has, or few reserved
   * segments are left and cleaning those in use would pay badly. So the file stays below twice its
   * data, and a full file system is noticed before the store is fuller than it may be.
   */
  get wantsReserve(): boolean {
    const { segments, geometry, liveBytes } = this.state;
    if (segments.unreservedCount === 0) return false;
    // A full file system is asked again and again, to learn when it has room.
    if (segments.isBelowFull) return true;
    const had = segments.reservedCount;
    if (had < this.reservedLeast) return true;
    if (segments.freeCount >= geometry.reserveBelow) return false;
    const share = this.isUrgent ? THIN_FILL_URGENT : THIN_FILL;
    return liveBytes > share * (had - geometry.reserveBelow) * geometry.packedBytes;
  }

  /** Segments with room below that what is live, and a little more, asks for. */
  get reservedLeast(): number {
    const { geometry, liveBytes } = this.state;
    return geometry.segmentsFor(liveBytes + 2 * geometry.segmentBytes);
  }

  /** The next task, or null when there is nothing to do. A task answers false on disk failure. */
  next(): Task<boolean> | null {
    const { segments, geometry } = this.state;
    const since = this.writer.bytesWritten - this.checkpointer.beganAtBytes;
    const { graveyard, clock } = this.state.pool;
    if (this.isCheckpointDue) {
      return this.checkpointer.run(false, clock.isTight);
    }
    if (!graveyard.isEmpty || this.state.hasDying) return this.undertaker.run();
    if (segments.freeCount >= geometry.cleanBelow) {
      this.isExhausted = false;
      return null;
    }
    const { completedSeq } = this.checkpointer;
    const emptied = segments.waitingForSync(completedSeq);
    if (emptied >= 4 || (emptied > 0 && this.isUrgent)) return this.makeDurable();
    const mark = this.writer.hot.appended;
    if (this.isExhausted && this.exhaustedAt === mark) return null;
    const freed = segments.waitingForCheckpoint(completedSeq);
    const cost = this.checkpointer.costBytes;
    if (freed * geometry.segmentBytes > cost && (freed >= 4 || this.isUrgent)) {
      return this.checkpointer.run(false, this.isUrgent);
    }
    const victim = segments.victim(mark, completedSeq);
    if (victim !== NO_SEGMENT && this.makesProgress(mark)) {
      this.isExhausted = false;
      return this.clean(victim);
    }
    if (emptied > 0) return this.makeDurable();
    // Garbage above the checkpoint comes into the cleaner's reach with a checkpoint: at once when
    // clients wait, whatever it costs, since they would be told that the store is full.
    const isDue = since > cost + 2 * geometry.segmentBytes;
    const isLast = this.isUrgent && this.hasGarbage(freed, mark) && this.makesProgress(mark);
    if (victim === NO_SEGMENT && (isDue || isLast)) return this.checkpointer.run(false, true);
    this.isExhausted = true;
    this.exhaustedAt = mark;
    return null;
  }

  /** Something would be free, or could be cleaned, if the checkpoint were newer. */
  private hasGarbage(freed: number, mark: number): boolean {
    return freed > 0 || this.state.segments.victim(mark, Infinity) !== NO_SEGMENT;
  }

  /** False once every segment could have been cleaned without clients writing anything. */
  private makesProgress(mark: number): boolean {
    if (mark !== this.progressMark) {
      this.progressMark = mark;
      this.progressCount = 0;
    }
    this.progressCount += 1;
    return this.progressCount <= this.state.geometry.segmentCount;
  }

  private *makeDurable(): Task<boolean> {
    this.writer.wantDurable();
    yield WAIT.durable;
    return true;
  }

  private *clean(segment: number): Task<boolean> {
    yield* this.cleaner.clean(segment);
    return true;
  }

  private get mustStop(): boolean {
    return this.isCheckpointDue || this.cleaner.isStopping;
  }

  private get isCheckpointDue(): boolean {
    const since = this.writer.bytesWritten - this.checkpointer.beganAtBytes;
    const { isWanted } = this.checkpointer;
    return isWanted || since >= this.intervalBytes || this.state.pool.clock.wantsCheckpoint;
  }
}

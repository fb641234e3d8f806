/**
 * The log's two lanes, the counter of batches they share, and group commit: at most one sync is
 * in flight, and what is asked for meanwhile waits for the next one.
 */
import { assert } from "../base/assert.ts";
import { FlushForecast } from "../base/flush_forecast.ts";
import { LIMITS } from "../base/limits.ts";
import type { Disk } from "../base/ports.ts";
import { roundUp } from "../base/units.ts";
import { LOG_LANE } from "../format/segment.ts";
import { type DiskOps, OP } from "./disk_ops.ts";
import type { Geometry } from "./geometry.ts";
import { LogLane } from "./log_lane.ts";
import { LogPrimer } from "./log_primer.ts";
import type { SegmentTable } from "./segment_table.ts";
import { SyncGather } from "./sync_gather.ts";

export interface LogBuffers {
  readonly hot: readonly Uint8Array[];
  readonly cold: readonly Uint8Array[];
}

export class LogWriter {
  readonly hot: LogLane;
  readonly cold: LogLane;
  session = 0;
  storeId: readonly [number, number] = [0, 0];
  bytesWritten = 0;
  syncCount = 0;
  /** A task waits for everything appended to be durable. */
  taskWaits = false;
  private taskHot = 0;
  private taskCold = 0;
  private isSyncing = false;
  private syncHot = 0;
  private syncCold = 0;
  private syncHotSeq = 0;
  private syncColdSeq = 0;
  /** Syncs asked for: a ring in two arrays. */
  private readonly tokens: number[] = [];
  private readonly targets: number[] = [];
  private firstToken = 0;
  private readonly forecast = new FlushForecast();
  private readonly gather = new SyncGather();
  private readonly primer: LogPrimer;
  private readonly disk: Disk;
  private readonly ops: DiskOps;
  private readonly segments: SegmentTable;
  private readonly counter = { seq: 0 };

  constructor(
    disk: Disk,
    ops: DiskOps,
    geometry: Geometry,
    segments: SegmentTable,
    buffers: LogBuffers,
  ) {
    this.disk = disk;
    this.ops = ops;
    this.segments = segments;
    this.primer = new LogPrimer(disk, geometry);
    this.hot = new LogLane(LOG_LANE.hot, geometry, segments, buffers.hot, true, this.counter);
    this.cold = new LogLane(LOG_LANE.cold, geometry, segments, buffers.cold, false, this.counter);
  }

  /** Begins a session in fresh segments. False if there are not enough free ones. */
  start(seq: number, session: number, storeId: readonly [number, number]): boolean {
    this.counter.seq = seq;
    this.session = session;
    this.storeId = storeId;
    return this.hot.start(seq) && this.cold.start(seq);
  }

  /** Number of the newest batch. */
  get seq(): number {
    return this.counter.seq;
  }

  /** A new batch may share a page with the one before unless a sync is wanted or foreseen. */
  get mayPack(): boolean {
    return this.tokens.length === this.firstToken && !this.taskWaits && !this.forecast.foresees;
  }

  /** Asks for everything appended to the hot lane so far to be made durable. */
  wantSync(token: number): void {
    const waiting = this.tokens.length - this.firstToken;
    assert(waiting < LIMITS.waitingRequestsMax, "log writer: too many syncs wait");
    this.forecast.asked();
    this.tokens.push(token);
    this.targets.push(this.hot.appended);
  }

  /** The task waits until everything appended to both lanes so far is durable. */
  wantDurable(): void {
    this.taskWaits = true;
    this.taskHot = this.hot.appended;
    this.taskCold = this.cold.appended;
  }

  /** True once what `wantDurable` asked for is there. */
  taskIsDurable(): boolean {
    if (this.taskHot > this.hot.durable || this.taskCold > this.cold.durable) return false;
    this.taskWaits = false;
    return true;
  }

  /** The next sync answered by what is durable, or -1. */
  takeSynced(): number {
    if (this.firstToken === this.tokens.length) return -1;
    if (this.targets[this.firstToken]! > this.hot.durable) return -1;
    return this.takeToken();
  }

  /** The next sync that waits, answered or not; -1 if none. For a failed disk. */
  takeToken(): number {
    if (this.firstToken === this.tokens.length) return -1;
    const token = this.tokens[this.firstToken] as number;
    this.firstToken += 1;
    if (this.firstToken === this.tokens.length || this.firstToken === 1024) {
      this.tokens.splice(0, this.firstToken);
      this.targets.splice(0, this.firstToken);
      this.firstToken = 0;
    }
    return token;
  }

  /**
   * Hands to the disk what collected, and a sync if one is due. The cold lane's batches are kept
   * until they are full while a task goes on adding to them, so that moved data lie densely.
   */
  submit(taskRuns: boolean): void {
    this.submitLane(this.hot);
    if (this.cold.queue.length > 0 || this.taskWaits || !taskRuns) this.submitLane(this.cold);
    this.submitSync();
  }

  private submitLane(lane: LogLane): void {
    const batch = lane.submit(this.session, this.storeId);
    if (batch === null) return;
    let length = roundUp(batch.at, 4096);
    if (lane === this.hot) {
      this.forecast.wrote();
      this.gather.wrote(this.ops.nowMs);
      length += this.primer.extend(batch, length);
    }
    batch.writeBytes = length;
    this.bytesWritten += length;
    const tag = this.ops.begin(OP.write, lane.lane);
    this.disk.write(tag, batch.diskOffset, batch.buffer, 0, length);
  }

  private submitSync(): void {
    if (this.isSyncing) return;
    const isAsked = this.syncIsDue();
    if (!isAsked && !this.syncIsForeseen()) return;
    if (!this.hot.maySync || !this.cold.maySync) return;
    if (this.heldUntilMs() > this.ops.nowMs) return;
    this.isSyncing = true;
    this.primer.syncing(this.hot.logged - this.hot.durable);
    this.syncHot = this.hot.logged;
    this.syncCold = this.cold.logged;
    this.syncHotSeq = this.hot.completedSeq;
    this.syncColdSeq = this.cold.completedSeq;
    this.hot.syncBegan();
    this.cold.syncBegan();
    this.syncCount += 1;
    if (!isAsked) this.forecast.began();
    this.disk.sync(this.ops.begin(OP.sync, 0));
  }

  private syncIsDue(): boolean {
    if (this.firstToken < this.tokens.length) {
      const target = this.targets[this.firstToken]!;
      if (target > this.hot.durable && target <= this.hot.logged) return true;
    }
    if (!this.taskWaits) return false;
    if (this.taskHot > this.hot.logged || this.taskCold > this.cold.logged) return false;
    return this.taskHot > this.hot.durable || this.taskCold > this.cold.durable;
  }

  /** All that was appended is written, and somebody is likely to flush it next. */
  private syncIsForeseen(): boolean {
    const { hot } = this;
    return this.forecast.foresees && hot.logged > hot.durable && hot.logged === hot.appended;
  }

  /** A write of this lane completed. */
  written(lane: number): void {
    if (lane === LOG_LANE.hot) {
      this.hot.completed();
      this.gather.wrote(this.ops.nowMs);
    } else this.cold.completed();
  }

  /** Bytes that the write in flight of this lane must report. */
  expectedBytes(lane: number): number {
    const batch = (lane === LOG_LANE.hot ? this.hot : this.cold).queue[0];
    return batch === undefined ? 0 : batch.writeBytes;
  }

  /** When a sync that is due and held begins; Infinity if none is. */
  nextDeadlineMs(): number {
    if (this.isSyncing || !this.syncIsDue()) return Number.POSITIVE_INFINITY;
    return this.heldUntilMs();
  }

  private heldUntilMs(): number {
    return this.gather.heldUntilMs(this.hot.logged - this.hot.durable);
  }

  /** The sync in flight completed. */
  synced(): void {
    this.isSyncing = false;
    const waiting = this.hot.appended - this.syncHot;
    this.gather.ended(this.syncHot - this.hot.durable, waiting, this.ops.nowMs);
    this.hot.durable = this.syncHot;
    this.cold.durable = this.syncCold;
    this.hot.durableSeq = this.syncHotSeq;
    this.cold.durableSeq = this.syncColdSeq;
  }

  /** Keeps the segment table's idea of the log's end, by which it dates what died. */
  noteAppended(): void {
    this.segments.appendedHot = this.hot.appended;
    this.segments.appendedCold = this.cold.appended;
  }
}

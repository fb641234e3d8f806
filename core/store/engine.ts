/**
 * The store's inside: phases, completions of the disk, and the one task that runs.
 *
 * Order of things in `settle`: what reads found, documents, writes and syncs to the disk, answers
 * to syncs, the task's turn, writes again (of what the task appended).
 */
import { assert } from "../base/assert.ts";
import type { Disk, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import { BLOCK_BYTES, type VolumeId } from "../base/units.ts";
import type { Checkpointer } from "./checkpointer.ts";
import type { StoreIdentity, StoreOptions, StoreSink, StoreStats } from "./contract.ts";
import { DiskOps, OP } from "./disk_ops.ts";
import { NO_PAGE } from "./index_node.ts";
import { assemble, type Live } from "./live.ts";
import { ROOM } from "./log_lane.ts";
import type { LogWriter } from "./log_writer.ts";
import { type Expected, type LiveStore, MISCOUNTED, Recovery } from "./recovery.ts";
import type { StoreState } from "./state.ts";
import type { Refusal } from "./superblocks.ts";
import { type Task, TaskIo, WAIT, type Wait } from "./task.ts";

/** Pause between turns of background work when nothing presses. */
const TURN_MS = 1;
/** Turns in one settle when clients wait for segments. */
const URGENT_TURNS = 8;

export type StorePhase = "created" | "opening" | "open" | "closing" | "closed" | "failed";

type AnyTask = Task<LiveStore | Refusal | boolean>;

export class StoreEngine {
  phase: StorePhase = "created";
  live: Live | null = null;
  /** An admit answered pending since the last storeWritable. */
  wantsWritable = false;
  recordBytes = 0;
  healedBlocks = 0;
  private badBlocks = 0;
  private readonly options: StoreOptions;
  private readonly disk: Disk;
  private readonly sink: StoreSink;
  private readonly trace: Trace;
  private readonly rules: Rules;
  private readonly flushMetas: () => boolean;
  private readonly saveScrub: (bytes: Uint8Array) => void;
  private readonly ops = new DiskOps();
  private readonly io: TaskIo;
  private readonly recovery: Recovery;
  private task: AnyTask | null = null;
  private waits: Wait | -1 = -1;
  private turnAtMs = 0;
  private isFresh = false;
  private wantsClose = false;
  /** Syncs asked for while documents had no room in the log. */
  private heldSyncs: number[] = [];

  constructor(
    options: StoreOptions,
    disk: Disk,
    sink: StoreSink,
    trace: Trace,
    rules: Rules,
    flushMetas: () => boolean,
    saveScrub: (bytes: Uint8Array) => void,
  ) {
    this.options = options;
    this.disk = disk;
    this.sink = sink;
    this.trace = trace;
    this.rules = rules;
    this.flushMetas = flushMetas;
    this.saveScrub = saveScrub;
    this.io = new TaskIo(disk, this.ops);
    this.recovery = new Recovery(options, disk, this.ops, this.io);
  }

  format(nowMs: number, identity: StoreIdentity): void {
    assert(this.phase === "created", "store: opened twice");
    this.isFresh = true;
    this.begin(nowMs, this.recovery.format(identity));
  }

  open(nowMs: number, expected: Expected): void {
    assert(this.phase === "created", "store: opened twice");
    this.begin(nowMs, this.recovery.open(expected));
  }

  private begin(nowMs: number, task: AnyTask): void {
    this.ops.nowMs = nowMs;
    this.phase = "opening";
    this.task = task;
    // Only up to its first operation: a request must not call the sink.
    this.waits = WAIT.turn;
    this.turnAtMs = nowMs;
  }

  close(nowMs: number): void {
    this.ops.nowMs = nowMs;
    this.wantsClose = true;
    if (this.live === null) return;
    this.live.cleaner.isStopping = true;
    this.live.scrubber?.close();
  }

  sync(token: number): void {
    if (this.live === null || this.phase !== "open" || !this.flushMetas()) {
      this.heldSyncs.push(token);
    } else {
      this.live.writer.wantSync(token);
    }
  }

  get operationsInFlight(): number {
    return this.ops.inFlight;
  }

  settle(nowMs: number): void {
    this.ops.nowMs = nowMs;
    // The same sum as in nextDeadlineMs, so that the two never disagree by a rounding.
    if (nowMs >= this.ops.oldestMs() + this.options.diskTimeoutMs && this.rules.poison) {
      this.fail(`the disk did not answer for ${this.options.diskTimeoutMs} ms`);
    }
    if (this.live?.state.segments.isMiscounted === true) this.fail(MISCOUNTED);
    if (this.phase === "failed" || this.phase === "closed") {
      this.refuseSyncs();
      if (this.wantsClose && this.phase === "failed") this.endClose();
      return;
    }
    const { live } = this;
    if (live !== null && this.phase !== "opening") {
      live.reader.flush();
      const isFlushed = this.flushMetas();
      if (isFlushed && this.heldSyncs.length > 0) {
        for (const token of this.heldSyncs.splice(0)) live.writer.wantSync(token);
      }
      live.writer.submit(this.task !== null);
      this.answerSyncs(live);
      live.below.settle();
      this.background(live);
    }
    this.runTask();
    this.recovery.writer?.submit(this.task !== null);
    if (this.mayScrub) live?.scrubber?.settle(this.ops.inFlight > 0);
  }

  private refuseSyncs(): void {
    const live = this.live;
    for (const token of this.heldSyncs.splice(0)) this.sink.synced(token, false);
    if (live === null) return;
    for (let token = live.writer.takeToken(); token >= 0; token = live.writer.takeToken()) {
      this.sink.synced(token, false);
    }
  }

  private answerSyncs(live: Live): void {
    const { writer } = live;
    for (let token = writer.takeSynced(); token >= 0; token = writer.takeSynced()) {
      this.sink.synced(token, true);
    }
  }

  /** Chooses the next task, if none runs. */
  private background(live: Live): void {
    if (this.task !== null) return;
    if (this.wantsClose && this.phase === "open" && this.isQuiet(live)) {
      this.phase = "closing";
      this.task = live.checkpointer.run(true, true);
    } else {
      this.task = live.background.next();
    }
    this.waits = WAIT.turn;
    this.turnAtMs = this.ops.nowMs;
    const { background } = live;
    // An admit that waited for the cleaner in vain is answered `full` when asked again.
    if (this.task === null && background.isExhausted) this.tellWritable();
  }

  /** Everything appended is written; a clean close has nothing to roll forward. */
  private isQuiet(live: Live): boolean {
    const { hot, cold } = live.writer;
    return hot.logged === hot.appended && cold.logged === cold.appended;
  }

  diskDone(nowMs: number, tag: number, result: number): void {
    this.ops.nowMs = nowMs;
    if (!this.ops.finish(tag) || this.phase === "failed" || this.phase === "closed") return;
    const { kind, subject } = this.ops;
    if (kind === OP.task) {
      this.io.result = result;
      this.waits = -1;
      this.runTask();
    } else if (kind === OP.write) {
      this.writeDone(subject, result);
    } else if (kind === OP.sync) {
      this.syncDone(result);
    } else if (kind === OP.read) {
      this.live?.reader.finished(subject, result);
    } else if (kind === OP.page) {
      this.pageDone(subject, result);
    } else if (kind === OP.scrub) {
      this.live?.scrubber?.finished(result);
      this.reclaim();
    } else if (kind === OP.discard) {
      this.live?.below.discarded();
    } else if (kind === OP.reserve) {
      this.live?.below.reserved(result);
      this.tellWritable();
    }
  }

  private pageDone(slot: number, result: number): void {
    const { live } = this;
    if (live === null) return;
    const page = live.cache.finished(slot, result);
    if (page === NO_PAGE) return;
    live.reader.pageCame(page);
    this.tellWritable();
    if (this.waits === WAIT.page) this.waits = -1;
    this.runTask();
    this.reclaim();
  }

  private writeDone(lane: number, result: number): void {
    const writer = this.recovery.writer as LogWriter;
    if (result !== writer.expectedBytes(lane) && this.rules.poison) {
      this.fail(result < 0 ? `a write failed (errno ${-result})` : "a write was cut short");
      return;
    }
    writer.written(lane);
    if (this.live !== null) {
      if (lane === 0) this.sink.logged(writer.hot.logged);
      this.tellWritable();
    }
    this.runTask();
  }

  private syncDone(result: number): void {
    const writer = this.recovery.writer as LogWriter;
    if (result !== 0 && this.rules.poison) {
      this.fail(`a sync failed (errno ${-result})`);
      return;
    }
    writer.synced();
    this.reclaim();
    if (this.live !== null) this.answerSyncs(this.live);
    this.runTask();
  }

  private reclaim(): void {
    const { writer, state, checkpointer } = this.recovery;
    if (writer === null || state === null || checkpointer === null) return;
    const { hot, cold } = writer;
    const freed = state.segments.reclaim(hot.durable, cold.durable, checkpointer.completedSeq);
    if (freed > 0) this.tellWritable();
  }

  private tellWritable(): void {
    if (!this.wantsWritable || this.phase !== "open") return;
    this.wantsWritable = false;
    this.sink.storeWritable();
  }

  /** Runs the task as far as it goes now. */
  private runTask(): void {
    let turns = this.wantsClose || this.live?.background.isUrgent ? URGENT_TURNS : 1;
    while (this.task !== null && this.phase !== "failed") {
      if (this.waits === WAIT.io || this.waits === WAIT.page) return;
      if (this.waits === WAIT.turn) {
        if (turns === 0 || this.ops.nowMs < this.turnAtMs) return;
        turns -= 1;
      }
      if (this.waits === WAIT.room && !this.hasRoom()) return;
      if (this.waits === WAIT.durable) {
        if (!(this.recovery.writer as LogWriter).taskIsDurable()) return;
        this.reclaim();
      }
      const step = this.task.next();
      if (step.done === true) {
        this.task = null;
        this.waits = -1;
        this.taskDone(step.value);
        return;
      }
      this.waits = step.value;
      if (step.value === WAIT.turn) {
        const isUrgent = this.wantsClose || (this.live?.background.isUrgent ?? true);
        this.turnAtMs = this.ops.nowMs + (isUrgent ? 0 : TURN_MS);
      }
    }
  }

  private hasRoom(): boolean {
    const writer = this.recovery.writer as LogWriter;
    const room = writer.cold.room(this.io.roomBytes, 0);
    if (room === ROOM.ok) return true;
    assert(room !== ROOM.tooLong, "store: a task asked for more room than the log has");
    if (room !== ROOM.noSegment) return false;
    const segments = (this.recovery.state as StoreState).segments;
    // Emptied segments may need no more than a sync.
    if (segments.waitingForSync((this.recovery.checkpointer as Checkpointer).completedSeq) === 0) {
      this.fail("no free segment is left for the cleaner or a checkpoint");
    } else if (!writer.taskWaits) {
      writer.wantDurable();
    } else if (writer.taskIsDurable()) {
      this.reclaim();
    }
    return false;
  }

  private taskDone(result: LiveStore | Refusal | boolean): void {
    if (result === false) {
      this.fail("a superblock could not be written");
    } else if (result === true) {
      this.reclaim();
      // Pages are clean, or what was given up counts no more.
      this.tellWritable();
      if (this.phase === "closing") this.endClose();
    } else if (result.ok) {
      this.opened(result);
    } else {
      this.phase = "failed";
      this.sink.storeOpened(result);
    }
  }

  private endClose(): void {
    this.wantsClose = false;
    if (this.phase === "closing") this.phase = "closed";
    this.sink.storeClosed();
  }

  private opened(store: LiveStore): void {
    const { state, damage } = store;
    const report = (volume: VolumeId, lba: number, why: string): void => this.bad(volume, lba, why);
    this.live = assemble(store, {
      options: this.options,
      disk: this.disk,
      ops: this.ops,
      io: this.io,
      rules: this.rules,
      trace: this.trace,
      events: {
        badBlock: report,
        readDone: (token, outcome) => this.sink.readDone(token, outcome),
      },
      pageLost: (volume, lba, count, segment) =>
        this.traceDamage({ kind: "page", volume, lba, count, segment, why: "does not verify" }),
      saveScrub: this.saveScrub,
    });
    this.phase = "open";
    this.reclaim();
    for (const row of damage.rows) this.traceDamage(row);
    const { lostRecords } = state;
    this.sink.storeOpened({ ok: true, fresh: this.isFresh, clean: store.clean, lostRecords });
    for (const row of damage.rows) {
      if (row.kind === "block" && row.volume !== 0) {
        this.bad(row.volume as VolumeId, row.lba, row.why);
      }
    }
  }

  private get mayScrub(): boolean {
    return this.phase === "open" && !this.wantsClose;
  }

  private traceDamage(row: {
    kind: string;
    volume: number;
    lba: number;
    count: number;
    segment: number;
    why: string;
  }): void {
    this.trace.event("error", "store.damage", `damage found: ${row.kind} ${row.why}`, { ...row });
  }

  private bad(volume: VolumeId, lba: number, why: string): void {
    this.badBlocks += 1;
    this.sink.badBlock(volume, lba, why);
  }

  /** The disk failed: nothing is retried, nothing it says is believed any more. */
  private fail(why: string): void {
    if (this.phase === "failed") return;
    const wasOpening = this.phase === "opening";
    this.phase = "failed";
    this.task = null;
    this.trace.event("error", "store.failed", `the store failed: ${why}`);
    if (wasOpening) this.sink.storeOpened({ ok: false, code: "io", why });
    else this.sink.storeFailed(why);
    this.live?.reader.fail();
    this.refuseSyncs();
  }

  /** Bytes of volume data that fit; less on a thin disk while the file system below is full. */
  get sizeBytes(): number {
    const { state } = this.recovery;
    return state?.geometry.sizeBytes(state.segments.usableCount) ?? 0;
  }

  stats(): StoreStats {
    const live = this.live;
    const { state, checkpointer, writer } = this.recovery;
    let usedBlocks = 0;
    for (const volume of state?.volumes.values() ?? []) usedBlocks += volume.usedBlocks;
    const bytesWritten = writer?.bytesWritten ?? 0;
    return {
      sizeBytes: this.sizeBytes,
      usedBytes: usedBlocks * BLOCK_BYTES,
      segmentsFree: state?.segments.freeCount ?? 0,
      segmentsTotal: state?.geometry.segmentCount ?? 0,
      writeAmplification: this.recordBytes === 0 ? 1 : bytesWritten / this.recordBytes,
      badBlocks: this.badBlocks,
      healedBlocks: this.healedBlocks,
      bytesWritten,
      recordBytes: this.recordBytes,
      checkpoints: checkpointer?.count ?? 0,
      segmentsCleaned: live?.cleaner.segmentsCleaned ?? 0,
      syncs: writer?.syncCount ?? 0,
      indexBytes: state?.pool.usedBytes ?? 0,
      indexMisses: live?.cache.misses ?? 0,
      scrub: live?.scrubber?.stats() ?? null,
    };
  }

  nextDeadlineMs(): number {
    if (this.phase === "failed" || this.phase === "closed") {
      return this.wantsClose || this.heldSyncs.length > 0
        ? this.ops.nowMs
        : Number.POSITIVE_INFINITY;
    }
    let deadline = this.ops.oldestMs() + this.options.diskTimeoutMs;
    if (this.task !== null && this.waits === WAIT.turn) {
      deadline = Math.min(deadline, this.turnAtMs);
    }
    deadline = Math.min(deadline, this.live?.below.nextDeadlineMs() ?? Number.POSITIVE_INFINITY);
    deadline = Math.min(deadline, this.live?.writer.nextDeadlineMs() ?? Number.POSITIVE_INFINITY);
    const scrubber = this.mayScrub ? this.live?.scrubber : null;
    return Math.min(deadline, scrubber?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY);
  }
}

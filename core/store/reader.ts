/**
 * Reads: index, then memory, the page cache, or the disk; every block is verified on its way.
 *
 *   read -> page of the index not in memory?  wait for it, then:
 *        -> run of blocks that lie one behind the other -> in a log buffer?  copy
 *                                                       -> in the page cache?  straight to `out`
 *                                                       -> else a slot, disk.read, later copy
 *
 * From the page cache entries and data part on the way: entries go to the reader, data where the
 * caller wants them, so that one copy is saved. A read at the disk goes through a slot of the
 * reader's own: when the disk hangs, the caller is answered and uses its buffer again, into which
 * the disk must not write then.
 *
 * Invariants:
 *  1. A read is answered ok only if every block's entry verifies (checksum over address and data),
 *     its address is the one asked for, and 16 bits of its checksum are those of the index (G5).
 *  2. While a read is at the disk its segment is pinned: a place read is never reused meanwhile,
 *     so a block that does not verify is bad, not moved.
 *  3. Slots and waiting runs are bounded; past the bound a read fails rather than grows.
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { type Disk, READ_PAIRS_MAX } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import { BLOCK_BYTES, REGION_BLOCKS, roundUp, type VolumeId } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import { ENTRY, STORED_BLOCK_BYTES, verifyPair } from "../format/record.ts";
import { PLACE_UNIT } from "../format/segment.ts";
import { STORED_BLOCK_PLACES } from "./apply.ts";
import { type DiskOps, OP } from "./disk_ops.ts";
import { ABSENT_PLACE, HOLE_PLACE, LOST_PLACE } from "./index_pool.ts";
import type { LogWriter } from "./log_writer.ts";
import type { PageCache } from "./page_cache.ts";
import {
  ANY_CHECK,
  copyBlock,
  type Part,
  type Parted,
  type ReadJob,
  type Run,
  type Slot,
  whyBad,
} from "./read_run.ts";
import type { StoreState } from "./state.ts";
import { HEAD, type VolumeIndex } from "./volume_index.ts";

/** Blocks one slot reads at once. */
const SLOT_BLOCKS_MAX = 31;
/** Room for a run that is neither aligned at its start nor at its end. */
const SLOT_BYTES = 34 * 4096;
const NO_BYTES = new Uint8Array(0);
/** Runs that may wait for a slot; the host's own bounds on requests keep far below it. */
const WAITING_RUNS_MAX = 1 << 17;

/** What the reader finds out and its owner passes on when it handles an event. */
export interface ReadEvents {
  badBlock(volume: VolumeId, lba: number, why: string): void;
  readDone(token: number, outcome: Outcome): void;
}

export class StoreReader {
  private readonly disk: Disk;
  private readonly ops: DiskOps;
  private readonly state: StoreState;
  private readonly writer: LogWriter;
  private readonly cache: PageCache;
  private readonly rules: Rules;
  private readonly events: ReadEvents;
  private readonly slots: Slot[];
  private readonly freeSlots: number[] = [];
  private readonly parted: Parted;
  private readonly waiting: Run[] = [];
  private firstWaiting = 0;
  /** By the page they wait for. */
  private readonly parts = new Map<number, Part[]>();
  private partCount = 0;
  /** Jobs that ended inside `read`, and what was bad there: told at the next event. */
  private readonly ended: ReadJob[] = [];
  private readonly bad: { volume: VolumeId; lba: number; why: string }[] = [];
  private readonly sector: number;

  constructor(
    disk: Disk,
    ops: DiskOps,
    state: StoreState,
    writer: LogWriter,
    cache: PageCache,
    rules: Rules,
    events: ReadEvents,
    buffers: readonly Uint8Array[],
  ) {
    this.disk = disk;
    this.ops = ops;
    this.state = state;
    this.writer = writer;
    this.cache = cache;
    this.rules = rules;
    this.events = events;
    this.sector = disk.sectorBytes;
    const heads = buffers[0] as Uint8Array;
    this.parted = {
      count: 0,
      headBytes: ENTRY.sizeBytes,
      bodyBytes: BLOCK_BYTES,
      heads,
      view: viewOf(heads),
      bodies: NO_BYTES,
      bodiesAt: 0,
    };
    this.slots = buffers.slice(1).map((buffer) => ({
      buffer,
      view: viewOf(buffer),
      run: null,
      at: 0,
      length: 0,
    }));
    for (let index = this.slots.length - 1; index >= 0; index -= 1) this.freeSlots.push(index);
  }

  /** A buffer for the entries of reads at once, and those of `slotCount` reads at the disk. */
  static allocate(disk: Disk, slotCount: number): Uint8Array[] {
    const buffers = [disk.allocate(READ_PAIRS_MAX * ENTRY.sizeBytes)];
    for (let index = 0; index < slotCount; index += 1) buffers.push(disk.allocate(SLOT_BYTES));
    return buffers;
  }

  /** See `Store.read`. */
  read(
    token: number,
    volume: VolumeIndex,
    lba: number,
    count: number,
    out: Uint8Array,
    outAt: number,
  ): Outcome {
    const job = this.readBlocks(null, token, volume, lba, count, out, outAt);
    if (job === null) return OUTCOME.ok;
    if (job.pending === 0) this.ended.push(job);
    return OUTCOME.pending;
  }

  /** Reads what can be read at once and begins the rest; returns the job if any. */
  private readBlocks(
    owner: ReadJob | null,
    token: number,
    volume: VolumeIndex,
    lba: number,
    count: number,
    out: Uint8Array,
    outAt: number,
  ): ReadJob | null {
    let job = owner;
    let index = 0;
    while (index < count) {
      const at = lba + index;
      const place = volume.placeAt(at);
      const target = outAt + index * BLOCK_BYTES;
      if (place === ABSENT_PLACE) {
        if (this.cache.bring(volume, at)) continue;
        const rest = Math.min(count - index, REGION_BLOCKS - (at % REGION_BLOCKS));
        job ??= { token, volume, out, pending: 0, failed: false };
        this.awaitPage({ job, lba: at, count: rest, outAt: target });
        index += rest;
        continue;
      }
      if (place === HOLE_PLACE) {
        out.fill(0, target, target + BLOCK_BYTES);
        index += 1;
        continue;
      }
      if (place === LOST_PLACE) {
        job ??= { token, volume, out, pending: 0, failed: false };
        this.noteBad(job, at, "the page of the index that knew its place is damaged");
        index += 1;
        continue;
      }
      const batch = this.writer.hot.find(place) ?? this.writer.cold.find(place);
      if (batch !== null) {
        const entryAt = place * PLACE_UNIT - batch.diskOffset;
        const { buffer, view } = batch;
        const blockAt = entryAt + ENTRY.sizeBytes;
        const check = volume.checkAt(at);
        if (this.isGood(volume, at, check, buffer, view, entryAt, buffer, blockAt)) {
          copyBlock(buffer, blockAt, out, target);
        } else {
          job ??= { token, volume, out, pending: 0, failed: false };
          this.noteBad(job, at, "its copy in memory does not verify");
        }
        index += 1;
        continue;
      }
      const run = this.runLength(volume, at, place, Math.min(count - index, READ_PAIRS_MAX));
      const cached = this.readCached(place, run, out, target);
      for (let block = 0; block < cached; block += 1) {
        const why = this.whyCachedIsBad(volume, at, block);
        if (why === null) continue;
        job ??= { token, volume, out, pending: 0, failed: false };
        this.noteBad(job, at + block, why);
      }
      index += cached;
      if (cached === run) continue;
      // Not in the page cache, or an error: the disk's own answer decides.
      job ??= { token, volume, out, pending: 0, failed: false };
      const rest = Math.min(run - cached, SLOT_BLOCKS_MAX);
      this.startRun({
        job,
        lba: at + cached,
        count: rest,
        place: place + cached * STORED_BLOCK_PLACES,
        checks: volume.checksOf(at + cached, rest),
        outAt: outAt + index * BLOCK_BYTES,
      });
      index += rest;
    }
    return job;
  }

  private awaitPage(part: Part): void {
    if (this.partCount >= WAITING_RUNS_MAX) {
      part.job.failed = true;
      return;
    }
    const page = part.job.volume.pageOf(part.lba);
    const others = this.parts.get(page);
    if (others === undefined) this.parts.set(page, [part]);
    else others.push(part);
    part.job.pending += 1;
    this.partCount += 1;
  }

  /** A page came into memory, or what was wanted of it lies elsewhere now. */
  pageCame(page: number): void {
    const parts = this.parts.get(page);
    if (parts === undefined) return;
    this.parts.delete(page);
    for (const { job, lba, count, outAt } of parts) {
      this.partCount -= 1;
      this.readBlocks(job, job.token, job.volume, lba, count, job.out, outAt);
      job.pending -= 1;
      // What was bad is told first: both by the next flush.
      if (job.pending === 0) this.ended.push(job);
    }
  }

  /** Blocks from `lba` that lie behind each other on disk. */
  private runLength(volume: VolumeIndex, lba: number, place: number, max: number): number {
    let length = 1;
    while (length < max) {
      const next = place + length * STORED_BLOCK_PLACES;
      if (volume.placeAt(lba + length) !== next) break;
      if (this.writer.hot.find(next) !== null || this.writer.cold.find(next) !== null) break;
      length += 1;
    }
    return length;
  }

  /** Blocks of the run, from its first on, that the page cache has: now in `out`, not verified. */
  private readCached(place: number, count: number, out: Uint8Array, outAt: number): number {
    const { parted } = this;
    parted.count = count;
    parted.bodies = out;
    parted.bodiesAt = outAt;
    const got = this.disk.readPairsNow(place * PLACE_UNIT, parted);
    return got < 0 ? 0 : Math.floor(got / STORED_BLOCK_BYTES);
  }

  /** What is wrong with block `index` of the run that `readCached` read; null if nothing is. */
  private whyCachedIsBad(volume: VolumeIndex, lba: number, index: number): string | null {
    const { heads, view, bodies, bodiesAt } = this.parted;
    const entryAt = index * ENTRY.sizeBytes;
    const blockAt = bodiesAt + index * BLOCK_BYTES;
    const at = lba + index;
    const check = volume.checkAt(at);
    if (this.isGood(volume, at, check, heads, view, entryAt, bodies, blockAt)) return null;
    return whyBad(volume, at, heads, view, entryAt, bodies, blockAt);
  }

  /** Sets the slot up for a run; returns the aligned disk offset. */
  private locate(slot: Slot, place: number, count: number): number {
    const from = place * PLACE_UNIT;
    slot.at = from % this.sector;
    slot.length = roundUp(slot.at + count * STORED_BLOCK_BYTES, this.sector);
    return from - slot.at;
  }

  private startRun(run: Run): void {
    run.job.pending += 1;
    this.pin(run, 1);
    const free = this.freeSlots.pop();
    if (free !== undefined) {
      this.submit(free, run);
      return;
    }
    if (this.waiting.length - this.firstWaiting >= WAITING_RUNS_MAX) {
      this.pin(run, -1);
      run.job.pending -= 1;
      run.job.failed = true;
      return;
    }
    this.waiting.push(run);
  }

  private submit(slotNumber: number, run: Run): void {
    const slot = this.slots[slotNumber] as Slot;
    slot.run = run;
    const offset = this.locate(slot, run.place, run.count);
    const tag = this.ops.begin(OP.read, slotNumber);
    this.disk.read(tag, offset, slot.buffer, 0, slot.length);
  }

  private pin(run: Run, by: number): void {
    const { pins } = this.state.segments;
    const segment = this.state.geometry.segmentOf(run.place);
    pins[segment] = pins[segment]! + by;
  }

  /** The read in this slot completed. */
  finished(slotNumber: number, result: number): void {
    const slot = this.slots[slotNumber] as Slot;
    const run = slot.run as Run;
    slot.run = null;
    if (result === slot.length) this.takeRun(slot, run);
    else if (run.count > 1) this.splitRun(run);
    else this.failBlock(run.job, run.lba, run.place, `the disk does not read it (${result})`);
    this.freeSlots.push(slotNumber);
    this.pin(run, -1);
    this.startWaiting();
    this.endRun(run.job);
  }

  private takeRun(slot: Slot, run: Run): void {
    const { volume, out } = run.job;
    for (let index = 0; index < run.count; index += 1) {
      const lba = run.lba + index;
      const entryAt = slot.at + index * STORED_BLOCK_BYTES;
      const place = run.place + index * STORED_BLOCK_PLACES;
      const { buffer, view } = slot;
      const blockAt = entryAt + ENTRY.sizeBytes;
      // Overwritten since the read began: the index speaks of another version.
      const check = this.pointsAt(volume, lba, place) ? run.checks[index]! : ANY_CHECK;
      if (this.isGood(volume, lba, check, buffer, view, entryAt, buffer, blockAt)) {
        copyBlock(buffer, blockAt, out, run.outAt + index * BLOCK_BYTES);
      } else {
        const why = whyBad(volume, lba, buffer, view, entryAt, buffer, blockAt);
        this.failBlock(run.job, lba, place, why);
      }
    }
  }

  /** One bad sector must not take its neighbours with it. */
  private splitRun(run: Run): void {
    for (let index = 0; index < run.count; index += 1) {
      this.startRun({
        job: run.job,
        lba: run.lba + index,
        count: 1,
        place: run.place + index * STORED_BLOCK_PLACES,
        checks: run.checks.subarray(index, index + 1),
        outAt: run.outAt + index * BLOCK_BYTES,
      });
    }
  }

  private failBlock(job: ReadJob, lba: number, place: number, why: string): void {
    job.failed = true;
    // Overwritten meanwhile: nothing is left to heal, but this read has no answer.
    const { volume } = job;
    if (volume.snapshot !== HEAD || !this.pointsAt(volume, lba, place)) return;
    this.events.badBlock(volume.id, lba, why);
  }

  /** False if the block is known to lie elsewhere by now. */
  private pointsAt(volume: VolumeIndex, lba: number, place: number): boolean {
    const now = volume.placeAt(lba);
    return now === place || now === ABSENT_PLACE;
  }

  private startWaiting(): void {
    while (this.firstWaiting < this.waiting.length && this.freeSlots.length > 0) {
      const run = this.waiting[this.firstWaiting] as Run;
      this.firstWaiting += 1;
      this.submit(this.freeSlots.pop() as number, run);
    }
    if (this.firstWaiting === this.waiting.length || this.firstWaiting > 4096) {
      this.waiting.splice(0, this.firstWaiting);
      this.firstWaiting = 0;
    }
  }

  private endRun(job: ReadJob): void {
    job.pending -= 1;
    if (job.pending > 0) return;
    this.events.readDone(job.token, job.failed ? OUTCOME.io : OUTCOME.ok);
  }

  /** Tells what ended inside `read`. Called when the owner handles an event. */
  flush(): void {
    if (!this.hasNews) return;
    for (const found of this.bad.splice(0)) {
      this.events.badBlock(found.volume, found.lba, found.why);
    }
    for (const job of this.ended.splice(0)) {
      this.events.readDone(job.token, job.failed ? OUTCOME.io : OUTCOME.ok);
    }
  }

  get hasNews(): boolean {
    return this.ended.length > 0 || this.bad.length > 0;
  }

  /** The disk failed: every read that waits is answered. */
  fail(): void {
    const jobs = new Set<ReadJob>();
    for (const slot of this.slots) if (slot.run !== null) jobs.add(slot.run.job);
    for (const run of this.waiting.slice(this.firstWaiting)) jobs.add(run.job);
    for (const parts of this.parts.values()) for (const { job } of parts) jobs.add(job);
    this.parts.clear();
    this.partCount = 0;
    for (const job of this.ended.splice(0)) jobs.add(job);
    for (const slot of this.slots) slot.run = null;
    this.waiting.length = 0;
    this.firstWaiting = 0;
    this.bad.length = 0;
    for (const job of jobs) this.events.readDone(job.token, OUTCOME.io);
  }

  private noteBad(job: ReadJob, lba: number, why: string): void {
    job.failed = true;
    if (job.volume.snapshot === HEAD) this.bad.push({ volume: job.volume.id, lba, why });
  }

  /** `check`: the index's bits of the block, or ANY_CHECK. */
  private isGood(
    volume: VolumeIndex,
    lba: number,
    check: number,
    entries: Uint8Array,
    view: DataView,
    entryAt: number,
    blocks: Uint8Array,
    blockAt: number,
  ): boolean {
    if (!this.rules.verifyReads) return true;
    if (!verifyPair(entries, view, entryAt, blocks, blockAt, volume.id, lba)) return false;
    return check === ANY_CHECK || (ENTRY.check.get(view, entryAt) & 0xffff) === check;
  }
}

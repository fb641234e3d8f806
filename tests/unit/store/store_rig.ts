/**
 * A store on a simulated disk, with simulated time: what the store's tests drive. Runs until
 * nothing is left to do, cuts the power at any write, opens again, keeps a model of every block.
 */
import { expect } from "bun:test";
import { OUTCOME, type Outcome } from "../../../core/base/outcome.ts";
import type { Trace } from "../../../core/base/ports.ts";
import { ALL_RULES, type Rules } from "../../../core/base/rules.ts";
import {
  BLOCK_BYTES,
  type HostId,
  hostId,
  KIB,
  type VolumeId,
  volumeId,
} from "../../../core/base/units.ts";
import { RECORD_TYPE, RecordHeader } from "../../../core/format/record.ts";
import { StoreCheck } from "../../../core/store/check.ts";
import type {
  AdmitClass,
  ScrubOptions,
  StoreOpened,
  StoreOptions,
  StoreSink,
} from "../../../core/store/contract.ts";
import { Store } from "../../../core/store/store.ts";
import { SimDisk } from "../../sim/sim_disk.ts";
import type { SimMedia } from "../../sim/sim_media.ts";

export const VOLUME = volumeId(7);
export const OTHER = volumeId(9);
export const IDENTITY = { clusterId: 77, hostId: hostId(1), storeId: [11, 22] as const };

export interface RigOptions {
  readonly seed?: number;
  readonly sizeBytes?: number;
  readonly segmentBytes?: number;
  readonly blocks?: number;
  readonly media?: SimMedia;
  readonly rules?: Partial<Rules>;
  readonly cacheHits?: number;
  readonly latencyMs?: readonly [number, number];
  readonly syncMs?: readonly [number, number];
  readonly checkpointBytes?: number;
  readonly indexBytes?: number;
  readonly readSlots?: number;
  readonly logBufferBytes?: number;
  readonly sectorBytes?: number;
  readonly isThin?: boolean;
  readonly scrub?: ScrubOptions;
}

interface Expected {
  readonly clusterId: number;
  readonly hostId: HostId;
}

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly fn: () => void;
}

export class StoreRig implements StoreSink {
  readonly disk: SimDisk;
  store: Store;
  nowMs = 1000;
  opened: StoreOpened | null = null;
  closed = false;
  failed = "";
  writable = 0;
  loggedLsn = 0;
  readonly syncs = new Map<number, boolean>();
  readonly reads = new Map<number, Outcome>();
  readonly bad: { volume: number; lba: number; why: string }[] = [];
  readonly traced: string[] = [];
  /** Called after each event; for power cuts at a moment. */
  onStep: (() => void) | null = null;
  private readonly options: RigOptions;
  private timers: Timer[] = [];
  private order = 0;
  private token = 0;
  private inRequest = false;

  constructor(options: RigOptions = {}) {
    this.options = options;
    this.disk = new SimDisk({
      seed: options.seed ?? 1,
      schedule: (delayMs, fn) => this.after(delayMs, fn),
      done: (tag, result) => this.store.diskDone(this.nowMs, tag, result),
      cacheHits: options.cacheHits ?? 0.5,
      ...(options.latencyMs === undefined ? {} : { latencyMs: options.latencyMs }),
      ...(options.syncMs === undefined ? {} : { syncMs: options.syncMs }),
      ...(options.sectorBytes === undefined ? {} : { sectorBytes: options.sectorBytes }),
      isThin: options.isThin ?? false,
      ...(options.media === undefined
        ? { sizeBytes: options.sizeBytes ?? 8 * 1024 * KIB }
        : { media: options.media }),
    });
    this.store = this.make();
  }

  private make(): Store {
    const { options } = this;
    const storeOptions: StoreOptions = {
      segmentBytes: options.segmentBytes ?? 64 * KIB,
      volumes: [
        { id: VOLUME, blocks: options.blocks ?? 4096 },
        { id: OTHER, blocks: 2048 },
      ],
      diskTimeoutMs: 20_000,
      logBufferBytes: options.logBufferBytes ?? 32 * KIB,
      readSlots: options.readSlots ?? 4,
      ...(options.scrub === undefined ? {} : { scrub: options.scrub }),
      ...(options.indexBytes === undefined ? {} : { indexBytes: options.indexBytes }),
      ...(options.checkpointBytes === undefined
        ? {}
        : { checkpointBytes: options.checkpointBytes }),
    };
    const trace: Trace = {
      event: (_level, code, text) => {
        this.traced.push(`${code}: ${text}`);
      },
    };
    return new Store(storeOptions, this.disk, this, trace, { ...ALL_RULES, ...options.rules });
  }

  private after(delayMs: number, fn: () => void): void {
    this.timers.push({ atMs: this.nowMs + delayMs, order: this.order, fn });
    this.order += 1;
  }

  /** Runs one event; false when nothing is left before `untilMs`. */
  step(untilMs: number): boolean {
    const store = this.store;
    store.settle(this.nowMs);
    let next: Timer | null = null;
    for (const timer of this.timers) {
      if (next === null || timer.atMs < next.atMs) next = timer;
      else if (timer.atMs === next.atMs && timer.order < next.order) next = timer;
    }
    const deadline = store.nextDeadlineMs();
    if (next !== null && next.atMs <= Math.min(deadline, untilMs)) {
      this.timers.splice(this.timers.indexOf(next), 1);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.fn();
    } else if (deadline <= untilMs) {
      this.nowMs = Math.max(this.nowMs, deadline);
      store.expire(this.nowMs);
    } else {
      return false;
    }
    this.store.settle(this.nowMs);
    this.onStep?.();
    return true;
  }

  /** Runs until `isDone`; fails the test if that takes too long. */
  until(isDone: () => boolean, boundMs = 120_000): void {
    const end = this.nowMs + boundMs;
    let steps = 0;
    while (!isDone()) {
      steps += 1;
      const moved = this.step(end) && steps < 3_000_000;
      if (!moved && !isDone()) {
        throw new Error(`the store did not get there; failed="${this.failed}"`);
      }
    }
  }

  /** Runs for so long. */
  run(forMs: number): void {
    const end = this.nowMs + forMs;
    while (this.step(end)) {}
    this.nowMs = end;
  }

  format(): StoreOpened {
    this.store.format(this.nowMs, IDENTITY);
    return this.awaitOpen();
  }

  open(expected: Expected = IDENTITY): StoreOpened {
    this.beginOpen(expected);
    return this.awaitOpen();
  }

  /** Begins to open; the caller steps. */
  beginOpen(expected: Expected = IDENTITY): void {
    this.store = this.make();
    this.opened = null;
    this.failed = "";
    this.closed = false;
    this.loggedLsn = 0;
    this.syncs.clear();
    this.reads.clear();
    this.store.open(this.nowMs, expected);
  }

  awaitOpen(): StoreOpened {
    this.until(() => this.opened !== null);
    return this.opened as unknown as StoreOpened;
  }

  close(): void {
    this.store.close(this.nowMs);
    this.until(() => this.closed);
  }

  powerCut(): void {
    this.timers = [];
    this.disk.powerCut();
  }

  crash(): void {
    this.timers = [];
    this.disk.crash();
  }

  /** Asks for room until there is; false when full. `range`: what is to be written. */
  admit(bytes: number, from: AdmitClass = "client", range: RecordHeader | null = null): boolean {
    for (;;) {
      const outcome = this.request(() => {
        const ready =
          range === null
            ? OUTCOME.ok
            : this.store.prepare(volumeId(range.volume), range.lba, range.blockCount);
        return ready === OUTCOME.ok ? this.store.admit(bytes, from) : ready;
      });
      if (outcome === OUTCOME.ok) return true;
      if (outcome === OUTCOME.full) return false;
      if (outcome !== OUTCOME.pending) throw new Error(`admit: ${outcome} ${this.failed}`);
      const before = this.writable;
      this.until(() => this.writable > before || this.failed !== "");
    }
  }

  /** Appends blocks full of `value`; false when the store is full. */
  write(lba: number, value: number, count = 1, header: Partial<RecordHeader> = {}): boolean {
    const record = Object.assign(new RecordHeader(), { volume: VOLUME, ...header });
    record.type = header.type ?? RECORD_TYPE.write;
    record.lba = lba;
    record.blockCount = count;
    if (!this.admit(80 + count * 4112, "client", record)) return false;
    const data = blocksOf(lba, value, count);
    this.request(() => this.store.appendWrite(record, data, 0));
    return true;
  }

  /** Writes one block that has data already. */
  overwrite(lba: number, value: number): boolean {
    const record = Object.assign(new RecordHeader(), { volume: VOLUME, lba, blockCount: 1 });
    record.type = RECORD_TYPE.write;
    if (!this.admit(80 + 4112, "overwrite", record)) return false;
    this.request(() => this.store.appendWrite(record, blocksOf(lba, value, 1), 0));
    return true;
  }

  zero(lba: number, count: number, header: Partial<RecordHeader> = {}): boolean {
    const record = Object.assign(new RecordHeader(), { volume: VOLUME, ...header });
    record.type = header.type ?? RECORD_TYPE.zero;
    record.lba = lba;
    record.blockCount = count;
    if (!this.admit(80, "reserve", record)) return false;
    this.request(() => this.store.appendEmpty(record));
    return true;
  }

  sync(): boolean {
    this.token += 1;
    const { token } = this;
    this.request(() => this.store.sync(token));
    this.until(() => this.syncs.has(token));
    return this.syncs.get(token) as boolean;
  }

  /** Reads and waits; the blocks, or the outcome if it is not ok. */
  read(lba: number, count = 1, volume: VolumeId = VOLUME): Uint8Array | Outcome {
    const out = new Uint8Array(count * BLOCK_BYTES).fill(0xee);
    return this.answered(out, (token) => this.store.read(token, volume, lba, count, out, 0));
  }

  /** Waits for the answer to a read into `out`; `out`, or the outcome if it is not ok. */
  answered(out: Uint8Array, read: (token: number) => Outcome): Uint8Array | Outcome {
    this.token += 1;
    const { token } = this;
    const outcome = this.request(() => read(token));
    if (outcome === OUTCOME.ok) return out;
    if (outcome !== OUTCOME.pending) return outcome;
    this.until(() => this.reads.has(token));
    const later = this.reads.get(token) as Outcome;
    return later === OUTCOME.ok ? out : later;
  }

  /** The value a block was written with, 0 for a hole; fails on anything else. */
  valueAt(lba: number, volume: VolumeId = VOLUME): number {
    const found = this.read(lba, 1, volume);
    if (typeof found === "number") throw new Error(`block ${lba}: outcome ${found}`);
    return valueIn(lba, found, 0);
  }

  /** Requests must not call the sink. */
  request<T>(run: () => T): T {
    this.inRequest = true;
    const result = run();
    this.inRequest = false;
    return result;
  }

  private event(): void {
    expect(this.inRequest).toBe(false);
  }

  storeOpened(result: StoreOpened): void {
    this.event();
    this.opened = result;
  }
  storeClosed(): void {
    this.event();
    this.closed = true;
  }
  logged(lsn: number): void {
    this.event();
    expect(lsn).toBeGreaterThanOrEqual(this.loggedLsn);
    this.loggedLsn = lsn;
  }
  synced(token: number, ok: boolean): void {
    this.event();
    expect(this.syncs.has(token)).toBe(false);
    this.syncs.set(token, ok);
  }
  readDone(token: number, outcome: Outcome): void {
    this.event();
    expect(this.reads.has(token)).toBe(false);
    this.reads.set(token, outcome);
  }
  badBlock(volume: VolumeId, lba: number, why: string): void {
    this.event();
    this.bad.push({ volume, lba, why });
  }
  storeWritable(): void {
    this.event();
    this.writable += 1;
  }
  storeFailed(why: string): void {
    this.event();
    expect(this.failed).toBe("");
    this.failed = why;
  }
}

/** The offline check of a store, to its end; it must not write. */
export function checkMedia(media: SimMedia): NonNullable<StoreCheck["result"]> {
  const queue: (() => void)[] = [];
  const done = (tag: number, result: number): void => machine.diskDone(tag, result);
  const disk = new SimDisk({ media, seed: 1, schedule: (_delay, fn) => queue.push(fn), done });
  const machine: StoreCheck = new StoreCheck(disk, null);
  machine.settle();
  while (machine.result === null) {
    queue.shift()?.();
    machine.settle();
  }
  expect(disk.writeCount).toBe(0);
  return machine.result;
}

/** A block's content: its value and address all over, so that any mix-up shows. */
export function blocksOf(lba: number, value: number, count: number): Uint8Array {
  const words = new Uint32Array((count * BLOCK_BYTES) / 4);
  for (let index = 0; index < count; index += 1) {
    words.fill(value * 1000003 + lba + index, index * 1024, (index + 1) * 1024);
    words[index * 1024] = value;
  }
  return new Uint8Array(words.buffer);
}

/** The value of a block read at `at`; throws if its bytes are not one block's. */
export function valueIn(lba: number, bytes: Uint8Array, at: number): number {
  const words = new Uint32Array(bytes.slice(at, at + BLOCK_BYTES).buffer);
  const value = words[0] as number;
  const rest = value === 0 ? 0 : (value * 1000003 + lba) >>> 0;
  for (let index = 1; index < 1024; index += 1) {
    if (words[index] !== rest) throw new Error(`block ${lba} is torn or another block's`);
  }
  return value;
}

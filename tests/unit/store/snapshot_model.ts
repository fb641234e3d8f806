/**
 * Volumes with snapshots as simple maps, and a driver that does the same random things to them and
 * to the store: writes, trims, snapshots kept and dropped, syncs. After a power cut the store says
 * which prefix of the records it kept; what it kept of snapshots must fit that prefix.
 */
import { expect } from "bun:test";
import { OUTCOME, type Outcome } from "../../../core/base/outcome.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { BLOCK_BYTES, hostId } from "../../../core/base/units.ts";
import { type StoreRig, valueIn, VOLUME } from "./store_rig.ts";

const EPOCH = 65;
const SENDER = hostId(1);
const GROUP = 16;

interface Op {
  readonly kind: "write" | "keep" | "drop";
  readonly lba: number;
  readonly count: number;
  /** Of a write, 0 = a hole; else the number of the snapshot. */
  readonly value: number;
}

interface Content {
  readonly values: Int32Array;
  readonly snapshots: Map<number, Int32Array>;
}

export interface SnapshotModelOptions {
  readonly blocks: number;
  readonly spread: number;
  readonly snapshotsMax: number;
}

export class SnapshotModel {
  readonly rig: StoreRig;
  readonly random: SeededRandom;
  private readonly options: SnapshotModelOptions;
  /** After all operations that no cut can take back. */
  private readonly kept: Content;
  private readonly ops: Op[] = [];
  private keptRecords = 0;
  private nextValue = 1;
  private nextSnapshot = 1;

  constructor(rig: StoreRig, seed: number, options: SnapshotModelOptions) {
    this.rig = rig;
    this.options = options;
    this.random = new SeededRandom(seed);
    this.kept = { values: new Int32Array(options.blocks), snapshots: new Map() };
  }

  /** One random operation. */
  act(): void {
    const { random } = this;
    const kind = random.fraction();
    if (kind < 0.02) this.keep();
    else if (kind < 0.035) this.drop();
    else this.write(kind < 0.1);
    if (random.chance(0.3)) for (let step = random.below(12); step >= 0; step -= 1) this.step();
    if (random.chance(0.1)) this.sync();
  }

  private write(isTrim: boolean): void {
    const { random, options, rig } = this;
    const lba = random.below(options.blocks);
    const most = isTrim ? 300 : Math.min(3, GROUP - (lba % GROUP));
    const count = Math.min(1 + random.below(most), options.blocks - lba);
    const seq = this.keptRecords + this.ops.filter((op) => op.kind === "write").length + 1;
    const header = { epoch: EPOCH, sender: SENDER, seq, tagPoint: 1 };
    const at = this.placeOf(lba);
    const value = isTrim ? 0 : this.nextValue;
    this.nextValue += 1;
    const blocks = this.placeOf(lba + count - 1) + 1 - at;
    const isDone = isTrim ? rig.zero(at, blocks, header) : rig.write(at, value, count, header);
    if (isDone) this.ops.push({ kind: "write", lba, count, value });
  }

  private keep(): void {
    const now = this.now();
    if (now.snapshots.size >= this.options.snapshotsMax) return;
    const id = this.nextSnapshot;
    this.nextSnapshot += 1;
    this.ask(() => this.rig.store.snapshots.create(VOLUME, id));
    this.ops.push({ kind: "keep", lba: 0, count: 0, value: id });
  }

  private drop(): void {
    const ids = [...this.now().snapshots.keys()];
    if (ids.length > 0) this.dropOne(this.random.pick(ids));
  }

  private dropOne(id: number): void {
    this.ask(() => this.rig.store.snapshots.drop(VOLUME, id));
    this.ops.push({ kind: "drop", lba: 0, count: 0, value: id });
  }

  /** Until the log has room. */
  private ask(request: () => Outcome): void {
    for (;;) {
      const outcome = this.rig.request(request);
      if (outcome === OUTCOME.ok) return;
      expect(outcome).toBe(OUTCOME.pending);
      const before = this.rig.writable;
      this.rig.until(() => this.rig.writable > before);
    }
  }

  step(): void {
    this.rig.step(this.rig.nowMs + 5);
  }

  sync(): void {
    expect(this.rig.sync()).toBe(true);
    this.keepOps(this.ops.length);
  }

  private keepOps(count: number): void {
    for (const op of this.ops.splice(0, count)) {
      apply(this.kept, op);
      if (op.kind === "write") this.keptRecords += 1;
    }
  }

  /** What the store must have now. */
  private now(): Content {
    const { values, snapshots } = this.kept;
    const now = { values: values.slice(), snapshots: new Map(snapshots) };
    for (const op of this.ops) apply(now, op);
    return now;
  }

  /** After a power cut: the store kept a prefix, at least what was synced. */
  afterCut(): void {
    const records = this.rig.store.streamSeq(SENDER);
    expect(records).toBeGreaterThanOrEqual(this.keptRecords);
    let count = 0;
    let seen = this.keptRecords;
    while (seen < records) {
      const op = this.ops[count] as Op;
      if (op.kind === "write") seen += 1;
      count += 1;
    }
    this.keepOps(count);
    // What came after the last record and before the next may be there or not, in its order.
    const list = JSON.stringify(this.list());
    while (JSON.stringify([...this.kept.snapshots.keys()]) !== list) {
      expect(this.ops[0]?.kind).not.toBe("write");
      expect(this.ops.length).toBeGreaterThan(0);
      this.keepOps(1);
    }
    this.ops.length = 0;
  }

  private list(): number[] {
    return this.rig.store.snapshots.list(VOLUME);
  }

  verify(): void {
    const { values, snapshots } = this.now();
    expect(this.list()).toEqual([...snapshots.keys()]);
    this.verifyOne(values, (lba, count) => this.rig.read(lba, count));
    for (const [id, old] of snapshots) {
      this.verifyOne(old, (lba, count) => this.readSnapshot(id, lba, count));
    }
    expect(this.rig.bad).toEqual([]);
  }

  private verifyOne(
    values: Int32Array,
    read: (lba: number, count: number) => Uint8Array | Outcome,
  ): void {
    for (let lba = 0; lba < values.length; lba += GROUP) {
      const count = Math.min(GROUP, values.length - lba);
      const first = this.placeOf(lba);
      const found = read(first, count);
      if (typeof found === "number") throw new Error(`blocks from ${lba}: outcome ${found}`);
      for (let index = 0; index < count; index += 1) {
        const value = valueIn(first + index, found, index * BLOCK_BYTES);
        if (value === values[lba + index]) continue;
        throw new Error(`block ${lba + index} is ${value}, should be ${values[lba + index]}`);
      }
    }
  }

  private readSnapshot(id: number, lba: number, count: number): Uint8Array | Outcome {
    const { rig } = this;
    const out = new Uint8Array(count * BLOCK_BYTES).fill(0xee);
    return rig.answered(out, (token) =>
      rig.store.snapshots.read(token, VOLUME, id, lba, count, out, 0),
    );
  }

  /** Drops all snapshots, trims everything; in the end nothing is live. */
  clear(): void {
    for (const id of this.now().snapshots.keys()) this.dropOne(id);
    this.rig.zero(0, this.placeOf(this.options.blocks - 1) + 1);
    expect(this.rig.sync()).toBe(true);
    this.rig.run(3000);
    expect(this.rig.store.dataBytes).toBe(0);
  }

  private placeOf(lba: number): number {
    return Math.floor(lba / GROUP) * GROUP * this.options.spread + (lba % GROUP);
  }
}

function apply({ values, snapshots }: Content, op: Op): void {
  if (op.kind === "keep") snapshots.set(op.value, values.slice());
  else if (op.kind === "drop") snapshots.delete(op.value);
  else values.fill(op.value, op.lba, op.lba + op.count);
}

/**
 * The simplest store there can be, and a driver that does the same random things to it and to the
 * real one. Every operation is a record of one stream, numbered from 1, so after a power cut the
 * store itself says which prefix it kept (`streamSeq`), and the model is exact for each prefix.
 */
import { expect } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import { type StoreRig, valueIn } from "./store_rig.ts";

const EPOCH = 65;
const SENDER = hostId(1);

interface Op {
  readonly lba: number;
  readonly count: number;
  /** 0 = a hole. */
  readonly value: number;
  /** End of its record in the log of this session. */
  readonly lsn: number;
}

export interface ModelOptions {
  readonly blocks: number;
  /** Longest write and longest trim, blocks. */
  readonly writeMax: number;
  readonly trimMax: number;
  /** Shares: of trims, and of syncs after an operation. */
  readonly trims: number;
  readonly syncs: number;
  /**
   * Blocks lie in groups of 16, each so many groups from the next (default 1: all together), so
   * that few blocks lie in many regions, and trims cover many whole ones.
   */
  readonly spread?: number;
}

const GROUP = 16;

export class StoreModel {
  readonly rig: StoreRig;
  readonly random: SeededRandom;
  /** Operations that answered full. */
  refused = 0;
  private readonly options: ModelOptions;
  /** Values after all operations in `kept`. */
  private readonly values: Int32Array;
  /** Operations number `keptCount + 1` and on, which a cut may take back. */
  private readonly ops: Op[] = [];
  private keptCount = 0;
  private nextValue = 1;

  constructor(rig: StoreRig, seed: number, options: ModelOptions) {
    this.rig = rig;
    this.options = options;
    this.random = new SeededRandom(seed);
    this.values = new Int32Array(options.blocks);
  }

  private get count(): number {
    return this.keptCount + this.ops.length;
  }

  /** One random operation; sometimes followed by a sync, or by time passing. */
  act(): void {
    const { random, options, rig } = this;
    const isTrim = random.chance(options.trims);
    const lba = random.below(options.blocks);
    const most = isTrim ? options.trimMax : Math.min(options.writeMax, GROUP - (lba % GROUP));
    const count = Math.min(1 + random.below(most), options.blocks - lba);
    const at = this.placeOf(lba);
    const end = this.placeOf(lba + count - 1) + 1;
    const header = { epoch: EPOCH, sender: SENDER, seq: this.count + 1, tagPoint: 1 };
    const value = isTrim ? 0 : this.nextValue;
    this.nextValue += 1;
    const done = isTrim ? rig.zero(at, end - at, header) : rig.write(at, value, count, header);
    if (!done) {
      this.refused += 1;
      return;
    }
    this.ops.push({ lba, count, value, lsn: rig.store.lastLsn });
    if (random.chance(0.3)) for (let step = random.below(12); step >= 0; step -= 1) this.step();
    if (random.chance(options.syncs)) this.sync();
  }

  /** Where the model's block lies in the volume. */
  private placeOf(lba: number): number {
    const group = Math.floor(lba / GROUP);
    return group * GROUP * (this.options.spread ?? 1) + (lba % GROUP);
  }

  step(): void {
    this.rig.step(this.rig.nowMs + 5);
  }

  sync(): void {
    expect(this.rig.sync()).toBe(true);
    this.keep(this.count);
  }

  private keep(count: number): void {
    while (this.keptCount < count) {
      const op = this.ops.shift() as Op;
      this.values.fill(op.value, op.lba, op.lba + op.count);
      this.keptCount += 1;
    }
  }

  /** After a power cut: at least what was synced is there. */
  afterCut(): void {
    this.adopt(this.keptCount);
  }

  /** After a killed process: at least what was logged is there. */
  afterCrash(loggedLsn: number): void {
    const logged = this.ops.filter((op) => op.lsn <= loggedLsn).length;
    this.adopt(this.keptCount + logged);
  }

  private adopt(least: number): void {
    const kept = this.rig.store.streamSeq(SENDER);
    expect(kept).toBeGreaterThanOrEqual(least);
    expect(kept).toBeLessThanOrEqual(this.count);
    this.keep(kept);
    this.ops.length = 0;
  }

  /** Every block of the volume has the model's value. */
  verify(): void {
    const now = this.values.slice();
    for (const op of this.ops) now.fill(op.value, op.lba, op.lba + op.count);
    let used = 0;
    for (let lba = 0; lba < now.length; lba += GROUP) {
      const count = Math.min(GROUP, now.length - lba);
      const first = this.placeOf(lba);
      const found = this.rig.read(first, count);
      if (typeof found === "number") throw new Error(`blocks from ${lba}: outcome ${found}`);
      for (let index = 0; index < count; index += 1) {
        const value = valueIn(first + index, found, index * 4096);
        if (value !== now[lba + index]) {
          throw new Error(`block ${lba + index} is ${value}, should be ${now[lba + index]}`);
        }
        if (value !== 0) used += 1;
      }
    }
    expect(this.rig.bad).toEqual([]);
    expect(this.rig.store.stats().usedBytes).toBe(used * 4096);
  }
}

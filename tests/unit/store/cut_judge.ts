/**
 * Judges what a power cut left: the store opens without loss, it holds a prefix of what was done
 * that has all that was synced, each block of the volume and of its snapshots is what that prefix
 * says, a second recovery of the same image finds the same, all counts are exact, and no space is
 * lost.
 */
import { expect } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { BLOCK_BYTES } from "../../../core/base/units.ts";
import { CUTS, type SimMedia } from "../../sim/sim_media.ts";
import {
  type CutImage,
  type CutScenario,
  documentOf,
  GROUP,
  rigOptions,
  SENDER,
} from "./cut_scenario.ts";
import type { Outcome } from "../../../core/base/outcome.ts";
import { checkMedia, StoreRig, valueIn, VOLUME } from "./store_rig.ts";

/** Roots and moved blocks may need so many segments more or less. */
const FREE_SLACK = 3;
/** So many contents are remembered. */
const VALUES_MAX = 64;

interface Found {
  readonly kept: number;
  readonly document: number;
  readonly marks: number;
  readonly free: number;
}

export class CutJudge {
  imageCount = 0;
  secondCutCount = 0;
  /** Images that had lost something that was not synced. */
  shorterCount = 0;
  private readonly scenario: CutScenario;
  /** By the number of operations. */
  private readonly values = new Map<number, Int32Array>();
  private readonly random: SeededRandom;

  constructor(scenario: CutScenario) {
    this.scenario = scenario;
    this.random = new SeededRandom(scenario.plan.seed + 2000);
  }

  /** `deep`: also another recovery of the same image, two restarts, and all counts. */
  judge(image: CutImage, deep: boolean, cutsAgain: boolean): void {
    try {
      this.imageCount += 1;
      this.judgeImage(image, deep, cutsAgain);
    } catch (error) {
      const { seed } = this.scenario.plan;
      throw new Error(`seed ${seed}, ${image.label}: ${error}`, { cause: error });
    }
  }

  private judgeImage(image: CutImage, deep: boolean, cutsAgain: boolean): void {
    const again: SimMedia[] = [];
    const copy = deep || cutsAgain ? image.media.clone() : null;
    const rig = this.rigOf(image.media, 1);
    if (cutsAgain) {
      let nextCut = 0;
      rig.disk.onMoment = (what) => {
        if (what === "synced") return;
        again.push(rig.disk.imageAfterCut(this.random, CUTS[nextCut % CUTS.length]!));
        nextCut += 1;
      };
    }
    const found = this.open(rig, deep || this.imageCount % 8 === 0);
    rig.disk.onMoment = null;
    expect(found.kept).toBeGreaterThanOrEqual(image.least);
    expect(found.kept).toBeLessThanOrEqual(image.most);
    expect(found.document).toBeGreaterThanOrEqual(image.documentLeast);
    expect(found.document).toBeLessThanOrEqual(image.documentMost);
    expect(found.marks).toBeGreaterThanOrEqual(image.marksLeast);
    if (found.kept < image.most) this.shorterCount += 1;
    if (copy !== null) {
      const other = this.open(this.rigOf(copy, 2));
      expectSame(other, found);
    }
    for (const media of again) {
      this.secondCutCount += 1;
      const other = this.open(this.rigOf(media, 3));
      expectSame(other, found);
    }
    if (deep) this.restartTwice(rig, found);
  }

  private rigOf(media: SimMedia, seed: number): StoreRig {
    const { sizeBytes: _size, ...options } = rigOptions(this.scenario.plan);
    return new StoreRig({ ...options, media, seed });
  }

  /** Opens and compares every block. */
  private open(rig: StoreRig, checksCounts = false): Found {
    expect(rig.open()).toMatchObject({ ok: true, lostRecords: 0 });
    if (checksCounts) expect(checkMedia(rig.disk.media.clone())).toMatchObject({ isSound: true });
    const kept = rig.store.streamSeq(SENDER);
    const marks = this.compare(rig, kept);
    expect(rig.traced).toEqual([]);
    // Which free segments have room below is found out bit by bit.
    const free = rig.disk.isThin ? 0 : rig.store.stats().segmentsFree;
    return { kept, document: documentOf(rig), marks, free };
  }

  /** Every block of the volume and of its snapshots; the number of marks there. */
  private compare(rig: StoreRig, kept: number): number {
    const { scenario } = this;
    const { snapshots } = rig.store;
    const marks = scenario.marksKept(kept, snapshots.list(VOLUME));
    const versions = new Set<string>();
    this.compareOne(this.valuesAfter(kept), versions, (lba) => rig.read(lba, GROUP));
    const used = versions.size;
    for (const [id, after] of scenario.snapshotsAfter(marks)) {
      this.compareOne(this.valuesAfter(after), versions, (lba) => {
        const out = new Uint8Array(GROUP * BLOCK_BYTES).fill(0xee);
        return rig.answered(out, (token) => snapshots.read(token, VOLUME, id, lba, GROUP, out, 0));
      });
    }
    expect(rig.bad).toEqual([]);
    expect(rig.store.stats().usedBytes).toBe(used * BLOCK_BYTES);
    // What a dropped snapshot had comes back bit by bit.
    const data = versions.size * BLOCK_BYTES;
    if (marks > 0) rig.until(() => rig.store.dataBytes === data, 5000);
    return marks;
  }

  /** Adds each block's version to `versions`: what is shared is there once. */
  private compareOne(
    values: Int32Array,
    versions: Set<string>,
    read: (lba: number) => Uint8Array | Outcome,
  ): void {
    for (const [group, lba] of this.scenario.groups.entries()) {
      const bytes = read(lba);
      if (typeof bytes === "number") throw new Error(`blocks from ${lba}: outcome ${bytes}`);
      for (let index = 0; index < GROUP; index += 1) {
        const value = valueIn(lba + index, bytes, index * BLOCK_BYTES);
        const wanted = values[group * GROUP + index]!;
        if (value !== wanted) throw new Error(`block ${lba + index}: ${value}, not ${wanted}`);
        if (value !== 0) versions.add(`${lba + index} ${value}`);
      }
    }
  }

  private valuesAfter(count: number): Int32Array {
    let values = this.values.get(count);
    if (values === undefined) {
      if (this.values.size > VALUES_MAX) this.values.clear();
      values = this.scenario.valuesAfter(count);
      this.values.set(count, values);
    }
    return values;
  }

  /** Restarts again and again, each time after a cut in the middle: no space is lost. */
  wearOut(rig: StoreRig): void {
    const free: number[] = [];
    for (let count = 0; count < 12; count += 1) {
      rig.beginOpen();
      for (let step = this.random.below(40); step >= 0; step -= 1) rig.step(rig.nowMs + 5);
      rig.powerCut();
      free.push(this.open(rig).free);
      rig.powerCut();
    }
    expect(Math.min(...free)).toBeGreaterThanOrEqual(free[0]! - FREE_SLACK);
  }

  private restartTwice(rig: StoreRig, found: Found): void {
    rig.powerCut();
    const second = this.open(rig);
    expectSame(second, found);
    rig.close();
    expect(checkMedia(rig.disk.media.clone())).toMatchObject({ isSound: true });
    const third = this.open(rig);
    expectSame(third, found);
    expect(third.free).toBeGreaterThanOrEqual(Math.max(second.free, found.free) - FREE_SLACK);
  }
}

function expectSame(other: Found, found: Found): void {
  expect(other.kept).toBe(found.kept);
  expect(other.document).toBe(found.document);
  expect(other.marks).toBe(found.marks);
}

/**
 * Judges what a power cut left: the store opens without loss, it holds a prefix of what was done
 * that has all that was synced, each block is what that prefix says, a second recovery of the same
 * image finds the same, all counts are exact, and no space is lost.
 */
import { expect } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { CUTS, type SimMedia } from "../../sim/sim_media.ts";
import {
  type CutImage,
  type CutScenario,
  documentOf,
  GROUP,
  rigOptions,
  SENDER,
} from "./cut_scenario.ts";
import { checkMedia, StoreRig, valueIn } from "./store_rig.ts";

/** Roots and moved blocks may need so many segments more or less. */
const FREE_SLACK = 3;

interface Found {
  readonly kept: number;
  readonly document: number;
  readonly free: number;
}

export class CutJudge {
  imageCount = 0;
  secondCutCount = 0;
  /** Images that had lost something that was not synced. */
  shorterCount = 0;
  private readonly scenario: CutScenario;
  private values: Int32Array = new Int32Array(0);
  private valuesOf = -1;
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
    if (found.kept < image.most) this.shorterCount += 1;
    if (copy !== null) {
      const other = this.open(this.rigOf(copy, 2));
      expect(other.kept).toBe(found.kept);
      expect(other.document).toBe(found.document);
    }
    for (const media of again) {
      this.secondCutCount += 1;
      const other = this.open(this.rigOf(media, 3));
      expect(other.kept).toBe(found.kept);
      expect(other.document).toBe(found.document);
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
    this.compare(rig, kept);
    expect(rig.traced).toEqual([]);
    // Which free segments have room below is found out bit by bit.
    const free = rig.disk.isThin ? 0 : rig.store.stats().segmentsFree;
    return { kept, document: documentOf(rig), free };
  }

  private compare(rig: StoreRig, kept: number): void {
    const { groups } = this.scenario;
    if (this.valuesOf !== kept) {
      this.values = this.scenario.valuesAfter(kept);
      this.valuesOf = kept;
    }
    let used = 0;
    for (let group = 0; group < groups.length; group += 1) {
      const lba = groups[group]!;
      const bytes = rig.read(lba, GROUP);
      if (typeof bytes === "number") throw new Error(`blocks from ${lba}: outcome ${bytes}`);
      for (let index = 0; index < GROUP; index += 1) {
        const value = valueIn(lba + index, bytes, index * 4096);
        const wanted = this.values[group * GROUP + index]!;
        if (value !== wanted) throw new Error(`block ${lba + index}: ${value}, not ${wanted}`);
        if (value !== 0) used += 1;
      }
    }
    expect(rig.bad).toEqual([]);
    expect(rig.store.stats().usedBytes).toBe(used * 4096);
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
    expect(second.kept).toBe(found.kept);
    rig.close();
    expect(checkMedia(rig.disk.media.clone())).toMatchObject({ isSound: true });
    const third = this.open(rig);
    expect(third.kept).toBe(found.kept);
    expect(third.free).toBeGreaterThanOrEqual(Math.max(second.free, found.free) - FREE_SLACK);
  }
}

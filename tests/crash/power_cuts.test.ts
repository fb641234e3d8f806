/**
 * The power goes at every single write and barrier of a busy store's life: what no sync covers is
 * kept, lost, reordered or torn. Then again at every write and barrier of the recovery (of a sample
 * of images). The rule: `cut_judge.ts`.
 *
 * VSAN_SEEDS=n: n seeds of each life. VSAN_CUTS=all: all kinds of cuts at each moment, every
 * image recovered twice and restarted, every recovery cut again (hours).
 */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../core/base/random.ts";
import { KIB, MIB } from "../../core/base/units.ts";
import { CUTS, type SimMedia } from "../sim/sim_media.ts";
import { CutJudge } from "../unit/store/cut_judge.ts";
import { type CutPlan, CutScenario } from "../unit/store/cut_scenario.ts";
import { IDENTITY, StoreRig } from "../unit/store/store_rig.ts";

const SEEDS = Number(process.env.VSAN_SEEDS ?? 1);
const IS_LONG = process.env.VSAN_CUTS === "all";
/** Of so many images one is recovered twice and restarted, one has its recovery cut. */
const DEEP = IS_LONG ? 1 : 17;
const AGAIN = IS_LONG ? 1 : 131;

const LIVES: Record<string, CutPlan> = {
  "index in a tenth of its memory, trims of blocks, regions and nodes": {
    seed: 1,
    segments: 42,
    segmentBytes: 64 * KIB,
    groups: 48,
    operations: 33,
    trims: 0.15,
    syncs: 0.15,
    draws: 2,
    rig: { checkpointBytes: 200_000, indexBytes: 1, syncMs: [1, 8] },
  },
  "nearly full, many small syncs": {
    seed: 2,
    segments: 30,
    segmentBytes: 64 * KIB,
    groups: 30,
    operations: 33,
    trims: 0.08,
    syncs: 0.6,
    draws: 2,
    rig: { checkpointBytes: 500_000 },
  },
  "a thin file, much trimmed": {
    seed: 3,
    segments: 40,
    segmentBytes: 64 * KIB,
    groups: 30,
    operations: 33,
    trims: 0.3,
    syncs: 0.2,
    draws: 2,
    rig: { checkpointBytes: 100_000, isThin: true },
  },
  "snapshots kept and dropped": {
    seed: 5,
    segments: 38,
    segmentBytes: 64 * KIB,
    groups: 30,
    operations: 33,
    trims: 0.15,
    syncs: 0.2,
    snapshots: 2,
    draws: 2,
    rig: { checkpointBytes: 150_000, indexBytes: 1, syncMs: [1, 8] },
  },
  "larger segments, of which the cleaner is not done in one turn": {
    seed: 4,
    segments: 28,
    segmentBytes: 256 * KIB,
    groups: 130,
    operations: 33,
    trims: 0.05,
    syncs: 0.4,
    draws: 1,
    every: IS_LONG ? 1 : 3,
    rig: { checkpointBytes: 2 * MIB, syncMs: [2, 9] },
  },
};

function live(plan: CutPlan): { scenario: CutScenario; judge: CutJudge } {
  const scenario = new CutScenario(plan, (image) => {
    const number = judge.imageCount;
    judge.judge(image, number % DEEP === 0, number % AGAIN === 0);
  });
  const judge = new CutJudge(scenario);
  scenario.run();
  judge.wearOut(scenario.rig);
  return { scenario, judge };
}

for (const [name, plan] of Object.entries(LIVES)) {
  test(`fault 1: a cut at every write and barrier: ${name}`, () => {
    for (let index = 0; index < SEEDS; index += 1) {
      const draws = IS_LONG ? CUTS.length : plan.draws;
      const { scenario, judge } = live({ ...plan, seed: plan.seed + index * 10, draws });
      const { count } = scenario;
      // It really was such a life.
      expect(judge.imageCount).toBeGreaterThan(count.moments / (2 * (plan.every ?? 1)));
      expect(judge.secondCutCount).toBeGreaterThan(20);
      expect(judge.shorterCount).toBeGreaterThan(50);
      expect(count.rolls).toBeGreaterThan(30);
      expect(scenario.checkpoints).toBeGreaterThan(3);
      expect(scenario.segmentsCleaned).toBeGreaterThan(3);
      expect(count.regionTrims).toBeGreaterThan(2);
      expect(count.nodeTrims).toBeGreaterThan(0);
      if (plan.syncs > 0.5) expect(scenario.rig.disk.unwrittenCount).toBeGreaterThan(3);
      if (plan.snapshots !== undefined) expect(count.marks).toBeGreaterThan(10);
      if (plan.rig.indexBytes !== undefined) expect(scenario.indexMisses).toBeGreaterThan(10);
    }
  }, 3_600_000);
}

test("a cut at every write and barrier of making a store where one was: old, none, or new", () => {
  const old = new StoreRig({ seed: 4, sizeBytes: 2 * MIB, blocks: 64 });
  old.format();
  old.write(5, 1);
  old.close();
  const random = new SeededRandom(4);
  const rig = new StoreRig({ seed: 5, media: old.disk.media, blocks: 64 });
  const images: { media: SimMedia; syncs: number }[] = [];
  let syncs = 0;
  rig.disk.onMoment = (what) => {
    if (what === "synced") syncs += 1;
    for (const cut of CUTS) images.push({ media: rig.disk.imageAfterCut(random, cut), syncs });
  };
  rig.store.format(rig.nowMs, { ...IDENTITY, storeId: [33, 44] });
  expect(rig.awaitOpen()).toMatchObject({ ok: true });
  rig.disk.onMoment = null;
  const outcomes = { old: 0, none: 0, new: 0 };
  for (const { media, syncs: done } of images) {
    const again = new StoreRig({ seed: 6, media, blocks: 64 });
    const opened = again.open();
    if (!opened.ok) {
      expect(["blank", "damaged", "foreign"]).toContain(opened.code);
      outcomes.none += 1;
    } else if (again.valueAt(5) === 0) {
      outcomes.new += 1;
    } else {
      expect(done).toBe(0);
      outcomes.old += 1;
    }
  }
  for (const count of Object.values(outcomes)) expect(count).toBeGreaterThan(5);
  // Once it is made, it is there.
  rig.powerCut();
  expect(rig.open()).toMatchObject({ ok: true });
}, 60_000);

test("killed at any write of a checkpoint, then a cut at any write of the recovery", () => {
  const random = new SeededRandom(7);
  let opened = 0;
  for (let killAt = 1; killAt <= 8; killAt += 1) {
    const rig = new StoreRig({ seed: killAt, sizeBytes: 2 * MIB, blocks: 64 });
    rig.format();
    rig.write(5, 1);
    rig.sync();
    const from = rig.disk.writeCount;
    rig.store.close(rig.nowMs);
    rig.until(() => rig.disk.writeCount >= from + killAt || rig.closed);
    rig.crash();
    const images: SimMedia[] = [];
    rig.disk.onMoment = (what) => {
      if (what !== "write") return;
      for (const cut of CUTS) images.push(rig.disk.imageAfterCut(random, cut));
      for (let draw = 0; draw < 4; draw += 1) {
        images.push(rig.disk.imageAfterCut(random, "garbled"));
      }
    };
    rig.open();
    for (const media of images) {
      const again = new StoreRig({ seed: 1, media, blocks: 64 });
      expect(again.open()).toMatchObject({ ok: true, lostRecords: 0 });
      expect(again.valueAt(5)).toBe(1);
      opened += 1;
    }
  }
  expect(opened).toBeGreaterThan(500);
}, 60_000);

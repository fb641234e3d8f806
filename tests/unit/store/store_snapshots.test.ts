/** Snapshots: what was kept stays, through writes, trims, cleaning and cuts; space returns. */
import { describe, expect, test } from "bun:test";
import { OUTCOME } from "../../../core/base/outcome.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { KIB, MIB } from "../../../core/base/units.ts";
import type { StoreStats } from "../../../core/store/contract.ts";
import { SnapshotModel } from "./snapshot_model.ts";
import { checkMedia, OTHER, StoreRig, valueIn, VOLUME } from "./store_rig.ts";

const SEEDS = Number(process.env.VSAN_SEEDS ?? 24);

/** Counts and checksums on the disk agree with each other. */
function expectSound(rig: StoreRig): void {
  const report = checkMedia(rig.disk.media.clone());
  expect(report.ok).toBe(true);
  if (!report.ok) return;
  expect(report.damage.filter(({ kind }) => kind !== "superblock")).toEqual([]);
  expect([report.lostRecords, report.badCount, report.lostCount]).toEqual([0, 0, 0]);
}

function life(seed: number): { cleaned: number; misses: number } {
  const isCramped = seed % 2 === 0;
  const spread = isCramped ? 30 : 1;
  const blocks = 300;
  const rig = new StoreRig({
    seed,
    sizeBytes: 5 * MIB,
    blocks: blocks * spread,
    indexBytes: isCramped ? 0 : 64 * MIB,
    checkpointBytes: ((seed % 3) + 1) * 200 * KIB,
    cacheHits: 0.7,
  });
  rig.format();
  const model = new SnapshotModel(rig, seed, { blocks, spread, snapshotsMax: 3 });
  let cleaned = 0;
  let misses = 0;
  for (let round = 0; round < 6; round += 1) {
    for (let count = model.random.below(400); count >= 0; count -= 1) model.act();
    const stats = rig.store.stats();
    cleaned += stats.segmentsCleaned;
    misses += stats.indexMisses;
    if (model.random.chance(0.25)) {
      model.sync();
      rig.close();
    } else {
      rig.powerCut();
      if (model.random.chance(0.3)) {
        rig.beginOpen();
        for (let step = model.random.below(60); step >= 0; step -= 1) model.step();
        rig.powerCut();
      }
    }
    expectSound(rig);
    rig.open();
    model.afterCut();
    model.verify();
  }
  model.clear();
  rig.close();
  expectSound(rig);
  return { cleaned, misses };
}

describe("random lives with snapshots", () => {
  test(`fault 5: ${SEEDS} seeds`, () => {
    let cleaned = 0;
    let misses = 0;
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      try {
        const seen = life(seed);
        cleaned += seen.cleaned;
        misses += seen.misses;
      } catch (error) {
        throw new Error(`seed ${seed}: ${error}`, { cause: error });
      }
    }
    expect(cleaned).toBeGreaterThan(SEEDS);
    expect(misses).toBeGreaterThan(SEEDS * 10);
  }, 120_000);
});

describe("a snapshot", () => {
  test("is there at once, tells its extents, and keeps its blocks through restarts", () => {
    const rig = new StoreRig({ cacheHits: 1 });
    rig.format();
    const { snapshots } = rig.store;
    for (let lba = 0; lba < 20; lba += 1) rig.write(lba, 5);
    expect(snapshots.create(VOLUME, 3)).toBe(OUTCOME.ok);
    expect(snapshots.create(VOLUME, 3)).toBe(OUTCOME.refused);
    expect(snapshots.create(VOLUME, 0)).toBe(OUTCOME.invalid);
    expect(snapshots.drop(VOLUME, 4)).toBe(OUTCOME.refused);
    expect(snapshots.drop(OTHER, 3)).toBe(OUTCOME.refused);
    rig.write(4, 9);
    rig.zero(10, 4000);
    rig.sync();
    rig.powerCut();
    rig.open();
    const extents: [number, boolean][] = [];
    const visit = (count: number, isData: boolean): void => void extents.push([count, isData]);
    expect(rig.store.snapshots.extents(VOLUME, 3, 0, 4096, visit)).toBe(4096);
    expect(extents).toEqual([
      [20, true],
      [4076, false],
    ]);
    const out = new Uint8Array(4096);
    const found = rig.answered(out, (token) =>
      rig.store.snapshots.read(token, VOLUME, 3, 15, 1, out, 0),
    );
    expect(typeof found === "number" ? found : valueIn(15, found, 0)).toBe(5);
    expect(rig.store.snapshots.read(1, VOLUME, 3, 4096, 1, out, 0)).toBe(OUTCOME.invalid);
    expect(rig.store.snapshots.read(1, VOLUME, 9, 0, 1, out, 0)).toBe(OUTCOME.refused);
    // 20 blocks of the snapshot and the one that was written since.
    expect(rig.store.dataBytes).toBe(21 * 4096);
    expect(rig.store.snapshots.drop(VOLUME, 3)).toBe(OUTCOME.ok);
    expect(rig.store.snapshots.list(VOLUME)).toEqual([]);
    rig.run(100);
    expect(rig.store.dataBytes).toBe(10 * 4096);
    rig.close();
    expectSound(rig);
  });

  test("many of them, with little memory: the cleaner sees all versions of a block", () => {
    const rig = new StoreRig({ sizeBytes: 6 * MIB, blocks: 4096, indexBytes: 0, cacheHits: 1 });
    rig.format();
    const random = new SeededRandom(3);
    for (let id = 1; id <= 70; id += 1) {
      for (let lba = 0; lba < 5; lba += 1) rig.write(lba, id);
      rig.write(100 + id, 7);
      expect(rig.store.snapshots.create(VOLUME, id)).toBe(OUTCOME.ok);
    }
    const { segmentsCleaned } = rig.store.stats();
    for (let count = 0; count < 4000; count += 1) {
      rig.write(random.below(200), 8, 1, { volume: OTHER });
    }
    expect(rig.store.stats().segmentsCleaned).toBeGreaterThan(segmentsCleaned);
    rig.sync();
    rig.powerCut();
    expectSound(rig);
    rig.open();
    const out = new Uint8Array(4096);
    for (let id = 1; id <= 70; id += 1) {
      const found = rig.answered(out, (token) =>
        rig.store.snapshots.read(token, VOLUME, id, 3, 1, out, 0),
      );
      expect(typeof found === "number" ? found : valueIn(3, found, 0)).toBe(id);
    }
  }, 30_000);

  test("a full store has room again when it is dropped", () => {
    const rig = new StoreRig({ sizeBytes: 4 * MIB, cacheHits: 1 });
    rig.format();
    const blocks = Math.floor((rig.store.sizeBytes / 4096) * 0.6);
    for (let lba = 0; lba < blocks; lba += 1) rig.write(lba, 1);
    expect(rig.store.snapshots.create(VOLUME, 1)).toBe(OUTCOME.ok);
    let lba = 0;
    while (lba < blocks && rig.write(lba, 2)) lba += 1;
    expect(lba).toBeGreaterThan(blocks / 2);
    expect(lba).toBeLessThan(blocks);
    expect(rig.store.snapshots.drop(VOLUME, 1)).toBe(OUTCOME.ok);
    for (let again = 0; again < 1000; again += 1) expect(rig.write(again % blocks, 3)).toBe(true);
  });

  test("moves after a trim find, when rolled forward, what the trim gave up", () => {
    let hits = 0;
    for (let seed = 1; seed <= 6; seed += 1) {
      const rig = new StoreRig({
        seed,
        sizeBytes: 4 * MIB,
        cacheHits: 1,
        checkpointBytes: 64 * MIB,
      });
      rig.format();
      // Blocks of region 1 among others that die soon: segments that are worth cleaning.
      for (let index = 0; index < 120; index += 1) {
        rig.write(512 + index, 1);
        rig.write(index * 2, 2, 2, { volume: OTHER });
      }
      expect(rig.store.snapshots.create(VOLUME, 1)).toBe(OUTCOME.ok);
      rig.write(512 + 200, 3);
      const stats = (): StoreStats => rig.store.stats();
      const random = new SeededRandom(seed);
      const write = (): unknown => rig.write(random.below(240), 4, 1, { volume: OTHER });
      while (stats().checkpoints < 6) write();
      // Region 1 lies between the ends: its page is not in memory when this is rolled forward.
      const before = stats();
      rig.zero(0, 1536);
      while (stats().segmentsCleaned < before.segmentsCleaned + 4) write();
      // The moves reach the disk, and a sync covers them.
      rig.run(2);
      rig.write(0, 5, 1, { volume: OTHER });
      rig.sync();
      if (stats().checkpoints === before.checkpoints) hits += 1;
      rig.powerCut();
      expectSound(rig);
      rig.open();
      rig.run(100);
      expect(rig.failed).toBe("");
      const out = new Uint8Array(120 * 4096);
      const found = rig.answered(out, (token) =>
        rig.store.snapshots.read(token, VOLUME, 1, 512, 120, out, 0),
      );
      expect(typeof found).not.toBe("number");
      for (let index = 0; index < 120; index += 1) {
        expect(valueIn(512 + index, out, index * 4096)).toBe(1);
      }
    }
    expect(hits).toBeGreaterThan(0);
  }, 30_000);
});

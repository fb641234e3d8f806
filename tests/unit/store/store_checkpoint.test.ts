/** Checkpoints are exact at their cut, whatever clients, cleaner and power cuts do meanwhile. */
import { describe, expect, test } from "bun:test";
import { MIB } from "../../../core/base/units.ts";
import { StoreModel } from "./store_model.ts";
import { checkMedia, StoreRig } from "./store_rig.ts";

const OPTIONS = { blocks: 1500, writeMax: 3, trimMax: 900, trims: 0.06, syncs: 0.1 };
/** Many regions with few blocks each, for stores with little memory for the index. */
const SPREAD = 25;

/** What lies on the disk agrees with itself: counts, checksums, everything. */
function expectSound(rig: StoreRig): void {
  const report = checkMedia(rig.disk.media.clone());
  expect(report.ok).toBe(true);
  if (!report.ok) return;
  // A cut may come between two copies of the superblock.
  expect(report.damage.filter(({ kind }) => kind !== "superblock")).toEqual([]);
  expect(report.lostRecords).toBe(0);
}

describe("a checkpoint", () => {
  test("counts what was live at its cut, and the log after it changes just that", () => {
    let checkpoints = 0;
    let misses = 0;
    for (let seed = 1; seed <= 10; seed += 1) {
      const spread = seed % 2 === 0 ? SPREAD : 1;
      const rig = new StoreRig({
        seed,
        sizeBytes: 4 * MIB,
        blocks: 1500 * spread,
        indexBytes: 0,
        checkpointBytes: 300_000,
        cacheHits: 1,
      });
      rig.format();
      const model = new StoreModel(rig, seed, { ...OPTIONS, spread });
      for (let round = 0; round < 8; round += 1) {
        for (let count = 0; count < 90; count += 1) model.act();
        model.sync();
        checkpoints += rig.store.stats().checkpoints;
        misses += rig.store.stats().indexMisses;
        rig.powerCut();
        expectSound(rig);
        rig.open();
        model.afterCut();
      }
      model.verify();
      rig.close();
      expectSound(rig);
    }
    expect(checkpoints).toBeGreaterThan(200);
    expect(misses).toBeGreaterThan(1000);
  }, 30_000);

  test("a whole node trimmed at once is given up in the background, across a cut", () => {
    const rig = new StoreRig({ sizeBytes: 6 * MIB, blocks: 131_072 + 700, cacheHits: 1 });
    rig.format();
    for (let lba = 0; lba < 800; lba += 1) rig.write(lba * 163, 3);
    rig.sync();
    const before = rig.store.stats();
    expect(before.usedBytes).toBe(800 * 4096);
    rig.zero(0, 131_072);
    expect(rig.store.stats().usedBytes).toBeLessThan(10 * 4096);
    rig.sync();
    rig.powerCut();
    expectSound(rig);
    rig.open();
    rig.run(100);
    expectSound(rig);
    rig.zero(131_072, 700);
    rig.sync();
    rig.run(100);
    rig.close();
    expectSound(rig);
    rig.open();
    for (let lba = 0; lba < 800; lba += 7) expect(rig.valueAt(lba * 163)).toBe(0);
    for (let lba = 0; lba < 870; lba += 1) expect(rig.write(lba, 4)).toBe(true);
  });
});

/**
 * Power cuts and kills: random work, the power goes at a random moment, torn
 * sectors in random order, sometimes again while the store recovers. What was synced is there, what
 * was not is there as a prefix, nothing is torn, no space leaks.
 */
import { describe, expect, test } from "bun:test";
import { KIB, MIB } from "../../core/base/units.ts";
import { StoreModel } from "../unit/store/store_model.ts";
import { StoreRig } from "../unit/store/store_rig.ts";

const SEEDS = Number(process.env.VSAN_SEEDS ?? 40);

function life(seed: number): void {
  // Every other life has many pages and memory for few.
  const isCramped = seed % 2 === 0;
  const spread = isCramped ? 20 : 1;
  const rig = new StoreRig({
    seed,
    sizeBytes: 3 * MIB,
    segmentBytes: 64 * KIB,
    blocks: 1500 * spread,
    indexBytes: isCramped ? 0 : 64 * MIB,
    checkpointBytes: (seed % 3) * 256 * KIB + 128 * KIB,
    cacheHits: 0.7,
  });
  rig.format();
  const model = new StoreModel(rig, seed, {
    blocks: 1500,
    writeMax: 3,
    trimMax: 200,
    trims: 0.05,
    syncs: 0.1,
    spread,
  });
  for (let round = 0; round < 5; round += 1) {
    for (let count = model.random.below(250); count >= 0; count -= 1) model.act();
    const how = model.random.below(4);
    if (how === 0) {
      rig.close();
      rig.open();
      model.afterCut();
    } else if (how === 1) {
      const logged = rig.loggedLsn;
      rig.crash();
      rig.open();
      model.afterCrash(logged);
    } else {
      rig.powerCut();
      if (how === 3) cutDuringRecovery(rig, model);
      rig.open();
      model.afterCut();
    }
    model.verify();
  }
}

/** Opens and cuts the power again after some steps of the recovery. */
function cutDuringRecovery(rig: StoreRig, model: StoreModel): void {
  for (let again = model.random.below(3); again >= 0; again -= 1) {
    rig.beginOpen();
    for (let step = model.random.below(60); step >= 0; step -= 1) model.step();
    rig.powerCut();
  }
}

describe("random lives", () => {
  test(`${SEEDS} seeds`, () => {
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      try {
        life(seed);
      } catch (error) {
        throw new Error(`seed ${seed}: ${error}`, { cause: error });
      }
    }
  }, 60_000);
});

describe("a power cut at every write", () => {
  test("the same work, cut at write 1, 2, 3, ...", () => {
    let writes = 0;
    for (let cutAt = 1; cutAt === 1 || cutAt <= writes; cutAt += 1) {
      const rig = new StoreRig({ seed: 5, sizeBytes: 2 * MIB, blocks: 300, cacheHits: 1 });
      rig.format();
      const before = rig.disk.writeCount;
      const model = new StoreModel(rig, 5, {
        blocks: 300,
        writeMax: 3,
        trimMax: 40,
        trims: 0.1,
        syncs: 0.2,
      });
      for (let count = 0; count < 60; count += 1) {
        model.act();
        if (rig.disk.writeCount - before >= cutAt) break;
      }
      writes = Math.max(writes, rig.disk.writeCount - before + 1);
      rig.powerCut();
      rig.open();
      model.afterCut();
      model.verify();
      if (rig.disk.writeCount - before < cutAt) break;
    }
    expect(writes).toBeGreaterThan(20);
  });

  test("fault 3: cut at every write of a recovery: it is idempotent", () => {
    const rig = new StoreRig({ seed: 9, sizeBytes: 2 * MIB, blocks: 300 });
    rig.format();
    const options = { blocks: 300, writeMax: 3, trimMax: 40, trims: 0.1, syncs: 0.2 };
    const model = new StoreModel(rig, 9, options);
    for (let count = 0; count < 120; count += 1) model.act();
    rig.powerCut();
    for (let cutAt = 1; cutAt < 40; cutAt += 1) {
      const before = rig.disk.writeCount;
      rig.beginOpen();
      while (rig.opened === null && rig.disk.writeCount - before < cutAt) model.step();
      rig.powerCut();
    }
    rig.open();
    model.afterCut();
    model.verify();
    expect(rig.opened).toMatchObject({ lostRecords: 0 });
  });
});

/**
 * Thin stores: they take room from the file system below as they need it, give it back, and a
 * file system that is full is a store that is full, never a failed write (FAULTS 13).
 */
import { describe, expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { KIB, MIB } from "../../../core/base/units.ts";
import { StoreModel } from "./store_model.ts";
import { StoreRig, VOLUME } from "./store_rig.ts";

const PAGE = 4096;

function thin(sizeBytes: number, roomBytes: number, seed = 1): StoreRig {
  const rig = new StoreRig({ seed, sizeBytes, isThin: true, cacheHits: 1, blocks: 4096 });
  rig.disk.media.roomPages = roomBytes / PAGE;
  return rig;
}

function takenBytes(rig: StoreRig): number {
  return rig.disk.media.reserved.size * PAGE;
}

describe("a thin store", () => {
  test("takes little at first, less than twice its data later, and gives it back", () => {
    const rig = thin(32 * MIB, 64 * MIB);
    rig.format();
    expect(takenBytes(rig)).toBeLessThan(5 * MIB);
    for (let lba = 0; lba < 2048; lba += 1) expect(rig.write(lba, 1)).toBe(true);
    const random = new SeededRandom(5);
    for (let count = 0; count < 12_000; count += 1) {
      expect(rig.write(random.below(2048), count + 2)).toBe(true);
      if (random.chance(0.2)) rig.step(rig.nowMs + 1);
    }
    const full = takenBytes(rig);
    // 8 MiB of data, a fifth of each small segment that is never filled, and the floors.
    expect(full).toBeLessThan(2 * 8 * 1.2 * MIB + 3 * MIB);
    expect(rig.zero(0, 2048)).toBe(true);
    for (let count = 0; count < 400; count += 1) {
      rig.zero(4000, 1);
      rig.sync();
      rig.run(5);
    }
    rig.run(2000);
    expect(takenBytes(rig)).toBeLessThan(full / 2);
  }, 30_000);

  test("a full file system below: full, TRIM goes on, room comes back by itself", () => {
    const rig = thin(16 * MIB, 7 * MIB);
    rig.format();
    const most = rig.store.stats().sizeBytes;
    let lba = 0;
    while (rig.write(lba, lba + 1)) lba += 1;
    expect(rig.failed).toBe("");
    expect(rig.traced.filter((line) => line.startsWith("store.below_full"))).toHaveLength(1);
    expect(rig.store.stats().sizeBytes).toBeLessThan(most / 2);
    expect(lba * PAGE).toBeGreaterThan(2 * MIB);
    // What is there can be written again for ever: it needs the cleaner, and no room of its own.
    for (let count = 0; count < 4000; count += 1) {
      expect(rig.overwrite(count % lba, count + 7)).toBe(true);
    }
    for (let block = 0; block < lba; block += 13) expect(rig.valueAt(block)).toBeGreaterThan(0);
    // A power cut in this state, and back.
    rig.sync();
    rig.powerCut();
    rig.open();
    expect(rig.opened?.ok).toBe(true);
    let more = 0;
    while (rig.write(lba + more, 1)) more += 1;
    expect(more).toBeLessThan(32);
    // Room by TRIM, then by the file system.
    expect(rig.zero(0, 100)).toBe(true);
    rig.run(500);
    for (let block = 0; block < 80; block += 1) expect(rig.write(block, 3)).toBe(true);
    rig.disk.media.roomPages += (4 * MIB) / PAGE;
    rig.run(3000);
    for (let block = lba; block < lba + 500; block += 1) expect(rig.write(block, 4)).toBe(true);
    expect(rig.traced.some((line) => line.startsWith("store.below_free"))).toBe(true);
    expect(rig.failed).toBe("");
  }, 30_000);

  test("room is given back also to a file system that is full", () => {
    const rig = thin(16 * MIB, 7 * MIB);
    rig.format();
    let lba = 0;
    while (rig.write(lba, lba + 1)) lba += 1;
    const { media } = rig.disk;
    expect(media.roomPages).toBeLessThan(64 * KIB);
    rig.zero(0, lba - 50);
    for (let count = 0; count < 200; count += 1) {
      rig.overwrite(lba - 1 - (count % 50), count + 2);
      rig.sync();
      rig.run(10);
    }
    expect(media.roomPages * PAGE).toBeGreaterThan(2 * MIB);
    expect(rig.store.stats().sizeBytes).toBeGreaterThan(8 * MIB);
    expect(rig.failed).toBe("");
  });

  test("random lives on a file system that comes and goes", () => {
    for (let seed = 1; seed <= 4; seed += 1) {
      const rig = thin(6 * MIB, 5 * MIB, seed);
      rig.format();
      const random = new SeededRandom(seed);
      const options = { blocks: 330, writeMax: 4, trimMax: 30, trims: 0.1, syncs: 0.03 };
      const model = new StoreModel(rig, seed, options);
      for (let round = 0; round < 5; round += 1) {
        // Somebody else fills the file system, or leaves it.
        rig.disk.media.roomPages = random.below((3 * MIB) / PAGE);
        for (let count = 0; count < 250; count += 1) model.act();
        expect(rig.failed).toBe("");
        if (round % 2 === 0) rig.powerCut();
        else rig.close();
        rig.open();
        expect(rig.opened?.ok).toBe(true);
        model.afterCut();
        model.verify();
      }
    }
  }, 30_000);

  test("too little room for a store at all is a plain refusal", () => {
    const rig = thin(16 * MIB, 8 * KIB);
    expect(rig.format()).toMatchObject({ ok: false });
  });
});

describe("a full store", () => {
  test("takes overwrites of what is there, for ever, and refuses what is new", () => {
    const rig = new StoreRig({ sizeBytes: 4 * MIB, cacheHits: 1 });
    rig.format();
    let lba = 0;
    while (rig.write(lba, lba + 1)) lba += 1;
    const random = new SeededRandom(9);
    for (let count = 0; count < 6000; count += 1) {
      expect(rig.overwrite(random.below(lba), count + 5)).toBe(true);
    }
    expect(rig.store.isAllData(VOLUME, 0, lba)).toBe(true);
    expect(rig.store.isAllData(VOLUME, 0, lba + 1)).toBe(false);
    // Pages of the index come and go: room for a few blocks, not for many.
    let more = 0;
    while (rig.write(lba + more, 1)) more += 1;
    expect(more).toBeLessThan(32);
    expect(rig.failed).toBe("");
  }, 30_000);
});

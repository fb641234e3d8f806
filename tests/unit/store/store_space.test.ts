/** Space: the cleaner, write amplification, full and back, hot and cold, no leak. */
import { describe, expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { KIB, MIB } from "../../../core/base/units.ts";
import { StoreModel } from "./store_model.ts";
import { OTHER, StoreRig, VOLUME } from "./store_rig.ts";

describe("the cleaner", () => {
  test("80 % full, uniform random overwrites: write amplification at most 3.0", () => {
    const rig = new StoreRig({
      sizeBytes: 65 * MIB,
      segmentBytes: 256 * KIB,
      logBufferBytes: 256 * KIB,
      blocks: 16384,
      cacheHits: 1,
    });
    rig.format();
    const blocks = Math.floor((rig.store.stats().sizeBytes * 0.8) / 4096);
    const random = new SeededRandom(4);
    const values = new Int32Array(blocks);
    const write = (lba: number, value: number): void => {
      expect(rig.write(lba, value)).toBe(true);
      values[lba] = value;
      if (random.chance(0.1)) rig.step(rig.nowMs + 1);
    };
    for (let lba = 0; lba < blocks; lba += 1) write(lba, 1);
    // To a steady state first: every block about twice.
    for (let count = 0; count < blocks * 2; count += 1) write(random.below(blocks), 2 + count);
    const before = rig.store.stats();
    for (let count = 0; count < blocks * 2; count += 1) write(random.below(blocks), 9 + count);
    const after = rig.store.stats();
    const written = after.bytesWritten - before.bytesWritten;
    const amplification = written / (after.recordBytes - before.recordBytes);
    expect(amplification).toBeLessThanOrEqual(3);
    expect(amplification).toBeGreaterThan(1.2);
    expect(after.segmentsCleaned).toBeGreaterThan(before.segmentsCleaned);
    for (let lba = 0; lba < blocks; lba += 37) expect(rig.valueAt(lba)).toBe(values[lba]!);
    rig.powerCut();
    rig.open();
    rig.store.sync(1);
    expect(rig.store.stats().usedBytes).toBe(blocks * 4096);
  }, 30_000);

  test("80 % full, 90 % of the writes to 10 % of the blocks: at most 2.0", () => {
    const rig = new StoreRig({
      sizeBytes: 65 * MIB,
      segmentBytes: 256 * KIB,
      logBufferBytes: 256 * KIB,
      blocks: 16384,
      cacheHits: 1,
    });
    rig.format();
    const blocks = Math.floor((rig.store.stats().sizeBytes * 0.8) / 4096);
    const hot = Math.floor(blocks / 10);
    const random = new SeededRandom(4);
    const write = (lba: number, value: number): void => {
      expect(rig.write(lba, value)).toBe(true);
      if (random.chance(0.1)) rig.step(rig.nowMs + 1);
    };
    const next = (): number =>
      random.chance(0.9) ? random.below(hot) : hot + random.below(blocks - hot);
    for (let lba = 0; lba < blocks; lba += 1) write(lba, 1);
    for (let count = 0; count < blocks * 3; count += 1) write(next(), 2 + count);
    const before = rig.store.stats();
    for (let count = 0; count < blocks; count += 1) write(next(), 9 + count);
    const after = rig.store.stats();
    const written = after.bytesWritten - before.bytesWritten;
    expect(written / (after.recordBytes - before.recordBytes)).toBeLessThanOrEqual(2);
  }, 30_000);

  test("full is a clear answer; TRIM, marks and documents go on; space comes back", () => {
    const rig = new StoreRig({ sizeBytes: 4 * MIB, cacheHits: 1 });
    rig.format();
    let lba = 0;
    while (rig.write(lba, lba + 1)) lba += 1;
    const { sizeBytes, usedBytes } = rig.store.stats();
    expect(usedBytes).toBeGreaterThan(sizeBytes * 0.97);
    expect(rig.write(0, 5)).toBe(false);
    expect(rig.admit(80 + 4112, "mirror")).toBe(true);
    for (let count = 0; count < 3000; count += 1) {
      expect(rig.zero(4000, 1)).toBe(true);
      rig.store.putMeta(1, new Uint8Array(500).fill(count));
      if (count % 50 === 0) rig.sync();
    }
    for (let block = 0; block < lba; block += 11) expect(rig.valueAt(block)).toBe(block + 1);
    rig.powerCut();
    rig.open();
    for (let block = 0; block < lba; block += 7) expect(rig.valueAt(block)).toBe(block + 1);
    expect(rig.zero(0, Math.floor(lba / 2))).toBe(true);
    rig.run(200);
    for (let block = 0; block < Math.floor(lba / 3); block += 1) {
      expect(rig.write(block, 7)).toBe(true);
    }
    rig.sync();
    expect(rig.valueAt(0)).toBe(7);
    expect(rig.valueAt(lba - 1)).toBe(lba);
  });

  test("random lives of a nearly full store", () => {
    for (let seed = 1; seed <= 3; seed += 1) {
      const rig = new StoreRig({ seed, sizeBytes: 3 * MIB, blocks: 330, cacheHits: 1 });
      rig.format();
      const options = { blocks: 330, writeMax: 4, trimMax: 30, trims: 0.08, syncs: 0.03 };
      const model = new StoreModel(rig, seed, options);
      for (let round = 0; round < 4; round += 1) {
        for (let count = 0; count < 300; count += 1) model.act();
        model.verify();
        if (round % 2 === 0) rig.powerCut();
        else rig.close();
        rig.open();
        model.afterCut();
        model.verify();
      }
    }
  });

  test("restarts do not leak segments", () => {
    const rig = new StoreRig({ sizeBytes: 3 * MIB });
    rig.format();
    for (let lba = 0; lba < 100; lba += 1) rig.write(lba, 3);
    rig.close();
    const free: number[] = [];
    for (let count = 0; count < 12; count += 1) {
      rig.open();
      rig.run(50);
      free.push(rig.store.stats().segmentsFree);
      if (count % 3 === 0) rig.close();
      else if (count % 3 === 1) rig.powerCut();
      else rig.crash();
    }
    expect(Math.min(...free.slice(4))).toBeGreaterThanOrEqual(free[3]! - 1);
  });

  test("segments that roll-forward finds emptied are free again", () => {
    const rig = new StoreRig({ sizeBytes: 4 * MIB, checkpointBytes: 3 * MIB });
    rig.format();
    for (let lba = 0; lba < 150; lba += 1) rig.write(lba, 3);
    rig.close();
    rig.open();
    const free = rig.store.stats().segmentsFree;
    for (let lba = 0; lba < 150; lba += 1) rig.write(lba, 4);
    rig.sync();
    rig.crash();
    rig.open();
    rig.run(50);
    expect(rig.store.stats().segmentsFree).toBeGreaterThanOrEqual(free - 1);
  });

  test("sequential overwrites of a store 80 % full: write amplification at most 1.1", () => {
    const rig = new StoreRig({
      sizeBytes: 65 * MIB,
      segmentBytes: 256 * KIB,
      logBufferBytes: 256 * KIB,
      blocks: 16384,
      cacheHits: 1,
    });
    rig.format();
    const blocks = Math.floor((rig.store.stats().sizeBytes * 0.8) / 4096);
    const pass = (value: number): void => {
      for (let lba = 0; lba + 16 <= blocks; lba += 16) {
        expect(rig.write(lba, value, 16)).toBe(true);
        rig.step(rig.nowMs + 1);
      }
    };
    for (let value = 1; value <= 3; value += 1) pass(value);
    const before = rig.store.stats();
    for (let value = 4; value <= 6; value += 1) pass(value);
    const after = rig.store.stats();
    const written = after.bytesWritten - before.bytesWritten;
    const amplification = written / (after.recordBytes - before.recordBytes);
    expect(amplification).toBeLessThanOrEqual(1.1);
    expect(amplification).toBeGreaterThan(1);
  }, 30_000);

  test("trimmed space is told to the disk", () => {
    const rig = new StoreRig({ sizeBytes: 8 * MIB, cacheHits: 1, checkpointBytes: 512 * KIB });
    rig.format();
    for (let lba = 0; lba < 1000; lba += 1) rig.write(lba, 3);
    rig.sync();
    const place = rig.store.placeOf(VOLUME, 20) * 16;
    expect(rig.disk.media.peek(place, 64).some((byte) => byte !== 0)).toBe(true);
    rig.zero(0, 1000);
    for (let lba = 0; lba < 200; lba += 1) rig.write(lba, 4, 1, { volume: OTHER });
    rig.sync();
    rig.run(2000);
    rig.close();
    const gone = rig.disk.media.peek(place, 64).every((byte) => byte === 0);
    expect(gone).toBe(true);
  });

  test("a segment with a bad block is left alone until the block is healed", () => {
    const rig = new StoreRig({ sizeBytes: 2 * MIB, cacheHits: 1 });
    rig.format();
    for (let lba = 0; lba < 60; lba += 1) rig.write(lba, 1);
    rig.sync();
    const place = rig.store.placeOf(VOLUME, 31);
    rig.disk.media.flip(place * 16 + 99, 4);
    const random = new SeededRandom(3);
    for (let count = 0; count < 3000; count += 1) {
      const lba = random.below(60);
      if (lba !== 31) expect(rig.write(lba, count + 2)).toBe(true);
    }
    rig.sync();
    expect(rig.store.placeOf(VOLUME, 31)).toBe(place);
    expect(typeof rig.read(31)).toBe("number");
    expect(rig.bad.every((found) => found.lba === 31)).toBe(true);
  });
});

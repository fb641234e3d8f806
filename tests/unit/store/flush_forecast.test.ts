/** Syncs begun before they are asked for: when, how many, and that they change no promise. */
import { describe, expect, test } from "bun:test";
import { FlushForecast } from "../../../core/base/flush_forecast.ts";
import { StoreRig } from "./store_rig.ts";

/** Writes a block, lets it reach the log, and asks for a sync, as a client that flushes does. */
function writeAndFlush(rig: StoreRig, lba: number): void {
  rig.write(lba, lba + 1);
  rig.run(1);
  rig.sync();
}

describe("the forecast", () => {
  test("foresees after four asks in a row for one or two batches each", () => {
    const forecast = new FlushForecast();
    for (let ask = 0; ask < 4; ask += 1) {
      expect(forecast.foresees).toBe(false);
      forecast.wrote();
      forecast.wrote();
      forecast.asked();
    }
    expect(forecast.foresees).toBe(true);
    for (let batch = 0; batch < 3; batch += 1) forecast.wrote();
    forecast.asked();
    expect(forecast.foresees).toBe(false);
  });

  test("several asks for the same batch count once", () => {
    const forecast = new FlushForecast();
    forecast.wrote();
    for (let ask = 0; ask < 10; ask += 1) forecast.asked();
    expect(forecast.foresees).toBe(false);
  });
});

describe("a store whose client flushes each write", () => {
  test("syncs the next write by itself; a client that stops flushing costs three syncs", () => {
    const rig = new StoreRig();
    rig.format();
    for (let lba = 0; lba < 3; lba += 1) writeAndFlush(rig, lba);
    rig.write(3, 4);
    rig.run(50);
    expect(rig.store.durableLsn).toBeLessThan(rig.store.lastLsn);
    rig.sync();
    for (let lba = 4; lba < 8; lba += 1) writeAndFlush(rig, lba);
    const before = rig.store.stats().syncs;
    for (let lba = 10; lba < 30; lba += 1) {
      rig.write(lba, lba);
      rig.run(50);
      if (lba === 10) expect(rig.store.durableLsn).toBe(rig.store.lastLsn);
    }
    expect(rig.store.stats().syncs - before).toBe(3);
    expect(rig.store.durableLsn).toBeLessThan(rig.store.lastLsn);
  });

  test("what was flushed survives a power cut, what follows is old or new", () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const rig = new StoreRig({ seed });
      rig.format();
      for (let lba = 0; lba < 6; lba += 1) writeAndFlush(rig, lba);
      for (let lba = 6; lba < 10; lba += 1) {
        rig.write(lba, lba + 1);
        rig.run(seed / 8);
      }
      const flushed = rig.store.durableLsn;
      const written: number[] = [];
      for (let lba = 0; lba < 10; lba += 1) written.push(rig.valueAt(lba));
      rig.powerCut();
      expect(rig.open().ok).toBe(true);
      for (let lba = 0; lba < 6; lba += 1) expect(rig.valueAt(lba)).toBe(lba + 1);
      for (let lba = 6; lba < 10; lba += 1) {
        expect([0, written[lba] as number]).toContain(rig.valueAt(lba));
      }
      expect(flushed).toBeGreaterThan(0);
    }
  });
});

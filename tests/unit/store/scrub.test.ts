/** The scrub: what nobody reads is verified on the medium, at a pace, across restarts. */
import { describe, expect, test } from "bun:test";
import { OUTCOME } from "../../../core/base/outcome.ts";
import { KIB, MIB } from "../../../core/base/units.ts";
import { decodeItemHeader, ITEM_KIND, ItemHeader } from "../../../core/format/segment.ts";
import type { ScrubStats } from "../../../core/store/contract.ts";
import { blocksOf, OTHER, type RigOptions, StoreRig, VOLUME } from "./store_rig.ts";

const DAY_MS = 24 * 3_600_000;
const SCRUB = { bytesPerSecond: null, everyMs: 14 * DAY_MS, wallOffsetMs: 1e12 };

function fresh(options: RigOptions = {}): StoreRig {
  const rig = new StoreRig({ scrub: SCRUB, cacheHits: 1, ...options });
  rig.format();
  return rig;
}

function statsOf(rig: StoreRig): ScrubStats {
  const { scrub } = rig.store.stats();
  if (scrub === null) throw new Error("this store has no scrub");
  return scrub;
}

/** Runs until one more pass is whole. */
function pass(rig: StoreRig): void {
  const { passes } = statsOf(rig);
  rig.until(() => statsOf(rig).passes > passes, 40 * DAY_MS);
}

function offsetOf(rig: StoreRig, lba: number): number {
  return rig.store.placeOf(VOLUME, lba) * 16;
}

/** A store with some data, whose first pass (over nothing) is done. */
function filled(options: RigOptions = {}): StoreRig {
  const rig = fresh(options);
  pass(rig);
  for (let lba = 0; lba < 600; lba += 3) expect(rig.write(lba, lba + 1, 2)).toBe(true);
  rig.write(5, 77, 1, { volume: OTHER });
  rig.sync();
  return rig;
}

describe("what a pass finds", () => {
  test("nothing in a store that is whole; each block is verified once", () => {
    const rig = filled();
    const before = statsOf(rig).checkedBlocks;
    pass(rig);
    expect(rig.bad).toEqual([]);
    expect(statsOf(rig).checkedBlocks - before).toBe(401);
    expect(statsOf(rig)).toMatchObject({ badBlocks: 0, readsMedium: true, isRunning: false });
    expect(rig.traced).toContain("store.scrubbed: scrub: 401 blocks verified, 0 bad");
  });

  test("rot under a good copy in the page cache, which no read would find", () => {
    const rig = filled();
    rig.disk.media.rot(offsetOf(rig, 300) + 20, 4);
    expect(rig.valueAt(300)).toBe(301);
    pass(rig);
    expect(rig.bad).toEqual([{ volume: VOLUME, lba: 300, why: "it does not verify (scrub)" }]);
    const place = rig.store.placeOf(VOLUME, 300);
    expect(rig.store.heal(VOLUME, 300, place, blocksOf(300, 301, 1), 0)).toBe(OUTCOME.ok);
    rig.sync();
    pass(rig);
    expect(rig.bad).toHaveLength(1);
    expect(statsOf(rig).badBlocks).toBe(1);
  });

  test("rot anywhere in entry or data, an entry of another block, an older version", () => {
    const rig = filled();
    for (const at of [0, 5, 9, 15, 16, 4111]) {
      rig.disk.media.rot(offsetOf(rig, 30) + at, 0x10);
      pass(rig);
      expect(rig.bad.splice(0).map((found) => found.lba)).toEqual([30]);
      rig.disk.media.rot(offsetOf(rig, 30) + at, 0x10);
    }
    const good = rig.disk.media.peek(offsetOf(rig, 60), 4112);
    rig.disk.media.poke(offsetOf(rig, 60), rig.disk.media.peek(offsetOf(rig, 90), 4112));
    pass(rig);
    expect(rig.bad.splice(0).map((found) => found.lba)).toEqual([60]);
    rig.write(60, 1000);
    rig.sync();
    rig.disk.media.poke(offsetOf(rig, 60), good);
    pass(rig);
    expect(rig.bad.splice(0)[0]).toMatchObject({ lba: 60 });
  });

  test("a sector that the disk does not read: its block alone", () => {
    const rig = filled();
    const at = offsetOf(rig, 33);
    rig.disk.faults.readErrors.push({ from: at + 2000, to: at + 2001 });
    pass(rig);
    const sector = rig.bad.map((found) => found.lba);
    expect(sector).toContain(33);
    // A read of the medium takes whole pages, so a neighbour that shares one may fail with it.
    expect(sector.length).toBeLessThanOrEqual(3);
    expect(rig.failed).toBe("");
  });
});

describe("the store's own items", () => {
  /** Rots one byte of the body of every item of this kind that was ever written. */
  function rotItems(rig: StoreRig, kind: number): number {
    const bytes = rig.disk.media.peek(0, rig.disk.sizeBytes);
    const view = new DataView(bytes.buffer);
    const item = new ItemHeader();
    let count = 0;
    for (let at = 0; at + 64 < bytes.length; at += 16) {
      if (!decodeItemHeader(bytes, view, at, item) || item.kind !== kind) continue;
      rig.disk.media.rot(at + 34, 0x20);
      count += 1;
    }
    return count;
  }

  test.each(["page", "node", "root"] as const)("a %s is written anew from memory", (what) => {
    const rig = filled();
    rig.close();
    rig.open();
    const { checkpoints } = rig.store.stats();
    expect(rotItems(rig, ITEM_KIND[what])).toBeGreaterThan(0);
    pass(rig);
    rig.run(1000);
    expect(rig.store.stats().checkpoints).toBeGreaterThan(checkpoints);
    const told = rig.traced.filter((line) => line.startsWith("store.bad_item"));
    expect(told[0]).toContain(`a ${what} does not verify on the medium`);
    expect(rig.bad).toEqual([]);
    const seen = rig.traced.length;
    pass(rig);
    expect(rig.traced.slice(seen).filter((line) => line.includes("bad_item"))).toEqual([]);
    rig.powerCut();
    expect(rig.open()).toMatchObject({ ok: true, lostRecords: 0 });
    expect(rig.traced.filter((line) => line.startsWith("store.damage"))).toEqual([]);
    expect([rig.valueAt(300), rig.valueAt(301), rig.valueAt(0)]).toEqual([301, 301, 1]);
  });

  test("all four superblocks: the store would have been lost at its next start", () => {
    const rig = filled();
    for (let copy = 0; copy < 4; copy += 1) rig.disk.media.rot(copy * 65536 + 100, 1);
    const ruined = new StoreRig({ media: rig.disk.media.clone(), scrub: SCRUB });
    ruined.disk.media.dropCache();
    expect(ruined.open()).toMatchObject({ ok: false, code: "damaged" });
    pass(rig);
    rig.run(1000);
    rig.powerCut();
    expect(rig.open()).toMatchObject({ ok: true });
    expect(rig.valueAt(300)).toBe(301);
  });

  test("checkpoints beside it are not taken for damage", () => {
    const scrub = { bytesPerSecond: 64 * MIB, everyMs: 1, wallOffsetMs: 0 };
    const rig = fresh({ scrub, blocks: 450, checkpointBytes: 128 * KIB, cacheHits: 1 });
    for (let round = 0; round < 800; round += 1) {
      rig.write((round * 7) % 440, round + 1);
      if (round % 3 === 0) rig.run(7);
    }
    expect(rig.traced.filter((line) => line.startsWith("store.bad_item"))).toEqual([]);
    expect(rig.store.stats().checkpoints).toBeGreaterThan(5);
    expect(statsOf(rig).passes).toBeGreaterThan(3);
  });
});

describe("beside a busy store", () => {
  test("blocks overwritten, trimmed and moved during a read of them are never called bad", () => {
    for (let seed = 1; seed <= 3; seed += 1) {
      const scrub = { bytesPerSecond: 64 * MIB, everyMs: 1, wallOffsetMs: 0 };
      const rig = fresh({ seed, scrub, sizeBytes: 3 * MIB, blocks: 450 });
      for (let lba = 0; lba < 440; lba += 1) rig.write(lba, 1);
      for (let round = 0; round < 300; round += 1) {
        const { mediumCount } = rig.disk;
        rig.until(() => rig.disk.mediumCount > mediumCount);
        const first = (round * 37) % 400;
        if (round % 7 === 0) rig.zero(first, 40);
        else for (let lba = first; lba < first + 40; lba += 2) rig.write(lba, round + 1);
        if (round % 20 === 0) rig.sync();
      }
      expect(rig.bad).toEqual([]);
      expect(rig.store.stats().segmentsCleaned).toBeGreaterThan(0);
      expect(statsOf(rig).passes).toBeGreaterThan(3);
    }
  });

  test("it gives way to clients, but not for ever", () => {
    const rig = filled({ cacheHits: 0, scrub: { ...SCRUB, bytesPerSecond: 8 * MIB } });
    rig.run(14 * DAY_MS);
    const out = new Uint8Array(64 * 4096);
    let token = 5000;
    const busy = (): void => {
      token += 1;
      rig.store.read(token, VOLUME, 0, 64, out, 0);
    };
    const { checkedBlocks } = statsOf(rig);
    rig.onStep = () => {
      if (rig.reads.has(token) || token === 5000) busy();
    };
    rig.run(2000);
    const underLoad = statsOf(rig).checkedBlocks - checkedBlocks;
    // 250 ms a window of at most 31 blocks; without load 8 MiB/s would have taken 200 ms in all.
    expect(underLoad).toBeLessThanOrEqual(9 * 32);
    expect(underLoad).toBeGreaterThan(0);
  });
});

describe("the pace", () => {
  test("as configured, and changed at run time; 0 stops it", () => {
    const rig = filled({ scrub: { ...SCRUB, bytesPerSecond: 64 * KIB } });
    rig.run(13 * DAY_MS);
    rig.until(() => statsOf(rig).isRunning, 2 * DAY_MS);
    const start = rig.nowMs;
    rig.until(() => !statsOf(rig).isRunning);
    const bytes = 401 * 4112;
    expect(rig.nowMs - start).toBeGreaterThan((0.8 * bytes * 1000) / (64 * KIB));
    expect(rig.nowMs - start).toBeLessThan((1.3 * bytes * 1000) / (64 * KIB) + 1000);
    rig.store.scrubber?.setRate(0);
    const { passes } = statsOf(rig);
    rig.run(40 * DAY_MS);
    expect(statsOf(rig)).toMatchObject({ passes, bytesPerSecond: 0 });
    rig.store.scrubber?.setRate(2 * MIB);
    pass(rig);
    expect(statsOf(rig).bytesPerSecond).toBe(2 * MIB);
  });

  test("on demand: at once, and once", () => {
    const rig = filled();
    rig.store.scrubber?.begin();
    rig.run(60_000);
    expect(statsOf(rig).passes).toBe(2);
    rig.run(60_000);
    expect(statsOf(rig).passes).toBe(2);
  });

  test("without a rate: at least 1 MiB/s; a pass every two weeks", () => {
    const rig = filled();
    expect(statsOf(rig).bytesPerSecond).toBe(MIB);
    pass(rig);
    const first = statsOf(rig).endedMs;
    pass(rig);
    expect(statsOf(rig).endedMs - first).toBeGreaterThan(13.9 * DAY_MS);
    expect(statsOf(rig).endedMs - first).toBeLessThan(14.1 * DAY_MS);
    expect(first).toBeGreaterThan(1e12);
  });
});

describe("across restarts", () => {
  test("a pass goes on where it was; counts stay", () => {
    const options = { scrub: { ...SCRUB, bytesPerSecond: 256 * KIB }, blocks: 4096 };
    const rig = filled(options);
    for (let lba = 1024; lba < 1600; lba += 1) rig.write(lba, 9);
    rig.sync();
    rig.run(13.9 * DAY_MS);
    rig.until(() => statsOf(rig).isRunning && statsOf(rig).share > 0.6, DAY_MS);
    const before = statsOf(rig);
    rig.close();
    rig.open();
    expect(statsOf(rig)).toMatchObject({ isRunning: true, passes: before.passes });
    expect(statsOf(rig).checkedBlocks).toBe(before.checkedBlocks);
    pass(rig);
    // At most the region at hand is verified twice.
    expect(statsOf(rig).checkedBlocks).toBeLessThanOrEqual(401 + 576 + 512);
    expect(statsOf(rig).checkedBlocks).toBeGreaterThanOrEqual(401 + 576);
  });

  test("a killed process: at most a minute of the pass is done again", () => {
    const rig = filled({ scrub: { ...SCRUB, bytesPerSecond: 4 * KIB } });
    rig.run(13.9 * DAY_MS);
    rig.until(() => statsOf(rig).share > 0.9, DAY_MS);
    const { checkedBlocks } = statsOf(rig);
    rig.crash();
    rig.open();
    expect(statsOf(rig).isRunning).toBe(true);
    // A region of 342 blocks takes longer than a minute at this rate.
    expect(checkedBlocks - statsOf(rig).checkedBlocks).toBeLessThanOrEqual(360);
    pass(rig);
  });

  test("a search for forgotten blocks begins anew after a crash", () => {
    const rig = filled();
    pass(rig);
    const { passes } = statsOf(rig);
    rig.store.scrubber?.again();
    rig.sync();
    rig.crash();
    rig.open();
    rig.run(60_000);
    expect(statsOf(rig).passes).toBe(passes + 1);
  });

  test("held, it waits", () => {
    const rig = filled();
    const { scrubber } = rig.store;
    Object.assign(scrubber as object, { isHeld: true });
    rig.run(15 * DAY_MS);
    expect(statsOf(rig).passes).toBe(1);
    Object.assign(scrubber as object, { isHeld: false });
    pass(rig);
  });
});

test("a scrub read that hangs fails the disk like any other", () => {
  const rig = filled();
  rig.run(13.99 * DAY_MS);
  rig.disk.faults.hang = true;
  rig.until(() => rig.failed !== "", 2 * DAY_MS);
  expect(rig.failed).toContain("did not answer");
});

/**
 * The offline check and the repair: every kind of damage at once, the power cut at every write of
 * the repair, disks that fail meanwhile. What a repair makes is consistent, says what is lost, and
 * never turns a block into another version of itself.
 */
import { describe, expect, test } from "bun:test";
import type { CheckReport } from "../../../core/store/check_report.ts";
import { DAMAGES } from "../../tools/image_damage.ts";
import { linesOf, mediaOf } from "../../tools/image_fixtures.ts";
import { imageOf, LIFE_BLOCKS, LIVES } from "../../tools/image_lives.ts";
import { blockOffset } from "../../tools/image_places.ts";
import { check, repair } from "./check_rig.ts";
import { StoreRig } from "./store_rig.ts";

const crashed = imageOf((LIVES.find(({ name }) => name === "crashed") as (typeof LIVES)[0]).live());
const clean = imageOf((LIVES.find(({ name }) => name === "clean") as (typeof LIVES)[0]).live());

function damaged(image: Uint8Array, ...names: string[]): Uint8Array {
  const copy = image.slice();
  for (const each of DAMAGES) if (names.includes(each.name)) each.damage(copy);
  return copy;
}

function reportOf(result: ReturnType<typeof check>): CheckReport {
  if (!result.ok) throw new Error(`refused: ${result.why}`);
  return result;
}

/** What a check says, without what differs between a store and its copy of later. */
function verdict(report: CheckReport): object {
  const { damageCount, badCount, lostCount, ranges, lostRecords } = report;
  return { damageCount, badCount, lostCount, ranges, lostRecords };
}

const MANY = [
  "three superblocks rotten",
  "one root rotten",
  "header of a sparse page rotten",
  "bit rot in a block",
  "record's header and directory rotten in the log",
];

describe("everything at once", () => {
  const image = damaged(crashed, ...MANY);

  test("is found, repaired, and found again as lost", () => {
    const media = mediaOf(image);
    const before = reportOf(check(media.clone()));
    expect(before).toMatchObject({ isSound: false, badCount: 1, lostCount: 512, lostRecords: 2 });
    expect(before.damage.map(({ kind }) => kind).sort()).toEqual([
      "batch",
      "page",
      "root",
      "superblock",
      "superblock",
      "superblock",
    ]);
    const { result } = repair(media);
    if (result === null || !result.ok) throw new Error("not repaired");
    expect(verdict(result.before)).toEqual(verdict(before));
    expect(result.blocksLost).toBe(1);
    const after = { damageCount: 0, badCount: 0, lostCount: 513, lostRecords: 2, isSound: false };
    expect(result.after).toMatchObject(after);
    expect(reportOf(check(media))).toMatchObject(after);
  });

  test("a repaired store has nothing to repair", () => {
    const media = mediaOf(image);
    repair(media);
    const before = media.peek(0, media.sizeBytes);
    expect(repair(media)).toMatchObject({ writes: 0, result: { ok: true, blocksLost: 0 } });
    expect(Buffer.compare(media.peek(0, media.sizeBytes), before)).toBe(0);
  });

  test("the power cut at every write of the repair, then repaired again", () => {
    const whole = mediaOf(image);
    const { result, writes } = repair(whole);
    if (result === null || !result.ok) throw new Error("not repaired");
    const lines = linesOf(whole);
    expect(writes).toBeGreaterThan(9);
    for (let cutAtWrite = 1; cutAtWrite <= writes; cutAtWrite += 1) {
      for (let seed = 1; seed <= 2; seed += 1) {
        const media = mediaOf(image);
        expect(repair(media, { cutAtWrite, seed }).result).toBe(null);
        // And again, so that what a cut repair leaves is repaired under a cut as well.
        repair(media, { cutAtWrite: 1 + ((cutAtWrite * 7 + seed) % writes), seed });
        const again = repair(media).result;
        if (again === null || !again.ok) throw new Error(`cut at write ${cutAtWrite}: refused`);
        expect(verdict(again.after)).toEqual(verdict(result.after));
        expect(linesOf(media)).toEqual(lines);
      }
    }
  }, 30_000);
});

test("a sound store is not written to", () => {
  for (const image of [clean, crashed]) {
    const media = mediaOf(image);
    expect(repair(media)).toMatchObject({ writes: 0, result: { ok: true } });
    expect(Buffer.compare(media.peek(0, media.sizeBytes), image)).toBe(0);
  }
});

test("an unreadable sector costs its blocks, not their neighbours", () => {
  const at = blockOffset(clean, 41);
  const faults = { readErrors: [{ from: at + 1000, to: at + 1001 }] };
  const media = mediaOf(clean);
  const found = reportOf(check(media.clone(), { faults }));
  expect(found.ranges).toEqual([
    { volume: 7, lba: 41, count: 1, why: "the disk does not read it" },
  ]);
  expect(found.blocksChecked).toBe(reportOf(check(media.clone())).blocksChecked);
  const { result } = repair(media, { faults });
  expect(result).toMatchObject({ ok: true, blocksLost: 1, after: { badCount: 0, lostCount: 1 } });
});

test("a disk that fails during the repair: said so, and repaired when it is well again", () => {
  const image = damaged(crashed, ...MANY);
  for (const faults of [{ failWrites: 1 }, { shortWrites: 1 }, { failSyncs: 1 }]) {
    const media = mediaOf(image);
    expect(repair(media, { faults }).result).toMatchObject({ ok: false, code: "io" });
    expect(repair(media).result).toMatchObject({ ok: true, after: { damageCount: 0 } });
  }
});

test("a store with wrong counts stops before it reuses a segment; a repair counts anew", () => {
  const media = mediaOf(damaged(clean, "root counts no live blocks"));
  const rig = new StoreRig({ media, blocks: LIFE_BLOCKS, cacheHits: 1 });
  expect(rig.open()).toMatchObject({ ok: true });
  for (let lba = 0; lba < 8 && rig.failed === ""; lba += 1) {
    rig.write(lba, 1);
    rig.run(1);
  }
  expect(rig.failed).toContain("counts of live blocks");
  rig.crash();
  expect(repair(media).result).toMatchObject({ ok: true, after: { isSound: true } });
  const again = new StoreRig({ media, blocks: LIFE_BLOCKS, cacheHits: 1 });
  expect(again.open()).toMatchObject({ ok: true });
  expect(again.valueAt(200)).toBe(1 + 198);
});

test("another host's store is refused, not changed", () => {
  const image = damaged(clean, "another host's", "bit rot in a block");
  const media = mediaOf(image);
  expect(repair(media)).toMatchObject({ writes: 0, result: { ok: false, code: "host" } });
});

/**
 * The offline check and the repair: every kind of damage at once, the power cut at every write of
 * the repair, disks that fail meanwhile. What a repair makes is consistent, says what is lost, and
 * never turns a block into another version of itself.
 */
import { describe, expect, test } from "bun:test";
import { OUTCOME } from "../../../core/base/outcome.ts";
import { BLOCK_BYTES, MIB } from "../../../core/base/units.ts";
import type { CheckReport } from "../../../core/store/check_report.ts";
import { DAMAGES } from "../../tools/image_damage.ts";
import { linesOf, mediaOf } from "../../tools/image_fixtures.ts";
import { imageOf, LIFE_BLOCKS, LIVES } from "../../tools/image_lives.ts";
import { blockOffset } from "../../tools/image_places.ts";
import { check, repair } from "./check_rig.ts";
import { StoreRig, valueIn, VOLUME } from "./store_rig.ts";

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

test("bad blocks of snapshots are given up, in every version that has the same bytes", () => {
  const rig = new StoreRig({ sizeBytes: 4 * MIB, blocks: LIFE_BLOCKS, cacheHits: 1 });
  rig.format();
  for (let lba = 0; lba < 8; lba += 1) rig.write(lba, 10 + lba);
  const places = [2, 5].map((lba) => rig.store.placeOf(VOLUME, lba));
  const snapshots = (): StoreRig["store"]["snapshots"] => rig.store.snapshots;
  rig.request(() => snapshots().create(VOLUME, 1));
  rig.request(() => snapshots().create(VOLUME, 2));
  // Block 2 is the snapshots' alone from now on, block 5 everybody's.
  rig.write(2, 99);
  rig.close();
  const { media } = rig.disk;
  for (const place of places) media.flip(place * 16 + 600, 1);
  expect(reportOf(check(media.clone()))).toMatchObject({ badCount: 2, lostCount: 0 });
  const { result } = repair(media);
  expect(result).toMatchObject({ ok: true, blocksLost: 2, after: { badCount: 0, damageCount: 0 } });
  expect(rig.open()).toMatchObject({ ok: true });
  const out = new Uint8Array(BLOCK_BYTES);
  for (let lba = 0; lba < 8; lba += 1) {
    const [head, ...kept] = [
      rig.read(lba),
      ...[1, 2].map((id) =>
        rig.answered(out, (token) => snapshots().read(token, VOLUME, id, lba, 1, out, 0)),
      ),
    ];
    if (lba === 5) expect(head).toBe(OUTCOME.io);
    else expect(valueIn(lba, head as Uint8Array, 0)).toBe(lba === 2 ? 99 : 10 + lba);
    for (const each of kept) expect(typeof each).toBe(lba === 2 || lba === 5 ? "number" : "object");
  }
  // What is lost is counted once, and goes with what names it.
  for (const id of [1, 2]) rig.request(() => snapshots().drop(VOLUME, id));
  rig.zero(0, 8);
  rig.run(2000);
  rig.close();
  expect(reportOf(check(media))).toMatchObject({ isSound: true, lostCount: 0 });
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

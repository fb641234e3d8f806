/** A disk that fails, lies, hangs or forgets, and what the store makes of it. */
import { describe, expect, test } from "bun:test";
import { CrcJoin, crc32, crc32Short } from "../../../core/base/checksum.ts";
import { OUTCOME } from "../../../core/base/outcome.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { MIB } from "../../../core/base/units.ts";
import { viewOf } from "../../../core/format/layout.ts";
import { recordCrc } from "../../../core/format/record.ts";
import { blocksOf, StoreRig, VOLUME } from "./store_rig.ts";

function fresh(options: ConstructorParameters<typeof StoreRig>[0] = {}): StoreRig {
  const rig = new StoreRig(options);
  rig.format();
  return rig;
}

/** Where a block lies on disk, bytes. */
function offsetOf(rig: StoreRig, lba: number): number {
  return rig.store.placeOf(VOLUME, lba) * 16;
}

test("the short checksum is the long one", () => {
  const random = new SeededRandom(3);
  const bytes = new Uint8Array(64).map(() => random.below(256));
  for (let length = 0; length <= 40; length += 1) {
    expect(crc32Short(bytes, 7, length)).toBe(crc32(bytes, 7, length));
    expect(crc32Short(bytes, 7, length, 99)).toBe(crc32(bytes, 7, length, 99));
  }
});

test("joined checksums are those of all bytes", () => {
  const random = new SeededRandom(4);
  for (const lengthBytes of [0, 1, 5, 4108]) {
    const join = new CrcJoin(lengthBytes);
    const bytes = new Uint8Array(100 + lengthBytes).map(() => random.below(256));
    const whole = crc32(bytes, 0, bytes.length);
    expect(join.join(crc32(bytes, 0, 100), crc32(bytes, 100, lengthBytes))).toBe(whole);
  }
});

test("a record's checksum, made of those its blocks carry, is that of its bytes", () => {
  const rig = fresh({ logBufferBytes: 128 * 1024, segmentBytes: 256 * 1024 });
  for (const count of [1, 2, 20]) {
    rig.write(5, 7, count);
    const { lastBuffer, lastAt, lastLength } = rig.store;
    const check = recordCrc(lastBuffer, viewOf(lastBuffer), lastAt, lastLength, 17);
    expect(check).toBe(crc32(lastBuffer, lastAt, lastLength, 17));
  }
});

describe("poison", () => {
  const causes: [string, (rig: StoreRig) => void][] = [
    ["a write fails", (rig) => rig.disk.fail("write")],
    ["a write is cut short", (rig) => Object.assign(rig.disk.faults, { shortWrites: 1 })],
    ["a sync fails once", (rig) => Object.assign(rig.disk.faults, { failSyncs: 1 })],
    ["the disk hangs", (rig) => Object.assign(rig.disk.faults, { hang: true })],
    ["the disk is gone", (rig) => Object.assign(rig.disk.faults, { dead: true })],
  ];
  test.each(causes)("%s: failed for good, said once, nothing is acknowledged", (_name, cause) => {
    const rig = fresh({ cacheHits: 0 });
    rig.write(1, 7);
    expect(rig.sync()).toBe(true);
    cause(rig);
    rig.write(2, 8);
    rig.store.sync(500);
    const out = new Uint8Array(4096);
    const pending = rig.store.read(501, VOLUME, 1, 1, out, 0);
    const start = rig.nowMs;
    rig.until(() => rig.failed !== "" && rig.syncs.has(500));
    expect(rig.nowMs - start).toBeLessThanOrEqual(20_100);
    expect(rig.syncs.get(500)).toBe(false);
    if (pending === OUTCOME.pending) expect(rig.reads.has(501)).toBe(true);
    rig.disk.heal();
    rig.run(100);
    expect(rig.store.admit(80, "client")).toBe(OUTCOME.io);
    expect(rig.store.read(502, VOLUME, 1, 1, out, 0)).toBe(OUTCOME.io);
    expect(rig.sync()).toBe(false);
    expect(rig.traced.filter((line) => line.startsWith("store.failed"))).toHaveLength(1);
    rig.close();
  });

  test("after the failure what was synced before is there", () => {
    const rig = fresh();
    rig.write(1, 7);
    rig.sync();
    rig.disk.fail("sync");
    rig.write(1, 8);
    expect(rig.sync()).toBe(false);
    rig.powerCut();
    rig.disk.heal();
    rig.open();
    expect([7, 8]).toContain(rig.valueAt(1));
  });

  test("the mutant that trusts the disk afterwards loses an acknowledged write", () => {
    let lost = 0;
    for (let seed = 1; seed < 20 && lost === 0; seed += 1) {
      const rig = fresh({ seed, rules: { poison: false } });
      rig.disk.faults.failSyncs = 1;
      rig.write(1, 7);
      expect(rig.sync()).toBe(true);
      rig.powerCut();
      rig.open();
      if (rig.valueAt(1) !== 7) lost += 1;
    }
    expect(lost).toBe(1);
  });
});

describe("reads", () => {
  test("a bad sector fails its block only, is reported, and heals", () => {
    const rig = fresh({ cacheHits: 0 });
    rig.write(10, 5, 6);
    rig.sync();
    const at = offsetOf(rig, 12);
    rig.disk.faults.readErrors.push({ from: at + 1000, to: at + 1001 });
    expect(rig.read(10, 6)).toBe(OUTCOME.io);
    expect(rig.bad.map((found) => found.lba)).toEqual([12]);
    expect(rig.valueAt(11)).toBe(5);
    expect(rig.valueAt(13)).toBe(5);
    const place = rig.store.placeOf(VOLUME, 12);
    expect(rig.store.heal(VOLUME, 12, place, blocksOf(12, 5, 1), 0)).toBe(OUTCOME.ok);
    rig.run(10);
    expect(rig.valueAt(12)).toBe(5);
    expect(rig.store.heal(VOLUME, 12, place, blocksOf(12, 4, 1), 0)).toBe(OUTCOME.refused);
    expect(rig.store.stats()).toMatchObject({ badBlocks: 1, healedBlocks: 1 });
  });

  test.each([0, 1])("bit rot is never returned (page cache: %d)", (cacheHits) => {
    const rig = fresh({ cacheHits });
    rig.write(10, 5, 3);
    rig.sync();
    for (const at of [0, 5, 9, 16, 2000, 4111]) {
      rig.disk.media.flip(offsetOf(rig, 11) + at, 0x10);
      expect(rig.read(10, 3)).toBe(OUTCOME.io);
      expect(rig.bad.splice(0).map((found) => found.lba)).toEqual([11]);
      rig.disk.media.flip(offsetOf(rig, 11) + at, 0x10);
      expect(rig.valueAt(11)).toBe(5);
    }
  });

  test("where the page cache ends, the disk goes on, whatever came of a block", () => {
    const rig = fresh({
      seed: 9,
      sizeBytes: 32 * MIB,
      segmentBytes: MIB,
      logBufferBytes: MIB,
      cacheHits: 0.5,
    });
    const count = 120;
    const expected = Buffer.from(blocksOf(0, 3, count));
    rig.write(0, 3, count);
    rig.sync();
    // One run on the disk, so that a read of it is one `readPairsNow`, cut anywhere.
    expect(rig.store.placeOf(VOLUME, count - 1)).toBe(rig.store.placeOf(VOLUME, 0) + 119 * 257);
    for (let round = 0; round < 100; round += 1) {
      const found = rig.read(0, count);
      if (typeof found === "number") throw new Error(`outcome ${found}`);
      expect(expected.equals(found)).toBe(true);
    }
    expect(rig.bad).toEqual([]);
  });

  test("a read that a hanging disk ends late does not touch its caller's buffer any more", () => {
    const rig = fresh({ cacheHits: 0 });
    rig.write(1, 7);
    rig.sync();
    rig.disk.faults.hang = true;
    const out = new Uint8Array(4096);
    expect(rig.store.read(501, VOLUME, 1, 1, out, 0)).toBe(OUTCOME.pending);
    rig.until(() => rig.reads.has(501));
    expect(rig.reads.get(501)).toBe(OUTCOME.io);
    // The owner uses it for something else.
    out.fill(9);
    rig.disk.heal();
    rig.run(100);
    expect(out.every((byte) => byte === 9)).toBe(true);
  });

  test.each(["loseWrites", "misdirectWrites"] as const)("%s: found by the reader", (fault) => {
    const rig = fresh({ cacheHits: 1 });
    rig.write(10, 5);
    rig.sync();
    rig.disk.faults[fault] = 1;
    rig.write(10, 6);
    rig.sync();
    expect(rig.read(10)).toBe(OUTCOME.io);
    expect(rig.bad.map((found) => found.lba)).toEqual([10]);
  });

  test("a lost write over the same block's older version is found by the index's bits", () => {
    const rig = fresh({ cacheHits: 1 });
    rig.write(10, 5);
    rig.sync();
    const older = rig.disk.media.peek(offsetOf(rig, 10), 4112);
    rig.write(10, 6);
    rig.sync();
    rig.disk.media.poke(offsetOf(rig, 10), older);
    expect(rig.read(10)).toBe(OUTCOME.io);
    expect(rig.bad[0]?.why).toContain("lost write");
  });

  test("the mutant that does not verify returns what rotted", () => {
    const rig = fresh({ cacheHits: 1, rules: { verifyReads: false } });
    rig.write(10, 5);
    rig.sync();
    rig.disk.media.flip(offsetOf(rig, 10) + 16, 1);
    expect(() => rig.valueAt(10)).toThrow("torn");
  });

  test("more reads than slots wait their turn", () => {
    const rig = fresh({ cacheHits: 0, readSlots: 2 });
    for (let lba = 0; lba < 40; lba += 2) rig.write(lba, lba + 1);
    rig.sync();
    const outs: Uint8Array[] = [];
    for (let token = 0; token < 20; token += 1) {
      const out = new Uint8Array(40 * 4096);
      outs.push(out);
      expect(rig.store.read(9000 + token, VOLUME, 0, 40, out, 0)).toBe(OUTCOME.pending);
    }
    rig.until(() => rig.reads.size === 20);
    for (const out of outs) expect(out).toEqual(outs[0] as Uint8Array);
    expect([...rig.reads.values()].every((outcome) => outcome === OUTCOME.ok)).toBe(true);
  });

  test("an overwrite during a read does not fail it", () => {
    const rig = fresh({ cacheHits: 0 });
    rig.write(10, 5);
    rig.sync();
    const out = new Uint8Array(4096);
    expect(rig.store.read(77, VOLUME, 10, 1, out, 0)).toBe(OUTCOME.pending);
    rig.write(10, 6);
    rig.zero(10, 1);
    rig.until(() => rig.reads.has(77));
    expect(rig.reads.get(77)).toBe(OUTCOME.ok);
    expect(Buffer.compare(out, blocksOf(10, 5, 1))).toBe(0);
    expect(rig.bad).toEqual([]);
  });
});

describe("opening what is no store of ours", () => {
  function closed(): StoreRig {
    const rig = fresh();
    rig.write(1, 5);
    rig.close();
    return rig;
  }

  test("another cluster, another host: refused, nothing changed", () => {
    const rig = closed();
    const before = rig.disk.media.peek(0, rig.disk.sizeBytes);
    const writes = rig.disk.writeCount;
    const { clusterId } = { clusterId: 77 };
    const other = rig.open({ clusterId: 78, hostId: 1 as never });
    expect(other).toMatchObject({ ok: false, code: "cluster" });
    expect(rig.open({ clusterId, hostId: 2 as never })).toMatchObject({ ok: false, code: "host" });
    expect(rig.disk.writeCount).toBe(writes);
    expect(rig.disk.media.peek(0, rig.disk.sizeBytes)).toEqual(before);
    expect(rig.open()).toMatchObject({ ok: true, clean: true });
  });

  test("blank, foreign, damaged, smaller volume", () => {
    const blank = new StoreRig();
    expect(blank.open()).toMatchObject({ ok: false, code: "blank" });
    const foreign = new StoreRig();
    foreign.disk.media.poke(0, new TextEncoder().encode("something else"));
    expect(foreign.open()).toMatchObject({ ok: false, code: "foreign" });
    const damaged = closed();
    for (let copy = 0; copy < 4; copy += 1) damaged.disk.media.flip(copy * 65536 + 100, 1);
    expect(damaged.open()).toMatchObject({ ok: false, code: "damaged" });
    const rig = closed();
    const smaller = new StoreRig({ media: rig.disk.media, blocks: 4000 });
    expect(smaller.open()).toMatchObject({ ok: false, code: "volume" });
    const larger = new StoreRig({ media: rig.disk.media, blocks: 500_000 });
    expect(larger.open()).toMatchObject({ ok: true });
    expect(larger.valueAt(1)).toBe(5);
    larger.write(499_999, 3);
    larger.sync();
    larger.powerCut();
    larger.open();
    expect(larger.valueAt(499_999)).toBe(3);
  });

  test("too small for a store", () => {
    expect(new StoreRig({ sizeBytes: 300_000 }).format()).toMatchObject({ code: "small" });
    expect(new StoreRig({ sizeBytes: 1_500_000 }).format()).toMatchObject({ code: "small" });
    expect(new StoreRig({ sizeBytes: 1000 }).open()).toMatchObject({ ok: false });
  });

  test("the file cut anywhere: says so, or is whole", () => {
    const rig = closed();
    const whole = rig.disk.sizeBytes;
    for (const size of [0, 100, 4096, 65536, 69632, 200_000, 262144, 500_000, whole - 4096]) {
      const media = rig.disk.media.clone();
      media.sizeBytes = size;
      const result = new StoreRig({ media }).open();
      expect(result.ok).toBe(false);
      if (!result.ok) expect(["truncated", "small", "blank"]).toContain(result.code);
    }
  });
});

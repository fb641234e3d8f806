/** The store's contract, point by point, on a simulated disk. */
import { describe, expect, test } from "bun:test";
import { OUTCOME } from "../../../core/base/outcome.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import { AREA_OFFSET } from "../../../core/format/superblock.ts";
import { RECORD_TYPE, RecordHeader } from "../../../core/format/record.ts";
import { blocksOf, OTHER, StoreRig, VOLUME } from "./store_rig.ts";

function fresh(options: ConstructorParameters<typeof StoreRig>[0] = {}): StoreRig {
  const rig = new StoreRig(options);
  expect(rig.format()).toEqual({ ok: true, fresh: true, clean: true, lostRecords: 0 });
  return rig;
}

describe("reads and writes", () => {
  test("what was appended is read at once, before it is on disk", () => {
    const rig = fresh();
    rig.write(5, 42);
    const out = new Uint8Array(4096);
    const outcome = rig.request(() => rig.store.read(1, VOLUME, 5, 1, out, 0));
    expect(outcome).toBe(OUTCOME.ok);
    expect(Buffer.compare(out, blocksOf(5, 42, 1))).toBe(0);
    expect(rig.store.loggedLsn).toBe(0);
    rig.run(10);
    expect(rig.store.loggedLsn).toBe(rig.store.lastLsn);
    expect(rig.loggedLsn).toBe(rig.store.lastLsn);
  });

  test("holes read as zeros, volumes are apart", () => {
    const rig = fresh();
    rig.write(5, 42, 2);
    rig.write(5, 43, 1, { volume: OTHER });
    rig.run(10);
    expect(rig.valueAt(4)).toBe(0);
    expect(rig.valueAt(5)).toBe(42);
    expect(rig.valueAt(6)).toBe(42);
    expect(rig.valueAt(5, OTHER)).toBe(43);
    expect(rig.store.volumeUsedBytes(VOLUME)).toBe(8192);
    expect(rig.store.volumeUsedBytes(OTHER)).toBe(4096);
  });

  test("a read over memory, disk, holes and many runs, with and without the page cache", () => {
    for (const cacheHits of [0, 0.5, 1]) {
      const rig = fresh({ cacheHits, readSlots: 2 });
      for (let lba = 0; lba < 60; lba += 1) if (lba % 7 !== 0) rig.write((lba * 13) % 60, lba + 1);
      rig.run(10);
      rig.write(30, 99);
      const found = rig.read(0, 60);
      expect(found).toBeInstanceOf(Uint8Array);
      for (let lba = 0; lba < 60; lba += 1) {
        const block = (found as Uint8Array).subarray(lba * 4096, (lba + 1) * 4096);
        const one = rig.read(lba);
        expect(block).toEqual(one as Uint8Array);
      }
      expect(rig.valueAt(30)).toBe(99);
      expect(rig.bad).toEqual([]);
    }
  });

  test("out of range is refused, not thrown", () => {
    const rig = fresh();
    const out = new Uint8Array(8192);
    expect(rig.store.read(1, VOLUME, 4095, 2, out, 0)).toBe(OUTCOME.invalid);
    expect(rig.store.read(1, VOLUME, -1, 1, out, 0)).toBe(OUTCOME.invalid);
    expect(rig.store.admit(2 ** 30, "client")).toBe(OUTCOME.invalid);
  });

  test("zero makes holes, of any size, at once", () => {
    const rig = fresh();
    rig.write(500, 1, 3);
    rig.write(511, 2, 4);
    rig.write(1024, 3, 2);
    rig.zero(501, 524);
    rig.run(10);
    expect([500, 501, 511, 514, 1024, 1025].map((lba) => rig.valueAt(lba))).toEqual([
      1, 0, 0, 0, 0, 3,
    ]);
    expect(rig.store.volumeUsedBytes(VOLUME)).toBe(2 * 4096);
    rig.zero(0, 4096);
    expect(rig.store.volumeUsedBytes(VOLUME)).toBe(0);
  });

  test("extents tell data from holes", () => {
    const rig = fresh();
    rig.write(10, 1, 3);
    rig.write(600, 1);
    const runs: [number, boolean][] = [];
    rig.store.extents(VOLUME, 0, 4096, (count, isData) => runs.push([count, isData]));
    expect(runs).toEqual([
      [10, false],
      [3, true],
      [587, false],
      [1, true],
      [3495, false],
    ]);
  });

  test("the record of an append is the mirror's to send, byte for byte", () => {
    const rig = fresh();
    rig.write(3, 8, 2, { epoch: 65, seq: 1, sender: 1 });
    const { store } = rig;
    const bytes = store.lastBuffer.slice(store.lastAt, store.lastAt + store.lastLength);
    const other = fresh({ seed: 2 });
    const header = new RecordHeader();
    Object.assign(header, { type: RECORD_TYPE.write, volume: VOLUME, lba: 3, blockCount: 2 });
    Object.assign(header, { bodyBytes: 2 * 4112, epoch: 65, seq: 1, sender: 1 });
    expect(other.store.admit(bytes.length, "mirror")).toBe(OUTCOME.ok);
    other.store.appendRecord(header, bytes, 0, bytes.length);
    other.run(10);
    expect(other.valueAt(4)).toBe(8);
    expect(other.store.streamSeq(hostId(1))).toBe(1);
  });
});

describe("durability", () => {
  test("sync is answered when what was appended before it is durable; syncs share", () => {
    const rig = fresh();
    const before = rig.disk.syncCount;
    for (let index = 0; index < 20; index += 1) {
      rig.write(index, 1);
      rig.store.sync(1000 + index);
    }
    rig.until(() => rig.syncs.size === 20);
    expect(rig.disk.syncCount - before).toBeLessThanOrEqual(3);
    expect(rig.store.durableLsn).toBe(rig.store.lastLsn);
  });

  test("a sync with nothing new needs no disk", () => {
    const rig = fresh();
    rig.write(1, 1);
    rig.sync();
    const before = rig.disk.syncCount;
    expect(rig.sync()).toBe(true);
    expect(rig.disk.syncCount).toBe(before);
  });

  test("no durable byte of the log is ever written again; small writes are packed", () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const rig = fresh({ seed });
      const random = new SeededRandom(seed);
      const synced = new Set<number>();
      let written: number[] = [];
      let again = 0;
      rig.disk.onWrite = (offset, length) => {
        if (offset < AREA_OFFSET) return;
        for (let page = offset / 4096; page < (offset + length) / 4096; page += 1) {
          expect(synced.has(page)).toBe(false);
          if (written.includes(page)) again += 1;
          written.push(page);
        }
      };
      for (let count = 0; count < 150; count += 1) {
        rig.write(random.below(300), count + 1);
        for (let step = random.below(6); step > 0; step -= 1) rig.step(rig.nowMs + 1);
        if (!random.chance(0.2)) continue;
        rig.sync();
        // Nothing is in flight now: all that was written is durable. Zeros ahead of the log hold
        // nothing and are overwritten later.
        for (const page of written) {
          const bytes = rig.disk.media.peek(page * 4096, 4096);
          if (bytes.some((byte) => byte !== 0)) synced.add(page);
        }
        written = [];
      }
      expect(again).toBeGreaterThan(5);
    }
  });

  test("documents survive restarts, newest per slot", () => {
    const rig = fresh();
    rig.store.putMeta(0, new Uint8Array([1, 2, 3]));
    rig.store.putMeta(3, new Uint8Array(4096).fill(9));
    rig.store.putMeta(0, new Uint8Array([4, 5]));
    rig.sync();
    rig.powerCut();
    expect(rig.open()).toMatchObject({ ok: true, clean: false });
    expect(rig.store.getMeta(0)).toEqual(new Uint8Array([4, 5]));
    expect(rig.store.getMeta(3)).toEqual(new Uint8Array(4096).fill(9));
    expect(rig.store.getMeta(1)).toBeNull();
    rig.store.putMeta(1, new Uint8Array(0));
    rig.close();
    expect(rig.open()).toMatchObject({ ok: true, clean: true });
    expect(rig.store.getMeta(1)).toEqual(new Uint8Array(0));
    expect(rig.store.getMeta(0)).toEqual(new Uint8Array([4, 5]));
  });

  test("a clean close needs no recovery, a kill does, both keep everything logged", () => {
    const rig = fresh();
    rig.write(1, 5, 3);
    rig.close();
    expect(rig.open()).toEqual({ ok: true, fresh: false, clean: true, lostRecords: 0 });
    rig.write(2, 6);
    rig.run(10);
    rig.crash();
    expect(rig.open()).toEqual({ ok: true, fresh: false, clean: false, lostRecords: 0 });
    expect([1, 2, 3].map((lba) => rig.valueAt(lba))).toEqual([5, 6, 5]);
  });

  test("the stream's vector survives: newest epoch, last record of each sender in it", () => {
    const rig = fresh();
    rig.write(1, 1, 1, { epoch: 64, seq: 9, sender: 0 });
    rig.write(1, 2, 1, { epoch: 129, seq: 1, sender: 1 });
    rig.zero(9, 1, { epoch: 129, seq: 2, sender: 1 });
    rig.zero(9, 1, { epoch: 129, seq: 1, sender: 2, type: RECORD_TYPE.zero });
    rig.sync();
    for (const how of ["cut", "close"]) {
      if (how === "cut") rig.powerCut();
      else rig.close();
      rig.open();
      expect(rig.store.streamEpoch).toBe(129);
      expect([0, 1, 2].map((id) => rig.store.streamSeq(hostId(id)))).toEqual([0, 2, 1]);
    }
  });
});

describe("regions", () => {
  test("tags are the greatest applied, of holes too, and survive", () => {
    const rig = fresh({ blocks: 3 * 131072 + 700 });
    rig.write(0, 1, 1, { epoch: 65, tagPoint: 4 });
    rig.write(1, 1, 1, { epoch: 65, tagPoint: 3 });
    rig.zero(512, 1024, { epoch: 66, tagPoint: 1 });
    rig.zero(131072, 131072, { epoch: 67, tagPoint: 2 });
    rig.store.setRegionTag(VOLUME, 9, 70, 1);
    const check = (): void => {
      const tag = { epoch: 0, point: 0 };
      const tags: [number, number][] = [];
      for (const region of [0, 1, 2, 3, 256, 511, 512]) {
        rig.store.regionTag(VOLUME, region, tag);
        tags.push([tag.epoch, tag.point]);
      }
      expect(tags).toEqual([
        [65, 4],
        [66, 1],
        [66, 1],
        [0, 0],
        [67, 2],
        [67, 2],
        [0, 0],
      ]);
      expect(rig.store.nextRegion(VOLUME, 0)).toBe(0);
      expect(rig.store.nextRegion(VOLUME, 3)).toBe(9);
      expect(rig.store.nextRegion(VOLUME, 10)).toBe(256);
      expect(rig.store.nextRegion(VOLUME, 512)).toBe(-1);
    };
    check();
    rig.close();
    rig.open();
    check();
    rig.zero(0, 3 * 131072 + 700, { epoch: 80, tagPoint: 0 });
    rig.sync();
    rig.powerCut();
    rig.open();
    expect(rig.store.nextRegion(VOLUME, 512)).toBe(512);
    expect(rig.store.nextRegion(VOLUME, 769)).toBe(769);
    expect(rig.store.nextRegion(VOLUME, 770)).toBe(-1);
    const tag = { epoch: 0, point: 0 };
    rig.store.regionTag(VOLUME, 1, tag);
    expect(tag).toEqual({ epoch: 80, point: 0 });
  });
});

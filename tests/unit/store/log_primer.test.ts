/** Zeros ahead of the log: where, how many, and that they never lie over anything. */
import { expect, test } from "bun:test";
import { KIB, MIB } from "../../../core/base/units.ts";
import { AREA_OFFSET } from "../../../core/format/superblock.ts";
import { StoreRig } from "./store_rig.ts";

interface Write {
  readonly offset: number;
  readonly length: number;
}

/** A store of 1 MiB segments in which every write is flushed, and its disk's log writes. */
function flushed(count: number, rig: StoreRig): Write[] {
  const writes: Write[] = [];
  rig.disk.onWrite = (offset, length) => writes.push({ offset, length });
  for (let index = 0; index < count; index += 1) {
    rig.write(index % 8, index + 1);
    rig.sync();
  }
  rig.disk.onWrite = null;
  return writes;
}

function fresh(): StoreRig {
  const logBufferBytes = MIB;
  const segmentBytes = MIB;
  const rig = new StoreRig({ seed: 3, sizeBytes: 64 * MIB, segmentBytes, logBufferBytes });
  expect(rig.format()).toMatchObject({ ok: true });
  return rig;
}

test("flushed writes take zeros along, once for many of them, and what is read stays true", () => {
  const rig = fresh();
  const writes = flushed(100, rig);
  const primed = writes.filter(({ length }) => length > 128 * KIB);
  // Each small write takes two pages: 100 of them need 800 KiB.
  expect(primed.length).toBeGreaterThanOrEqual(2);
  expect(primed.length).toBeLessThanOrEqual(5);
  for (let lba = 0; lba < 8; lba += 1) expect(rig.valueAt(lba)).toBe(100 - ((99 - lba) % 8));
  rig.powerCut();
  expect(rig.open()).toMatchObject({ ok: true });
  for (let lba = 0; lba < 8; lba += 1) expect(rig.valueAt(lba)).toBe(100 - ((99 - lba) % 8));
});

test("zeros stay inside their segment", () => {
  const rig = fresh();
  for (const { offset, length } of flushed(400, rig)) {
    const first = Math.floor((offset - AREA_OFFSET) / MIB);
    expect(Math.floor((offset + length - 1 - AREA_OFFSET) / MIB)).toBe(first);
  }
});

test("writes that nobody flushes take none, nor do those to a disk without such ranges", () => {
  const rig = fresh();
  const lengths: number[] = [];
  rig.disk.onWrite = (_offset, length) => lengths.push(length);
  for (let index = 0; index < 100; index += 1) rig.write(index % 8, index + 1);
  expect(Math.max(...lengths)).toBeLessThan(128 * KIB);

  const plain = fresh();
  Object.defineProperty(plain.disk, "isUnwritten", { value: undefined });
  for (const { length } of flushed(100, plain)) expect(length).toBeLessThan(128 * KIB);
});

test("syncs that cover much each, however often they come, are worth no zeros", () => {
  const asked = (blocks: number): number => {
    const rig = fresh();
    let count = 0;
    const isUnwritten = (): boolean => {
      count += 1;
      return true;
    };
    Object.defineProperty(rig.disk, "isUnwritten", { value: isUnwritten });
    for (let round = 0; round < 10; round += 1) {
      for (let index = 0; index < blocks; index += 1) rig.write(index % 60, index + 1);
      rig.sync();
    }
    return count;
  };
  expect(asked(10)).toBeGreaterThan(0);
  expect(asked(80)).toBe(0);
});

test("the second time round the log nothing is primed", () => {
  const rig = new StoreRig({ seed: 3, sizeBytes: 3 * MIB, segmentBytes: 64 * KIB, blocks: 64 });
  rig.format();
  flushed(600, rig);
  const before = rig.disk.unwrittenCount;
  expect(before).toBeGreaterThan(5);
  flushed(600, rig);
  expect(rig.disk.unwrittenCount - before).toBeLessThanOrEqual(before / 10);
});

/**
 * What every Disk must do (core/base/ports.ts), run on the real and on the simulated ones. The
 * suite never sleeps: it lets the rig run until something holds.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Disk } from "../../core/base/ports.ts";
import { ERRNO, READ_PAIRS_MAX } from "../../core/base/ports.ts";
import { SeededRandom } from "../../core/base/random.ts";
import { MIB, roundUp } from "../../core/base/units.ts";

export interface DiskRig {
  /** At least 8 MiB, blank. */
  readonly disk: Disk;
  /** Completions so far, in order; each pushed when it is delivered. */
  readonly completions: readonly { readonly tag: number; readonly result: number }[];
  /** Runs the world until `isDone` holds; false if it does not within a generous bound. */
  until(isDone: () => boolean): Promise<boolean>;
  close(): Promise<void>;
}

/** Declares the suite for one kind of disk. */
export function diskSuite(name: string, open: () => Promise<DiskRig>): void {
  describe(`a disk: ${name}`, () => {
    let rig: DiskRig;
    let disk: Disk;
    beforeEach(async () => {
      rig = await open();
      disk = rig.disk;
    });
    afterEach(async () => rig.close());

    /** Starts an operation; nothing may complete inside the call. */
    function start(run: () => void): void {
      const before = rig.completions.length;
      run();
      expect(rig.completions.length).toBe(before);
    }

    async function result(tag: number): Promise<number> {
      const isThere = (): boolean => rig.completions.some((done) => done.tag === tag);
      expect(await rig.until(isThere)).toBe(true);
      const found = rig.completions.filter((done) => done.tag === tag);
      expect(found).toHaveLength(1);
      return found[0]?.result ?? Number.NaN;
    }

    function noise(length: number, seed: number): Uint8Array {
      const random = new SeededRandom(seed);
      const bytes = disk.allocate(length);
      for (let at = 0; at < length; at += 1) bytes[at] = random.below(256);
      return bytes;
    }

    test("says its size and sector", () => {
      expect(disk.sizeBytes).toBeGreaterThanOrEqual(8 * MIB);
      expect([512, 4096]).toContain(disk.sectorBytes);
    });

    test("memory is zeroed, as long as asked for, and never shared", () => {
      const buffers = [1, 4096, 5000, MIB].map((length) => disk.allocate(length));
      expect(buffers.map((buffer) => buffer.length)).toEqual([1, 4096, 5000, MIB]);
      for (const buffer of buffers) expect(buffer.every((byte) => byte === 0)).toBe(true);
      for (const [index, buffer] of buffers.entries()) buffer.fill(index + 1);
      for (const [index, buffer] of buffers.entries()) {
        expect(buffer.every((byte) => byte === index + 1)).toBe(true);
      }
    });

    test("what was never written reads as zeros", async () => {
      const into = disk.allocate(8192).fill(7);
      start(() => disk.read(1, 4096, into, 0, 8192));
      expect(await result(1)).toBe(8192);
      expect(into.every((byte) => byte === 0)).toBe(true);
    });

    test("what was written is not unwritten any more, what lies behind it may be", async () => {
      if (disk.isUnwritten === undefined) return;
      const bytes = noise(8192, 3);
      disk.write(1, 4096, bytes, 0, 8192);
      expect(await result(1)).toBe(8192);
      disk.sync(2);
      expect(await result(2)).toBe(0);
      expect(disk.isUnwritten(4096, 8192)).toBe(false);
      expect(disk.isUnwritten(0, MIB)).toBe(false);
      expect(disk.isUnwritten(8192, MIB)).toBe(false);
      // A preallocated file on a file system that knows, or a device, which has no such ranges.
      const isTold = disk.isUnwritten(MIB, 8 * MIB - MIB);
      expect(isTold).toBe(disk.isUnwritten(disk.sizeBytes - 4096, 4096));
    });

    test("what was written is read: any piece, into any place of the buffer", async () => {
      const data = noise(64 * 1024, 3);
      start(() => disk.write(1, 128 * 1024, data, 0, data.length));
      expect(await result(1)).toBe(data.length);
      const into = disk.allocate(16 * 1024).fill(0xee);
      const sector = disk.sectorBytes;
      start(() => disk.read(2, 128 * 1024 + sector, into, 4096, 2 * sector));
      expect(await result(2)).toBe(2 * sector);
      expect(into.subarray(4096, 4096 + 2 * sector)).toEqual(data.subarray(sector, 3 * sector));
      expect(into[4095]).toBe(0xee);
      expect(into[4096 + 2 * sector]).toBe(0xee);
    });

    test("a piece of a buffer is written, and nothing around it on disk", async () => {
      const data = noise(16 * 1024, 4);
      start(() => disk.write(1, 1 * MIB, data, 0, 16 * 1024));
      await result(1);
      const other = noise(16 * 1024, 5);
      start(() => disk.write(2, 1 * MIB + 4096, other, 8192, 4096));
      expect(await result(2)).toBe(4096);
      const into = disk.allocate(16 * 1024);
      start(() => disk.read(3, 1 * MIB, into, 0, 16 * 1024));
      await result(3);
      expect(into.subarray(0, 4096)).toEqual(data.subarray(0, 4096));
      expect(into.subarray(4096, 8192)).toEqual(other.subarray(8192, 12288));
      expect(into.subarray(8192)).toEqual(data.subarray(8192));
    });

    test("readNow answers at once: the bytes, or EAGAIN", async () => {
      const data = noise(8192, 6);
      start(() => disk.write(1, 0, data, 0, 8192));
      await result(1);
      const into = disk.allocate(8192);
      let hits = 0;
      for (let round = 0; round < 20; round += 1) {
        into.fill(0);
        const got = disk.readNow(4096, into, 0, 4096);
        expect([4096, -ERRNO.EAGAIN]).toContain(got);
        if (got !== 4096) continue;
        hits += 1;
        expect(into.subarray(0, 4096)).toEqual(data.subarray(4096));
      }
      expect(hits).toBeGreaterThan(0);
    });

    test("the medium has what was written, any whole pages of it, synced or not", async () => {
      const data = noise(64 * 1024, 9);
      start(() => disk.write(1, 256 * 1024, data, 0, data.length));
      expect(await result(1)).toBe(data.length);
      const into = disk.allocate(32 * 1024).fill(0xee);
      start(() => disk.readMedium(2, 256 * 1024 + 8192, into, 4096, 16 * 1024));
      expect(await result(2)).toBe(16 * 1024);
      expect(Buffer.compare(into.subarray(4096, 20480), data.subarray(8192, 24576))).toBe(0);
      expect(into[4095]).toBe(0xee);
      expect(into[20480]).toBe(0xee);
      const other = noise(4096, 10);
      start(() => disk.write(3, 256 * 1024 + 8192, other, 0, 4096));
      await result(3);
      start(() => disk.sync(4));
      expect(await result(4)).toBe(0);
      start(() => disk.readMedium(5, 256 * 1024 + 8192, into, 0, 4096));
      expect(await result(5)).toBe(4096);
      expect(Buffer.compare(into.subarray(0, 4096), other)).toBe(0);
    });

    test("the medium's blank and last pages", async () => {
      const into = disk.allocate(8192).fill(7);
      start(() => disk.readMedium(1, disk.sizeBytes - 8192, into, 0, 8192));
      expect(await result(1)).toBe(8192);
      expect(into.every((byte) => byte === 0)).toBe(true);
    });

    test("a read of the medium that is not of whole pages is our own bug", () => {
      const buffer = disk.allocate(8192);
      expect(() => disk.readMedium(1, 512, buffer, 0, 4096)).toThrow("unaligned");
      expect(() => disk.readMedium(1, 0, buffer, 0, 512)).toThrow("unaligned");
      expect(() => disk.readMedium(1, disk.sizeBytes, buffer, 0, 4096)).toThrow("past the end");
    });

    test("readPairsNow parts heads from bodies, and says how far it came", async () => {
      const headBytes = 16;
      const pairBytes = headBytes + 4096;
      const count = READ_PAIRS_MAX;
      // Pairs begin anywhere on the disk.
      const offset = 5 * MIB + 80;
      const data = noise(roundUp(80 + count * pairBytes, 4096), 9);
      start(() => disk.write(1, 5 * MIB, data, 0, data.length));
      expect(await result(1)).toBe(data.length);
      const heads = disk.allocate(count * headBytes);
      // Not from `allocate`: the caller's memory, which may be any.
      const bodies = new Uint8Array(count * 4096 + 200);
      const pairs = { count, headBytes, bodyBytes: 4096, heads, bodies, bodiesAt: 100 };
      let wholeCount = 0;
      for (let round = 0; round < 40 && wholeCount < 2; round += 1) {
        heads.fill(0xee);
        bodies.fill(0xee);
        const got = disk.readPairsNow(offset, pairs);
        if (got === -ERRNO.EAGAIN) continue;
        expect(got).toBeGreaterThan(0);
        expect(got).toBeLessThanOrEqual(count * pairBytes);
        if (got === count * pairBytes) wholeCount += 1;
        for (let pair = 0; (pair + 1) * pairBytes <= got; pair += 1) {
          const from = 80 + pair * pairBytes;
          const head = heads.subarray(pair * headBytes, (pair + 1) * headBytes);
          const body = bodies.subarray(100 + pair * 4096, 100 + (pair + 1) * 4096);
          expect(Buffer.compare(head, data.subarray(from, from + headBytes))).toBe(0);
          expect(Buffer.compare(body, data.subarray(from + headBytes, from + pairBytes))).toBe(0);
        }
        expect(bodies.subarray(0, 100).every((byte) => byte === 0xee)).toBe(true);
        expect(bodies.subarray(100 + count * 4096).every((byte) => byte === 0xee)).toBe(true);
      }
      expect(wholeCount).toBe(2);
    });

    test("sync and discard complete with 0; a discarded range reads as zeros", async () => {
      const data = noise(2 * MIB, 7);
      start(() => disk.write(1, 2 * MIB, data, 0, 2 * MIB));
      await result(1);
      start(() => disk.sync(2));
      expect(await result(2)).toBe(0);
      start(() => disk.discard(3, 3 * MIB, 1 * MIB));
      expect(await result(3)).toBe(0);
      const into = disk.allocate(2 * MIB).fill(1);
      start(() => disk.read(4, 2 * MIB, into, 0, 2 * MIB));
      await result(4);
      expect(Buffer.compare(into.subarray(0, MIB), data.subarray(0, MIB))).toBe(0);
      expect(into.subarray(MIB).every((byte) => byte === 0)).toBe(true);
    });

    test("a range past the end is our own bug", () => {
      const buffer = disk.allocate(8192);
      expect(() => disk.read(1, disk.sizeBytes - 4096, buffer, 0, 8192)).toThrow("past the end");
      expect(() => disk.write(1, disk.sizeBytes, buffer, 0, 4096)).toThrow("past the end");
      const pairs = { count: 2, headBytes: 16, bodyBytes: 4096, heads: buffer, bodiesAt: 0 };
      const two = { ...pairs, bodies: disk.allocate(8192) };
      expect(() => disk.readPairsNow(disk.sizeBytes - 8192, two)).toThrow("past the end");
      const small = { ...pairs, bodies: disk.allocate(8191) };
      expect(() => disk.readPairsNow(0, small)).toThrow("past");
    });

    test("many operations at once: each completes once, with its own data", async () => {
      const count = 300;
      const data = noise(count * 4096, 8);
      for (let index = 0; index < count; index += 1) {
        start(() => disk.write(index, index * 8192, data, index * 4096, 4096));
      }
      for (let index = 0; index < count; index += 1) expect(await result(index)).toBe(4096);
      const into = disk.allocate(count * 4096);
      for (let index = 0; index < count; index += 1) {
        start(() => disk.read(1000 + index, index * 8192, into, index * 4096, 4096));
      }
      for (let index = 0; index < count; index += 1) expect(await result(1000 + index)).toBe(4096);
      expect(Buffer.compare(into, data)).toBe(0);
      expect(rig.completions).toHaveLength(2 * count);
    });
  });
}

/** The real disks: both backends on a file, and the same on what only real files can do. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SeededRandom } from "../../core/base/random.ts";
import { MIB } from "../../core/base/units.ts";
import { type OpenDisk, openDisk } from "../../transports/disk_open.ts";
/** More than is ever written inline. */
const LARGE_BYTES = 5 * MIB;

const directory = mkdtempSync(join(tmpdir(), "vsan-disk-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** Collects completions and waits for them. */
class Completions {
  readonly results = new Map<number, number>();
  private wake: (() => void) | null = null;
  inCall = false;
  readonly events = {
    done: (tag: number, result: number): void => {
      expect(this.inCall).toBe(false);
      expect(this.results.has(tag)).toBe(false);
      this.results.set(tag, result);
    },
    batch: (): void => this.wake?.(),
  };

  /** Runs `start`, during which nothing may be delivered. */
  call(start: () => void): void {
    this.inCall = true;
    start();
    this.inCall = false;
  }

  async wait(disk: OpenDisk, tag: number): Promise<number> {
    disk.submit();
    disk.deliver();
    while (!this.results.has(tag)) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      this.wake = null;
    }
    return this.results.get(tag) ?? 0;
  }
}

let files = 0;
async function open(backend: "auto" | "fs", sizeBytes = 4 * MIB) {
  files += 1;
  const path = join(directory, `disk-${files}`);
  const completions = new Completions();
  const opened = await openDisk({ path, sizeBytes, backend }, completions.events);
  if (!opened.ok) throw new Error(opened.why);
  return { path, disk: opened.disk, completions, created: opened.created };
}

describe.each(["auto", "fs"] as const)("disk backend %s", (backend) => {
  test("is the backend asked for, with the size asked for, preallocated", async () => {
    const { disk, path, created } = await open(backend);
    expect(disk.backend).toBe(backend === "fs" ? "fs" : "uring");
    expect(disk.sizeBytes).toBe(4 * MIB);
    expect(created).toBe(true);
    expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(4 * MIB);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await disk.close();
  });

  test("what is written is read, and is in the file after sync", async () => {
    const { disk, completions, path } = await open(backend);
    const buffer = disk.allocate(8192);
    for (let index = 0; index < 8192; index += 1) buffer[index] = index * 7;
    completions.call(() => disk.write(1, 12288, buffer, 0, 8192));
    expect(completions.results.size).toBe(0);
    expect(await completions.wait(disk, 1)).toBe(8192);
    completions.call(() => disk.sync(2));
    expect(await completions.wait(disk, 2)).toBe(0);
    const into = disk.allocate(8192);
    completions.call(() => disk.read(3, 12288, into, 0, 8192));
    expect(await completions.wait(disk, 3)).toBe(8192);
    expect(into).toEqual(buffer);
    expect(readFileSync(path).subarray(12288, 20480)).toEqual(Buffer.from(buffer));
    await disk.close();
  });

  test("a sync is with the kernel when the call returns, and waits for no submit", async () => {
    const { disk, completions } = await open(backend);
    completions.call(() => disk.sync(1));
    for (let wait = 0; wait < 200 && !completions.results.has(1); wait += 1) await Bun.sleep(10);
    expect(completions.results.get(1)).toBe(0);
    await disk.close();
  });

  test("large writes go the asynchronous way and arrive whole", async () => {
    const { disk, completions } = await open(backend, 2 * LARGE_BYTES);
    const buffer = disk.allocate(LARGE_BYTES);
    const random = new SeededRandom(7);
    for (let index = 0; index < LARGE_BYTES; index += 1) buffer[index] = random.u32();
    disk.write(1, 4096, buffer, 0, LARGE_BYTES);
    expect(await completions.wait(disk, 1)).toBe(LARGE_BYTES);
    const into = disk.allocate(LARGE_BYTES);
    disk.read(2, 4096, into, 0, LARGE_BYTES);
    expect(await completions.wait(disk, 2)).toBe(LARGE_BYTES);
    expect(Buffer.from(into).equals(Buffer.from(buffer))).toBe(true);
    await disk.close();
  });

  test("readNow has what is in the page cache", async () => {
    const { disk, completions } = await open(backend);
    const buffer = disk.allocate(4096).fill(42);
    disk.write(1, 0, buffer, 0, 4096);
    await completions.wait(disk, 1);
    const into = disk.allocate(4096);
    expect(disk.readNow(0, into, 1, 4095)).toBe(4095);
    expect(into[0]).toBe(0);
    expect(into[4095]).toBe(42);
    await disk.close();
  });

  test("a discarded range reads as zeros and frees its blocks", async () => {
    const { disk, completions, path } = await open(backend);
    const buffer = disk.allocate(MIB).fill(1);
    disk.write(1, 0, buffer, 0, MIB);
    await completions.wait(disk, 1);
    disk.sync(2);
    await completions.wait(disk, 2);
    const before = statSync(path).blocks;
    completions.call(() => disk.discard(3, 4096, MIB - 4096));
    expect(await completions.wait(disk, 3)).toBe(0);
    expect(statSync(path).blocks).toBeLessThan(before);
    disk.read(4, 0, buffer, 0, MIB);
    expect(await completions.wait(disk, 4)).toBe(MIB);
    expect(buffer[4095]).toBe(1);
    expect(buffer.subarray(4096).every((byte) => byte === 0)).toBe(true);
    await disk.close();
  });

  test("a read past the end of a file cut short ends short, not with wrong bytes", async () => {
    const { disk, completions, path } = await open(backend);
    truncateSync(path, 10000);
    const buffer = disk.allocate(8192).fill(9);
    disk.read(1, 4096, buffer, 0, 8192);
    expect(await completions.wait(disk, 1)).toBe(10000 - 4096);
    disk.read(2, 16384, buffer, 0, 4096);
    expect(await completions.wait(disk, 2)).toBe(0);
    await disk.close();
  });

  test("more operations than slots: all complete, once, with their own data", async () => {
    const { disk, completions } = await open(backend, 16 * MIB);
    const count = 3000;
    const buffer = disk.allocate(count * 4096);
    const view = new DataView(buffer.buffer);
    for (let index = 0; index < count; index += 1) {
      view.setUint32(index * 4096, index, true);
      disk.write(index, index * 4096, buffer, index * 4096, 4096);
    }
    disk.submit();
    for (let index = 0; index < count; index += 1) {
      expect(await completions.wait(disk, index)).toBe(4096);
    }
    buffer.fill(0xff);
    completions.call(() => {
      for (let index = 0; index < count; index += 1) {
        disk.read(10000 + index, index * 4096, buffer, index * 4096, 4096);
      }
    });
    for (let index = 0; index < count; index += 1) {
      expect(await completions.wait(disk, 10000 + index)).toBe(4096);
      expect(view.getUint32(index * 4096, true)).toBe(index);
    }
    expect(completions.results.size).toBe(2 * count);
    await disk.close();
  });

  test("close waits for what is in flight", async () => {
    const { disk, completions } = await open(backend, 2 * LARGE_BYTES);
    const buffer = disk.allocate(LARGE_BYTES);
    disk.write(1, 0, buffer, 0, LARGE_BYTES);
    disk.sync(2);
    disk.submit();
    await disk.close();
    expect(completions.results.get(1)).toBe(LARGE_BYTES);
    expect(completions.results.get(2)).toBe(0);
  });
});

describe("opening a disk", () => {
  const events = { done: (): void => {}, batch: (): void => {} };

  test("a second opener is refused in one sentence, and may when the first is gone", async () => {
    const { disk, path } = await open("auto");
    const second = await openDisk({ path, sizeBytes: 0 }, events);
    const why = `${path} is in use by another vsan process`;
    expect(second).toEqual({ ok: false, why, isInUse: true });
    await disk.close();
    const third = await openDisk({ path, sizeBytes: 0 }, events);
    expect(third.ok).toBe(true);
    if (third.ok) {
      expect(third.created).toBe(false);
      expect(third.disk.sizeBytes).toBe(4 * MIB);
      await third.disk.close();
    }
  });

  test.each(["auto", "fs"] as const)("read-only, %s: no write reaches it", async (backend) => {
    const { disk: first, path } = await open(backend);
    await first.close();
    const before = readFileSync(path);
    const completions = new Completions();
    const options = { path, sizeBytes: 0, backend, isReadOnly: true };
    const opened = await openDisk(options, completions.events);
    if (!opened.ok) throw new Error(opened.why);
    const { disk } = opened;
    const buffer = disk.allocate(4096);
    completions.call(() => disk.read(1, 4096, buffer, 0, 4096));
    expect(await completions.wait(disk, 1)).toBe(4096);
    buffer.fill(7);
    completions.call(() => disk.write(2, 4096, buffer, 0, 4096));
    expect(await completions.wait(disk, 2)).toBeLessThan(0);
    await disk.close();
    expect(Buffer.compare(readFileSync(path), before)).toBe(0);
    const missing = { ...options, path: `${path}.missing` };
    expect(await openDisk(missing, events)).toMatchObject({ ok: false });
  });

  test("what cannot be a store is refused with the reason", async () => {
    const refused = async (path: string, sizeBytes: number): Promise<string> => {
      const opened = await openDisk({ path, sizeBytes }, events);
      return opened.ok ? "opened" : opened.why;
    };
    expect(await refused(directory, MIB)).toBe(`${directory} is a directory`);
    const absent = join(directory, "absent");
    expect(await refused(absent, 0)).toBe(`${absent} does not exist and no size is given`);
    const tiny = join(directory, "tiny");
    writeFileSync(tiny, "x");
    expect(await refused(tiny, MIB)).toBe(`${tiny} is too small to be a store`);
    expect(await refused("/dev/null", MIB)).toBe("/dev/null is neither a file nor a block device");
    const huge = join(directory, "huge");
    expect(await refused(huge, 2 ** 50)).toStartWith(`${huge} `);
    expect(await Bun.file(huge).exists()).toBe(false);
  });
});

/** The simulated disk keeps the contract of the real ones; and its power cuts are power cuts. */
import { describe, expect, test } from "bun:test";
import { MIB } from "../../core/base/units.ts";
import { SimDisk } from "../sim/sim_disk.ts";
import { type DiskRig, diskSuite } from "./disk_suite.ts";

async function open(sectorBytes: number, seed: number): Promise<DiskRig & { disk: SimDisk }> {
  const timers: { atMs: number; order: number; fn: () => void }[] = [];
  const completions: { tag: number; result: number }[] = [];
  let nowMs = 0;
  let order = 0;
  const disk = new SimDisk({
    sizeBytes: 8 * MIB,
    seed,
    sectorBytes,
    schedule: (delayMs, fn) => {
      order += 1;
      timers.push({ atMs: nowMs + delayMs, order, fn });
    },
    done: (tag, result) => completions.push({ tag, result }),
  });
  const until = async (isDone: () => boolean): Promise<boolean> => {
    while (!isDone()) {
      timers.sort((left, right) => left.atMs - right.atMs || left.order - right.order);
      const next = timers.shift();
      if (next === undefined) return false;
      nowMs = next.atMs;
      next.fn();
    }
    return true;
  };
  return { disk, completions, until, close: async () => {} };
}

diskSuite("simulated, 512-byte sectors", () => open(512, 1));
diskSuite("simulated, 4 KiB sectors", () => open(4096, 2));

describe("the simulated power cut", () => {
  test("keeps what was synced, tears what was not, at sectors, in any combination", async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 60; seed += 1) {
      const rig = await open(512, seed);
      const buffer = rig.disk.allocate(1024);
      const all = (count: number) => (): boolean => rig.completions.length >= count;
      rig.disk.write(1, 0, buffer.fill(1), 0, 1024);
      await rig.until(all(1));
      rig.disk.sync(2);
      await rig.until(all(2));
      rig.disk.write(3, 0, buffer.fill(2), 0, 1024);
      await rig.until(all(3));
      rig.disk.write(4, 0, buffer.fill(3), 0, 1024);
      rig.disk.powerCut();
      const bytes = rig.disk.media.peek(0, 1024);
      seen.add(`${bytes[0]}${bytes[512]}`);
      for (let at = 0; at < 1024; at += 1) expect(bytes[at]).toBe(bytes[at - (at % 512)]!);
    }
    expect([...seen].every((pair) => /^[123][123]$/.test(pair))).toBe(true);
    expect(seen.size).toBeGreaterThanOrEqual(7);
  });

  test("nothing completes after it, and the disk goes on in its next life", async () => {
    const rig = await open(512, 5);
    const buffer = rig.disk.allocate(512).fill(9);
    rig.disk.write(1, 0, buffer, 0, 512);
    rig.disk.powerCut();
    expect(await rig.until(() => rig.completions.length > 0)).toBe(false);
    rig.disk.write(2, 0, buffer, 0, 512);
    expect(await rig.until(() => rig.completions.length > 0)).toBe(true);
    expect(rig.completions).toEqual([{ tag: 2, result: 512 }]);
  });

  test("a buffer changed while its write is in flight is our bug, and shows", async () => {
    const rig = await open(512, 5);
    const buffer = rig.disk.allocate(512);
    rig.disk.write(1, 0, buffer, 0, 512);
    buffer[5] = 1;
    expect(rig.until(() => rig.completions.length > 0)).rejects.toThrow("in flight");
  });
});

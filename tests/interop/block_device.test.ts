/**
 * Raw block devices as stores: loop devices. Size and sector found, exclusive open, discard passed
 * down to the file below, and a host's whole life on them.
 */
import { afterEach, expect } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OpenDisk, openDisk } from "../../transports/disk_open.ts";
import { expectEqual, readAll, writeAll } from "../tools/bytes.ts";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { Cleanup, must, pattern, testWith, until } from "../tools/lab.ts";
import { LoopDevice, NEEDS_OF_LOOP } from "../tools/loop_device.ts";
import type { NbdClient } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

async function loop(sizeBytes: number, sectorBytes = 512): Promise<LoopDevice> {
  const device = await LoopDevice.make(sizeBytes, sectorBytes);
  cleanup.add(async () => await device.close());
  return device;
}

/** Opens a device, and a way to run one operation on it to its end. */
async function opened(path: string, backend: "auto" | "fs") {
  const results = new Map<number, number>();
  const events = {
    done: (tag: number, result: number): void => {
      results.set(tag, result);
    },
    batch: (): void => {},
  };
  const made = await openDisk({ path, sizeBytes: 0, backend }, events);
  if (!made.ok) throw new Error(made.why);
  const { disk } = made;
  let tag = 0;
  const finish = async (start: (disk: OpenDisk, tag: number) => void): Promise<number> => {
    tag += 1;
    start(disk, tag);
    disk.submit();
    await until("the operation ends", () => disk.deliver() || results.has(tag));
    return results.get(tag) ?? Number.NaN;
  };
  return { disk, finish };
}

/** Why a path cannot be opened. */
async function refusal(path: string, deviceBytesLeast = 0): Promise<string> {
  const events = { done: (): void => {}, batch: (): void => {} };
  const made = await openDisk({ path, sizeBytes: 0, deviceBytesLeast }, events);
  if (made.ok) await made.disk.close();
  return made.ok ? "opened" : made.why;
}

async function single(path: string, options: Partial<ClusterOptions> = {}): Promise<Cluster> {
  const cluster = await Cluster.start({
    hosts: ["solo"],
    volumeBytes: 64 * MIB,
    storeBytes: 200 * MIB,
    store: () => path,
    ...options,
  });
  cleanup.add(async () => await cluster.close());
  return cluster;
}

for (const sectorBytes of [512, 4096]) {
  for (const backend of ["auto", "fs"] as const) {
    const name = `${sectorBytes}-byte sectors, backend ${backend}: size, sector, discard`;
    testWith(NEEDS_OF_LOOP, name, async () => {
      const device = await loop(40 * MIB, sectorBytes);
      const { disk, finish } = await opened(device.path, backend);
      cleanup.add(async () => await disk.close());
      expect(disk.sizeBytes).toBe(40 * MIB);
      expect(disk.sectorBytes).toBe(sectorBytes);
      expect(disk.keepsSpace).toBe(false);
      const buffer = disk.allocate(16 * MIB).fill(7);
      expect(await finish((to, tag) => to.write(tag, 8 * MIB, buffer, 0, 16 * MIB))).toBe(16 * MIB);
      expect(await finish((to, tag) => to.sync(tag))).toBe(0);
      const before = device.takenBytes;
      expect(before).toBeGreaterThanOrEqual(16 * MIB);
      expect(await finish((to, tag) => to.discard(tag, 12 * MIB, 8 * MIB))).toBe(0);
      expect(before - device.takenBytes).toBeGreaterThanOrEqual(8 * MIB);
      expect(await finish((to, tag) => to.read(tag, 8 * MIB, buffer, 0, 16 * MIB))).toBe(16 * MIB);
      expect(buffer.indexOf(0)).toBe(4 * MIB);
      expect(buffer.subarray(4 * MIB, 12 * MIB).every((byte) => byte === 0)).toBe(true);
      expect(buffer.subarray(12 * MIB).every((byte) => byte === 7)).toBe(true);
    });
  }
}

testWith(NEEDS_OF_LOOP, "a device in use is refused, and taken when it is free", async () => {
  const device = await loop(40 * MIB);
  const first = await opened(device.path, "auto");
  const inUse = `${device.path} is in use (mounted, or opened by another program)`;
  expect(await refusal(device.path)).toBe(inUse);
  await first.disk.close();
  expect(await refusal(device.path)).toBe("opened");
});

testWith(
  [...NEEDS_OF_LOOP, "mkfs.ext4"],
  "a mounted device is refused, and untouched",
  async () => {
    const device = await loop(40 * MIB);
    await must(["mkfs.ext4", "-q", device.path]);
    const directory = mkdtempSync(join(tmpdir(), "vsan-mount-"));
    cleanup.add(() => rmSync(directory, { recursive: true, force: true }));
    const mountPoint = join(directory, "mnt");
    mkdirSync(mountPoint);
    await must(["mount", device.path, mountPoint]);
    cleanup.add(async () => {
      await must(["umount", mountPoint]);
      await must(["fsck.ext4", "-fn", device.path]);
    });
    expect(await refusal(device.path)).toContain("is in use (mounted");
    // A host that is given it does not start at all.
    await expect(single(device.path)).rejects.toThrow("is in use (mounted");
  },
);

testWith(
  NEEDS_OF_LOOP,
  "a device smaller than what is asked for is refused with both",
  async () => {
    const device = await loop(40 * MIB);
    const why = `${device.path} has ${40 * MIB} bytes, ${100 * MIB} are asked for`;
    expect(await refusal(device.path, 100 * MIB)).toBe(why);
    expect(await refusal(device.path, 40 * MIB)).toBe("opened");
  },
);

async function used(cluster: Cluster): Promise<number> {
  return (await cluster.stateOf("solo")).store?.usedBytes ?? -1;
}

/** Small writes and flushes: what time brings. */
async function live(client: NbdClient, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await writeAll(client, 0, pattern(round + 90, 4 * MIB));
    await client.flush();
  }
}

testWith(
  NEEDS_OF_LOOP,
  "a host lives on a device of 4 KiB sectors: killed, checked, trimmed down to the file below",
  async () => {
    const device = await loop(400 * MIB, 4096);
    const cluster = await single(device.path);
    const solo = cluster.host("solo");
    // The whole device, not store_size.
    const { store } = await cluster.stateOf("solo");
    expect(store?.sizeBytes ?? 0).toBeGreaterThan(250 * MIB);
    const client = await cluster.client("solo");
    const data = pattern(3, 48 * MIB);
    await writeAll(client, 8 * MIB, data);
    await client.flush();
    await solo.kill();
    await solo.start();
    const again = await cluster.client("solo");
    expectEqual(await readAll(again, 8 * MIB, 48 * MIB), data);
    const inUse = await solo.run(["recover", "check"]);
    expect([inUse.code, inUse.stderr]).toEqual([3, expect.stringContaining("is in use")]);
    // More is written than the device has; garbage is given back all the time.
    for (let round = 0; round < 12; round += 1) await writeAll(again, 8 * MIB, data);
    await again.flush();
    // One discard is at the device at a time, and may be behind a fast writer for a moment.
    await until("garbage was given back", () => device.takenBytes < 200 * MIB, 20_000);
    const before = device.takenBytes;
    expect(before).toBeGreaterThan(48 * MIB);
    await again.trim(8 * MIB, 48 * MIB);
    expect(await used(cluster)).toBe(0);
    await live(again, 40);
    await until("the file below has shrunk", () => device.takenBytes < before - 40 * MIB, 20_000);
    expect(await solo.stop()).toBe(0);
    const { code, stdout } = await solo.run(["recover", "check"]);
    expect(`${code} ${stdout}`).toStartWith("0 ");
    await solo.start();
    const last = await cluster.client("solo");
    expectEqual(await readAll(last, 0, 4 * MIB), pattern(129, 4 * MIB));
  },
  120_000,
);

testWith(
  NEEDS_OF_LOOP,
  "recover rebuilds on a blank device; one that shrank is told and rebuilt when asked",
  async () => {
    const device = await loop(300 * MIB);
    const store = (name: string): string | null => (name === "beta" ? device.path : null);
    const cluster = await Cluster.start({
      hosts: ["alpha", "beta"],
      volumeBytes: 32 * MIB,
      storeBytes: 200 * MIB,
      store,
    });
    cleanup.add(async () => await cluster.close());
    await cluster.inSync();
    const beta = cluster.host("beta");
    const client = await cluster.client("alpha");
    const data = pattern(5, 16 * MIB);
    await writeAll(client, 0, data);
    await client.flush();
    await beta.stop();
    // The same slot with a smaller disk that holds the beginning of the old one.
    await device.resize(220 * MIB);
    await beta.start();
    const status = await cluster.until(
      "beta",
      "the disk is told to have failed",
      ({ hosts }) => hosts.find(({ name }) => name === "beta")?.disk === "failed",
    );
    const why = status.hosts.find(({ name }) => name === "beta")?.why ?? "";
    expect(why).toContain(`the store is ${300 * MIB} bytes long, only ${220 * MIB} are there`);
    const { code, stdout, stderr } = await beta.run(["recover"]);
    expect(`${code} ${stdout} ${code === 0 ? "" : stderr}`).toBe(
      "0 vsan recover: beta is in sync\n ",
    );
    await cluster.inSync();
    expectEqual(await readAll(await cluster.client("beta"), 0, 16 * MIB), data);
    // A disk below what the config asks for is not taken at all.
    await beta.stop();
    await device.resize(150 * MIB);
    await beta.start();
    const small = await cluster.until("beta", "it says why", ({ hosts }) =>
      hosts.some(({ name, why: text }) => name === "beta" && text.includes("are asked for")),
    );
    expect(small.volumes[0]?.io).toBe("ok");
  },
  120_000,
);

/**
 * The claims about one shared storage node on two servers: what is written at one is at both,
 * whichever network carries the copies, and each server reads its own.
 */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expectEqual, writeAll } from "../tools/bytes.ts";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { MountedVolume, NEEDS_OF_FILE_SYSTEM } from "../tools/file_system.ts";
import { Cleanup, must, pattern, testWith } from "../tools/lab.ts";
import { metric } from "../tools/metrics.ts";
import type { NbdClient } from "../tools/nbd_client.ts";
import { readStoreImage } from "../tools/store_image.ts";

const MIB = 1024 * 1024;
const VOLUME_BYTES = 64 * MIB;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

async function start(options: Partial<ClusterOptions> = {}): Promise<Cluster> {
  const cluster = await Cluster.start({
    hosts: ["first", "second"],
    volumeBytes: VOLUME_BYTES,
    storeBytes: 256 * MIB,
    ...options,
  });
  cleanup.add(() => cluster.close());
  await cluster.inSync();
  return cluster;
}

/** Addresses of their own for each purpose: links 127.0.1.x, shared network 127.0.2.x. */
const ADDRESSES: Partial<ClusterOptions> = {
  linkAddress: (name, port) => `${name === "first" ? "127.0.1.1" : "127.0.1.2"}:${port}`,
  sharedAddress: (name, port) => `${name === "first" ? "127.0.2.1" : "127.0.2.2"}:${port}`,
  nbdAddress: (name, port) => `${name === "first" ? "127.0.2.1" : "127.0.2.2"}:${port}`,
};

/** The volume as one host's own disk has it; the host must not run. */
function imageOf(cluster: Cluster, name: string): Uint8Array {
  const self = cluster.hosts.findIndex((host) => host.name === name);
  return readStoreImage(cluster.host(name).store, {
    clusterName: "test",
    self,
    volumeName: "vol0",
    volumeBytes: VOLUME_BYTES,
  });
}

/** Hex of 127.0.1.x as /proc/net/tcp shows it (little endian). */
function establishedOn(address: string, port: number): number {
  const hex = address
    .split(".")
    .reverse()
    .map((part) => Number(part).toString(16).padStart(2, "0"));
  const local = `${hex.join("")}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
  const rows = readFileSync("/proc/net/tcp", "utf8").split("\n");
  return rows.filter((row) => {
    const [, from, to, state] = row.trim().split(/\s+/);
    return state === "01" && (from === local || to === local);
  }).length;
}

function portOf(cluster: Cluster, name: string, key: "link" | "shared"): number {
  const section = readFileSync(cluster.configFile, "utf8").split("[[host]]");
  const own = section.find((text) => text.includes(`name = "${name}"`)) ?? "";
  return Number(new RegExp(`${key} = "[^"]*:(\\d+)"`).exec(own)?.[1]);
}

test("claim 1: a write at the first server is executed there and at the second", async () => {
  const cluster = await start();
  const data = pattern(1, 8 * MIB);
  const first = await cluster.client("first");
  await writeAll(first, 3 * MIB, data);
  const second = await cluster.client("second");
  expectEqual(await second.read(3 * MIB, data.length), data);
  await first.flush();
  await Promise.all(cluster.hosts.map((host) => host.kill()));
  for (const name of ["first", "second"]) {
    const image = imageOf(cluster, name);
    expectEqual(image.subarray(3 * MIB, 3 * MIB + data.length), data);
    expect(image.subarray(0, 3 * MIB).every((byte) => byte === 0)).toBe(true);
  }
});

test("claim 2: the copy travels over a dedicated link", async () => {
  const cluster = await start({ ...ADDRESSES, mirror: "dedicated" });
  await cluster.until("second", "the dedicated link is used", ({ hosts }) =>
    hosts.some(({ paths }) => paths.some((path) => path.via === "dedicated" && path.up)),
  );
  const data = pattern(2, 4 * MIB);
  const first = await cluster.client("first");
  await writeAll(first, 0, data);
  const second = await cluster.client("second");
  expectEqual(await second.read(0, data.length), data);
  const [link, shared] = [portOf(cluster, "second", "link"), portOf(cluster, "second", "shared")];
  expect(establishedOn("127.0.1.2", link)).toBeGreaterThanOrEqual(2);
  expect(establishedOn("127.0.2.2", shared)).toBe(0);
});

test("claim 3: the copy travels over the network that the workstations use", async () => {
  const cluster = await start({ ...ADDRESSES, mirror: "shared" });
  const data = pattern(3, 8 * MIB);
  const first = await cluster.client("first");
  const second = await cluster.client("second");
  // Workstations' traffic on the same addresses at the same time.
  const reads = async (): Promise<void> => {
    for (let turn = 0; turn < 16; turn++) await second.read(32 * MIB, MIB);
  };
  await Promise.all([writeAll(first, 0, data), reads()]);
  expectEqual(await second.read(0, data.length), data);
  const events = readFileSync(cluster.host("first").logFile, "utf8");
  expect(events).not.toContain("multicast does not reach");
  await first.flush();
  await Promise.all(cluster.hosts.map((host) => host.kill()));
  expectEqual(imageOf(cluster, "second").subarray(0, data.length), data);
});

testWith(
  NEEDS_OF_FILE_SYSTEM,
  "claim 8: an ordinary I/O driver with a file system sees one shared node",
  async () => {
    const cluster = await start();
    const volume = new MountedVolume(join(cluster.directory, "ext4"));
    cleanup.add(() => volume.close());
    await volume.open(cluster.host("first").nbd, { format: true });
    const data = pattern(8, 3 * MIB);
    await Bun.write(join(volume.path, "file"), data);
    await volume.unmount();
    // The same disk, seen at the other server.
    await volume.check(cluster.host("second").nbd);
    await volume.open(cluster.host("second").nbd, { format: false });
    expectEqual(await Bun.file(join(volume.path, "file")).bytes(), data);
    await must(["sync", "-f", volume.path]);
    await volume.unmount();
  },
);

test("claim 9: each server reaches the data at its own device", async () => {
  const cluster = await start({ hostLines: (name) => [`http = "${httpOf(name)}"`] });
  const data = pattern(9, 4 * MIB);
  await writeAll(await cluster.client("first"), 0, data);
  for (const name of ["first", "second"]) {
    const client = await cluster.client(name);
    expectEqual(await client.read(0, data.length), data);
    const served = await metric(httpOf(name), "vsan_reads_total");
    expect(served({ where: "local" })).toBeGreaterThan(0);
    expect(served({ where: "remote" })).toBe(0);
  }
});

const HTTP_PORT = 20_000 + (process.pid % 10_000);
function httpOf(name: string): string {
  return `${name === "first" ? "127.0.4.1" : "127.0.4.2"}:${HTTP_PORT}`;
}

test("claims 10, 11: each mirror engine sends its server's writes to the other", async () => {
  const cluster = await start();
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  const [one, other] = [pattern(10, 8 * MIB), pattern(11, 8 * MIB)];
  await Promise.all([writeAll(first, 0, one), writeAll(second, 16 * MIB, other)]);
  expectEqual(await second.read(0, one.length), one);
  expectEqual(await first.read(16 * MIB, other.length), other);
  await Promise.all([first.flush(), second.flush()]);
  await Promise.all(cluster.hosts.map((host) => host.kill()));
  for (const name of ["first", "second"]) {
    const image = imageOf(cluster, name);
    expectEqual(image.subarray(0, one.length), one);
    expectEqual(image.subarray(16 * MIB, 16 * MIB + other.length), other);
  }
});

test("claim 20: both servers take clients' reads and writes and mirror them", async () => {
  const cluster = await start();
  const clients = [await cluster.client("first"), await cluster.client("second")] as const;
  // Blocks alternate between the servers; each round is read at the other one.
  for (let round = 0; round < 20; round++) {
    const writer = clients[round % 2] as NbdClient;
    const reader = clients[(round + 1) % 2] as NbdClient;
    const data = pattern(200 + round, 64 * 1024);
    await writer.write((round % 3) * 64 * 1024, data);
    expectEqual(await reader.read((round % 3) * 64 * 1024, data.length), data);
  }
  await clients[1].flush();
  const before = await clients[0].read(0, 3 * 64 * 1024);
  await Promise.all(cluster.hosts.map((host) => host.kill()));
  for (const name of ["first", "second"]) {
    expectEqual(imageOf(cluster, name).subarray(0, before.length), before);
  }
});

/**
 * The claims about failures: whatever makes data inaccessible at one server, its own clients and
 * those of the other read and write on, from the mirrored copy and without an error.
 */
import { afterEach, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expectEqual, readAll, writeAll } from "../tools/bytes.ts";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { canFault, FaultDisk } from "../tools/fault_disk.ts";
import { Cleanup, pattern } from "../tools/lab.ts";
import { Load } from "../tools/load.ts";
import type { NbdClient } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
const STORE_BYTES = 256 * MIB;
/** From a failure to the first answer, with a wide margin for a busy machine. */
const FAILOVER_LIMIT_MS = 8000;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

/** Two servers and a witness, so that one server alone may go on writing. */
async function start(options: Partial<ClusterOptions> = {}): Promise<Cluster> {
  const cluster = await Cluster.start({
    hosts: ["first", "second", "third"],
    kinds: { third: "witness" },
    storeBytes: STORE_BYTES,
    ...options,
  });
  cleanup.add(() => cluster.close());
  await cluster.inSync();
  return cluster;
}

async function faultyDisk(): Promise<FaultDisk> {
  const directory = mkdtempSync(join(tmpdir(), "vsan-fault-"));
  cleanup.add(() => rmSync(directory, { recursive: true, force: true }));
  const disk = await FaultDisk.mount(join(directory, "disk"), STORE_BYTES);
  cleanup.add(() => disk.close());
  return disk;
}

const FAULTS_MISSING = "root, /dev/fuse, nbdkit with headers, nbdfuse and gcc";
function testWithFaults(name: string, action: () => Promise<void>): void {
  if (!canFault) process.stdout.write(`skipped: ${name}: needs ${FAULTS_MISSING}\n`);
  test.skipIf(!canFault)(name, action);
}

/** Overwrites the blocks of `data` in the store's file; how many were found there. */
function damage(store: string, data: Uint8Array): number {
  const bytes = Buffer.from(Bun.mmap(store).buffer);
  const file = openSync(store, "r+");
  let count = 0;
  for (let block = 0; block + 4096 <= data.length; block += 4096) {
    const at = bytes.indexOf(data.subarray(block, block + 64));
    if (at < 0) continue;
    writeSync(file, new Uint8Array(512).fill(0x5a), 0, 512, at + 100);
    count += 1;
  }
  closeSync(file);
  return count;
}

async function timed(action: Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await action;
  return performance.now() - begun;
}

test("claim 4: data damaged on the first device are read from the mirrored copy", async () => {
  const cluster = await start();
  const client = await cluster.client("first");
  const data = pattern(4, 256 * 1024);
  await client.write(MIB, data);
  await client.flush();
  expect(damage(cluster.host("first").store, data)).toBe(data.length / 4096);
  expectEqual(await client.read(MIB, data.length), data);
  await cluster.until("first", "the bad blocks were rewritten", ({ hosts }) =>
    hosts.some(({ name, store }) => name === "first" && (store?.badBlocksHealed ?? 0) > 0),
  );
  expectEqual(await client.read(MIB, data.length), data);
});

test("claim 5: the first server is killed; all is read and written at the second", async () => {
  const cluster = await start();
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  const data = pattern(5, 8 * MIB);
  await writeAll(first, 0, data);
  await cluster.host("first").kill();
  expect(await timed(second.read(0, MIB))).toBeLessThan(FAILOVER_LIMIT_MS);
  expectEqual(await readAll(second, 0, data.length), data);
  const more = pattern(55, MIB);
  await second.write(32 * MIB, more);
  await cluster.host("first").start();
  await cluster.inSync();
  const again = await cluster.client("first");
  expectEqual(await readAll(again, 0, data.length), data);
  expectEqual(await again.read(32 * MIB, MIB), more);
});

testWithFaults("claim 5: a power cut at the first server loses nothing acknowledged", async () => {
  const disk = await faultyDisk();
  const cluster = await start({ store: (name) => (name === "first" ? disk.path : null) });
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  const data = pattern(51, 2 * MIB);
  await writeAll(first, 0, data);
  await first.flush();
  // What was not flushed never gets to the medium: a cut takes it from this disk.
  disk.set("lost");
  const late = pattern(52, 2 * MIB);
  await writeAll(first, 8 * MIB, late);
  await cluster.host("first").kill();
  expectEqual(await readAll(second, 0, data.length), data);
  expectEqual(await readAll(second, 8 * MIB, late.length), late);
  disk.clear("lost");
  await cluster.host("first").start();
  await cluster.inSync();
  const again = await cluster.client("first");
  expectEqual(await readAll(again, 8 * MIB, late.length), late);
});

testWithFaults(
  "claim 6: the first device fails; its own clients read on without an error",
  async () => {
    const disk = await faultyDisk();
    const cluster = await start({ store: (name) => (name === "first" ? disk.path : null) });
    const client = await cluster.client("first");
    const data = pattern(6, 8 * MIB);
    await writeAll(client, 0, data);
    await client.flush();
    disk.set("eio", "rwf");
    expect(await timed(client.read(0, MIB))).toBeLessThan(FAILOVER_LIMIT_MS);
    expectEqual(await readAll(client, 0, data.length), data);
    // A write finds the disk failed for good, and is executed all the same.
    const more = pattern(66, MIB);
    await client.write(16 * MIB, more);
    await client.flush();
    expectEqual(await client.read(16 * MIB, MIB), more);
    await cluster.until("second", "the disk is seen to have failed", ({ hosts }) =>
      hosts.some((entry) => entry.name === "first" && entry.disk === "failed" && entry.why !== ""),
    );
    const second = await cluster.client("second");
    expectEqual(await readAll(second, 0, data.length), data);
    expectEqual(await second.read(16 * MIB, MIB), more);
  },
);

testWithFaults(
  "claim 6: the first device is pulled; its own clients read and write on",
  async () => {
    const disk = await faultyDisk();
    const cluster = await start({ store: (name) => (name === "first" ? disk.path : null) });
    const client = await cluster.client("first");
    const load = new Load(client, { offset: 16 * MIB, bytes: 4 * MIB, seed: 6 });
    await load.progress(20);
    await disk.pull();
    await load.progress(50);
    const { expected, slowestMs } = await load.stop();
    expect(slowestMs).toBeLessThan(FAILOVER_LIMIT_MS);
    for (const name of ["first", "second"]) {
      expectEqual(await readAll(await cluster.client(name), 16 * MIB, 4 * MIB), expected);
    }
  },
);

async function secondDiskFails(
  writes: (first: NbdClient, second: NbdClient) => Promise<{ offset: number; data: Uint8Array }[]>,
): Promise<void> {
  const disk = await faultyDisk();
  const cluster = await start({ store: (name) => (name === "second" ? disk.path : null) });
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  const written = await writes(first, second);
  disk.set("eio", "rwf");
  for (const client of [second, first]) {
    for (const { offset, data } of written) {
      expectEqual(await readAll(client, offset, data.length), data);
    }
  }
  await second.write(48 * MIB, pattern(14, MIB));
  expectEqual(await first.read(48 * MIB, MIB), pattern(14, MIB));
}

testWithFaults(
  "claims 14, 15: data of the second server are read from the first device",
  async () => {
    await secondDiskFails(async (first, second) => {
      const own = { offset: 0, data: pattern(141, 4 * MIB) };
      const others = { offset: 16 * MIB, data: pattern(142, 4 * MIB) };
      await writeAll(first, own.offset, own.data);
      await writeAll(second, others.offset, others.data);
      return [own, others];
    });
  },
);

testWithFaults("claim 19: as 14, with contended writes before the failure", async () => {
  await secondDiskFails(async (first, second) => {
    for (let round = 0; round < 30; round++) {
      await Promise.all([
        first.write(0, pattern(1900 + round, 256 * 1024)),
        second.write(128 * 1024, pattern(1950 + round, 256 * 1024)),
      ]);
    }
    const data = await first.read(0, MIB);
    expectEqual(await second.read(0, MIB), data);
    return [{ offset: 0, data }];
  });
});

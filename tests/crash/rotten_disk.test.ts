/**
 * One host's disk that lies: rot under good copies in the page cache, sectors that cannot be read,
 * writes that are lost or go astray. Nobody reads the blocks; the scrub finds them on the medium
 * and they are rewritten from the other hosts, while no client sees an error.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { pattern } from "../tools/lab.ts";
import { Cluster } from "../tools/cluster.ts";
import { canFault, FaultDisk } from "../tools/fault_disk.ts";
import type { NbdClient } from "../tools/nbd_client.ts";
import type { StatusDocument } from "../../cmd/status_document.ts";
import { contentsOf } from "../tools/volume_content.ts";

const MIB = 1024 * 1024;
const BLOCK = 4096;
const STORE_BYTES = 128 * MIB;
const DATA_BYTES = MIB;

let cluster: Cluster | null = null;
let disk: FaultDisk | null = null;

afterEach(async () => {
  await Promise.all((cluster?.hosts ?? []).map((host) => host.kill()));
  await disk?.close();
  await cluster?.close();
  cluster = null;
  disk = null;
});

interface Rig {
  readonly cluster: Cluster;
  readonly disk: FaultDisk;
  readonly client: NbdClient;
  readonly data: Uint8Array;
}

/** Beta's store lies on the faulty disk; a megabyte of data is there and flushed. */
async function rig(): Promise<Rig> {
  const made = await Cluster.start({
    hosts: ["alpha", "beta", "gamma"],
    volumeBytes: 16 * MIB,
    storeBytes: STORE_BYTES,
    started: [],
    hostLines: () => ['scrub = "16M"'],
  });
  cluster = made;
  disk = await FaultDisk.mount(made.host("beta").store, STORE_BYTES);
  await Promise.all(made.hosts.map((host) => host.start()));
  await made.inSync();
  const client = await made.client("alpha");
  const data = pattern(11, DATA_BYTES);
  await client.write(MIB, data);
  await client.flush();
  return { cluster: made, disk, client, data };
}

type OwnStore = NonNullable<StatusDocument["hosts"][number]["store"]>;

function storeOf(status: StatusDocument): OwnStore {
  const store = status.hosts.find(({ name }) => name === status.host)?.store ?? null;
  if (store === null) throw new Error("the host has no store");
  return store;
}

/** A whole pass of beta's scrub that began after the call. */
async function scrubbed({ cluster: all }: Rig): Promise<OwnStore> {
  const { scrub } = storeOf(await all.host("beta").status());
  await all.host("beta").scrub();
  const status = await all.until("beta", "the scrub's pass is over, all is healed", (now) => {
    const store = storeOf(now);
    return store.scrub.passes > scrub.passes && store.badBlocksWaiting === 0;
  });
  return storeOf(status);
}

/** Beta's own disk is whole, and all hosts have the same bytes. */
async function expectWhole(all: Rig, expected: Uint8Array): Promise<void> {
  const before = (await scrubbed(all)).scrub.badBlocks;
  expect((await scrubbed(all)).scrub.badBlocks).toBe(before);
  const digests = new Set<string>();
  for (const name of ["alpha", "beta", "gamma"]) {
    const client = await all.cluster.client(name);
    expect(Buffer.compare(await client.read(MIB, expected.length), expected)).toBe(0);
    digests.add(await contentsOf(client));
    client.close();
  }
  expect(digests.size).toBe(1);
  expect((await all.cluster.stateOf("beta")).disk).toBe("ok");
}

describe.skipIf(!canFault)("a disk that rots", () => {
  test("fault 11: rot under the page cache: found on the medium, rewritten", async () => {
    const all = await rig();
    expect((await scrubbed(all)).scrub).toMatchObject({ badBlocks: 0, readsMedium: true });
    for (const block of [0, 17, 100, 255]) {
      const [at = 0] = all.disk.find(all.data.subarray(block * BLOCK, (block + 1) * BLOCK));
      expect(at).toBeGreaterThan(0);
      all.disk.rot(at + 100, 300);
    }
    const store = await scrubbed(all);
    expect(store.badBlocksHealed).toBe(4);
    expect(store.scrub.badBlocks).toBe(4);
    await expectWhole(all, all.data);
  }, 60_000);

  test("fault 8: a range that answers EIO: served from a mirror, rewritten", async () => {
    const all = await rig();
    const [first = 0] = all.disk.find(all.data.subarray(40 * BLOCK, 41 * BLOCK));
    all.disk.set("eio", `r ${first} ${first + 10 * BLOCK}`);
    const store = await scrubbed(all);
    expect(store.badBlocksHealed).toBeGreaterThanOrEqual(10);
    expect(store.badBlocksHealed).toBeLessThanOrEqual(13);
    const beta = await all.cluster.client("beta");
    expect(Buffer.compare(await beta.read(MIB, DATA_BYTES), all.data)).toBe(0);
    beta.close();
    await expectWhole(all, all.data);
  }, 60_000);

  test("fault 12: lost and misdirected writes: found on the medium, rewritten", async () => {
    const all = await rig();
    all.disk.set("misdirect", String(8 * MIB));
    await all.client.write(MIB, pattern(12, 64 * 1024));
    await all.client.flush();
    all.data.set(pattern(12, 64 * 1024));
    all.disk.set("lost");
    await all.client.write(MIB + 64 * 1024, pattern(13, 64 * 1024));
    all.disk.clear("lost");
    all.data.set(pattern(13, 64 * 1024), 64 * 1024);
    const store = await scrubbed(all);
    expect(store.badBlocksHealed).toBeGreaterThanOrEqual(17);
    await expectWhole(all, all.data);
  }, 60_000);

  test("fault 15: a flush that lied, then a crash: the mirrors' copy wins", async () => {
    const all = await rig();
    all.disk.set("lost");
    const newer = pattern(14, DATA_BYTES);
    await all.client.write(MIB, newer);
    await all.client.flush();
    await all.cluster.host("beta").kill();
    all.disk.clear("lost");
    await all.cluster.host("beta").start();
    await all.cluster.inSync();
    await expectWhole(all, newer);
  }, 60_000);
});

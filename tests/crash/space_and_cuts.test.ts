/**
 * A host alone whose disk is full of work (segments roll, the cleaner and checkpoints run), ended
 * at any moment: SIGKILL (FAULTS 2), a power cut that tears what was not flushed (FAULTS 1, 3), a
 * client that dies in the middle of a payload (FAULTS 6), SIGTERM (FAULTS 7).
 */
import { afterEach, describe, expect, test } from "bun:test";
import { SeededRandom } from "../../core/base/random.ts";
import {
  decodeSuperblock,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_COPIES,
  superblockOffset,
} from "../../core/format/superblock.ts";
import { Cluster } from "../tools/cluster.ts";
import { DurableLoad } from "../tools/durable_load.ts";
import { canFault, FaultDisk } from "../tools/fault_disk.ts";
import type { HostProcess } from "../tools/host_process.ts";
import { Cleanup, pattern, until } from "../tools/lab.ts";
import { COMMAND, NbdClient, NbdError } from "../tools/nbd_client.ts";
import { contentsOf } from "../tools/volume_content.ts";

const MIB = 1024 * 1024;
/** The smallest store: 25 segments of 4 MiB, of which some 25 MiB of data fit. */
const STORE_BYTES = 104 * MIB;
const VOLUME_BYTES = 20 * MIB;
const BLOCKS = VOLUME_BYTES / 4096;
const ESHUTDOWN = 108;

const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

async function single(started: readonly string[] = ["solo"]): Promise<Cluster> {
  const cluster = await Cluster.start({
    hosts: ["solo"],
    volumeBytes: VOLUME_BYTES,
    storeBytes: STORE_BYTES,
    started,
  });
  cleanup.add(async () => await cluster.close());
  return cluster;
}

async function clientOf(host: HostProcess): Promise<NbdClient> {
  const client = await NbdClient.connect({ uri: host.nbd });
  cleanup.add(() => client.abort());
  return client;
}

async function segmentsFree(cluster: Cluster): Promise<number> {
  return (await cluster.stateOf("solo")).store?.segmentsFree ?? -1;
}

/** The newest whole superblock says that the store was closed in order. */
async function isClean(path: string): Promise<boolean> {
  let newest = { generation: -1, clean: false };
  for (let copy = 0; copy < SUPERBLOCK_COPIES; copy += 1) {
    const at = superblockOffset(copy);
    const bytes = await Bun.file(path)
      .slice(at, at + SUPERBLOCK_BYTES)
      .bytes();
    const block = decodeSuperblock(bytes, 0, copy);
    if (block.kind !== "good" || block.value.generation <= newest.generation) continue;
    newest = { generation: block.value.generation, clean: block.value.clean };
  }
  return newest.clean;
}

test("fault 2: killed again and again while it cleans; no space is lost", async () => {
  const cluster = await single();
  const solo = cluster.host("solo");
  const load = new DurableLoad(BLOCKS, 3);
  const random = new SeededRandom(17);
  for (let life = 0; life < 12; life += 1) {
    const client = await clientOf(solo);
    const running = load.run(client, 8);
    const wanted = load.acked + 150 + random.below(250);
    await until("so many writes", () => load.acked >= wanted, 20_000);
    await solo.kill();
    await running;
    await solo.start();
    const again = await clientOf(solo);
    expect(await load.check(again, "kill")).toEqual([]);
    again.close();
  }
  // Several times the store has been written: without the cleaner it would have ended long ago.
  const free: number[] = [];
  for (let count = 0; count < 4; count += 1) {
    if (count % 2 === 0) await solo.kill();
    else expect(await solo.stop()).toBe(0);
    await solo.start();
    free.push(await segmentsFree(cluster));
  }
  expect(Math.min(...free.slice(1))).toBeGreaterThanOrEqual(free[0]! - 1);
  await solo.stop();
  const { code, stdout } = await solo.run(["recover", "check"]);
  expect(`${code} ${stdout}`).toStartWith("0 ");
}, 180_000);

describe.skipIf(!canFault)("a power cut on a disk with a volatile cache", () => {
  test("at the N-th write, torn: what was flushed is there, the rest is old or new", async () => {
    const cluster = await single([]);
    const solo = cluster.host("solo");
    const disk = await FaultDisk.mount(solo.store, STORE_BYTES);
    cleanup.add(async () => {
      await solo.kill();
      await disk.close();
    });
    const load = new DurableLoad(BLOCKS, 5);
    const random = new SeededRandom(29);
    for (let life = 0; life < 14; life += 1) {
      // The first lives end while the store is made, later ones also while it recovers.
      const least = life < 2 ? 12 : life % 3 === 0 ? 2 : 30;
      disk.set("cutafter", `${least + random.below(life % 3 === 0 ? 20 : 150)} ${life + 1}`);
      solo.spawn();
      const lived = liveUntilCut(solo, load, () => disk.isCut);
      await until("the power is cut", () => disk.isCut, 30_000);
      await solo.kill();
      await lived;
      await disk.powerOn();
      await solo.start();
      const client = await clientOf(solo);
      expect(await load.check(client, "power cut")).toEqual([]);
      const digest = await contentsOf(client);
      // Recovered twice, it is the same.
      await solo.kill();
      await solo.start();
      const again = await clientOf(solo);
      expect(await contentsOf(again)).toBe(digest);
      await solo.kill();
    }
    expect(load.flushes).toBeGreaterThan(10);
    await solo.start();
    await solo.stop();
    const { code, stdout } = await solo.run(["recover", "check"]);
    expect(`${code} ${stdout}`).toStartWith("0 ");
  }, 240_000);
});

/** Connects when the host lets it, and writes until the disk is gone. */
async function liveUntilCut(
  host: HostProcess,
  load: DurableLoad,
  isCut: () => boolean,
): Promise<void> {
  while (!isCut()) {
    try {
      const client = await NbdClient.connect({ uri: host.nbd });
      const running = load.run(client, 8);
      await until("the cut", () => isCut(), 30_000);
      client.abort();
      await running;
    } catch {
      await Bun.sleep(20);
    }
  }
}

test("fault 6: a client dies in the middle of a payload: not a byte of it is written", async () => {
  const cluster = await single();
  const solo = cluster.host("solo");
  const before = pattern(1, MIB);
  const client = await clientOf(solo);
  await client.write(0, before);
  for (const sentBytes of [0, 1, 4095, 4096, 65_536, MIB - 1]) {
    const dying = await NbdClient.connect({ uri: solo.nbd });
    const head = new Uint8Array(28);
    const view = new DataView(head.buffer);
    view.setUint32(0, 0x25609513);
    view.setUint16(6, COMMAND.write);
    view.setUint32(24, MIB);
    dying.raw(head);
    dying.raw(pattern(2, MIB).subarray(0, sentBytes));
    // Another request on its own connection is answered meanwhile, so the bytes have arrived.
    await client.flush();
    dying.abort();
    await client.flush();
    expect(Buffer.compare(await client.read(0, MIB), before)).toBe(0);
  }
  await cluster.until(
    "solo",
    "only one client is left",
    ({ volumes }) => volumes[0]?.clients === 1,
  );
  await solo.kill();
  await solo.start();
  expect(Buffer.compare(await (await clientOf(solo)).read(0, MIB), before)).toBe(0);
}, 60_000);

test("fault 7: SIGTERM under load: done or refused; nothing to recover", async () => {
  const cluster = await single();
  const solo = cluster.host("solo");
  const load = new DurableLoad(BLOCKS, 8);
  for (let round = 0; round < 4; round += 1) {
    const client = await clientOf(solo);
    const running = load.run(client, 16);
    const wanted = load.acked + 100;
    await until("so many writes", () => load.acked >= wanted);
    expect(await solo.stop()).toBe(0);
    const late = await client.write(0, new Uint8Array(4096)).catch((thrown) => thrown);
    if (late instanceof NbdError) expect(late.errno).toBe(ESHUTDOWN);
    else expect(late).toBeInstanceOf(Error);
    await running;
    expect(await isClean(solo.store)).toBe(true);
    await solo.start();
    expect(await isClean(solo.store)).toBe(false);
    const again = await clientOf(solo);
    expect(await load.check(again, "kill")).toEqual([]);
    again.close();
  }
}, 60_000);

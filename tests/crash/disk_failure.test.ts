/**
 * A disk that fails at run time: its host goes on for its clients through the others, says what
 * happened, and is rebuilt on a new disk.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { BlockLoad } from "../tools/block_load.ts";
import { canFault, FaultDisk, type FaultDiskKind } from "../tools/fault_disk.ts";
import type { HostProcess } from "../tools/host_process.ts";
import { contentsOf } from "../tools/volume_content.ts";

const MIB = 1024 * 1024;
const STORE_BYTES = 256 * MIB;
const VOLUME_BYTES = 16 * MIB;

let cluster: Cluster | null = null;
let disk: FaultDisk | null = null;
let load: BlockLoad | null = null;

afterEach(async () => {
  // A hanging disk would hold its host's process, even against SIGKILL.
  disk?.clear("hang");
  await load?.stop();
  await Promise.all((cluster?.hosts ?? []).map((host) => host.kill()));
  await disk?.close();
  await cluster?.close();
  cluster = null;
  disk = null;
  load = null;
});

interface Rig {
  readonly cluster: Cluster;
  readonly disk: FaultDisk;
  readonly load: BlockLoad;
  readonly beta: HostProcess;
}

/** A cluster in which beta's store lies on a disk with faults, and writers on every data host. */
async function rig(
  options: Partial<ClusterOptions> = {},
  diskKind: FaultDiskKind = "file",
): Promise<Rig> {
  const hosts = options.hosts ?? ["alpha", "beta", "gamma"];
  const made = await Cluster.start({
    hosts,
    volumeBytes: VOLUME_BYTES,
    storeBytes: STORE_BYTES,
    started: [],
    ...options,
  });
  cluster = made;
  const beta = made.host("beta");
  disk = await FaultDisk.mount(beta.store, STORE_BYTES, diskKind);
  await Promise.all(made.hosts.map((host) => host.start()));
  await made.inSync();
  load = new BlockLoad(
    made.hosts.filter((host) => host.kind === "data"),
    64,
    7,
  );
  load.start();
  await load.more(200);
  return { cluster: made, disk, load, beta };
}

/** Beta's disk is said to have failed, with a reason, by itself and by the others. */
async function untilFailed({ cluster: all }: Rig, timeoutMs = 15_000): Promise<string> {
  let why = "";
  for (const name of ["beta", "alpha"]) {
    const status = await all.until(
      name,
      "beta's disk has failed and beta left the members",
      ({ hosts, view }) => {
        const entry = hosts.find((host) => host.name === "beta");
        const isOut = view.majority && !view.members.includes("beta");
        return isOut && entry?.disk === "failed" && entry.state === "diskless";
      },
      timeoutMs,
    );
    why = status.hosts.find((host) => host.name === "beta")?.why ?? "";
    expect(why).not.toBe("");
  }
  const { volumes } = await all.until("beta", "beta's clients are served", ({ volumes }) =>
    volumes.every(({ io }) => io === "ok"),
  );
  expect(volumes[0]?.why).toBe("");
  return why;
}

/** Puts a new, empty disk where the failed one was, and rebuilds it through the running serve. */
async function rebuild({ cluster: all, disk: failed, load: writers, beta }: Rig): Promise<void> {
  await failed.pull();
  const { code, stdout, stderr } = await beta.run(["recover"]);
  expect(`${code} ${stdout} ${code === 0 ? "" : stderr}`).toBe(
    "0 vsan recover: beta is in sync\n ",
  );
  await writers.more(200);
  await writers.stop();
  await all.inSync();
  await expectSame(all, writers);
}

/** Every data host has every acknowledged write, and all have the same bytes. */
async function expectSame(all: Cluster, writers: BlockLoad): Promise<void> {
  const digests: string[] = [];
  for (const host of all.hosts.filter(({ kind, isRunning }) => kind === "data" && isRunning)) {
    const client = await all.client(host.name);
    expect(await writers.check(client)).toEqual([]);
    digests.push(await contentsOf(client));
    client.close();
  }
  expect(new Set(digests).size).toBe(1);
}

describe.skipIf(!canFault)("a disk that fails", () => {
  test("fault 9: EIO on writes; recover rebuilds through the running serve", async () => {
    const all = await rig();
    all.disk.set("eio", "w");
    expect(await untilFailed(all)).toMatch(/write|EIO/i);
    await all.load.more(300);
    expect(all.load.errorTexts).toEqual([]);
    expect(all.load.counts.breaks).toBe(0);
    await rebuild(all);
    expect(all.load.errorTexts).toEqual([]);
  });

  test("fault 10: EIO on one flush: the disk is never trusted again", async () => {
    const all = await rig();
    all.disk.set("eio", "f");
    const client = await all.cluster.client("beta");
    await client.flush();
    await untilFailed(all);
    all.disk.clear("eio");
    await client.flush();
    await all.load.more(300);
    expect((await all.cluster.stateOf("beta")).disk).toBe("failed");
    expect(all.load.errorTexts).toEqual([]);
    // The disk works again, but what it holds is not believed: it is rebuilt as well.
    await rebuild(all);
  });

  test("fault 16: the disk is pulled, and recover runs without a serve", async () => {
    const all = await rig();
    await all.disk.pull();
    await untilFailed(all);
    await all.load.more(200);
    expect(all.load.errorTexts).toEqual([]);
    await all.beta.kill();
    const { code, stdout, stderr } = await all.beta.run(["recover"]);
    expect(`${code} ${stdout} ${code === 0 ? "" : stderr}`).toBe(
      "0 vsan recover: beta is in sync\n ",
    );
    await all.beta.start();
    await all.cluster.inSync();
    await all.load.more(200);
    await all.load.stop();
    await expectSame(all.cluster, all.load);
  });

  test("fault 14: a disk that hangs is failed; nothing else waits for it longer", async () => {
    const all = await rig({ clusterLines: ['peer_timeout = "1s"'] }, "device");
    all.disk.set("hang");
    await all.cluster.until(
      "alpha",
      "beta is not a member",
      ({ view }) => view.open && !view.members.includes("beta"),
      15_000,
    );
    await all.load.more(200);
    expect(all.load.errorTexts).toEqual([]);
    await untilFailed(all, 30_000);
    all.disk.clear("hang");
    await rebuild(all);
  }, 90_000);

  test("a disk that hangs in every write (FUSE): clients of its host go on", async () => {
    const timeouts = {
      clusterLines: ['peer_timeout = "1s"'],
      hostLines: () => ['disk_timeout = "2s"'],
    };
    const all = await rig(timeouts, "file");
    all.disk.set("hang");
    const begun = performance.now();
    await untilFailed(all, 15_000);
    // Beta itself answered all the while: its loop waits for no write.
    expect(performance.now() - begun).toBeLessThan(10_000);
    await all.load.more(300);
    expect(all.load.errorTexts).toEqual([]);
    all.disk.clear("hang");
    await rebuild(all);
  }, 60_000);

  test("two data hosts alone: the other one goes on for both", async () => {
    const all = await rig({ hosts: ["alpha", "beta"] });
    all.disk.set("eio", "wf");
    await untilFailed(all);
    await all.load.more(300);
    expect(all.load.errorTexts).toEqual([]);
    await rebuild(all);
  });

  test("two data hosts and a witness", async () => {
    const all = await rig({ hosts: ["alpha", "beta", "wit"], kinds: { wit: "witness" } });
    all.disk.set("eio", "w");
    await untilFailed(all);
    await all.load.more(300);
    expect(all.load.errorTexts).toEqual([]);
    await rebuild(all);
  });
});

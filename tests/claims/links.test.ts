/**
 * The claims about the ways between the servers: a dedicated link, the shared network, one taking
 * over from the other, and a third server. Hosts are in network namespaces with two networks.
 */
import { afterEach, expect } from "bun:test";
import { expectEqual, readAll, writeAll } from "../tools/bytes.ts";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { Cleanup, pattern, testWith } from "../tools/lab.ts";
import { Load } from "../tools/load.ts";
import type { NbdClient } from "../tools/nbd_client.ts";
import { NEEDS_OF_NET_LAB, NetLab } from "../tools/net_lab.ts";

const MIB = 1024 * 1024;
/** A silence of 1 s and grants of 1 s to run out, with a wide margin for a busy machine. */
const STALL_LIMIT_MS = 6000;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

async function start(
  hosts: readonly string[],
  options: Partial<ClusterOptions>,
): Promise<{ lab: NetLab; cluster: Cluster }> {
  const lab = await NetLab.create(hosts);
  cleanup.add(() => lab.close());
  const cluster = await Cluster.start({
    hosts,
    storeBytes: 256 * MIB,
    ...lab.clusterOptions,
    ...options,
  });
  cleanup.add(() => cluster.close());
  await cluster.inSync();
  return { lab, cluster };
}

async function usesPath(cluster: Cluster, name: string, via: string): Promise<void> {
  await cluster.until(name, `its links go over the ${via} network`, ({ hosts, host }) => {
    const own = hosts.find((entry) => entry.name === host);
    const used = own?.paths.filter((path) => path.rttMicros >= 0) ?? [];
    return used.length === hosts.length - 1 && used.every((path) => path.via === via);
  });
}

/**
 * Until what both write is multicast. A start moves a link from one network to the other, and a new
 * link is served by the dedicated network until multicast was found to reach the host.
 */
async function servedByMulticast(
  clients: readonly NbdClient[],
  sent: (network: "shared") => Promise<number>,
): Promise<void> {
  const bytes = 256 * 1024;
  const until = performance.now() + STALL_LIMIT_MS;
  for (let isServed = false; !isServed; ) {
    expect(performance.now()).toBeLessThan(until);
    const before = await sent("shared");
    const writes = clients.map((client) => writeAll(client, 60 * MIB, pattern(14, bytes)));
    await Promise.all(writes);
    isServed = (await sent("shared")) - before > clients.length * bytes;
  }
}

for (const { mirror, other } of [
  { mirror: "dedicated", other: "shared" },
  { mirror: "shared", other: "dedicated" },
] as const) {
  const name = `claims 12, 13: the means for communicating is the ${mirror} network`;
  testWith(NEEDS_OF_NET_LAB, name, async () => {
    const { lab, cluster } = await start(["first", "second"], { mirror });
    await usesPath(cluster, "first", "dedicated");
    const clients = [await cluster.client("first"), await cluster.client("second")] as const;
    const data = [pattern(12, 16 * MIB), pattern(13, 16 * MIB)] as const;
    const sent = async (network: "dedicated" | "shared"): Promise<number> =>
      (await lab.sentBytes("first", network)) + (await lab.sentBytes("second", network));
    if (mirror === "shared") await servedByMulticast(clients, sent);
    const before = { used: await sent(mirror), unused: await sent(other) };
    await Promise.all([writeAll(clients[0], 0, data[0]), writeAll(clients[1], 32 * MIB, data[1])]);
    expect((await sent(mirror)) - before.used).toBeGreaterThan(32 * MIB);
    expect((await sent(other)) - before.unused).toBeLessThan(2 * MIB);
    expectEqual(await readAll(clients[1], 0, 16 * MIB), data[0]);
    expectEqual(await readAll(clients[0], 32 * MIB, 16 * MIB), data[1]);
  });
}

for (const mirror of ["dedicated", "shared"] as const) {
  const name = `claims 21, 22: the other network takes over from the ${mirror} one, and back`;
  testWith(NEEDS_OF_NET_LAB, name, async () => {
    const { lab, cluster } = await start(["first", "second"], { mirror });
    await usesPath(cluster, "first", "dedicated");
    const loads = [
      new Load(await cluster.client("first"), { offset: 0, bytes: 8 * MIB, seed: 21 }),
      new Load(await cluster.client("second"), { offset: 16 * MIB, bytes: 8 * MIB, seed: 22 }),
    ];
    await Promise.all(loads.map((load) => load.progress(50)));
    await lab.cable("second", mirror, false);
    await Promise.all(loads.map((load) => load.progress(50)));
    if (mirror === "dedicated") await usesPath(cluster, "first", "shared");
    await lab.cable("second", mirror, true);
    await usesPath(cluster, "first", "dedicated");
    await Promise.all(loads.map((load) => load.progress(50)));
    const results = await Promise.all(loads.map((load) => load.stop()));
    for (const { slowestMs } of results) expect(slowestMs).toBeLessThan(STALL_LIMIT_MS);
    await cluster.inSync();
    for (const host of ["first", "second"]) {
      const client = await cluster.client(host);
      for (const [index, { expected }] of results.entries()) {
        expectEqual(await readAll(client, index * 16 * MIB, 8 * MIB), expected);
      }
    }
  });
}

testWith(
  NEEDS_OF_NET_LAB,
  "claims 23, 24: three servers mirror to one another, whichever link is cut",
  async () => {
    const names = ["first", "second", "third"] as const;
    const { lab, cluster } = await start(names, {});
    await usesPath(cluster, "first", "dedicated");
    const loads: Load[] = [];
    for (const [index, name] of names.entries()) {
      const options = { offset: index * 16 * MIB, bytes: 8 * MIB, seed: 23 + index };
      loads.push(new Load(await cluster.client(name), options));
    }
    const pairs = [
      ["first", "second"],
      ["second", "third"],
      ["first", "third"],
    ] as const;
    for (const [one, other] of pairs) {
      await Promise.all(loads.map((load) => load.progress(20)));
      await lab.separate(one, other, ["dedicated", "shared"]);
      await Promise.all(loads.map((load) => load.progress(20)));
      await lab.join(one, other, ["dedicated", "shared"]);
      await cluster.inSync();
    }
    const results = await Promise.all(loads.map((load) => load.stop()));
    for (const { slowestMs } of results) expect(slowestMs).toBeLessThan(STALL_LIMIT_MS);
    for (const name of names) {
      const client = await cluster.client(name);
      for (const [index, { expected }] of results.entries()) {
        expectEqual(await readAll(client, index * 16 * MIB, 8 * MIB), expected);
      }
    }
  },
  120_000,
);

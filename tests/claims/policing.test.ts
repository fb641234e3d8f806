/**
 * The claims about policing: who may write a portion is settled between the servers before any
 * store is touched; by priority, then by time; and by all of them together, without a lock server.
 */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { expectEqual } from "../tools/bytes.ts";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { Cleanup, pattern, run, testWith, until } from "../tools/lab.ts";
import { NEEDS_OF_NET_LAB, NetLab } from "../tools/net_lab.ts";

const MIB = 1024 * 1024;
const CHUNK = 64 * 1024;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

async function start(options: Partial<ClusterOptions> = {}): Promise<Cluster> {
  const cluster = await Cluster.start({
    hosts: ["first", "second"],
    storeBytes: 256 * MIB,
    ...options,
  });
  cleanup.add(() => cluster.close());
  await cluster.inSync();
  return cluster;
}

interface Lease {
  readonly startByte: number;
  readonly endByte: number;
  readonly holder: string;
  readonly waiting: readonly string[];
}

async function leases(cluster: Cluster, name: string): Promise<Lease[]> {
  const { control } = cluster.host(name);
  return (await (await fetch("http://vsan/leases", { unix: control })).json()) as Lease[];
}

/** The holder of a byte as one host's policing module knows it; "" if nobody has it. */
async function holderOf(cluster: Cluster, name: string, byte: number): Promise<string> {
  const all = await leases(cluster, name);
  return all.find((lease) => lease.startByte <= byte && byte < lease.endByte)?.holder ?? "";
}

function priorities(of: Readonly<Record<string, number>>): Partial<ClusterOptions> {
  return {
    hosts: Object.keys(of),
    hostLines: (name) => [`priority = ${of[name]}`],
    // Waiting must not raise anybody's class while a test looks.
    sections: ['[policing]\naging = "60s"\ntimeout = "60s"'],
  };
}

/** Waits until a server's request is one of those that are numbered and pending. */
async function waits(cluster: Cluster, name: string): Promise<void> {
  await until(`${name} waits for access`, async () =>
    (await leases(cluster, name)).some((lease) => lease.waiting.includes(name)),
  );
}

/** Is the text in the store's file? */
async function isInStore(cluster: Cluster, name: string, text: string): Promise<boolean> {
  const { code } = await run(["grep", "-qaF", text, cluster.host(name).store]);
  return code === 0;
}

test("claim 7: a write without access touches no store", async () => {
  const cluster = await start();
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  await second.write(0, pattern(7, CHUNK));
  // It has the portion and, for now, does not hear that another server wants it.
  cluster.host("second").pause();
  const data = pattern(77, CHUNK);
  const token = `claim-7-${crypto.randomUUID()}`;
  data.set(new TextEncoder().encode(token));
  let isDone = false;
  const write = first.write(0, data).then(() => {
    isDone = true;
  });
  await waits(cluster, "first");
  expect(await holderOf(cluster, "first", 0)).toBe("second");
  for (const name of ["first", "second"]) {
    expect(await isInStore(cluster, name, token)).toBe(false);
  }
  expect(isDone).toBe(false);
  cluster.host("second").resume();
  await write;
  expectEqual(await second.read(0, CHUNK), data);
  for (const name of ["first", "second"]) {
    expect(await isInStore(cluster, name, token)).toBe(true);
  }
});

test("claim 16: overlapping writes exclude one another, disjoint ones do not", async () => {
  const cluster = await start();
  const clients = [await cluster.client("first"), await cluster.client("second")] as const;
  for (let round = 0; round < 40; round++) {
    const both = clients.map((_, index) => pattern(1600 + 2 * round + index, CHUNK));
    const own = clients.map((_, index) => pattern(1700 + 2 * round + index, CHUNK));
    await Promise.all(
      clients.flatMap((client, index) => [
        client.write(0, both[index] as Uint8Array),
        client.write((index + 1) * MIB, own[index] as Uint8Array),
      ]),
    );
    const seen = await Promise.all(clients.map((client) => client.read(0, CHUNK)));
    expectEqual(seen[1] as Uint8Array, seen[0] as Uint8Array);
    // Never a mixture of both.
    expect(both.some((data) => Buffer.compare(data, seen[0] as Uint8Array) === 0)).toBe(true);
    for (const [index, data] of own.entries()) {
      expectEqual(await clients[1 - index]!.read((index + 1) * MIB, CHUNK), data);
    }
  }
});

test("claim 17: the servers settle it by messages, which both of them trace", async () => {
  const cluster = await start({ serveFlags: ["--json"], environment: { VSAN_LOG: "debug" } });
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  await first.write(0, pattern(17, CHUNK));
  await second.write(0, pattern(18, CHUNK));
  await first.write(0, pattern(19, CHUNK));
  for (const name of ["first", "second"]) {
    const lines = readFileSync(cluster.host(name).logFile, "utf8").split("\n");
    const granted = lines
      .filter((line) => line.includes('"lease.granted"'))
      .map((line) => JSON.parse(line) as { start: number; holder: number })
      .filter(({ start }) => start === 0)
      .map(({ holder }) => holder);
    expect(granted).toEqual([0, 1, 0]);
  }
});

testWith(NEEDS_OF_NET_LAB, "claim 18: over the shared network, data by the link", async () => {
  const lab = await NetLab.create(["first", "second"]);
  cleanup.add(() => lab.close());
  const sections = ['[policing]\nnetwork = "shared"'];
  const cluster = await start({ ...lab.clusterOptions, sections });
  const [first, second] = [await cluster.client("first"), await cluster.client("second")];
  const sent = (network: "dedicated" | "shared"): Promise<number> =>
    lab.sentBytes("first", network);
  // Heartbeats leave the dedicated link for the shared network when the link was split.
  await until("policing messages go over the shared network", async () => {
    const before = [await sent("dedicated"), await sent("shared")] as const;
    await Bun.sleep(300);
    return (await sent("dedicated")) - before[0] < 500 && (await sent("shared")) - before[1] > 500;
  });
  const data = pattern(18, 8 * MIB);
  const before = await sent("shared");
  for (let round = 0; round < 8; round++) {
    await first.write(round * MIB, data.subarray(round * MIB, (round + 1) * MIB));
    await second.write(round * MIB, pattern(180, 4096));
    expect(await holderOf(cluster, "first", round * MIB)).toBe("second");
    await first.write(round * MIB, data.subarray(round * MIB, round * MIB + 4096));
  }
  expectEqual(await second.read(0, MIB), data.subarray(0, MIB));
  expect(await sent("dedicated")).toBeGreaterThan(8 * MIB);
  expect((await sent("shared")) - before).toBeLessThan(MIB);
  // Without the shared network policing goes by the link again.
  await lab.cable("second", "shared", false);
  await second.write(0, pattern(181, CHUNK));
  expectEqual(await first.read(0, CHUNK), pattern(181, CHUNK));
});

test("claim 25: every write request is policed, at every server alike", async () => {
  const cluster = await start();
  for (const [index, name] of ["first", "second", "first"].entries()) {
    const client = await cluster.client(name);
    const offset = (index % 2) * MIB + 3 * CHUNK;
    await client.write(offset, pattern(25 + index, CHUNK));
    for (const observer of ["first", "second"]) {
      await until(
        `${observer} knows the holder`,
        async () => (await holderOf(cluster, observer, offset)) === name,
      );
    }
    const other = await cluster.client(name === "first" ? "second" : "first");
    await other.write(offset, pattern(250 + index, CHUNK));
  }
});

/** `askers` ask in this order for what `third` has; the order in which they execute. */
async function orderOf(
  of: Readonly<Record<string, number>>,
  askers: readonly string[],
): Promise<string[]> {
  const cluster = await start(priorities(of));
  const keeper = await cluster.client("third");
  const clients = await Promise.all(askers.map((name) => cluster.client(name)));
  await keeper.write(0, pattern(26, CHUNK));
  await until("the first server knows who has the portion", async () => {
    return (await holderOf(cluster, "first", 0)) === "third";
  });
  // For a moment, much shorter than it takes to be voted out, it cannot give the portion away.
  cluster.host("third").pause();
  const order: string[] = [];
  const asks: Promise<unknown>[] = [];
  for (const [index, name] of askers.entries()) {
    const write = clients[index]?.write(0, pattern(260 + index, CHUNK));
    asks.push(Promise.resolve(write).then(() => order.push(name)));
    await waits(cluster, name);
  }
  expect(order).toEqual([]);
  cluster.host("third").resume();
  await Promise.all(asks);
  const last = askers.indexOf(order[1] as string);
  expectEqual(await keeper.read(0, CHUNK), pattern(260 + last, CHUNK));
  return order;
}

test("claim 26: a request of higher priority precedes an earlier one", async () => {
  const order = await orderOf({ first: 1, second: 4, third: 6 }, ["first", "second"]);
  expect(order).toEqual(["second", "first"]);
});

for (const askers of [
  ["first", "second"],
  ["second", "first"],
]) {
  test(`claim 26: of equal priority ${askers[0]} precedes, who asked earlier`, async () => {
    expect(await orderOf({ first: 2, second: 2, third: 6 }, askers)).toEqual(askers);
  });
}

test("claim 27: the policing modules do it together, and any host may be missing", async () => {
  const names = ["first", "second", "third"];
  const cluster = await start({ hosts: names });
  for (const missing of names) {
    const left = names.filter((name) => name !== missing);
    const clients = await Promise.all(left.map((name) => cluster.client(name)));
    await cluster.host(missing).kill();
    for (let round = 0; round < 5; round++) {
      const data = clients.map((_, index) => pattern(2700 + 2 * round + index, CHUNK));
      await Promise.all(clients.map((client, index) => client.write(0, data[index] as Uint8Array)));
      const seen = await clients[0]!.read(0, CHUNK);
      expect(data.some((each) => Buffer.compare(each, seen) === 0)).toBe(true);
      expectEqual(await clients[1]!.read(0, CHUNK), seen);
    }
    await cluster.host(missing).start();
    await cluster.inSync();
  }
});

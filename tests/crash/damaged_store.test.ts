/**
 * A store cut anywhere or with any byte changed: the host
 * opens it to a consistent state or says what is damaged, and the check finds out, offline. It
 * never shows a block that was not written, and never ends with a stack.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, openSync, readSync, truncateSync, writeSync, closeSync } from "node:fs";
import { SeededRandom } from "../../core/base/random.ts";
import { Cluster } from "../tools/cluster.ts";
import type { HostProcess } from "../tools/host_process.ts";
import { NbdClient, NbdError } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
const BLOCK = 4096;
const DATA_BLOCKS = 512;
const STORE_BYTES = 100 * MIB;
const SEED = Number(process.env.VSAN_SEED ?? 20261123);

let cluster: Cluster | null = null;
let solo: HostProcess;
let pristine = "";
/** Bytes of the file that are not zeros, as [offset, length] of whole blocks. */
const used: number[] = [];

/** Each block was written twice; this is what version `version` of it holds. */
function content(block: number, version: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK).fill(1 + ((block * 7 + version * 101) % 250));
  new DataView(bytes.buffer).setUint32(0, block);
  return bytes;
}

beforeAll(async () => {
  cluster = await Cluster.start({
    hosts: ["solo"],
    volumeBytes: 8 * MIB,
    storeBytes: STORE_BYTES,
  });
  solo = cluster.host("solo");
  const client = await NbdClient.connect({ uri: solo.nbd });
  for (let version = 1; version <= 2; version += 1) {
    const writes: Promise<void>[] = [];
    for (let block = 0; block < DATA_BLOCKS; block += 1) {
      writes.push(client.write(block * BLOCK, content(block, version)));
    }
    await Promise.all(writes);
    await client.flush();
  }
  client.close();
  await solo.kill();
  pristine = `${solo.store}.pristine`;
  copyFileSync(solo.store, pristine);
  const bytes = new Uint8Array(BLOCK);
  const fd = openSync(pristine, "r");
  for (let at = 0; at < Bun.file(pristine).size; at += BLOCK) {
    readSync(fd, bytes, 0, BLOCK, at);
    if (bytes.some((byte) => byte !== 0)) used.push(at);
  }
  closeSync(fd);
});
afterAll(async () => await cluster?.close());

/** Starts the host on what lies there; what its clients may see is checked, then it is killed. */
async function open(what: string): Promise<"served" | "refused"> {
  const ready = solo.start(4000).then(
    () => "ready" as const,
    () => "no" as const,
  );
  let outcome = await Promise.race([ready, untilFailed(what)]);
  if (outcome === "ended") outcome = await ready;
  if (outcome === "ready") await expectConsistent(what);
  await solo.kill();
  await ready;
  return outcome === "ready" ? "served" : "refused";
}

/** Resolves once the host says that its disk is no good, or has ended by itself. */
async function untilFailed(what: string): Promise<"failed" | "ended" | "no"> {
  for (;;) {
    await Bun.sleep(20);
    if (!solo.isRunning) return "ended";
    const status = await solo.status().catch(() => null);
    const own = status?.hosts[0];
    if (own?.disk !== "failed") continue;
    expect(`${what}: ${own.why}`).not.toBe(`${what}: `);
    return "failed";
  }
}

/** Every block is one that was written there, or an error for the client. */
async function expectConsistent(what: string): Promise<void> {
  const client = await NbdClient.connect({ uri: solo.nbd });
  try {
    for (let block = 0; block < DATA_BLOCKS; block += 1) {
      let found: Uint8Array;
      try {
        found = await client.read(block * BLOCK, BLOCK);
      } catch (thrown) {
        if (thrown instanceof NbdError && thrown.errno === 5) continue;
        throw new Error(`${what}: block ${block}: ${thrown}`);
      }
      const known = [content(block, 2), content(block, 1), new Uint8Array(BLOCK)];
      if (!known.some((each) => Bun.deepEquals(each, found))) {
        throw new Error(`${what}: block ${block} holds what nobody wrote there`);
      }
    }
  } finally {
    client.close();
  }
}

async function expectJudged(what: string): Promise<void> {
  const check = await solo.run(["recover", "check"], 20_000);
  expect(`${what}: ${check.stderr}`).not.toContain("    at ");
  expect([0, 4], `${what}: exit ${check.code}: ${check.stdout}${check.stderr}`).toContain(
    check.code,
  );
  await open(what);
  const log = await Bun.file(solo.logFile).text();
  expect(log, what).not.toContain("defect");
  expect(log, what).not.toContain("    at ");
}

test("the store as it is opens with everything", async () => {
  expect(used.length).toBeGreaterThan(DATA_BLOCKS);
  expect((await solo.run(["recover", "check"])).code).toBe(0);
  expect(await open("pristine")).toBe("served");
});

test("a byte changed anywhere", async () => {
  const random = new SeededRandom(SEED);
  for (let round = 0; round < 24; round += 1) {
    // A third in the superblocks and what comes first, the rest where data and index are.
    const list = round % 3 === 0 ? used.slice(0, 6) : used;
    const offset = random.pick(list) + random.below(round % 2 === 0 ? 256 : BLOCK);
    copyFileSync(pristine, solo.store);
    const fd = openSync(solo.store, "r+");
    const byte = new Uint8Array(1);
    readSync(fd, byte, 0, 1, offset);
    byte[0] = (byte[0] ?? 0) ^ (1 << random.below(8));
    writeSync(fd, byte, 0, 1, offset);
    closeSync(fd);
    await expectJudged(`seed ${SEED}: a bit of byte ${offset} changed`);
  }
});

test("fault 4: a stretch of garbage anywhere", async () => {
  const random = new SeededRandom(SEED + 1);
  for (let round = 0; round < 10; round += 1) {
    const start = random.pick(round % 3 === 0 ? used.slice(0, 6) : used);
    const garbage = new Uint8Array(1 + random.below(64 * 1024));
    for (let at = 0; at < garbage.length; at += 1) garbage[at] = random.below(256);
    copyFileSync(pristine, solo.store);
    const fd = openSync(solo.store, "r+");
    writeSync(fd, garbage, 0, garbage.length, start);
    closeSync(fd);
    await expectJudged(`seed ${SEED + 1}: ${garbage.length} bytes of garbage at ${start}`);
  }
});

test("a repair leaves a store that opens in order, and says what is lost", async () => {
  const random = new SeededRandom(SEED + 3);
  for (let round = 0; round < 6; round += 1) {
    copyFileSync(pristine, solo.store);
    const fd = openSync(solo.store, "r+");
    // One copy of the superblock, and some places where data, index and log are.
    writeSync(fd, new Uint8Array(64).fill(round + 1), 0, 64, 65536 * (round % 4));
    for (let spot = 0; spot <= round; spot += 1) {
      writeSync(fd, new Uint8Array(16).fill(0x5a), 0, 16, random.pick(used.slice(4)) + 600);
    }
    closeSync(fd);
    const what = `seed ${SEED + 3}, round ${round}`;
    const before = await solo.run(["recover", "check", "--json"], 20_000);
    expect(before.code, what).toBe(4);
    expect(JSON.parse(before.stdout).structure[0].kind, what).toBe("superblock");
    const repaired = await solo.run(["recover", "check", "--repair", "--json"], 20_000);
    const left = JSON.parse(repaired.stdout);
    expect(left.repaired.structure, what).toEqual(JSON.parse(before.stdout).structure);
    expect(left.structure, what).toEqual([]);
    const isLossy = left.damaged.length > 0 || left.lostRecords > 0;
    expect(repaired.code, `${what}: ${repaired.stderr}`).toBe(isLossy ? 4 : 0);
    const after = await solo.run(["recover", "check", "--json"], 20_000);
    expect(JSON.parse(after.stdout), what).toEqual({ ...left, repaired: null });
    expect(await open(what)).toBe("served");
  }
}, 60_000);

test("cut anywhere", async () => {
  const random = new SeededRandom(SEED + 2);
  const cuts = [1, 4095, 4096, 65536, 262144, STORE_BYTES / 2, STORE_BYTES - 1];
  for (let round = 0; round < 5; round += 1) cuts.push(random.below(STORE_BYTES));
  for (const cut of cuts) {
    copyFileSync(pristine, solo.store);
    truncateSync(solo.store, cut);
    await expectJudged(`seed ${SEED + 2}: cut to ${cut} bytes`);
  }
});

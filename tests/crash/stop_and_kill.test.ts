/**
 * Hosts that end, in order or not, under load: nothing acknowledged is lost, the copies are the
 * same, and an orderly end is quick. SIGKILL keeps what the operating system has.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { BlockLoad } from "../tools/block_load.ts";
import { Cluster } from "../tools/cluster.ts";
import { NbdClient, NbdError } from "../tools/nbd_client.ts";
import { contentsOf } from "../tools/volume_content.ts";

const MIB = 1024 * 1024;
const NAMES = ["alpha", "beta", "gamma"];
const ESHUTDOWN = 108;

let cluster: Cluster | null = null;
let load: BlockLoad | null = null;

afterEach(async () => {
  await load?.stop();
  await cluster?.close();
  load = null;
  cluster = null;
});

async function made(hosts: readonly string[]): Promise<Cluster> {
  cluster = await Cluster.start({ hosts, volumeBytes: 16 * MIB, storeBytes: 256 * MIB });
  await cluster.inSync();
  return cluster;
}

async function loaded(all: Cluster): Promise<BlockLoad> {
  load = new BlockLoad(all.hosts, 64, 11);
  load.start();
  await load.more(200);
  return load;
}

/** When a host logged an event, ms since the epoch. */
async function timesOf(logFile: string, code: string): Promise<number[]> {
  const lines = (await Bun.file(logFile).text()).split("\n");
  return lines
    .filter((line) => line.includes(` ${code}: `))
    .map((line) => Date.parse(line.split(" ")[0] ?? ""));
}

async function expectSame(all: Cluster, writers: BlockLoad): Promise<void> {
  const digests: string[] = [];
  for (const { name } of all.hosts) {
    const client = await all.client(name);
    expect(await writers.check(client)).toEqual([]);
    digests.push(await contentsOf(client));
    client.close();
  }
  expect(new Set(digests).size).toBe(1);
}

describe("killed", () => {
  test("each host in turn, back before anybody noticed", async () => {
    const all = await made(NAMES);
    const writers = await loaded(all);
    for (const name of [...NAMES, ...NAMES]) {
      await all.host(name).kill();
      await all.host(name).start();
      await writers.more(200);
    }
    await all.inSync();
    await writers.stop();
    expect(writers.errorTexts).toEqual([]);
    await expectSame(all, writers);
  });

  test.each([[["gamma", "beta", "alpha"]], [["beta", "alpha", "gamma"]]])(
    "all at once, back in the order %p",
    async (order) => {
      const all = await made(NAMES);
      const writers = await loaded(all);
      await Promise.all(all.hosts.map((host) => host.kill()));
      for (const name of order) {
        const host = all.host(name);
        host.spawn();
        // The next one comes when this one answers, whatever it can do alone.
        await all.until(name, "answers", () => true);
      }
      await all.inSync();
      await writers.more(200);
      await writers.stop();
      await expectSame(all, writers);
    },
  );

  test("a host alone, again and again", async () => {
    const all = await made(["solo"]);
    const writers = await loaded(all);
    for (let round = 0; round < 4; round += 1) {
      await all.host("solo").kill();
      await all.host("solo").start();
      await writers.more(200);
    }
    await writers.stop();
    await expectSame(all, writers);
  });
});

describe("stopped in order", () => {
  test("an idle host ends within 300 ms, one that is alone within 200 ms", async () => {
    const all = await made(NAMES);
    for (const name of ["gamma", "beta", "alpha"]) {
      const begun = performance.now();
      expect(await all.host(name).stop()).toBe(0);
      expect(performance.now() - begun).toBeLessThan(name === "alpha" ? 200 : 300);
    }
    // From the signal to the view without the host, as both tell it.
    const stopping = await timesOf(all.host("gamma").logFile, "serve.stopping");
    const opened = await timesOf(all.host("alpha").logFile, "view.opened");
    const handedOver = opened.find((at) => at >= (stopping[0] ?? 0)) ?? Number.NaN;
    expect(handedOver - (stopping[0] ?? Number.NaN)).toBeLessThan(200);
  });

  test("under load the others go on at once, and nothing is lost", async () => {
    const all = await made(NAMES);
    const writers = await loaded(all);
    for (const name of NAMES) {
      writers.resetStall();
      expect(await all.host(name).stop()).toBe(0);
      await writers.more(100);
      // Their own host's writers wait for it; the others' may be held up by the hand-over only.
      expect(writers.longestStallMs).toBeLessThan(600);
      await all.host(name).start();
      await all.inSync();
      await writers.more(100);
    }
    await writers.stop();
    for (const text of writers.errorTexts) expect(text).toContain(`error ${ESHUTDOWN}`);
    await expectSame(all, writers);
    for (const host of all.hosts) expect(await host.stop()).toBe(0);
    for (const host of all.hosts) {
      const { code, stdout } = await host.run(["recover", "check"]);
      expect(`${code} ${stdout}`).toStartWith("0 ");
    }
  });

  test("requests in flight are answered, done or refused", async () => {
    const all = await made(["solo"]);
    const client = await NbdClient.connect({ uri: all.host("solo").nbd });
    const answers: Promise<string>[] = [];
    for (let at = 0; at < 64; at += 1) {
      const write = client.write(at * 65536, new Uint8Array(65536).fill(at + 1));
      answers.push(
        write.then(
          () => "done",
          (thrown) => (thrown instanceof NbdError ? `errno ${thrown.errno}` : "broken"),
        ),
      );
    }
    expect(await all.host("solo").stop()).toBe(0);
    const seen = await Promise.all(answers);
    client.abort();
    await all.host("solo").start();
    const again = await all.client("solo");
    for (const [at, answer] of seen.entries()) {
      expect(["done", `errno ${ESHUTDOWN}`, "broken"]).toContain(answer);
      const found = await again.read(at * 65536, 65536);
      if (answer === "done") expect(found).toEqual(new Uint8Array(65536).fill(at + 1));
    }
  });
});

test("hosts that start together meet on the dedicated link, and stay there", async () => {
  const all = await made(NAMES);
  for (const name of NAMES) {
    const answer = await fetch("http://vsan/events", { unix: all.host(name).control });
    const events = (await answer.text()).trim().split("\n");
    const ups = events.map((line) => JSON.parse(line)).filter(({ code }) => code === "link.up");
    expect(ups.map(({ text }) => text).filter((text) => !text.includes("dedicated"))).toEqual([]);
    expect(ups.map(({ text }) => text).sort()).toHaveLength(2);
  }
});

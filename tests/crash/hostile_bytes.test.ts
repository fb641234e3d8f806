/**
 * Anything at all on every socket of running hosts: that
 * connection ends, and nothing else: the good clients write on all the time without an error, the
 * view stays, memory stays bounded, and strangers hear why they are refused.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { LANE } from "../../core/base/ports.ts";
import { SeededRandom } from "../../core/base/random.ts";
import { LINK_ID_BYTES } from "../../core/format/handshake_wire.ts";
import { BlockLoad } from "../tools/block_load.ts";
import { Cluster } from "../tools/cluster.ts";
import {
  dialLink,
  garbage,
  RawConnection,
  residentBytes,
  type Stranger,
  type Target,
} from "../tools/hostile.ts";
import { NbdClient } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
const SEED = Number(process.env.VSAN_SEED ?? 20261123);
const GROWTH_BYTES_MAX = 192 * MIB;
/** A good NBD greeting: client flags, then an option header that is still to come. */
const CLIENT_FLAGS = Uint8Array.of(0, 0, 0, 3);
const OPTION_MAGIC = Uint8Array.from(Buffer.from("IHAVEOPT"));

let cluster: Cluster;
let load: BlockLoad;
let epoch = 0;
let residentBefore = 0;
let nbd: Target;
let link: Target;
let shared = 0;

beforeAll(async () => {
  cluster = await Cluster.start({
    hosts: ["gamma", "alpha", "beta"],
    mirror: "shared",
    volumeBytes: 16 * MIB,
    storeBytes: 256 * MIB,
  });
  await cluster.inSync();
  // Strangers pretend to be gamma, which as the first of the roster dials the others.
  await cluster.host("gamma").stop();
  await cluster.until(
    "alpha",
    "gamma is out",
    ({ view }) => view.open && view.members.length === 2,
  );
  const sections = readFileSync(cluster.configFile, "utf8").split("[[host]]");
  const config = sections.find((section) => section.includes('name = "alpha"')) ?? "";
  const port = (key: string): number =>
    Number(new RegExp(`^${key} = .*:(\\d+)"`, "m").exec(config)?.[1] ?? 0);
  nbd = { hostname: "127.0.0.1", port: port("nbd") };
  link = { hostname: "127.0.0.1", port: port("link") };
  shared = port("shared");
  load = new BlockLoad([cluster.host("alpha"), cluster.host("beta")], 64, SEED);
  load.start();
  await load.more(500);
  epoch = (await cluster.host("alpha").status()).view.epoch;
  residentBefore = residentBytes(cluster.host("alpha").pid);
});

/** After each attack everything is as before. */
afterEach(async () => {
  await load.more(50);
  expect(load.errorTexts).toEqual([]);
  expect(load.counts.breaks).toBe(0);
  const { view } = await cluster.host("alpha").status();
  expect(view.members).toEqual(["alpha", "beta"]);
  expect(view.epoch).toBe(epoch);
  const grown = residentBytes(cluster.host("alpha").pid) - residentBefore;
  expect(grown).toBeLessThan(GROWTH_BYTES_MAX);
  const log = readFileSync(cluster.host("alpha").logFile, "utf8");
  expect(log).not.toContain("defect");
  expect(log).not.toContain("    at ");
});

afterAll(async () => {
  await load.stop();
  const client = await cluster.client("alpha");
  const wrong = await load.check(client);
  await cluster.close();
  expect(wrong).toEqual([]);
});

/** Sends each of `messages` on a connection of its own; all of them end, at the latest by us. */
async function attack(target: Target, messages: readonly Uint8Array[]): Promise<void> {
  for (let first = 0; first < messages.length; first += 16) {
    const some = messages.slice(first, first + 16);
    const connections = await Promise.all(some.map(() => RawConnection.open(target)));
    for (const [index, connection] of connections.entries()) {
      connection.say(some[index] ?? new Uint8Array(0));
    }
    await Promise.all(connections.map((connection) => connection.untilClosed(200)));
    for (const connection of connections) connection.end();
  }
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

describe("NBD", () => {
  test("random bytes, and random options behind a good greeting", async () => {
    const random = new SeededRandom(SEED);
    const messages: Uint8Array[] = [];
    for (let index = 0; index < 160; index += 1) {
      const noise = garbage(random, 1 + random.below(4096));
      const isOption = index % 2 === 0;
      messages.push(isOption ? joined(CLIENT_FLAGS, OPTION_MAGIC, noise) : noise);
    }
    // A header that announces 4 GiB of option data.
    messages.push(
      joined(CLIENT_FLAGS, OPTION_MAGIC, Uint8Array.of(0, 0, 0, 7, 255, 255, 255, 255)),
    );
    await attack(nbd, messages);
  });

  test("random requests of clients that negotiated well", async () => {
    const random = new SeededRandom(SEED + 1);
    for (let index = 0; index < 60; index += 1) {
      const client = await NbdClient.connect({ uri: cluster.host("alpha").nbd });
      const bytes = garbage(random, 28 + random.below(2000));
      // The right magic, and then commands and lengths out of a hat.
      if (index % 3 !== 0) bytes.set([0x25, 0x60, 0x95, 0x13], 0);
      // No writes: what strangers may write is not the question here.
      if (index % 3 !== 0 && bytes[7] === 1) bytes[7] = 0;
      client.raw(bytes);
      if (index % 4 === 0) await client.untilEnded(100);
      client.abort();
    }
  });
});

describe("the link", () => {
  const stranger = (changes: Partial<Stranger> = {}): Stranger => {
    const text = readFileSync(join(cluster.directory, "cluster.key"), "utf8");
    const key = new Uint8Array(Buffer.from(text.trim(), "base64"));
    return { target: link, self: 0, peer: 1, key, clusterName: "test", ...changes };
  };

  async function saidOnBothSides(changes: Partial<Stranger>, sentence: RegExp): Promise<void> {
    const { connection, handshake } = await dialLink(stranger(changes));
    await connection.untilClosed(1000);
    expect(handshake.state).toBe("failed");
    expect(handshake.why).toMatch(sentence);
    const events = await cluster.host("alpha").run(["mirror", "events"]);
    expect(events.stdout).toMatch(sentence);
  }

  test("a wrong key", () =>
    saidOnBothSides({ key: new Uint8Array(32).fill(5) }, /does not have this cluster's key/));
  test("another cluster", () => saidOnBothSides({ clusterName: "prod" }, /different names/));
  test("another version", () => saidOnBothSides({ versions: [90, 99] }, /version/));

  test("random bytes and spoiled handshakes", async () => {
    const random = new SeededRandom(SEED + 2);
    const messages: Uint8Array[] = [];
    for (let index = 0; index < 100; index += 1) {
      messages.push(garbage(random, 1 + random.below(4096)));
    }
    await attack(link, messages);
    for (let index = 0; index < 60; index += 1) {
      const spoil = (bytes: Uint8Array): Uint8Array => {
        const copy = bytes.slice();
        copy[random.below(copy.length)] = random.below(256);
        return random.chance(0.2) ? copy.subarray(0, random.below(copy.length)) : copy;
      };
      const dialled = dialLink(stranger({ spoil }));
      await Promise.race([dialled, Bun.sleep(100)]);
      void dialled.then(({ connection }) => connection.end());
    }
  });

  test("garbage behind good handshakes: the link is reset, again and again", async () => {
    const random = new SeededRandom(SEED + 3);
    for (let index = 0; index < 20; index += 1) {
      const id = garbage(random, LINK_ID_BYTES);
      const lanes = await Promise.all(
        [LANE.control, LANE.data].map((lane) => dialLink(stranger({ lane, link: id }))),
      );
      for (const { connection, handshake } of lanes) {
        expect(handshake.why).toBe("");
        connection.onData = () => {};
      }
      lanes[index % 2]?.connection.say(garbage(random, 64 + random.below(8192)));
      await lanes[index % 2]?.connection.untilClosed(500);
      for (const { connection } of lanes) connection.end();
    }
  });
});

describe("the control socket", () => {
  test("random bytes, endless headers, large bodies, wrong paths", async () => {
    const random = new SeededRandom(SEED + 4);
    const text = (line: string): Uint8Array => new TextEncoder().encode(line);
    const head = "POST /recover HTTP/1.1\r\nHost: vsan\r\n";
    const messages = [
      text(`GET /${"a".repeat(100_000)} HTTP/1.1\r\n\r\n`),
      text(`GET /status HTTP/1.1\r\nX: ${"b".repeat(200_000)}\r\n\r\n`),
      text(`${head}Content-Length: 99999999999\r\n\r\n${"{".repeat(70_000)}`),
      text(`${head}Content-Length: 2\r\n\r\n{}`),
      text(`${head}Transfer-Encoding: chunked\r\n\r\nffffffff\r\n${"x".repeat(90_000)}`),
      text("GET /../../etc/passwd HTTP/1.1\r\nHost: vsan\r\n\r\n"),
    ];
    for (let index = 0; index < 60; index += 1) {
      messages.push(garbage(random, 1 + random.below(4096)));
    }
    await attack({ unix: cluster.host("alpha").control }, messages);
  });
});

describe("datagrams", () => {
  test("random ones to the group and to the host", async () => {
    const random = new SeededRandom(SEED + 5);
    const socket = createSocket("udp4");
    await new Promise<void>((done) => {
      socket.bind(0, "127.0.0.1", done);
    });
    socket.setMulticastInterface("127.0.0.1");
    for (let index = 0; index < 2000; index += 1) {
      const bytes = garbage(random, 1 + random.below(1400));
      if (index % 2 === 0) socket.send(bytes, 7441, "239.255.74.40");
      else socket.send(bytes, shared, "127.0.0.1");
      if (index % 100 === 0) await load.more(1);
    }
    await load.more(50);
    await new Promise<void>((done) => {
      socket.close(done);
    });
  });
});

test("silent connections keep nobody out, and end at their deadline", async () => {
  const targets: Target[] = [];
  for (let index = 0; index < 200; index += 1) targets.push(nbd);
  for (let index = 0; index < 100; index += 1) targets.push(link);
  const silent = await Promise.all(targets.map((target) => RawConnection.open(target)));
  const good = await NbdClient.connect({ uri: cluster.host("alpha").nbd });
  expect((await good.read(8 * MIB, 4096)).length).toBe(4096);
  good.close();
  await load.more(100);
  const ended = await Promise.all(silent.map((connection) => connection.untilClosed(20_000)));
  for (const connection of silent) connection.end();
  expect(ended.filter((isClosed) => !isClosed)).toHaveLength(0);
}, 40_000);

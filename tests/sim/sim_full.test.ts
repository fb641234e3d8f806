/**
 * Stores of different sizes that fill up (FAULTS 13): the writer sees ENOSPC before any mirror is
 * over its limit, since a mirror cannot refuse; trims make room; nobody leaves the view for it.
 */
import { describe, expect, test } from "bun:test";
import { KIB, MIB } from "../../core/base/units.ts";
import { World } from "./world.ts";
import type { ClientLoad } from "./sim_client.ts";

const kinds = ["data", "data", "data"] as const;
/** 24 segments, the fewest there can be, take 2.9 MiB of data; the volume has 6 MiB. */
const SMALL_BYTES = 12.25 * MIB;

const load: ClientLoad = {
  depth: 8,
  blocks: 1400,
  writeShare: 0.9,
  flushShare: 0.01,
  zeroShare: 0.06,
  fuaShare: 0.02,
  thinkMs: 2,
  lengthMax: 12,
  flushesEach: false,
};

/** The bytes of data of each store never exceed what it says it takes. */
function watch(world: World, untilMs: number): void {
  while (world.now() < untilMs) {
    world.run(world.now() + 5);
    for (const node of world.nodes) {
      const store = node.host?.inside.parts.store ?? null;
      if (store === null || !store.isOpen) continue;
      expect(store.dataBytes).toBeLessThanOrEqual(store.sizeBytes);
    }
  }
}

function open(seed: number, smallIndex: number): World {
  const diskBytes = (index: number): number => (index === smallIndex ? SMALL_BYTES : 24 * MIB);
  const rest = { mirror: "dedicated", ack: "sync", clientsPerHost: 1 } as const;
  const world = new World({ seed, kinds, ...rest, load, diskBytes });
  world.startAll();
  world.run(1500);
  return world;
}

describe("the smallest store of a cluster is full", () => {
  test.each([1, 2])(
    "writers everywhere, seed %d",
    (seed) => {
      const world = open(seed, seed % 3);
      const views = world.opens;
      world.connectClients();
      watch(world, 3000);
      expect(world.errors).toBeGreaterThan(50);
      const before = world.completed - world.errors;
      watch(world, 4000);
      // It goes on: overwrites, and new blocks where others were trimmed.
      expect(world.completed - world.errors).toBeGreaterThan(before + 500);
      const status = world.nodes.map((node) => node.host?.status(node.nowMs()));
      const whys = status.flatMap((each) => each?.volumes.map((volume) => volume.why) ?? []);
      const sentence = `writes to new blocks are refused: the store of host${seed % 3} is full`;
      expect(whys).toContain(sentence);
      const row = status[(seed + 1) % 3]?.hosts[seed % 3];
      expect(row?.state).toBe("in-sync");
      expect(row?.why).toMatch(/% full$|refused/);
      world.stopClients();
      world.run(6000);
      expect(world.inFlight).toBe(0);
      expect(world.opens).toBe(views);
      world.checkHistories();
    },
    180_000,
  );

  test.each([3, 6, 10])(
    "a host with less room than there is data says so, seed %d",
    (seed) => {
      const world = open(seed, 2);
      const small = world.nodes[2]!;
      small.kill();
      world.run(4000);
      world.connectClients();
      world.run(5500);
      const inUse = world.nodes[0]?.host?.inside.parts.store?.dataBytes ?? 0;
      expect(inUse).toBeGreaterThan(3.2 * MIB);
      small.start();
      world.run(7500);
      const status = small.host?.status(small.nowMs());
      const own = status?.hosts.find(({ name }) => name === "host2");
      expect(own?.state).toBe("diskless");
      expect(own?.why).toContain("the store is too small: it takes");
      // The others go on, with and for its clients.
      const before = world.completed - world.errors;
      world.connectClients();
      world.run(8500);
      expect(world.completed - world.errors).toBeGreaterThan(before + 300);
      world.stopClients();
      world.run(11_000);
      world.checkHistories();
    },
    180_000,
  );

  test("joining a fuller cluster with the smallest store that fits", () => {
    const world = open(5, 1);
    const small = world.nodes[1]!;
    world.connectClients();
    watch(world, 2500);
    world.stopClients();
    watch(world, 3500);
    small.kill();
    world.run(5000);
    small.start();
    world.run(12_000);
    const status = small.host?.status(small.nowMs());
    expect(status?.hosts[1]?.why).not.toContain("too small");
    expect(status?.view.members).toContain("host1");
    world.checkHistories();
  }, 180_000);
});

test("the threshold of the smallest segment count is what the comment says", () => {
  const world = open(1, 0);
  const size = world.nodes[0]?.host?.inside.parts.store?.sizeBytes ?? 0;
  expect(size / MIB).toBeGreaterThan(2.5);
  expect(size / MIB).toBeLessThan(3.2);
  expect(size % (4 * KIB)).toBe(0);
});

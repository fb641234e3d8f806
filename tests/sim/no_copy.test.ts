/**
 * FAULTS 34: a host is rebuilt from the only copy there is, and some of its blocks cannot be read.
 * Those are named, and lost on both hosts; everything else is copied; nothing turns into zeros or
 * into what the new disk's host had before.
 */
import { expect, test } from "bun:test";
import { OUTCOME, type Outcome } from "../../core/base/outcome.ts";
import type { SimNode } from "./node.ts";
import { World } from "./world.ts";

const BLOCKS = 200;
const LOAD = {
  depth: 4,
  blocks: BLOCKS,
  writeShare: 0.9,
  flushShare: 0.05,
  zeroShare: 0.05,
  fuaShare: 0,
  lengthMax: 3,
  flushesEach: false,
  thinkMs: 2,
};

/** What each block reads as on this host's own store; "bad" if it never does. */
function contents(world: World, node: SimNode): string[] {
  const inside = node.host?.inside;
  if (inside === undefined || inside.parts.store === null) throw new Error("no store");
  const { store, ops } = inside.parts;
  const bytes = new Uint8Array(4096);
  return Array.from({ length: BLOCKS }, (_, index) => {
    const op = ops.take();
    if (op === null) throw new Error("no slot for the check's read");
    const lba = world.place(index);
    const read = (): Outcome => store.read(op.index, world.volume, lba, 1, bytes, 0);
    let outcome = read();
    for (let tries = 0; outcome === OUTCOME.pending && tries < 100; tries += 1) {
      world.run(world.now() + 5);
      outcome = read();
    }
    ops.free(op);
    return outcome === OUTCOME.ok ? Buffer.from(bytes).toString("base64", 0, 48) : "bad";
  });
}

test.each([1, 2, 3, 4])(
  "fault 34: blocks without a good copy anywhere, seed %d",
  (seed) => {
    const lines: string[] = [];
    const world = new World({
      seed,
      kinds: ["data", "data", "witness"],
      mirror: "dedicated",
      ack: "sync",
      clientsPerHost: 1,
      load: LOAD,
      log: (line) => lines.push(line),
    });
    const [source, target] = world.nodes as [SimNode, SimNode, SimNode];
    world.startAll();
    world.run(1000);
    world.connectClients();
    world.run(4000);
    world.stopClients();
    world.run(5000);
    target.kill();
    world.run(8000);
    const store = source.host?.inside.parts.store;
    const before = contents(world, source);
    const bad = [3, 4, 5, 77, 150].filter((index) => {
      const place = store?.placeOf(world.volume, world.place(index)) ?? 0;
      if (place > 1) source.disk?.media.flip(place * 16 + 700, 4);
      return place > 1;
    });
    expect(bad.length).toBeGreaterThan(2);
    world.replaceDisk(target);
    const isWhole = (): boolean =>
      target.host?.inside.parts.serving === true && target.host.inside.change.role === "member";
    for (let tries = 0; !isWhole() && tries < 400; tries += 1) world.run(world.now() + 100);
    expect(isWhole()).toBe(true);
    const copied = contents(world, target);
    expect(copied).toEqual(before.map((value, index) => (bad.includes(index) ? "bad" : value)));
    expect(contents(world, source)).toEqual(copied);
    for (const index of bad) {
      const named = `block ${world.place(index)} of vol0: no host has a good copy of it`;
      expect(lines.some((line) => line.includes(`1 warn store.bad ${named}`))).toBe(true);
    }
    // It stays so over a power cut and another copy.
    target.powerCut();
    target.start();
    for (let tries = 0; !isWhole() && tries < 400; tries += 1) world.run(world.now() + 100);
    expect(contents(world, target)).toEqual(copied);
  },
  60_000,
);

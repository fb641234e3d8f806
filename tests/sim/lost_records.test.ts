/**
 * A store that lost durable records to rot never brings old blocks back: it joins and copies, and
 * a cold start waits for the others rather than going on from it (R12a, R13).
 */
import { expect, test } from "bun:test";
import { BATCH_HEADER_BYTES, BatchHeader, decodeBatchHeader } from "../../core/format/segment.ts";
import { LOG_LANE } from "../../core/format/segment.ts";
import type { SimNode } from "./node.ts";
import { World } from "./world.ts";

const LOAD = {
  depth: 2,
  blocks: 64,
  writeShare: 0.8,
  flushShare: 0.3,
  zeroShare: 0,
  fuaShare: 0,
  lengthMax: 1,
  flushesEach: false,
  thinkMs: 3,
};

interface Batch {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly itemCount: number;
}

/** The batches of the hot lane that began at a page, in the order in which they were written. */
function watch(node: SimNode): Batch[] {
  const batches: Batch[] = [];
  const { disk } = node;
  if (disk === null) throw new Error("a data host is needed");
  const header = new BatchHeader();
  disk.onWrite = (offset, length) => {
    // Looked at once it is on the medium.
    node.later(20, () => {
      const bytes = disk.media.peek(offset, length);
      const view = new DataView(bytes.buffer);
      if (!decodeBatchHeader(bytes, view, 0, header) || header.lane !== LOG_LANE.hot) return;
      const { lengthBytes, itemCount } = header;
      batches.push({ offset, lengthBytes, itemCount });
    });
  };
  return batches;
}

/** Rots both places that name the batch's items. */
function lose(node: SimNode, batch: Batch): void {
  const rot = new Uint8Array(80).fill(0x5a);
  node.disk?.media.poke(batch.offset + BATCH_HEADER_BYTES, rot);
  const directory = batch.offset + batch.lengthBytes - batch.itemCount * 16;
  node.disk?.media.poke(directory, new Uint8Array(batch.itemCount * 16).fill(0x5a));
}

function rig(seed: number): { world: World; nodes: [SimNode, SimNode, SimNode] } {
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
  const nodes = world.nodes as [SimNode, SimNode, SimNode];
  world.startAll();
  world.run(1000);
  const batches = watch(nodes[0]);
  world.connectClients();
  world.run(2500);
  world.stopClients();
  world.run(4000);
  for (const node of nodes) node.kill();
  // Late enough to be past the last checkpoint; the batches after it prove it durable.
  const lost = batches.at(-8);
  if (lost === undefined) throw new Error("nothing was written");
  lose(nodes[0], lost);
  return { world, nodes };
}

const lossesOf = (node: SimNode): boolean => node.host?.inside.parts.store?.hasLosses ?? false;
const isServing = (node: SimNode): boolean => node.host?.inside.parts.serving ?? false;

test.each([1, 2, 3])(
  "alone after a blackout it does not serve; with the other it copies",
  (seed) => {
    const { world, nodes } = rig(seed);
    const [lossy, whole, witness] = nodes;
    lossy.start();
    witness.start();
    world.run(14_000);
    expect(lossesOf(lossy)).toBe(true);
    expect(isServing(lossy)).toBe(false);
    const why = lossy.host?.status(lossy.nowMs()).view.why ?? "";
    expect(why).toContain("durable records of host0's store are lost: waiting for host1");
    whole.start();
    world.run(30_000);
    expect([isServing(lossy), isServing(whole)]).toEqual([true, true]);
    expect(lossesOf(lossy)).toBe(false);
    world.checkHistories();
    expect(readAll(world, lossy)).toEqual(readAll(world, whole));
  },
);

/** Every block's first bytes, as the host's store has them. */
function readAll(world: World, node: SimNode): number[] {
  const inside = node.host?.inside;
  if (inside === undefined || inside.parts.store === null) throw new Error("no store");
  const { store, ops } = inside.parts;
  const values: number[] = [];
  const bytes = new Uint8Array(4096);
  for (let index = 0; index < LOAD.blocks; index += 1) {
    const op = ops.take();
    if (op === null) throw new Error("no slot for the check's read");
    const lba = world.place(index);
    for (let tries = 0; store.read(op.index, world.volume, lba, 1, bytes, 0) !== 0; tries += 1) {
      if (tries === 100) throw new Error(`block ${lba} cannot be read`);
      world.run(world.now() + 5);
    }
    ops.free(op);
    values.push(new DataView(bytes.buffer).getUint32(0, true));
  }
  return values;
}

/** One simulated run from a seed to a verdict. */
import { SeededRandom } from "../../core/base/random.ts";
import type { Rules } from "../../core/base/rules.ts";
import { OUTCOME } from "../../core/base/outcome.ts";
import { BLOCK_BYTES } from "../../core/base/units.ts";
import type { Host } from "../../core/host/host.ts";
import type { HostKind } from "../../core/host/machine.ts";
import { drawSwarm, Faults, type Swarm } from "./faults.ts";
import type { SimNode } from "./node.ts";
import { Violation, VOLUME_BLOCKS, World } from "./world.ts";

export interface SeedOptions {
  readonly rules?: Rules;
  readonly log?: (line: string) => void;
  /** Length of the phase with faults. */
  readonly loadMs?: number;
  readonly kinds?: readonly HostKind[];
  readonly swarm?: Partial<Swarm>;
  readonly mirror?: "dedicated" | "shared";
}

export interface SeedResult {
  readonly seed: number;
  /** Null when every check passed. */
  readonly violation: string | null;
  readonly hash: number;
  readonly completed: number;
  readonly errors: number;
  readonly opens: number;
  readonly blackouts: number;
  readonly events: number;
}

const CLUSTERS: readonly (readonly HostKind[])[] = [
  ["data", "data", "data"],
  ["data", "data", "data"],
  ["data", "data", "witness"],
  ["data", "data"],
  ["data"],
  ["data", "data", "data", "data"],
  ["data", "data", "witness", "client"],
];

/** An operator looks after so long at what does not heal by itself. */
const OPERATOR_MS = 10_000;
/** V12: all is quiet and whole this long after everything was healed. */
const RECOVER_MS = 40_000;

export function runSeed(seed: number, options: SeedOptions = {}): SeedResult {
  const random = new SeededRandom(seed ^ 0x5eed);
  const kinds = options.kinds ?? random.pick(CLUSTERS);
  const world = new World({
    seed,
    kinds,
    mirror: options.mirror ?? (random.chance(0.3) ? "shared" : "dedicated"),
    ack: random.chance(0.15) ? "durable" : "sync",
    clientsPerHost: 1 + random.below(2),
    load: {
      depth: 1 + random.below(6),
      blocks: random.chance(0.5) ? 8 : 1 + random.below(256),
      writeShare: 0.3 + random.fraction() * 0.5,
      flushShare: random.fraction() * 0.15,
      zeroShare: random.chance(0.4) ? 0.05 : 0,
      fuaShare: random.fraction() * 0.2,
      lengthMax: random.chance(0.7) ? 1 : 5,
      thinkMs: 2 + random.fraction() * 30,
      // Not drawn, so that the other seeds are what they were.
      flushesEach: seed % 4 === 3,
    },
    ...(options.rules === undefined ? {} : { rules: options.rules }),
    ...(options.log === undefined ? {} : { log: options.log }),
  });
  let violation: string | null = null;
  try {
    live(world, random, options);
  } catch (error) {
    if (error instanceof Violation) violation = error.message;
    else violation = `${error instanceof Error ? (error.stack ?? error.message) : error}`;
  }
  return {
    seed,
    violation,
    hash: world.hash,
    completed: world.completed,
    errors: world.errors,
    opens: world.opens,
    blackouts: world.blackouts,
    events: world.scheduler.count,
  };
}

function live(world: World, random: SeededRandom, options: SeedOptions): void {
  const swarm = { ...drawSwarm(random), ...options.swarm };
  world.startAll();
  const connect = (): void => {
    world.connectClients();
    world.scheduler.after(20, connect);
  };
  connect();
  world.run(300);
  const faults = new Faults(world, swarm, random);
  world.run(300 + (options.loadMs ?? 1500 + random.below(4000)));
  faults.heal();
  awaitWhole(world);
  // A little more load on the whole cluster, then silence.
  world.run(world.now() + 300);
  world.stopClients();
  const quiet = world.now() + 5000;
  while (world.inFlight > 0) {
    if (world.now() > quiet) throw new Violation(`V12: ${world.inFlight} requests unanswered`);
    world.run(world.now() + 50);
  }
  world.run(world.now() + 300);
  awaitWhole(world);
  if (swarm.rot > 0) {
    // Blocks that are not written any more: only the scrub finds them.
    faults.rot();
    awaitHealed(world);
  }
  checkCopies(world);
  world.checkHistories();
}

function awaitWhole(world: World): void {
  const deadline = world.now() + RECOVER_MS;
  const operatorMs = world.now() + OPERATOR_MS;
  let hasLooked = false;
  while (!isWhole(world)) {
    if (world.blackouts > 0 && !hasLooked && world.now() > operatorMs) {
      hasLooked = true;
      giveUpDiverged(world);
    }
    if (world.now() > deadline) throw new Violation(`V12: not whole again: ${describe(world)}`);
    world.run(world.now() + 100);
  }
}

/**
 * R13: a host that kept acknowledged records which the base of a cold start lost to a power cut is
 * refused, until its operator decides. Ours moves its store aside, as README says.
 */
function giveUpDiverged(world: World): void {
  for (const node of world.nodes) {
    const inside = node.host?.inside;
    if (inside === undefined || inside.change.role !== "none" || node.disk === null) continue;
    const { membership, nowMs } = inside.parts;
    const isRefused = membership.status(nowMs).peers.some(({ why }) => why.includes("diverged"));
    if (!isRefused) continue;
    world.note(`the store of ${node.id}, which diverged, is given up`);
    world.replaceDisk(node);
  }
}

function isWhole(world: World): boolean {
  return world.nodes.every((node) => {
    if (node.host === null || node.host.phase !== "ready") return false;
    const { change, parts } = node.host.inside;
    if (world.options.kinds[node.id] !== "data") return true;
    return parts.serving && change.role === "member";
  });
}

/**
 * G5: a block that rotted is good again although nobody reads it. Two passes of the scrub from now
 * on: the one under way may have been past a block when it rotted.
 */
function awaitHealed(world: World): void {
  const nodes = world.nodes.filter(({ disk }) => disk !== null);
  // A host may still be restarted (the end of a disk error): its passes count from then on.
  const began = new Map<Host, number>();
  const isHealed = ({ host }: SimNode): boolean => {
    if (host === null) return false;
    const passes = host.inside.life.stats()?.scrub?.passes ?? 0;
    if (!began.has(host)) began.set(host, passes);
    return passes >= began.get(host)! + 2 && host.inside.healer.waitingCount === 0;
  };
  const deadline = world.now() + RECOVER_MS;
  while (!nodes.map(isHealed).every(Boolean)) {
    if (world.now() > deadline) {
      const waiting = nodes.map(({ host }) => host?.inside.healer.waitingCount).join(", ");
      throw new Violation(`G5: not healed by the scrub; bad blocks waiting: ${waiting}`);
    }
    world.run(world.now() + 100);
  }
  for (const { disk } of world.nodes) disk?.media.dropCache();
}

function describe(world: World): string {
  return world.nodes
    .map((node) => {
      const { host } = node;
      if (host === null) return `${node.id} down`;
      const { change, parts, life } = host.inside;
      const why = parts.membership.status(parts.nowMs).why || life.why;
      const state = `${host.phase} ${change.role} epoch ${parts.epoch} store ${life.state}`;
      return `${node.id} ${state} (${why})`;
    })
    .join("; ");
}

/** V10: all members are byte-identical, holes included. */
function checkCopies(world: World): void {
  const nodes = world.nodes.filter((_, index) => world.options.kinds[index] === "data");
  const first = image(world, nodes[0]!);
  for (const node of nodes.slice(1)) {
    const other = image(world, node);
    for (let lba = 0; lba < VOLUME_BLOCKS; lba += 1) {
      if (first.holes[lba] !== other.holes[lba]) {
        throw new Violation(`V10: block ${lba} is a hole on one of ${nodes[0]!.id}, ${node.id}`);
      }
      for (let at = lba * BLOCK_BYTES; at < (lba + 1) * BLOCK_BYTES; at += 64) {
        if (first.bytes[at] !== other.bytes[at] || first.bytes[at + 3] !== other.bytes[at + 3]) {
          throw new Violation(`V10: block ${lba} differs on ${nodes[0]!.id} and ${node.id}`);
        }
      }
    }
  }
}

interface Image {
  readonly bytes: Uint8Array;
  readonly holes: boolean[];
}

function image(world: World, node: SimNode): Image {
  const store = node.host?.inside.parts.store;
  const ops = node.host?.inside.parts.ops;
  if (store === null || store === undefined || ops === undefined) {
    throw new Violation(`V10: host ${node.id} has no store`);
  }
  const bytes = new Uint8Array(VOLUME_BLOCKS * BLOCK_BYTES);
  for (let lba = 0; lba < VOLUME_BLOCKS; lba += 1) {
    const op = ops.take();
    if (op === null) throw new Violation("no slot for the check's read");
    let outcome = store.read(op.index, world.volume, lba, 1, bytes, lba * BLOCK_BYTES);
    for (let wait = 0; outcome === OUTCOME.pending && wait < 200; wait += 1) {
      world.run(world.now() + 5);
      // The read went to memory of ours; asked again it is served at once or waits once more.
      outcome = store.read(op.index, world.volume, lba, 1, bytes, lba * BLOCK_BYTES);
    }
    ops.free(op);
    if (outcome !== OUTCOME.ok) throw new Violation(`V10: block ${lba} unreadable on ${node.id}`);
  }
  const holes: boolean[] = [];
  for (let wait = 0; holes.length < VOLUME_BLOCKS && wait < 200; wait += 1) {
    const left = VOLUME_BLOCKS - holes.length;
    store.extents(world.volume, holes.length, left, (count, isData) => {
      for (let each = 0; each < count; each += 1) holes.push(!isData);
    });
    if (holes.length < VOLUME_BLOCKS) world.run(world.now() + 5);
  }
  return { bytes, holes };
}

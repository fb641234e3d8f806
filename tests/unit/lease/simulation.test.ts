/** Seeded runs of whole groups of policing modules: V6, V7, V12 and the bound on waiting. */
import { expect, test } from "bun:test";
import { ALL_RULES, type Rules } from "../../../core/base/rules.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { type Op, Violation, World, type WorldOptions } from "./world.ts";

const AGING_MS = 60;
const HOLD_MS = 5;

interface Shape {
  readonly hosts: number;
  readonly depth: number;
  readonly writes: number;
  readonly blocks: number;
  readonly lengthMax: number;
  readonly streams: boolean;
  readonly resets: boolean;
  readonly views: boolean;
  readonly slowPair: boolean;
}

function shapeOf(random: SeededRandom): Shape {
  return {
    hosts: 2 + random.below(3),
    depth: 1 + random.below(4),
    writes: 30 + random.below(60),
    blocks: random.pick([1, 8, 64, 4096]),
    lengthMax: random.pick([1, 4, 16]),
    streams: random.chance(0.3),
    resets: random.chance(0.4),
    views: random.chance(0.3),
    slowPair: random.chance(0.3),
  };
}

/** One run; throws a Violation when the observer finds one. Returns the world at its end. */
function simulate(seed: number, rules: Rules, other: Partial<WorldOptions> = {}): World {
  const shape = shapeOf(new SeededRandom(seed * 7919 + 1));
  const world = new World({
    hosts: shape.hosts,
    seed,
    rules,
    agingMs: AGING_MS,
    holdMs: HOLD_MS,
    ...other,
    delayMs: (from, to, random) => {
      const isSlow = shape.slowPair && from === 0 && to === shape.hosts - 1;
      return 0.05 + random.fraction() * (isSlow ? 12 : 1);
    },
  });
  const { random } = world;
  const all = Array.from({ length: shape.hosts }, (_, index) => index);
  const left = all.map(() => shape.writes);
  const heads = all.map((host) => Math.floor((host * shape.blocks) / shape.hosts));
  const issue = (host: number): void => {
    if (left[host]! <= 0) return;
    left[host]! -= 1;
    const length = 1 + random.below(Math.min(shape.lengthMax, shape.blocks));
    let start = random.below(shape.blocks - length + 1);
    if (shape.streams) {
      start = heads[host]! % (shape.blocks - length + 1);
      heads[host] = start + length;
    }
    const volume = 1 + (random.chance(0.2) ? 1 : 0);
    const op = world.write(host, volume, start, start + length, random.below(8));
    if (random.chance(0.03)) {
      world.plan(world.nowMs + random.fraction() * 10, () => world.cancel(op));
    }
  };
  world.onDone = (op) => {
    if (random.chance(0.8)) issue(op.host);
    else world.plan(world.nowMs + random.fraction() * 8, () => issue(op.host));
  };
  world.open(all);
  for (const host of all) {
    for (let index = 0; index < shape.depth; index += 1) {
      world.plan(random.fraction() * 5, () => issue(host));
    }
  }
  if (shape.resets) {
    for (let index = 0; index < 6; index += 1) {
      const one = random.below(shape.hosts);
      const other = (one + 1 + random.below(shape.hosts - 1)) % shape.hosts;
      world.plan(random.fraction() * 150, () => world.reset(one, other));
    }
  }
  if (shape.views) {
    world.plan(20 + random.fraction() * 100, () => world.open(all, random.pick(all)));
  }
  world.run(60_000);
  world.checkOrder(true);
  return world;
}

function checkEnd(world: World): void {
  for (const op of world.ops) {
    if (op.state !== "done" && op.state !== "cancelled") throw new Violation("V12: a write waits");
  }
}

/** R9: (7 - class) * aging, plus one hold and one drain for every request ahead. */
function checkBound(world: World, seed: number): void {
  const { hosts, resets, views, slowPair } = shapeOf(new SeededRandom(seed * 7919 + 1));
  const messageMs = slowPair ? 12.1 : 1.1;
  // A view change begins the wait anew; a link reset costs at most one retry.
  const lostMs = resets || views ? 250 + AGING_MS * 7 : 0;
  const turnMs = HOLD_MS + world.drainMaxMs + 2 * messageMs;
  for (const op of world.ops as Op[]) {
    if (!op.hasAsked || op.state !== "done") continue;
    const ahead = Math.min(world.waitingMax, hosts * 4);
    const boundMs = (7 - op.priority) * AGING_MS + ahead * turnMs + 2 * messageMs + lostMs;
    if (op.grantedMs - op.askedMs > boundMs) throw new Violation("R9: waited too long");
  }
}

test("V6, V7, V12 and the bound on waiting hold over 1000 seeds", () => {
  for (let seed = 1; seed <= 1000; seed += 1) {
    try {
      const world = simulate(seed, ALL_RULES);
      checkEnd(world);
      checkBound(world, seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
}, 60_000);

function violationsOf(rules: Rules, seeds: number, other: Partial<WorldOptions> = {}): string[] {
  const found: string[] = [];
  for (let seed = 1; seed <= seeds; seed += 1) {
    try {
      checkBound(simulate(seed, rules, other), seed);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      found.push(error.message);
    }
  }
  return found;
}

test("without yield on commit, conflicting writes run at once", () => {
  const found = violationsOf({ ...ALL_RULES, yieldOnCommit: false }, 20);
  expect(found).toContain("V6: two conflicting writes at once");
});

test("without the grant check, a record is appended before its lease is known", () => {
  const found = violationsOf({ ...ALL_RULES, checkGrant: false }, 40);
  expect(found).toContain("R6: appended without a valid grant");
});

test("without both, the hosts' logs differ", () => {
  const rules = { ...ALL_RULES, yieldOnCommit: false, checkGrant: false };
  expect(violationsOf(rules, 20, { onlyOrder: true })).toContain("V7: order differs");
});

test("without aging, the bound on waiting does not hold", () => {
  expect(violationsOf(ALL_RULES, 60, { agingMs: 60_000 })).toContain("R9: waited too long");
});

/**
 * Seeded runs of whole clusters: loss, duplicates, reordering, resets, cuts, slow and held
 * records, view changes in the middle. `MiniCluster` and `MiniHost` check after every event that
 * records are appended in order and once, committed only when all have them, durable only when
 * synced everywhere, and nothing after a seal.
 */
import { expect, test } from "bun:test";
import type { SeededRandom } from "../../../core/base/random.ts";
import type { Rules } from "../../../core/base/rules.ts";
import { CALM, type NetFaults } from "../../sim/sim_net.ts";
import { MiniCluster } from "./mini_cluster.ts";
import type { MiniHost } from "./mini_host.ts";
import { SeededRandom as Random } from "../../../core/base/random.ts";

function drawFaults(random: SeededRandom): Partial<NetFaults> {
  const some = (chance: number, most: number): number =>
    random.chance(chance) ? random.fraction() * most : 0;
  return {
    delayMaxMs: 0.2 + some(0.4, 10),
    bufferBytes: random.pick([2000, 20_000, 256 * 1024]),
    partialSend: some(0.5, 0.5),
    reset: some(0.4, 0.01),
    packetLoss: some(0.6, 0.3),
    packetDuplicate: some(0.5, 0.2),
    packetReorder: some(0.5, 0.3),
    packetCorrupt: some(0.3, 0.05),
    streamCorrupt: some(0.3, 0.02),
  };
}

/** Work for a while: writes, FLUSHes, cuts that heal. */
function work(cluster: MiniCluster, rounds: number): void {
  const random = cluster.random;
  // Mostly one writer, in half of the runs: only then a FLUSH may need no barrier.
  const others = random.chance(0.5) ? 0.1 : 1;
  for (let round = 0; round < rounds; round += 1) {
    const host = cluster.host(random.chance(others) ? random.below(cluster.members.length) : 0);
    if (random.chance(0.1)) cluster.flush(host);
    const burst = random.chance(0.2) ? 12 : 1;
    cluster.act(host, () => writeSome(host, random, burst));
    if (random.chance(0.1)) cluster.act(host, () => host.write(1, { fua: true }));
    if (random.chance(0.2)) cluster.flush(host);
    if (random.chance(0.03)) cutSomething(cluster);
    cluster.run(random.fraction() * 2);
  }
}

function writeSome(host: MiniHost, random: SeededRandom, burst: number): void {
  for (let count = 0; count < burst; count += 1) {
    host.write(random.below(3), { shared: random.chance(0.6), fua: random.chance(0.1) });
  }
}

function cutSomething(cluster: MiniCluster): void {
  const from = cluster.random.pick(cluster.recipients);
  const to = cluster.random.pick(cluster.recipients);
  if (from === to) return;
  cluster.net.cut(from, to);
  cluster.after(cluster.random.fraction() * 40, () => cluster.net.heal(from, to));
}

function drawHosts(cluster: MiniCluster): void {
  for (const host of cluster.hosts) {
    host.holdChance = cluster.random.chance(0.3) ? 0.2 : 0;
    host.fullChance = cluster.random.chance(0.3) ? 0.2 : 0;
    host.logDelayMs = cluster.random.chance(0.3) ? 5 : 0.05;
  }
}

function heal(cluster: MiniCluster): void {
  cluster.net.faults = { ...CALM };
  cluster.net.healAll();
  for (const host of cluster.hosts) {
    host.holdChance = 0;
    host.fullChance = 0;
  }
}

function runSeed(seed: number, rules: Partial<Rules> = {}, joining = 0): MiniCluster {
  const random = new Random(seed);
  const cluster = new MiniCluster({
    seed,
    hostCount: 2 + random.below(3),
    joining: joining > 0 ? 1 : random.below(2),
    mirror: { windowBytes: random.pick([40_000, 400_000]), windowRecords: random.pick([8, 64]) },
    faults: drawFaults(random),
    rules,
  });
  drawHosts(cluster);
  const views = random.chance(0.5) ? 2 : 1;
  for (let view = 0; view < views; view += 1) {
    cluster.open();
    work(cluster, 10 + random.below(30));
    if (view + 1 === views) break;
    cluster.sealAll();
    if (random.chance(0.5)) cluster.run(random.fraction() * 3);
    heal(cluster);
    cluster.check(cluster.reconcile(3000), "tails were not made equal");
    drawHosts(cluster);
  }
  heal(cluster);
  const isSettled = cluster.runUntil(8000, () => cluster.isQuiet());
  if (!isSettled && process.env.MIRROR_SHOW) {
    for (const host of cluster.hosts) console.log(JSON.stringify(host.mirror.status()));
  }
  cluster.check(isSettled, "the streams did not settle");
  return cluster;
}

/** What a run breaks, or null. */
function broken(seed: number, rules: Partial<Rules>, joining = 0): string | null {
  try {
    runSeed(seed, rules, joining);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const SEEDS = Number(process.env.MIRROR_SEEDS ?? 500);
const FIRST = Number(process.env.MIRROR_FIRST ?? 1);

test(`${SEEDS} seeds keep every promise`, () => {
  const total = { flushes: 0, resets: 0, fallbacks: 0, repairs: 0, held: 0, reconciled: 0 };
  for (let seed = FIRST; seed < FIRST + SEEDS; seed += 1) {
    let cluster: MiniCluster;
    try {
      cluster = runSeed(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error });
    }
    total.flushes += cluster.knownFlushes;
    for (const host of cluster.hosts) {
      const counters = host.mirror.counters;
      total.resets += counters.resets;
      total.fallbacks += counters.fallbacks;
      total.repairs += counters.repairsMulticast + counters.repairsUnicast;
      total.held += counters.heldRecords;
      total.reconciled += host.reconciledCount;
      expect(host.barriersDone.length).toBeGreaterThanOrEqual(0);
    }
  }
  // A chaos test that meets no chaos proves nothing.
  expect(total.flushes).toBeGreaterThan(SEEDS / 5);
  expect(total.fallbacks).toBeGreaterThan(SEEDS / 50);
  expect(total.repairs).toBeGreaterThan(SEEDS);
  expect(total.held).toBeGreaterThan(SEEDS);
  expect(total.reconciled).toBeGreaterThan(SEEDS / 5);
  if (process.env.MIRROR_SHOW) console.log(JSON.stringify(total));
}, 60_000);

function firstFound(rules: Partial<Rules>, joining = 0): string | null {
  for (let seed = 1; seed <= 60; seed += 1) {
    const found = broken(seed, rules, joining);
    if (found !== null) return found;
  }
  return null;
}

test("mutant: own log alone commits", () => {
  expect(firstFound({ ackAfterCommit: false })).toContain("committed");
});

test("mutant: joining hosts are not waited for", () => {
  expect(firstFound({ joinersCommit: false }, 1)).toContain("committed");
});

test("mutant: a seal seals nothing", () => {
  expect(firstFound({ seal: false })).toContain("after the seal");
});

test("mutant: FLUSH syncs the own disk only", () => {
  expect(firstFound({ flushEverywhere: false })).toContain("barrier");
});

test("mutant: a FLUSH without a barrier knows the own stream only", () => {
  expect(firstFound({ flushKnown: false })).toContain("FLUSH");
});

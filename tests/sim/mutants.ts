/**
 * The rules switched off one by one (rules.ts), each with the faults that make its absence show.
 * The shipped rules must survive the same faults: the tests run both. The rules of voting and
 * grants that random faults of a whole cluster rarely meet are switched off in
 * tests/unit/membership, those of the store in tests/unit/store.
 */
import type { Rules } from "../../core/base/rules.ts";
import type { HostKind } from "../../core/host/machine.ts";
import type { Swarm } from "./faults.ts";

export interface Mutant {
  readonly rule: keyof Rules;
  readonly swarm: Partial<Swarm>;
  readonly kinds: readonly HostKind[];
  /** Where to begin to look: a seed that failed without the rule when this was written. */
  readonly seed: number;
  readonly loadMs: number;
}

const NOTHING: Swarm = {
  kill: 0,
  powerCut: 0,
  pause: 0,
  isolate: 0,
  oneWay: 0,
  reset: 0,
  slowNet: 0,
  lossyNet: 0,
  diskError: 0,
  slowDisk: 0,
  blackout: 0,
  rot: 0,
  everyMs: 500,
  downMs: 300,
};
const THREE: readonly HostKind[] = ["data", "data", "data"];

function mutant(seed: number, rule: keyof Rules, swarm: Partial<Swarm>, loadMs = 4000): Mutant {
  return { rule, swarm: { ...NOTHING, ...swarm }, kinds: THREE, seed, loadMs };
}

export const MUTANTS: readonly Mutant[] = [
  mutant(2, "ackAfterCommit", { kill: 2, slowNet: 2 }),
  mutant(4, "readCommitted", { slowNet: 2, kill: 1 }),
  mutant(3, "liveWriteWins", { kill: 1, slowNet: 1, downMs: 30 }),
  mutant(4, "yieldOnCommit", { slowNet: 3 }),
  mutant(3, "promiseSet", { kill: 2, isolate: 2, downMs: 1500 }),
  mutant(4, "openBarrier", { kill: 2, slowNet: 2, isolate: 1, downMs: 800 }),
  mutant(1, "flushEverywhere", { blackout: 3, everyMs: 4000, downMs: 5000 }, 14_000),
  mutant(3, "flushKnown", { slowNet: 1 }),
  mutant(4, "oneBase", { blackout: 3, everyMs: 1500 }, 5000),
  mutant(4, "reconcile", { kill: 3, slowNet: 3, everyMs: 400, downMs: 1500 }),
  mutant(4, "joinersCommit", { kill: 3, slowNet: 2, everyMs: 300, downMs: 200 }),
  mutant(5, "seal", { isolate: 2, pause: 2, slowNet: 3, everyMs: 500, downMs: 900 }),
  mutant(2, "verifyReads", { rot: 3, everyMs: 300 }, 3000),
];

/**
 * The rules switched off one by one (rules.ts), each with the faults that make its absence show.
 * The shipped rules must survive the same faults: the tests run both.
 */
import type { Rules } from "../../core/base/rules.ts";
import type { HostKind } from "../../core/host/machine.ts";
import type { Swarm } from "./faults.ts";

export interface Mutant {
  readonly rule: keyof Rules;
  readonly swarm: Partial<Swarm>;
  readonly kinds: readonly HostKind[];
  /** Seeds to look through; the failing one comes first where known. */
  readonly seeds: readonly number[];
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

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

function mutant(rule: keyof Rules, swarm: Partial<Swarm>, loadMs = 4000): Mutant {
  return { rule, swarm: { ...NOTHING, ...swarm }, kinds: THREE, seeds: upTo(40), loadMs };
}

export const MUTANTS: readonly Mutant[] = [
  mutant("ackAfterCommit", { kill: 2, slowNet: 2 }),
  mutant("readCommitted", { slowNet: 2, kill: 1 }),
  mutant("liveWriteWins", { kill: 1, slowNet: 1, downMs: 30 }),
  mutant("yieldOnCommit", { slowNet: 3 }),
  mutant("incarnations", { powerCut: 3, downMs: 20 }),
  mutant("promiseSet", { kill: 2, isolate: 2, downMs: 1500 }),
  mutant("openBarrier", { kill: 2, slowNet: 2, isolate: 1, downMs: 800 }),
  mutant("flushEverywhere", { blackout: 3, everyMs: 1500 }, 5000),
  mutant("oneBase", { blackout: 3, everyMs: 1500 }, 5000),
  mutant("reconcile", { kill: 3, slowNet: 3, everyMs: 400, downMs: 1500 }),
  mutant("joinersCommit", { kill: 3, slowNet: 2, everyMs: 300, downMs: 200 }),
  mutant("readGrants", { isolate: 3, everyMs: 2500, downMs: 2500 }, 6000),
  mutant("acceptAfterGrants", { isolate: 3, everyMs: 2500, downMs: 2500 }, 6000),
  mutant("seal", { isolate: 2, pause: 2, slowNet: 3, everyMs: 500, downMs: 900 }),
  mutant("noRenew", { oneWay: 3, slowNet: 2, everyMs: 800, downMs: 2000 }, 6000),
  mutant("verifyReads", { rot: 3, everyMs: 300 }, 3000),
  mutant("copyCommitted", { kill: 3, slowNet: 3, everyMs: 250, downMs: 100 }),
];

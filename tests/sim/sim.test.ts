/**
 * The cluster simulator in the test command: seeds that must pass, the same trace twice, and the
 * rules switched off one by one, each of which must be found. `bun run sim --seeds N` runs more.
 */
import { describe, expect, test } from "bun:test";
import { ALL_RULES } from "../../core/base/rules.ts";
import { MUTANTS } from "./mutants.ts";
import { runSeed } from "./run_seed.ts";

const SEEDS = 60;
const SEED_TIMEOUT_MS = 300_000;
/** Seeds looked through for one mutant; any change of the code moves which of them fail. */
const MUTANT_SEEDS = 40;

describe("seeds", () => {
  test.each(Array.from({ length: SEEDS }, (_, index) => index + 1))(
    "seed %d passes every check",
    (seed) => {
      const result = runSeed(seed);
      expect(result.violation).toBeNull();
      expect(result.completed).toBeGreaterThan(0);
    },
    SEED_TIMEOUT_MS,
  );

  test(
    "a seed gives the same trace twice, and another seed another",
    () => {
      const options = { loadMs: 2000 };
      const first = runSeed(7, options);
      expect(runSeed(7, options).hash).toBe(first.hash);
      expect(runSeed(8, options).hash).not.toBe(first.hash);
    },
    SEED_TIMEOUT_MS,
  );
});

describe("mutants", () => {
  for (const { rule, seed, ...faults } of MUTANTS) {
    test(
      `without ${rule} something breaks, with it nothing does`,
      () => {
        const rules = { ...ALL_RULES, [rule]: false };
        let found = seed;
        while (runSeed(found, { ...faults, rules }).violation === null) {
          found += 1;
          expect(found).toBeLessThan(seed + MUTANT_SEEDS);
        }
        expect(runSeed(found, faults).violation).toBeNull();
      },
      SEED_TIMEOUT_MS,
    );
  }
});

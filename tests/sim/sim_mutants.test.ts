/** The rules switched off one by one: the simulator must find what each of them prevents. */
import { expect, test } from "bun:test";
import { ALL_RULES } from "../../core/base/rules.ts";
import { MUTANTS } from "./mutants.ts";
import { runSeed } from "./run_seed.ts";

const MUTANT_TIMEOUT_MS = 300_000;
/** Seeds looked through for one mutant; any change of the code moves which of them fail. */
const MUTANT_SEEDS = 40;

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
    MUTANT_TIMEOUT_MS,
  );
}

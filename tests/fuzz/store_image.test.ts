/**
 * The image fuzzer, for as long as the tests can afford: every field of every layout at least once
 * (FAULTS scenarios 4, 11 and 40: hostile images). Longer: `FUZZ_SECONDS=600 FUZZ_SEED=7`.
 */
import { expect, test } from "bun:test";
import { NODE_REGION, PAGE_ENTRY, SPARSE_ENTRY } from "../../core/format/checkpoint.ts";
import { ENTRY, RECORD } from "../../core/format/record.ts";
import { BATCH, DIRECTORY, ITEM, MOVE_SOURCE } from "../../core/format/segment.ts";
import { SUPERBLOCK } from "../../core/format/superblock.ts";
import { fuzzImages } from "./image_fuzz.ts";

const SECONDS = Number(process.env.FUZZ_SECONDS ?? 20);
const SEED = Number(process.env.FUZZ_SEED ?? 1);
const LAYOUTS = [
  SUPERBLOCK,
  BATCH,
  DIRECTORY,
  RECORD,
  ENTRY,
  ITEM,
  MOVE_SOURCE,
  NODE_REGION,
  PAGE_ENTRY,
  SPARSE_ENTRY,
];

test(
  "images changed in every field, in the root, and at random",
  () => {
    const { cases, fields, outcomes } = fuzzImages({ seed: SEED, seconds: SECONDS });
    const all = LAYOUTS.flatMap(({ layoutName, table }) =>
      table.map(({ name }) => `${layoutName}.${name}`),
    );
    expect([...fields].sort()).toEqual(all.sort());
    expect(cases).toBeGreaterThan(all.length);
    // It is not blind: some changes are refused, some cost blocks, some nothing.
    for (const outcome of ["whole", "errors", "refused: damaged", "refused: version"]) {
      expect(outcomes.get(outcome) ?? 0).toBeGreaterThan(0);
    }
  },
  SECONDS * 1000 + 60_000,
);

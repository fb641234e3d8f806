/**
 * V1 to V4 and V12 (docs/guarantees.md) under every fault that concerns views, by seed. A failing
 * seed is the argument of `chaos`, in chaos.ts.
 */
import { describe, expect, test } from "bun:test";
import { chaos } from "./chaos.ts";

const CHUNKS = 8;
const SEEDS_PER_CHUNK = 64;

describe("membership simulation", () => {
  for (let chunk = 0; chunk < CHUNKS; chunk += 1) {
    const first = 1 + chunk * SEEDS_PER_CHUNK;
    test(`seeds ${first} to ${first + SEEDS_PER_CHUNK - 1}`, () => {
      let reads = 0;
      let writes = 0;
      let views = 0;
      let coldStarts = 0;
      for (let seed = first; seed < first + SEEDS_PER_CHUNK; seed += 1) {
        const { cluster, openAfterMs } = run(seed);
        expect(openAfterMs).toBeLessThanOrEqual(2000);
        reads += cluster.observer.reads;
        writes += cluster.observer.writes;
        views += cluster.observer.opened.length;
        coldStarts += cluster.observer.coldStarts;
      }
      // A run in which nothing happens proves nothing.
      expect(reads).toBeGreaterThan(10_000);
      expect(writes).toBeGreaterThan(5000);
      expect(views).toBeGreaterThan(200);
      expect(coldStarts).toBeGreaterThan(5);
    }, 60_000);
  }
});

function run(seed: number): ReturnType<typeof chaos> {
  try {
    return chaos(seed);
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : "?"}`);
  }
}

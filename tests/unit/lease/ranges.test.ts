/** The range table against a plain array of blocks. */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import { Lease, Ranges } from "../../../core/lease/ranges.ts";

const BLOCKS = 40;

function checkShape(ranges: Ranges, owners: number[]): void {
  const seen = new Array<number>(BLOCKS).fill(-1);
  let previous: Lease | null = null;
  for (const row of ranges.rows) {
    expect(row.start).toBeLessThan(row.end);
    if (previous !== null) {
      expect(row.start).toBeGreaterThanOrEqual(previous.end);
      const isSplitOfOne = row.start === previous.end && row.holder === previous.holder;
      expect(isSplitOfOne).toBe(false);
    }
    seen.fill(row.holder, row.start, row.end);
    previous = row;
  }
  expect(seen).toEqual(owners);
}

test("random gives and takes leave the same owners as a plain array", () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = new SeededRandom(seed);
    const ranges = new Ranges();
    const owners = new Array<number>(BLOCKS).fill(-1);
    for (let step = 1; step <= 80; step += 1) {
      const holder = hostId(random.below(3));
      const start = random.below(BLOCKS - 1);
      const end = start + 1 + random.below(BLOCKS - start);
      const part = owners.slice(start, end);
      const isFree = part.every((owner) => owner === -1 || owner === holder);
      expect(ranges.isFreeFor(holder, start, end)).toBe(isFree);
      const holdsAll = part.every((owner) => owner === holder);
      expect(ranges.grantOf(holder, start, end) > 0).toBe(holdsAll);
      if (isFree && random.chance(0.7)) {
        let low = start;
        while (low > 0 && [-1, holder].includes(owners[low - 1]!)) low -= 1;
        let high = end;
        while (high < BLOCKS && [-1, holder].includes(owners[high]!)) high += 1;
        expect(ranges.freeFrom(holder, start)).toBe(low);
        expect(ranges.freeUpTo(holder, end, BLOCKS)).toBe(high);
        const before = ranges.rows.length;
        const growth = ranges.growth(holder, start, end);
        ranges.give(new Lease(start, end, holder, step, 0));
        expect(ranges.rows.length - before).toBe(growth);
        expect(ranges.grantOf(holder, start, end)).toBe(step);
        owners.fill(holder, start, end);
      } else {
        const before = ranges.rows.length;
        const splits = ranges.splits(holder, start, end);
        ranges.take(holder, start, end);
        expect(ranges.rows.length > before).toBe(splits);
        for (let block = start; block < end; block += 1) {
          if (owners[block] === holder) owners[block] = -1;
        }
      }
      checkShape(ranges, owners);
    }
  }
});

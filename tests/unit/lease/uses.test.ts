/** Uses in flight against a plain list; the yields' count of what they wait for. */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { volumeId } from "../../../core/base/units.ts";
import { type Gap, narrow, Uses } from "../../../core/lease/uses.ts";

test("random uses are counted and ended like in a plain list", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const random = new SeededRandom(seed);
    const uses = new Uses();
    let list: { volume: number; start: number; end: number; grant: number }[] = [];
    for (let step = 0; step < 3000; step += 1) {
      const start = random.below(50) + (random.chance(0.1) ? 2 ** 35 : 0);
      const use = {
        volume: 1 + random.below(2),
        start,
        end: start + 1 + random.below(5),
        grant: random.below(3) + 1,
      };
      if (list.length < 700 && random.chance(step < 1500 ? 0.7 : 0.3)) {
        uses.add(volumeId(use.volume), use.start, use.end, use.grant);
        list.push(use);
      } else if (list.length > 0) {
        const at = random.below(list.length);
        const ended = list[at]!;
        list = list.filter((_, index) => index !== at);
        const { volume, end, grant } = ended;
        expect(uses.remove(volumeId(volume), ended.start, end, grant)).toBe(true);
      }
      if (step % 50 !== 0) continue;
      const from = random.below(50);
      const overlapping = list.filter(
        (one) => one.volume === 1 && one.start < from + 9 && one.end > from,
      );
      expect(uses.countIn(volumeId(1), from, from + 9)).toBe(overlapping.length);
      const names = new Set(list.map((one) => JSON.stringify(one)));
      expect(uses.size).toBe(names.size);
    }
  }
});

test("ending a use that never began is noticed", () => {
  const uses = new Uses();
  uses.add(volumeId(1), 0, 8, 3);
  expect(uses.remove(volumeId(1), 0, 8, 2)).toBe(false);
  expect(uses.remove(volumeId(2), 0, 8, 3)).toBe(false);
  expect(uses.remove(volumeId(1), 0, 8, 3)).toBe(true);
  expect(uses.remove(volumeId(1), 0, 8, 3)).toBe(false);
});

test("a neighbour in use keeps its half of the distance", () => {
  const gap: Gap = { low: 0, high: 1000 };
  narrow(gap, 100, 110, 20, 40);
  expect(gap).toEqual({ low: 70, high: 1000 });
  narrow(gap, 100, 110, 300, 310);
  expect(gap).toEqual({ low: 70, high: 205 });
  narrow(gap, 100, 110, 90, 104);
  narrow(gap, 100, 110, 105, 120);
  expect(gap).toEqual({ low: 100, high: 110 });
});

/** The order in which the offline check reads: by place, however many blocks, wherever they lie. */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { PlaceWindow } from "../../../core/store/place_window.ts";

// Below and above the number from which digits are counted instead of comparing.
test.each([0, 1, 1023, 1025, 8191, 8192, 50_000])("%d blocks", (count) => {
  const random = new SeededRandom(count + 1);
  const window = new PlaceWindow();
  for (let round = 0; round < 2; round += 1) {
    const places: number[] = [];
    for (let lba = 0; lba < count; lba += 1) {
      // All 48 bits, and near neighbours.
      const isNear = random.chance(0.5) && lba > 0;
      const place = isNear ? places[lba - 1]! + 257 : random.below(65536) * 2 ** 32 + random.u32();
      places.push(place);
      window.add(7, lba, place, lba & 0xffff);
    }
    window.sort();
    const sorted = [...window.order.subarray(0, count)];
    expect(sorted.map((block) => window.places[block]!)).toEqual(
      places.toSorted((left, right) => left - right),
    );
    expect(sorted.every((block) => places[window.lbas[block]!] === window.places[block])).toBe(
      true,
    );
    expect(new Set(sorted).size).toBe(count);
    window.clear();
  }
});

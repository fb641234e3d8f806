/** The blocks of one region, in the order in which they lie. */
import { REGION_BLOCKS } from "../base/units.ts";

export class PlacedBlocks {
  readonly lbas = new Float64Array(REGION_BLOCKS);
  readonly places = new Float64Array(REGION_BLOCKS);
  count = 0;

  /** Insertion sort: places of a region mostly ascend. */
  insert(lba: number, place: number): void {
    let index = this.count;
    while (index > 0 && this.places[index - 1]! > place) {
      this.places[index] = this.places[index - 1]!;
      this.lbas[index] = this.lbas[index - 1]!;
      index -= 1;
    }
    this.places[index] = place;
    this.lbas[index] = lba;
    this.count += 1;
  }
}

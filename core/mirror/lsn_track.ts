/**
 * Maps what the store says (log positions) to what peers want to know (stream positions).
 *
 * Invariant: `received <= appended`, `durable <= appended`; both only grow. A position is kept
 * for each of the last `slots` records. Received positions never need more, since a window is no
 * longer than that; a durable position that fell out of the ring is found again as soon as the
 * syncs catch up with the ring.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { Lsn, Seq } from "../base/units.ts";

const START_SLOTS = 64;

export class LsnTrack {
  appended: Seq = 0;
  /** In the log (written to the operating system) up to here. */
  received: Seq = 0;
  /** On stable storage up to here. */
  durable: Seq = 0;
  private slots = START_SLOTS;
  private lsns = new Float64Array(START_SLOTS);

  /** False when as many records as a window has are appended but not logged. */
  get hasRoom(): boolean {
    return this.appended - this.received < LIMITS.windowRecordsMax;
  }

  /** Record `appended + 1` ends at `lsn` in the log. */
  push(lsn: Lsn): void {
    assert(this.hasRoom, "lsn track: more records than a window");
    if (this.appended - this.received >= this.slots) this.grow();
    this.appended += 1;
    this.lsns[this.appended % this.slots] = lsn;
  }

  /** The log is written up to `lsn`; true if `received` moved. */
  logged(lsn: Lsn): boolean {
    const before = this.received;
    while (this.received < this.appended && this.lsns[(this.received + 1) % this.slots]! <= lsn) {
      this.received += 1;
    }
    return this.received !== before;
  }

  /** Everything up to `lsn` is on stable storage; true if `durable` moved. */
  synced(lsn: Lsn): boolean {
    const oldest = Math.max(this.durable + 1, this.appended - this.slots + 1);
    let low = oldest;
    let high = this.appended + 1;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.lsns[middle % this.slots]! <= lsn) low = middle + 1;
      else high = middle;
    }
    if (low === oldest) return false;
    this.durable = low - 1;
    return true;
  }

  private grow(): void {
    const slots = this.slots * 2;
    const lsns = new Float64Array(slots);
    for (let seq = Math.max(1, this.appended - this.slots + 1); seq <= this.appended; seq += 1) {
      lsns[seq % slots] = this.lsns[seq % this.slots]!;
    }
    this.slots = slots;
    this.lsns = lsns;
  }
}

/** Documents (`Store.putMeta`) that changed and are not in the log yet: the newest per slot. */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import { roundUp } from "../base/units.ts";
import { META_SLOTS } from "../format/checkpoint.ts";
import { RECORD_HEADER_BYTES } from "../format/record.ts";
import type { Live } from "./live.ts";
import { ROOM } from "./log_lane.ts";

export class Documents {
  private readonly dirty = new Uint8Array(META_SLOTS);
  private dirtyCount = 0;

  /** Copies `bytes`. */
  keep(live: Live | null, slot: number, bytes: Uint8Array): void {
    assert(bytes.length <= LIMITS.metaBytesMax, "store: meta too long");
    if (live === null) return;
    live.state.metas[slot] = bytes.slice();
    if (this.dirty[slot] === 0) this.dirtyCount += 1;
    this.dirty[slot] = 1;
  }

  /** Appends the documents that changed; false if the log has no room for one of them now. */
  flush(live: Live | null, append: (slot: number, bytes: Uint8Array) => void): boolean {
    if (this.dirtyCount === 0) return true;
    if (live === null) return false;
    const { hot } = live.writer;
    for (let slot = 0; slot < META_SLOTS; slot += 1) {
      if (this.dirty[slot] === 0) continue;
      const bytes = live.state.metas[slot] as Uint8Array;
      const length = RECORD_HEADER_BYTES + roundUp(bytes.length, 16);
      if (hot.room(length, live.state.geometry.floorSmall) !== ROOM.ok) return false;
      append(slot, bytes);
      this.dirty[slot] = 0;
      this.dirtyCount -= 1;
    }
    return true;
  }
}

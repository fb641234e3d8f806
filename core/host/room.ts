/**
 * Room for new data in the stores of a view. A mirror cannot refuse a record that others already
 * have, so the writer must know before it appends that every store takes it:
 *
 *   n members, each with `a` bytes of its own that it does not know committed; the smallest store
 *   takes L bytes of data, and the writer's own has D of them. It appends `b` new bytes only if
 *
 *       (n - 1) * a + n * b  <=  L - D
 *
 * What all hosts have is at least D - a, so the n writers share what is left of L, and together
 * never overrun it, whatever of each other they have not seen yet. Writes over blocks that have
 * data take no room, and a full store goes on with them (store: AdmitClass "overwrite").
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES, type HostId, type VolumeId } from "../base/units.ts";
import { writeRecordBytes } from "../format/record.ts";
import type { Parts } from "./parts.ts";
import type { Peers } from "./peers.ts";

export class Room {
  /** What the smallest other store of the view takes, bytes of data. */
  private leastBytes = Number.POSITIVE_INFINITY;
  /** Whose store that is. */
  least: HostId | null = null;
  private memberCount = 1;
  private readonly parts: Parts;

  constructor(parts: Parts) {
    this.parts = parts;
  }

  /**
   * Looks at the stores of the view again: after a view, and whenever a host told its state. A
   * joiner too small for what is there cannot become a member and holds nobody up.
   */
  note(members: readonly HostId[], joining: readonly HostId[], peers: Peers): void {
    this.leastBytes = Number.POSITIVE_INFINITY;
    this.least = null;
    this.memberCount = Math.max(1, members.length);
    const dataBytes = this.parts.store?.dataBytes ?? 0;
    for (const id of [...members, ...joining]) {
      const sizeBytes = peers.get(id)?.state?.store.sizeBytes ?? 0;
      const isTooSmall = joining.includes(id) && sizeBytes < dataBytes;
      if (sizeBytes === 0 || isTooSmall || sizeBytes >= this.leastBytes) continue;
      this.leastBytes = sizeBytes;
      this.least = id;
    }
  }

  /** Bytes of data that every store of the view takes; 0 without a store here. */
  get sizeBytes(): number {
    return Math.min(this.leastBytes, this.parts.store?.sizeBytes ?? 0);
  }

  /**
   * May `blockCount` blocks be written from `lba` on? Answers as `Store.admit`; `Store.prepare`
   * has said `ok`.
   */
  admit(volume: VolumeId, lba: number, blockCount: number): Outcome {
    const { store } = this.parts;
    if (store === null) return OUTCOME.pending;
    const bytes = writeRecordBytes(blockCount);
    const shared = this.memberCount > 1 ? this.shared(blockCount * BLOCK_BYTES) : OUTCOME.ok;
    const outcome = shared === OUTCOME.ok ? store.admit(bytes, "client") : shared;
    if (outcome === OUTCOME.ok || !store.isAllData(volume, lba, blockCount)) return outcome;
    return store.admit(bytes, "overwrite");
  }

  private shared(newBytes: number): Outcome {
    const { store, self, uncommitted } = this.parts;
    const left = this.sizeBytes - (store?.dataBytes ?? 0);
    const ownBytes = (uncommitted[self]?.blockCount ?? 0) * BLOCK_BYTES;
    if ((this.memberCount - 1) * ownBytes + this.memberCount * newBytes <= left) return OUTCOME.ok;
    // What is on its way may be overwrites and trims; once it is committed, this is decided.
    return ownBytes > 0 ? OUTCOME.pending : OUTCOME.full;
  }
}

/**
 * Sync point marks (R10): when the sequencer's TAG(k) comes, later records are tagged with k and
 * MARK(k) goes into the own stream, as soon as window and store have room for it.
 */
import { LIMITS } from "../base/limits.ts";
import { OUTCOME } from "../base/outcome.ts";
import type { Point } from "../base/units.ts";
import { RECORD_TYPE, RecordHeader } from "../format/record.ts";
import type { Parts } from "./parts.ts";

export class Marks {
  private readonly parts: Parts;
  private readonly header = new RecordHeader();
  private readonly applied: (point: Point) => void;
  /** The mark that waits for room; 0 = none. */
  private waiting: Point = 0;

  /** `applied` hears of every mark put into the own stream. */
  constructor(parts: Parts, applied: (point: Point) => void) {
    this.parts = parts;
    this.applied = applied;
  }

  /** The view is gone: its points are void. */
  close(): void {
    this.waiting = 0;
  }

  tag(point: Point): void {
    this.parts.point = point;
    if (!this.parts.serving) return;
    this.waiting = point;
    this.put();
  }

  /** Appends the waiting mark if there is room now. */
  put(): void {
    const { parts, header } = this;
    const { store, mirror, self } = parts;
    if (this.waiting === 0 || store === null || !parts.serving) return;
    if (!mirror.windowFree(LIMITS.metaBytesMax)) return;
    if (store.admit(LIMITS.metaBytesMax, "reserve") !== OUTCOME.ok) return;
    header.type = RECORD_TYPE.mark;
    header.sender = self;
    header.epoch = parts.epoch;
    header.seq = mirror.nextSeq();
    header.tagPoint = this.waiting;
    header.origin = self;
    this.waiting = 0;
    store.appendEmpty(header);
    parts.uncommitted[self]?.push(header.seq, 0, 0, 0);
    mirror.sent(header, store.lastBuffer, store.lastAt, store.lastLength, store.lastLsn, false);
    this.applied(header.tagPoint);
  }
}

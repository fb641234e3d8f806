/**
 * A recipient's side of the way to and from the sequencer: submissions sent again until they are
 * numbered, events asked for again when some are missing, progress told now and then. A recipient
 * that is the sequencer has none.
 */
import type { Epoch } from "../base/units.ts";
import { LEASE_BATCH_MAX, type LeaseMessage } from "../format/lease_wire.ts";
import type { Outbox } from "./outbox.ts";

/** A recipient that submits nothing tells its progress after so many events. */
const PROGRESS_EVENTS = 256;

export class Upstream {
  private readonly outbox: Outbox;
  private readonly epoch: Epoch;
  private readonly retryMs: number;
  /** Events up to this one were told as applied. */
  private progressTold = 0;
  /** When to ask (again) for missing events; Infinity when none are known to be missing. */
  private wantAtMs: number;
  /** When what is not numbered yet is sent again. */
  private retryAtMs = Number.POSITIVE_INFINITY;

  /** Asks at once: events sent before the view was open here were ignored. */
  constructor(nowMs: number, epoch: Epoch, outbox: Outbox, retryMs: number) {
    this.outbox = outbox;
    this.epoch = epoch;
    this.retryMs = retryMs;
    this.wantAtMs = nowMs;
  }

  get deadlineMs(): number {
    return Math.min(this.wantAtMs, this.retryAtMs);
  }

  /** What was on its way may be lost: everything again. */
  restart(nowMs: number): void {
    this.outbox.rewind();
    this.wantAtMs = nowMs;
  }

  expire(nowMs: number): void {
    if (nowMs >= this.retryAtMs) this.restart(nowMs);
  }

  /** The sequencer has numbered up to `last`; 0: it has just begun. */
  hello(nowMs: number, last: number, applied: number): void {
    if (last === 0) this.outbox.rewind();
    if (last > applied) this.missing(nowMs);
    else this.wantAtMs = Number.POSITIVE_INFINITY;
  }

  /**
   * An event came whose predecessor did not. One question is enough: what follows it on the same
   * link is complete.
   */
  missing(nowMs: number): void {
    if (this.wantAtMs === Number.POSITIVE_INFINITY) this.wantAtMs = nowMs;
  }

  /** The next event came; `isOwn`: one that was submitted here. */
  followed(nowMs: number, isOwn: boolean): void {
    this.wantAtMs = Number.POSITIVE_INFINITY;
    if (!isOwn) return;
    this.retryAtMs = this.outbox.size === 0 ? Number.POSITIVE_INFINITY : nowMs + this.retryMs;
  }

  /** Sends what is due. */
  flush(nowMs: number, applied: number, send: (message: LeaseMessage) => void): void {
    const { epoch, outbox } = this;
    if (nowMs >= this.wantAtMs) {
      this.wantAtMs = nowMs + this.retryMs;
      send({ kind: "want", epoch, from: applied + 1 });
    }
    if (!outbox.hasUnsent && applied - this.progressTold >= PROGRESS_EVENTS) {
      this.progressTold = applied;
      send({ kind: "submit", epoch, applied, first: outbox.firstUnsent, items: [] });
    }
    while (outbox.hasUnsent) {
      this.retryAtMs = nowMs + this.retryMs;
      this.progressTold = applied;
      const first = outbox.firstUnsent;
      send({ kind: "submit", epoch, applied, first, items: outbox.takeUnsent(LEASE_BATCH_MAX) });
    }
  }
}

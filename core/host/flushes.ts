/**
 * FLUSH (R8), and writes whose durability must be had again after a view change.
 *
 *   start --> all that was acknowledged is known durable everywhere ----------------> answered
 *     |   --> all of it is ours, and its syncs run: waits for `durable` ------------>    "
 *     +-----> barrier: every recipient syncs, then answers ------------------------->    "
 *
 * The first two ways need no message, but the grants that a read needs (R7): a host that was cut
 * off does not know what a newer view without it has acknowledged. A view change starts all again
 * after OPEN.
 */
import { OUTCOME } from "../base/outcome.ts";
import type { Seq } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import { type Op, OP_STATE } from "./op.ts";
import type { Parts } from "./parts.ts";

export class Flushes {
  private readonly parts: Parts;
  /** Answered by a barrier. */
  private waiting: Op[] = [];
  /** Answered once the own stream is durable up to their `lastSeq`, which never falls. */
  private following: Op[] = [];

  constructor(parts: Parts) {
    this.parts = parts;
  }

  start(op: Op): void {
    const { mirror, membership, forecast, nowMs } = this.parts;
    op.state = OP_STATE.barrier;
    // A write that was executed in an older view: its records are in no stream of this one.
    const isFlush = op.command === COMMAND.flush;
    if (isFlush) forecast.asked();
    const seq = isFlush && membership.mayRead(nowMs) ? mirror.flushSeq() : null;
    if (seq === null) {
      this.barrier(op);
    } else if (seq === 0) {
      this.parts.finish(op, OUTCOME.ok);
    } else {
      op.lastSeq = seq;
      this.following.push(op);
    }
  }

  /** Own stream: durable at all recipients up to `seq`. */
  durable(seq: Seq): void {
    while (this.following.length > 0) {
      const op = this.following[0] as Op;
      if (op.lastSeq > seq) return;
      this.following.shift();
      if (this.parts.membership.mayRead(this.parts.nowMs)) this.parts.finish(op, OUTCOME.ok);
      else this.barrier(op);
    }
  }

  /** All recipients synced, or our own disk failed: then another member must flush. */
  done(op: Op, ok: boolean): void {
    const index = this.waiting.indexOf(op);
    if (index < 0) return;
    this.waiting.splice(index, 1);
    if (ok) this.parts.finish(op, OUTCOME.ok);
    else this.parts.dispatch(op);
  }

  /** The view changed: every barrier begins again where the request goes now. */
  restart(): void {
    const again = [...this.waiting, ...this.following];
    this.waiting = [];
    this.following = [];
    // The mirror would keep them for the next view of ours; they may go to a proxy instead.
    this.parts.mirror.takeBarriers();
    for (const op of again) {
      // A write that waits only for durability: its records exist, whoever looks next.
      if (op.command !== COMMAND.flush) op.rewind();
      this.parts.dispatch(op);
    }
  }

  private barrier(op: Op): void {
    this.waiting.push(op);
    this.parts.mirror.barrier(this.parts.nowMs, op.index);
  }
}

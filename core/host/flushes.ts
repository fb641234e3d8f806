/**
 * Barriers (R8): FLUSH, and writes whose durability must be had again after a view change. A
 * barrier is answered when every recipient has synced; a view change starts it again after OPEN.
 */
import { OUTCOME } from "../base/outcome.ts";
import { COMMAND } from "../format/nbd.ts";
import { type Op, OP_STATE } from "./op.ts";
import type { Parts } from "./parts.ts";

export class Flushes {
  private readonly parts: Parts;
  private waiting: Op[] = [];

  constructor(parts: Parts) {
    this.parts = parts;
  }

  start(op: Op): void {
    op.state = OP_STATE.barrier;
    this.waiting.push(op);
    this.parts.mirror.barrier(this.parts.nowMs, op.index);
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
    const again = this.waiting;
    this.waiting = [];
    // The mirror would keep them for the next view of ours; they may go to a proxy instead.
    this.parts.mirror.takeBarriers();
    for (const op of again) {
      // A write that waits only for durability: its records exist, whoever looks next.
      if (op.command !== COMMAND.flush) op.rewind();
      this.parts.dispatch(op);
    }
  }
}

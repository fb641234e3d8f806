/**
 * Reads at a serving member (R7): enough unexpired grants on arrival and at the answer, the
 * newest version in the own log, answered once that version is known committed. Always local,
 * unless our copy is bad.
 *
 * Invariant: `op.waitSeqs` are taken in the same turn as the store's index look-up, so they name
 * exactly the uncommitted records whose bytes the read may return. Waiting for those (and not for
 * a version older than them) gives, per block, the newest value that was in the log at that
 * moment; its commit lies between the request's arrival and its answer, or it was committed on
 * arrival and, since every commit needs our log, was the newest committed then: linearizable.
 */
import { must } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import { type Op, OP_STATE } from "./op.ts";
import type { Parts } from "./parts.ts";

/** Blocks per store read: bounds the time one call takes. */
const STEP_BLOCKS = 128;
/** Extents in one BLOCK_STATUS answer (proto.md allows to describe less than was asked). */
const EXTENTS_MAX = 1024;
/** `base:allocation` flags (proto.md, "NBD_STATE_HOLE", "NBD_STATE_ZERO"). */
const STATE_HOLE_ZERO = 3;

export class Reads {
  private readonly parts: Parts;
  /** Have their data, wait for commits or grants. */
  private readonly settled: Op[] = [];
  /** Ask for block status that the index, not in memory, cannot tell yet. */
  private untold: Op[] = [];
  private readonly replyExtents: (op: Op, pairs: number[]) => void;

  constructor(parts: Parts, replyExtents: (op: Op, pairs: number[]) => void) {
    this.parts = parts;
    this.replyExtents = replyExtents;
  }

  /** Begins at a serving member with grants. */
  start(op: Op): void {
    op.readEpoch = this.parts.epoch;
    op.cursorLba = op.startLba;
    op.mustWait = false;
    op.repairTried = 0;
    op.stepBlocksMax = STEP_BLOCKS;
    op.waitSeqs.fill(0);
    if (op.command === COMMAND.blockStatus) {
      this.status(op);
      return;
    }
    op.useReadBuffer();
    this.step(op);
  }

  /** The store's read is back. */
  dataRead(op: Op, outcome: Outcome): void {
    if (op.readEpoch !== this.parts.epoch || !this.parts.serving) {
      this.parts.dispatch(op);
      return;
    }
    if (outcome !== OUTCOME.ok) {
      this.parts.repair(op);
      return;
    }
    op.cursorLba += this.stepBlocks(op);
    this.step(op);
  }

  /** The blocks of the current step came from another member, into place. */
  repaired(op: Op): void {
    if (op.readEpoch !== this.parts.epoch || !this.parts.serving) {
      this.parts.dispatch(op);
      return;
    }
    op.cursorLba += this.stepBlocks(op);
    this.step(op);
  }

  /** No member has all blocks of the current step: on block by block, the own store first. */
  narrow(op: Op): void {
    if (op.readEpoch !== this.parts.epoch || !this.parts.serving) {
      this.parts.dispatch(op);
      return;
    }
    op.stepBlocksMax = 1;
    this.step(op);
  }

  /** Blocks of the current step, for the store and for repair. */
  stepBlocks(op: Op): number {
    return Math.min(op.stepBlocksMax, STEP_BLOCKS, op.endLba - op.cursorLba);
  }

  /** Commits, grants, the view or the store's index moved: answer what can be answered now. */
  advance(): void {
    if (this.untold.length > 0) this.tellStatus();
    const { settled } = this;
    if (settled.length === 0) return;
    let kept = 0;
    const count = settled.length;
    for (let index = 0; index < count; index += 1) {
      const op = settled[index]!;
      if (this.mayAnswer(op)) this.parts.finish(op, OUTCOME.ok);
      else if (op.readEpoch !== this.parts.epoch) this.parts.dispatch(op);
      else {
        settled[kept] = op;
        kept += 1;
      }
    }
    // Dispatched ops may have come back behind the ones looked at.
    for (let index = count; index < settled.length; index += 1) {
      settled[kept] = settled[index]!;
      kept += 1;
    }
    settled.length = kept;
  }

  /** The store failed: what has its data may still be answered elsewhere. */
  abandon(): void {
    for (const op of this.settled.splice(0)) this.parts.dispatch(op);
    for (const op of this.untold.splice(0)) this.parts.dispatch(op);
  }

  private step(op: Op): void {
    const store = must(this.parts.store, "reads: serving without a store");
    while (op.cursorLba < op.endLba) {
      const lba = op.cursorLba;
      const count = this.stepBlocks(op);
      const at = op.bufferAt + (lba - op.startLba) * BLOCK_BYTES;
      this.noteWaits(op, lba, count);
      const outcome = store.read(op.index, op.volume, lba, count, op.buffer, at);
      if (outcome === OUTCOME.pending) {
        op.state = OP_STATE.data;
        return;
      }
      if (outcome !== OUTCOME.ok) {
        this.parts.repair(op);
        return;
      }
      op.cursorLba += count;
    }
    op.state = OP_STATE.settled;
    if (this.mayAnswer(op)) this.parts.finish(op, OUTCOME.ok);
    else this.settled.push(op);
  }

  private noteWaits(op: Op, lba: number, blockCount: number): void {
    const { rules, uncommitted } = this.parts;
    if (op.internal === null ? !rules.readCommitted : !rules.copyCommitted) return;
    for (let sender = 0; sender < uncommitted.length; sender += 1) {
      const seq = uncommitted[sender]!.newestOverlap(op.volume, lba, blockCount);
      if (seq > op.waitSeqs[sender]!) {
        op.waitSeqs[sender] = seq;
        op.mustWait = true;
      }
    }
  }

  private mayAnswer(op: Op): boolean {
    const { parts } = this;
    if (op.readEpoch !== parts.epoch || !parts.membership.mayRead(parts.nowMs)) return false;
    if (!op.mustWait) return true;
    for (let sender = 0; sender < LIMITS.hostCountMax; sender += 1) {
      const seq = op.waitSeqs[sender]!;
      if (seq > 0 && parts.mirror.committedOf(sender as typeof parts.self) < seq) return false;
    }
    return true;
  }

  private status(op: Op): void {
    const store = must(this.parts.store, "reads: serving without a store");
    const pairs: number[] = [];
    const endByte = op.offset + op.lengthBytes;
    let at = op.offset;
    const blockCount = op.endLba - op.startLba;
    const told = store.extents(op.volume, op.startLba, blockCount, (count, isData) => {
      const extentEnd = Math.floor(at / BLOCK_BYTES) * BLOCK_BYTES + count * BLOCK_BYTES;
      const length = Math.min(extentEnd, endByte) - at;
      const flags = isData ? 0 : STATE_HOLE_ZERO;
      if (length <= 0 || pairs.length >= EXTENTS_MAX * 2) return;
      pairs.push(length, flags);
      at += length;
    });
    if (told === 0) this.untold.push(op);
    else this.replyExtents(op, pairs);
  }

  private tellStatus(): void {
    const waiting = this.untold;
    this.untold = [];
    for (const op of waiting) {
      if (op.readEpoch !== this.parts.epoch || !this.parts.serving) this.parts.dispatch(op);
      else this.status(op);
    }
  }
}

/**
 * Writes, trims and zeroes at a serving member (R6): lease, room, append to the own log and the
 * mirror, commit, and for FUA durable everywhere. Runs to completion per event; no allocation per
 * request on the whole-block path.
 *
 * Invariants:
 *  W1 a record is appended only while the op holds the lease on its whole range in this epoch;
 *  W2 the commit queue is in stream order, so commit and answer are in stream order;
 *  W3 a partly written block is read and appended without another write to it in between.
 */
import { assert, must } from "../base/assert.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES, type Seq } from "../base/units.ts";
import { isZero } from "../base/zero.ts";
import { COMMAND } from "../format/nbd.ts";
import {
  RECORD_HEADER_BYTES,
  RECORD_TYPE,
  RecordHeader,
  writeRecordBytes,
} from "../format/record.ts";
import { FLAG_FUA } from "../mirror/in_stream.ts";
import { type Op, OP_STATE, OpQueue } from "./op.ts";
import type { Parts } from "./parts.ts";
import { makesHole, nextPiece, Piece } from "./pieces.ts";
import type { Room } from "./room.ts";

const ZEROS = new Uint8Array(128 * BLOCK_BYTES);

export class Writes {
  private readonly parts: Parts;
  private readonly space: Room;
  private readonly header = new RecordHeader();
  private readonly piece = new Piece();
  private readonly roomQueue = new OpQueue();
  private readonly busyQueue = new OpQueue();
  private readonly commitQueue = new OpQueue();
  private readonly durableQueue = new OpQueue();
  /** Ops whose partly written block is being read: nobody else may append to that block. */
  private readonly edges: Op[] = [];
  private durableSeq: Seq = 0;
  /** Called for ops that need a barrier to be durable (after a view change). */
  private readonly barrier: (op: Op) => void;
  /** Called for every record: sync points are made only while something is written. */
  private readonly wrote: () => void;

  constructor(parts: Parts, room: Room, barrier: (op: Op) => void, wrote: () => void) {
    this.parts = parts;
    this.space = room;
    this.barrier = barrier;
    this.wrote = wrote;
  }

  /** Begins, or begins again, at a serving member. */
  start(op: Op): void {
    const { policing, nowMs, epoch } = this.parts;
    if (op.firstEpoch === 0) op.firstEpoch = epoch;
    const grant = policing.tryAcquire(nowMs, op.volume, op.startLba, op.endLba, op.priority);
    if (grant > 0) {
      this.granted(op, grant);
      return;
    }
    op.state = OP_STATE.lease;
    policing.request(nowMs, op.index, op.volume, op.startLba, op.endLba, op.priority);
  }

  granted(op: Op, grant: number): void {
    op.leaseEpoch = this.parts.epoch;
    op.grant = grant;
    if (this.roomQueue.length > 0) {
      op.state = OP_STATE.room;
      this.roomQueue.push(op);
      return;
    }
    this.step(op);
  }

  /** The window or the store has room again; between two views there is no lease to write by. */
  roomOpened(): void {
    if (!this.parts.serving) return;
    const waiting = this.roomQueue.length;
    for (let index = 0; index < waiting; index += 1) {
      const op = must(this.roomQueue.peek(), "writes: room queue is shorter than counted");
      if (!this.hasRoom(op)) return;
      this.roomQueue.shift();
      this.step(op);
    }
  }

  /** The read of a partly written block is back. */
  edgeRead(op: Op, outcome: Outcome): void {
    this.edges.splice(this.edges.indexOf(op), 1);
    if (op.leaseEpoch !== this.parts.epoch || !this.parts.serving) this.restart(op, false);
    else if (outcome !== OUTCOME.ok) this.parts.repair(op);
    else this.appendMerged(op);
    for (const waiter of this.busyQueue.drain()) this.resume(waiter);
  }

  /** A good copy of the partly written block came from another member, into `op.buffer`. */
  edgeRepaired(op: Op): void {
    if (op.leaseEpoch !== this.parts.epoch || !this.parts.serving) this.restart(op, false);
    else this.appendMerged(op);
  }

  /** Own stream: all recipients have every record up to `seq`. */
  committed(seq: Seq): void {
    for (let op = this.commitQueue.peek(); op !== null; op = this.commitQueue.peek()) {
      if (op.appendEpoch !== this.parts.epoch || op.lastSeq > seq) return;
      this.commitQueue.shift();
      this.release(op);
      if (!op.fua || this.durableSeq >= op.lastSeq) {
        this.parts.finish(op, OUTCOME.ok);
      } else {
        op.state = OP_STATE.durable;
        this.durableQueue.push(op);
      }
    }
  }

  /** Own stream: durable at all recipients up to `seq`. */
  durable(seq: Seq): void {
    this.durableSeq = seq;
    for (let op = this.durableQueue.peek(); op !== null; op = this.durableQueue.peek()) {
      if (op.lastSeq > seq) return;
      this.durableQueue.shift();
      this.parts.finish(op, OUTCOME.ok);
    }
  }

  /**
   * A view opened in which this host goes on as a member: its records up to `cut` are committed
   * (R5), leases begin anew.
   */
  reopened(cut: Seq): void {
    this.durableSeq = 0;
    const appended = this.commitQueue.drain();
    const committed = this.durableQueue.drain();
    const waiting = [...this.roomQueue.drain(), ...this.busyQueue.drain()];
    for (const op of committed) {
      if (this.parts.hasCopies) this.barrier(op);
      else this.restart(op, true);
    }
    for (const op of appended) {
      op.leaseEpoch = 0;
      // With too few copies it waits, parked, for a view with enough (G1).
      if (op.lastSeq > cut || !this.parts.hasCopies) this.restart(op, true);
      else if (op.fua) this.barrier(op);
      else this.parts.finish(op, OUTCOME.ok);
    }
    for (const op of waiting) this.restart(op, false);
  }

  /** This host is no member any more: everything goes on through another, if need be again. */
  excluded(): void {
    this.durableSeq = 0;
    const all = [
      ...this.durableQueue.drain(),
      ...this.commitQueue.drain(),
      ...this.roomQueue.drain(),
      ...this.busyQueue.drain(),
    ];
    for (const op of all) {
      // Not given back: the range stays ours until a view without us, so that nobody writes
      // there while our last records may still be on their way.
      op.leaseEpoch = 0;
      this.restart(op, true);
    }
  }

  /** Ends the lease use of a finished or abandoned op. */
  release(op: Op): void {
    if (op.leaseEpoch !== 0 && op.leaseEpoch === this.parts.epoch) {
      const { policing, nowMs } = this.parts;
      policing.finish(nowMs, op.volume, op.startLba, op.endLba, op.grant);
    }
    op.leaseEpoch = 0;
  }

  /** Routes an op again; with `maybeExecuted` its records may exist somewhere already. */
  restart(op: Op, maybeExecuted: boolean): void {
    this.rewind(op, maybeExecuted);
    this.parts.dispatch(op);
  }

  /** Gives up the lease; whoever executes the op next begins at its first record. */
  rewind(op: Op, maybeExecuted: boolean): void {
    this.release(op);
    if (maybeExecuted || op.pieces > 0) op.rewind();
  }

  private resume(op: Op): void {
    if (op.leaseEpoch !== this.parts.epoch || !this.parts.serving) this.restart(op, false);
    else this.step(op);
  }

  /** Appends piece after piece as far as room and partly written blocks allow. */
  private step(op: Op): void {
    const parts = this.parts;
    while (op.cursorLba < op.endLba) {
      const piece = nextPiece(op, this.piece);
      if (op.retry || op.request === null) {
        // Another host may have executed it, or may do so while it waited here (R15).
        const known = parts.recent.ask(
          op.origin,
          op.originInc,
          op.requestBase + op.pieces,
          op.firstEpoch,
        );
        if (known === "forgotten") {
          this.release(op);
          parts.finish(op, OUTCOME.io);
          return;
        }
        if (known === "appended") {
          op.cursorLba += piece.blockCount;
          op.pieces += 1;
          continue;
        }
      }
      if (this.isBusy(op, piece)) {
        op.state = OP_STATE.busyBlock;
        this.busyQueue.push(op);
        return;
      }
      const room = this.room(op, piece);
      if (room === OUTCOME.pending) {
        op.state = OP_STATE.room;
        this.roomQueue.push(op);
        return;
      }
      if (room !== OUTCOME.ok) {
        this.fail(op, room);
        return;
      }
      if (this.leavesHole(op, piece)) {
        this.append(op, piece, null, 0);
      } else if (piece.isPartial) {
        if (!this.readEdge(op, piece)) return;
        this.merge(op, piece);
        this.append(op, piece, op.buffer, 0);
      } else {
        this.appendWhole(op, piece);
      }
    }
    this.appendedAll(op);
  }

  private appendedAll(op: Op): void {
    const { mirror, epoch, self } = this.parts;
    if (op.appendEpoch !== epoch || op.lastSeq === 0) {
      // Every record was known from an earlier try. Those of other senders are committed, since
      // we have the lease (R9b); our own are when our stream is committed up to here.
      op.appendEpoch = epoch;
      op.lastSeq = mirror.nextSeq() - 1;
      if (op.fua || mirror.committedOf(self) >= op.lastSeq) {
        this.release(op);
        this.barrier(op);
        return;
      }
    }
    op.state = OP_STATE.commit;
    this.commitQueue.push(op);
  }

  private appendMerged(op: Op): void {
    const piece = nextPiece(op, this.piece);
    assert(piece.isPartial, "writes: merged piece is not partial");
    this.merge(op, piece);
    this.append(op, piece, op.buffer, 0);
    this.step(op);
  }

  /** The store failed under the op: another member executes it; a full store is the answer. */
  private fail(op: Op, outcome: Outcome): void {
    if (outcome === OUTCOME.full) {
      this.parts.refusedMs = this.parts.nowMs;
      this.release(op);
      this.parts.finish(op, OUTCOME.full);
      return;
    }
    op.state = OP_STATE.room;
    this.roomQueue.push(op);
  }

  private hasRoom(op: Op): boolean {
    return this.room(op, nextPiece(op, this.piece)) !== OUTCOME.pending;
  }

  private room(op: Op, piece: Piece): Outcome {
    const { store, mirror } = this.parts;
    if (store === null) return OUTCOME.pending;
    const ready = store.prepare(op.volume, piece.lba, piece.blockCount);
    if (ready !== OUTCOME.ok) return ready;
    const holes = this.leavesHole(op, piece);
    const bytes = holes ? RECORD_HEADER_BYTES : writeRecordBytes(piece.blockCount);
    if (!mirror.windowFree(bytes)) return OUTCOME.pending;
    if (holes) return store.admit(bytes, "reserve");
    return this.space.admit(op.volume, piece.lba, piece.blockCount);
  }

  /** True if what the piece writes are holes afterwards, so that it takes no room. */
  private leavesHole(op: Op, piece: Piece): boolean {
    if (piece.isPartial) {
      // A part of a hole stays one.
      return makesHole(op) && this.parts.store?.placeOf(op.volume, piece.lba) === 0;
    }
    if (op.command !== COMMAND.write) return makesHole(op);
    const dataAt = op.dataAt + piece.lba * BLOCK_BYTES - op.offset;
    return isZero(op.data, dataAt, piece.blockCount * BLOCK_BYTES);
  }

  private isBusy(op: Op, piece: Piece): boolean {
    for (const other of this.edges) {
      if (other === op || other.volume !== op.volume) continue;
      const lba = other.cursorLba;
      if (lba >= piece.lba && lba < piece.lba + piece.blockCount) return true;
    }
    return false;
  }

  /** Reads the block that the op writes partly; true if it is in `op.buffer` now. */
  private readEdge(op: Op, piece: Piece): boolean {
    const store = must(this.parts.store, "writes: no store under a lease");
    op.useOwnBuffer(BLOCK_BYTES);
    const outcome = store.read(op.index, op.volume, piece.lba, 1, op.buffer, 0);
    if (outcome === OUTCOME.ok) return true;
    if (outcome === OUTCOME.pending) {
      op.state = OP_STATE.edge;
      this.edges.push(op);
    } else {
      this.parts.repair(op);
    }
    return false;
  }

  private merge(op: Op, piece: Piece): void {
    const blockAt = piece.lba * BLOCK_BYTES;
    const from = Math.max(op.offset, blockAt);
    const to = Math.min(op.offset + op.lengthBytes, blockAt + BLOCK_BYTES);
    if (op.command === COMMAND.write) {
      const dataAt = op.dataAt + from - op.offset;
      op.buffer.set(op.data.subarray(dataAt, dataAt + to - from), from - blockAt);
    } else if (op.command === COMMAND.writeZeroes) {
      op.buffer.fill(0, from - blockAt, to - blockAt);
    }
  }

  private appendWhole(op: Op, piece: Piece): void {
    if (op.command === COMMAND.write) {
      this.append(op, piece, op.data, op.dataAt + piece.lba * BLOCK_BYTES - op.offset);
    } else {
      this.append(op, piece, ZEROS, 0);
    }
  }

  private append(op: Op, piece: Piece, data: Uint8Array | null, dataAt: number): void {
    const { mirror, uncommitted, recent, forecast, self, epoch, point } = this.parts;
    const store = must(this.parts.store, "writes: no store under a lease");
    assert(op.leaseEpoch === epoch, "writes: append without a lease of this epoch");
    const header = this.header;
    header.type = data === null ? RECORD_TYPE.zero : RECORD_TYPE.write;
    forecast.wrote();
    const isForeseen = !op.fua && forecast.foresees;
    if (isForeseen) forecast.began();
    header.flags = op.fua || isForeseen ? FLAG_FUA : 0;
    header.sender = self;
    header.volume = op.volume;
    header.blockCount = piece.blockCount;
    header.lba = piece.lba;
    header.epoch = epoch;
    header.seq = mirror.nextSeq();
    header.grant = op.grant;
    header.request = op.requestBase + op.pieces;
    header.tagPoint = point;
    header.origin = op.origin;
    header.originInc = op.originInc;
    if (data === null) store.appendEmpty(header);
    else store.appendWrite(header, data, dataAt);
    uncommitted[self]!.push(header.seq, op.volume, piece.lba, piece.blockCount);
    recent.note(op.origin, op.originInc, header.request);
    mirror.sent(header, store.lastBuffer, store.lastAt, store.lastLength, store.lastLsn, op.shared);
    this.wrote();
    op.lastSeq = header.seq;
    op.appendEpoch = epoch;
    op.cursorLba += piece.blockCount;
    op.pieces += 1;
  }
}

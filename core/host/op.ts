/**
 * One request in the host, from arrival to answer: a client's of this host, or one that another
 * host forwarded to us (R15). Slots are pooled; a slot's index is its token at the machines below.
 *
 *   free -> parked -> lease -> room -> commit -> durable -> free      (writes; edge: RMW read)
 *                  -> data -> settled -> free                         (reads)
 *                  -> barrier -> free                                 (flush)
 *                  -> away -> free                                    (forwarded to a member)
 *
 * Any state may go back to `parked` when the view changes: the request is then routed anew, and
 * records it had already appended are recognised by their request numbers.
 */
import type { Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES, hostId, type HostId, type VolumeId, volumeId } from "../base/units.ts";
import { LIMITS } from "../base/limits.ts";
import type { Request } from "../nbd/request.ts";

export const OP_STATE = {
  free: 0,
  /** Waits for a view, a proxy or a grant; looked at again at every change and tick. */
  parked: 1,
  /** Waits for the policing module. */
  lease: 2,
  /** Waits for the mirror's window or the store's buffers; keeps its lease. */
  room: 3,
  /** Waits for the read of a partly written block; keeps its lease. */
  edge: 4,
  /** Waits until another request's partly written block is done; keeps its lease. */
  busyBlock: 5,
  /** Appended; waits until all recipients have it. */
  commit: 6,
  /** Committed; waits until it is durable at all recipients. */
  durable: 7,
  /** Waits for the store's read. */
  data: 8,
  /** Has its data; waits until the versions it read are known committed, and for grants. */
  settled: 9,
  /** Waits for a barrier. */
  barrier: 10,
  /** Another member executes it. */
  away: 11,
  /** Waits for a good copy of a bad block from another member. */
  repair: 12,
} as const;
export type OpState = (typeof OP_STATE)[keyof typeof OP_STATE];

const NO_DATA = new Uint8Array(0);
/** Memory of its own up to this size stays with a slot. */
const KEPT_BUFFER_BYTES = 256 * 1024;

export class Op {
  readonly index: number;
  /** Counts uses of the slot, 16 bits: a late answer from a peer must not find a new request. */
  generation = 0;
  state: OpState = OP_STATE.free;
  /** The client's request; null for a forwarded one. */
  request: Request | null = null;
  remoteHost: HostId = hostId(0);
  remoteSlot = 0;
  remoteGeneration = 0;
  /** Answered from our own store or not at all: another host's repair, a resync's read. */
  localOnly = false;
  /** Bit set of members that were asked for good copies of the blocks at the cursor. */
  repairTried = 0;
  /** One of them could not tell whether its copy is good. */
  isRepairOpen = false;
  /** Blocks of one step of a read, at most; 1 where the copies of a step are bad everywhere. */
  stepBlocksMax = Number.POSITIVE_INFINITY;
  /** Takes the result of a request that the host made itself (resync, healing); null otherwise. */
  internal: ((op: Op, outcome: Outcome) => void) | null = null;

  command = 0;
  fua = false;
  noHole = false;
  priority = 0;
  volume: VolumeId = volumeId(0);
  shared = false;
  offset = 0;
  lengthBytes = 0;
  data: Uint8Array = NO_DATA;
  dataAt = 0;

  origin: HostId = hostId(0);
  originInc = 0;
  /** Number of the first record; record n of the request has `requestBase + n`. 0: none. */
  requestBase = 0;
  /** The next record may have been appended already, here or elsewhere: it is looked up first. */
  retry = false;
  /** All records of the op may have been. */
  wasRewound = false;
  /** Epoch in which the request was first tried anywhere; 0 = not yet. */
  firstEpoch = 0;

  startLba = 0;
  endLba = 0;
  /** First block not yet appended (writes) or read (reads). */
  cursorLba = 0;
  pieces = 0;
  /** Epoch in which the lease was taken; 0 = no lease held. */
  leaseEpoch = 0;
  grant = 0;
  /** Epoch and seq of the last record appended. */
  appendEpoch = 0;
  lastSeq = 0;
  /** Epoch in which a read began. */
  readEpoch = 0;
  /** Per sender the seq that must be known committed before the data may be returned. */
  readonly waitSeqs = new Float64Array(LIMITS.hostCountMax);
  mustWait = false;
  /**
   * Where the data of a read go (the whole blocks that cover it, from `bufferAt`): the client
   * session's reply, or `own`. For a partly written block: `own`, from 0.
   */
  buffer: Uint8Array = NO_DATA;
  bufferAt = 0;
  private own: Uint8Array = NO_DATA;
  outcome: Outcome = 0;

  /** Forwarding: which member has it, how far it got, pieces still out. */
  proxy: HostId = hostId(0);
  sentBytes = 0;

  constructor(index: number) {
    this.index = index;
  }

  /** Sets the block range from offset and length. */
  span(): void {
    this.startLba = Math.floor(this.offset / BLOCK_BYTES);
    this.endLba = Math.ceil((this.offset + this.lengthBytes) / BLOCK_BYTES);
    this.cursorLba = this.startLba;
  }

  /**
   * Whoever executes the op next begins at its first record, and looks each one up (R15). Place,
   * number and bytes sent go back together: record n of a request has one number everywhere.
   */
  rewind(): void {
    this.retry = true;
    this.wasRewound = true;
    this.cursorLba = this.startLba;
    this.pieces = 0;
    this.sentBytes = 0;
  }

  /** Points `buffer` at memory of our own of at least `bytes`. */
  useOwnBuffer(bytes: number): void {
    if (this.own.length < bytes) this.own = new Uint8Array(Math.max(bytes, BLOCK_BYTES));
    this.buffer = this.own;
    this.bufferAt = 0;
  }

  /** Points `buffer` at the client's reply, or at our own memory for a forwarded read. */
  useReadBuffer(): void {
    if (this.buffer !== NO_DATA) return;
    if (this.request === null) {
      this.useOwnBuffer((this.endLba - this.startLba) * BLOCK_BYTES);
      return;
    }
    this.request.session.reserveRead(this.request);
    this.buffer = this.request.readBuffer;
    this.bufferAt = this.request.readAt;
  }

  /** Back to a blank slot; large buffers are let go. */
  reset(): void {
    this.state = OP_STATE.free;
    this.generation = (this.generation + 1) & 0xffff;
    this.request = null;
    this.localOnly = false;
    this.repairTried = 0;
    this.isRepairOpen = false;
    this.stepBlocksMax = Number.POSITIVE_INFINITY;
    this.internal = null;
    this.fua = false;
    this.noHole = false;
    this.shared = false;
    this.data = NO_DATA;
    this.dataAt = 0;
    this.requestBase = 0;
    this.retry = false;
    this.wasRewound = false;
    this.firstEpoch = 0;
    this.pieces = 0;
    this.leaseEpoch = 0;
    this.grant = 0;
    this.appendEpoch = 0;
    this.lastSeq = 0;
    this.readEpoch = 0;
    this.mustWait = false;
    this.outcome = 0;
    this.sentBytes = 0;
    this.buffer = NO_DATA;
    this.bufferAt = 0;
    if (this.own.length > KEPT_BUFFER_BYTES) this.own = NO_DATA;
  }
}

/** All slots of a host. Bounded by `LIMITS.waitingRequestsMax`. */
export class OpTable {
  readonly slots: Op[] = [];
  private readonly freeSlots: number[] = [];

  /** A blank slot, or null at the bound. */
  take(): Op | null {
    const index = this.freeSlots.pop();
    if (index !== undefined) return this.slots[index]!;
    if (this.slots.length >= LIMITS.waitingRequestsMax) return null;
    const op = new Op(this.slots.length);
    this.slots.push(op);
    return op;
  }

  at(index: number): Op {
    return this.slots[index]!;
  }

  free(op: Op): void {
    op.reset();
    this.freeSlots.push(op.index);
  }

  get busyCount(): number {
    return this.slots.length - this.freeSlots.length;
  }
}

/** A first-in-first-out list of slots without shifting; grows to the number of slots. */
export class OpQueue {
  private items: (Op | null)[] = new Array(64).fill(null);
  private head = 0;
  private count = 0;

  get length(): number {
    return this.count;
  }

  push(op: Op): void {
    if (this.count === this.items.length) this.grow();
    this.items[(this.head + this.count) % this.items.length] = op;
    this.count += 1;
  }

  peek(): Op | null {
    return this.count === 0 ? null : this.items[this.head]!;
  }

  shift(): Op | null {
    if (this.count === 0) return null;
    const op = this.items[this.head]!;
    this.items[this.head] = null;
    this.head = (this.head + 1) % this.items.length;
    this.count -= 1;
    return op;
  }

  /** Removes and returns all, oldest first. */
  drain(): Op[] {
    const all: Op[] = [];
    for (let op = this.shift(); op !== null; op = this.shift()) all.push(op);
    return all;
  }

  private grow(): void {
    const items = new Array<Op | null>(this.items.length * 2).fill(null);
    for (let index = 0; index < this.count; index += 1) {
      items[index] = this.items[(this.head + index) % this.items.length]!;
    }
    this.items = items;
    this.head = 0;
  }
}

/**
 * Where a request is executed: here if this host serves, else by a member (forwarding), else it
 * waits. Also the end of every request, and the repair of a read whose local copy is bad.
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES, type HostId, type VolumeId } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import type { Flushes } from "./flushes.ts";
import type { Forwarding } from "./forwarding.ts";
import type { FrontDoor } from "./front_door.ts";
import { type Op, OP_STATE } from "./op.ts";
import type { Parts } from "./parts.ts";
import type { Peers } from "./peers.ts";
import type { Reads } from "./reads.ts";
import type { ViewChange } from "./view_change.ts";
import type { Writes } from "./writes.ts";

/** Bad blocks waiting for a good copy; more are found again by the next read or the scrub. */
const BAD_MAX = 256;

interface BadBlock {
  readonly volume: VolumeId;
  readonly lba: number;
  readonly place: number;
}

export interface RouterParts {
  readonly front: FrontDoor;
  readonly reads: Reads;
  readonly writes: Writes;
  readonly flushes: Flushes;
  readonly forwarding: Forwarding;
  readonly change: ViewChange;
  readonly peers: Peers;
}

export class Router {
  private readonly parts: Parts;
  private readonly to: RouterParts;
  private parked: Op[] = [];
  private bad: BadBlock[] = [];
  private lastProxy: HostId | null = null;
  /** Reads of our clients served by our own store, and pieces of them asked of other members. */
  readonly readCounts = { local: 0, remote: 0 };

  constructor(parts: Parts, to: RouterParts) {
    this.parts = parts;
    this.to = to;
  }

  get parkedCount(): number {
    return this.parked.length;
  }

  dispatch(op: Op): void {
    if (this.parts.serving) {
      this.execute(op);
      return;
    }
    if (op.internal !== null) {
      this.finish(op, OUTCOME.io);
      return;
    }
    if (op.request === null) {
      this.to.forwarding.reply(op, OUTCOME.ok, true);
      this.parts.ops.free(op);
      return;
    }
    if (this.isHopeless()) {
      this.finish(op, OUTCOME.io);
      return;
    }
    const proxy = this.proxy();
    if (proxy === null || !this.to.forwarding.send(op, proxy)) this.park(op);
    else if (op.command === COMMAND.read) this.readCounts.remote += 1;
  }

  /** Looks again at everything parked: a view, a grant, a link or time has come. */
  unpark(): void {
    if (this.parked.length === 0) return;
    const waiting = this.parked;
    this.parked = [];
    for (const op of waiting) this.dispatch(op);
  }

  finish(op: Op, outcome: Outcome): void {
    if (op.internal !== null) op.internal(op, outcome);
    else if (op.request !== null) this.to.front.reply(op, outcome);
    else this.to.forwarding.reply(op, outcome, false);
    this.parts.ops.free(op);
  }

  finishExtents(op: Op, pairs: number[]): void {
    if (op.request !== null) this.to.front.replyExtents(op, pairs);
    else this.to.forwarding.replyPairs(op, pairs);
    this.parts.ops.free(op);
  }

  /** Our copy of the op's next blocks is bad: another member's is asked for. */
  repair(op: Op): void {
    const isRead = op.command === COMMAND.read;
    const blockCount = isRead ? this.to.reads.stepBlocks(op) : 1;
    const member = op.localOnly ? null : this.otherMember();
    if (member !== null && this.to.forwarding.askRepair(op, member, blockCount)) {
      if (isRead) this.readCounts.remote += 1;
      return;
    }
    if (!isRead) this.to.writes.release(op);
    this.finish(op, OUTCOME.io);
  }

  /** A good copy came into the op's buffer, or did not. */
  repaired(op: Op, ok: boolean): void {
    const isRead = op.command === COMMAND.read;
    if (!ok) {
      if (!isRead) this.to.writes.release(op);
      this.finish(op, OUTCOME.io);
      return;
    }
    const first = op.cursorLba;
    const count = isRead ? this.to.reads.stepBlocks(op) : 1;
    const at = op.bufferAt + (isRead ? (first - op.startLba) * BLOCK_BYTES : 0);
    this.heal(op.volume, first, count, op.buffer, at);
    if (isRead) this.to.reads.repaired(op);
    else this.to.writes.edgeRepaired(op);
  }

  /** The store found a bad block; healed when a good copy passes by. */
  noteBad(volume: VolumeId, lba: number): void {
    const { store } = this.parts;
    if (store === null || this.bad.length >= BAD_MAX) return;
    this.bad.push({ volume, lba, place: store.placeOf(volume, lba) });
  }

  /** A member that can execute for us; null while there is none or we are about to serve. */
  proxy(): HostId | null {
    const { change, peers } = this.to;
    const { membership, self } = this.parts;
    if (change.role === "member" && change.diskOk && this.parts.store !== null) return null;
    const members = membership.view?.members ?? [];
    const last = this.lastProxy;
    if (last !== null && peers.isUp(last) && members.some((entry) => entry.host === last)) {
      return last;
    }
    this.lastProxy = null;
    for (const entry of members) {
      if (entry.host === self || !peers.isUp(entry.host)) continue;
      this.lastProxy = entry.host;
      break;
    }
    return this.lastProxy;
  }

  /** The proxy said "again" or died: prefer another. */
  forgetProxy(): void {
    this.lastProxy = null;
  }

  private execute(op: Op): void {
    switch (op.command) {
      case COMMAND.read:
      case COMMAND.blockStatus:
        if (!this.parts.membership.mayRead(this.parts.nowMs)) {
          this.park(op);
          return;
        }
        if (op.command === COMMAND.read && op.request !== null) this.readCounts.local += 1;
        this.to.reads.start(op);
        return;
      case COMMAND.flush:
        this.to.flushes.start(op);
        return;
      default:
        if (this.parts.hasCopies) this.to.writes.start(op);
        else this.park(op);
    }
  }

  private park(op: Op): void {
    op.state = OP_STATE.parked;
    this.parked.push(op);
  }

  /** The only data host, without a disk: nobody will ever answer. */
  private isHopeless(): boolean {
    if (this.to.change.diskOk) return false;
    const { roster } = this.parts.options;
    return roster.every((entry) => entry.kind !== "data" || entry.id === this.parts.self);
  }

  private otherMember(): HostId | null {
    for (const entry of this.to.change.view?.members ?? []) {
      if (entry.host !== this.parts.self && this.to.peers.isUp(entry.host)) return entry.host;
    }
    return null;
  }

  private heal(volume: VolumeId, lba: number, count: number, data: Uint8Array, at: number): void {
    const { store } = this.parts;
    if (store === null || this.bad.length === 0) return;
    const others: BadBlock[] = [];
    for (const each of this.bad) {
      const isHere = each.volume === volume && each.lba >= lba && each.lba < lba + count;
      if (!isHere) {
        others.push(each);
        continue;
      }
      store.heal(volume, each.lba, each.place, data, at + (each.lba - lba) * BLOCK_BYTES);
    }
    this.bad = others;
  }
}

/**
 * Where a request is executed: here if this host serves, else by a member (forwarding), else it
 * waits. Also the end of every request, and good copies for a read whose local copy is bad (the
 * local copy is the healer's matter).
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import type { HostId } from "../base/units.ts";
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

  /** Our copy of the op's next blocks is bad: the other members are asked, one after the other. */
  repair(op: Op): void {
    const isRead = op.command === COMMAND.read;
    if ((isRead ? op.readEpoch : op.leaseEpoch) !== this.parts.epoch || !this.parts.serving) {
      // Another view: our own copy may be a better one by now, or somebody else's turn.
      if (isRead) this.dispatch(op);
      else this.to.writes.restart(op, false);
      return;
    }
    const blockCount = isRead ? this.to.reads.stepBlocks(op) : 1;
    const member = op.localOnly ? null : this.nextMember(op);
    if (member !== null && this.to.forwarding.askRepair(op, member, blockCount)) {
      op.repairTried |= 1 << member;
      if (isRead) this.readCounts.remote += 1;
      return;
    }
    if (isRead && !op.localOnly && blockCount > 1) {
      // Each copy may be bad somewhere else in these blocks: one by one.
      op.repairTried = 0;
      op.isRepairOpen = false;
      this.to.reads.narrow(op);
      return;
    }
    if (!op.localOnly && this.isMemberAway(op)) {
      // It comes back, or the view goes on without it: until then nobody can tell.
      if (!isRead) this.to.writes.rewind(op, false);
      this.park(op);
      return;
    }
    if (!isRead) this.to.writes.release(op);
    this.finish(op, OUTCOME.io);
  }

  /** `ok`: a good copy came into the op's buffer; `shutdown`: that member cannot tell now. */
  repaired(op: Op, outcome: Outcome): void {
    if (op.internal !== null) {
      this.finish(op, outcome);
      return;
    }
    if (outcome !== OUTCOME.ok) {
      if (outcome === OUTCOME.shutdown) op.isRepairOpen = true;
      this.repair(op);
      return;
    }
    op.repairTried = 0;
    op.isRepairOpen = false;
    if (op.command === COMMAND.read) this.to.reads.repaired(op);
    else this.to.writes.edgeRepaired(op);
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
    op.repairTried = 0;
    op.isRepairOpen = false;
    this.parked.push(op);
  }

  /** The only data host, without a disk: nobody will ever answer. */
  private isHopeless(): boolean {
    if (this.to.change.diskOk) return false;
    const { roster } = this.parts.options;
    return roster.every((entry) => entry.kind !== "data" || entry.id === this.parts.self);
  }

  /** Some member that may have a good copy cannot be asked now. */
  private isMemberAway(op: Op): boolean {
    if (op.isRepairOpen) return true;
    const members = this.to.change.view?.members ?? [];
    return members.some(
      ({ host }) =>
        host !== this.parts.self &&
        !this.to.peers.isUp(host) &&
        (op.repairTried & (1 << host)) === 0,
    );
  }

  private nextMember(op: Op): HostId | null {
    for (const entry of this.to.change.view?.members ?? []) {
      if (entry.host === this.parts.self || !this.to.peers.isUp(entry.host)) continue;
      if ((op.repairTried & (1 << entry.host)) === 0) return entry.host;
    }
    return null;
  }
}

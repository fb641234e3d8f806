/**
 * Why a new view is wanted, who may ask for it, and what to tell people about it (G8).
 *
 * A host proposes if it is named in the members of a newest view it knows (decided, accepted here
 * or by another voter), or is a complete joiner (it may be the only eligible host left). In a
 * cluster without any view every data host with a store may. Other hosts need not ask: what they
 * want is in their beats.
 */
import { proposerOf, type HostId } from "../base/units.ts";
import { entryOf, FLAG, type Member, recipientsOf, type View } from "../format/membership_wire.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";
import type { Opener } from "./opener.ts";
import type { Peer, Peers } from "./peers.ts";
import type { Voter } from "./voter.ts";

/** How long another's proposal may take (grants run out meanwhile) before we try. */
const PATIENCE_MS = 1600;

export class Reasons {
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly peers: Peers;
  private readonly opener: Opener;
  private readonly voter: Voter;

  constructor(ground: Ground, keeper: Keeper, peers: Peers, opener: Opener, voter: Voter) {
    this.ground = ground;
    this.keeper = keeper;
    this.peers = peers;
    this.opener = opener;
    this.voter = voter;
  }

  /** Newest view known here, decided or only accepted. */
  newest(): View | null {
    const accepted = this.keeper.state.accepted?.view ?? null;
    const decided = this.opener.view;
    if (accepted === null) return decided;
    return decided === null || accepted.epoch > decided.epoch ? accepted : decided;
  }

  /** Whose accusations count: the recipients of the newest view. */
  accusers(): readonly Member[] {
    const newest = this.newest();
    return newest === null ? [] : recipientsOf(newest);
  }

  /** One clause why this host should propose now; "" = it should not. */
  wanted(): string {
    const newest = this.newest();
    if (!this.keeper.canVote || !this.mayPropose(newest)) return "";
    if (this.peers.aliveVotes() < this.ground.majority) return "";
    if (newest === null) return "a new cluster has none";
    const { promised } = this.keeper.state;
    if (promised > this.opener.decidedEpoch) {
      const proposer = proposerOf(promised);
      const waits = proposer !== this.ground.self && this.peers.isAlive(proposer);
      if (waits && this.ground.nowMs < this.voter.promisedAtMs + PATIENCE_MS) return "";
      return "the last attempt came to nothing";
    }
    const change = this.changeOf(newest);
    // What is open stays open rather than being sealed for a proposal without any member.
    return change !== "" && this.opener.isOpen && !this.hasHeir(newest) ? "" : change;
  }

  /** Position among those who may propose now: 0 begins first. */
  rank(): number {
    const newest = this.newest();
    const named = newest === null ? this.ground.voters : newest.members.map(({ host }) => host);
    let rank = 0;
    for (const host of named) {
      const leaving = ((this.peers.of(host)?.beat?.flags ?? 0) & FLAG.leaving) !== 0;
      if (host < this.ground.self && this.peers.isAlive(host) && !leaving) rank += 1;
    }
    return this.ground.leaving ? rank + 1 : rank;
  }

  /** Is there another host that could be a member without us? (Orderly leave.) */
  canLeave(): boolean {
    const newest = this.newest();
    if (newest === null || this.opener.role === "none") return false;
    if (this.peers.aliveVotes() < this.ground.majority) return false;
    return this.hasHeir(newest);
  }

  /** R13: the two hosts will not work together; said on both sides. */
  refuse(peer: Peer): void {
    const { ground } = this;
    const one = ground.nameOf(ground.self);
    const other = ground.nameOf(peer.host);
    const why = `the copies of ${one} and ${other} have diverged; vsan recover resolve --keep HOST`;
    if (peer.diverged === "") {
      peer.diverged = why;
      ground.send(peer.host, { kind: "refuse", why });
      ground.sink.refused(peer.host, why);
    }
  }

  private mayPropose(newest: View | null): boolean {
    const { ground, opener, keeper } = this;
    const { local, self } = ground;
    if (newest === null) return ground.isData && local.hasStore && local.diskOk;
    // A view that only some accepted may name us while we know an older one, and the other way
    // round: whoever is named in any of them may try, lest nobody does.
    for (const view of [newest, opener.view, opener.heardView]) {
      if (view !== null && entryOf(view.members, self) !== null) return true;
    }
    const joining = entryOf(newest.joining, self);
    return joining?.inc === keeper.state.inc && local.complete && opener.openEpoch === newest.epoch;
  }

  private changeOf(newest: View): string {
    const { ground } = this;
    const accused = this.peers.accused(recipientsOf(newest));
    for (const entry of recipientsOf(newest)) {
      const why = this.faultOf(newest, entry, accused);
      if (why !== "") return `${ground.nameOf(entry.host)} ${why}`;
    }
    const isRecipient = this.opener.role !== "none";
    if (isRecipient && !this.opener.isOpen) return "";
    for (const entry of newest.joining) {
      if (this.isComplete(entry, newest)) return `${ground.nameOf(entry.host)} has all data`;
    }
    for (const host of ground.voters) {
      if (entryOf(recipientsOf(newest), host) !== null || !ground.isDataHost(host)) continue;
      if ((accused & (1 << host)) === 0 && this.wantsIn(host, newest)) {
        return `${ground.nameOf(host)} wants to join`;
      }
    }
    return "";
  }

  private faultOf(newest: View, { host, inc }: Member, accused: number): string {
    const { ground, keeper } = this;
    if (host === ground.self) {
      if (inc !== keeper.state.inc) return "has restarted";
      if (ground.leaving) return "leaves";
      return ground.local.hasStore && ground.local.diskOk ? "" : "has no working disk";
    }
    const peer = this.peers.of(host);
    if (peer === null || !this.peers.isAlive(host)) return "is unreachable";
    if (peer.greeted && peer.inc !== inc) return "has restarted";
    if ((accused & (1 << host)) !== 0) return "owes an answer";
    const flags = peer.beat?.flags ?? FLAG.disk;
    if ((flags & FLAG.leaving) !== 0) return "leaves";
    // A joiner without a disk is as useless as a member; both are seen in the beat.
    if ((flags & FLAG.disk) === 0 && entryOf(newest.members, host) !== null) {
      return "has no working disk";
    }
    return (flags & FLAG.disk) === 0 ? "cannot join without a disk" : "";
  }

  private isComplete(entry: Member, newest: View): boolean {
    if (entry.host === this.ground.self) {
      return this.ground.local.complete && this.opener.openEpoch === newest.epoch;
    }
    const beat = this.peers.of(entry.host)?.beat ?? null;
    if (beat === null || !this.peers.isAlive(entry.host)) return false;
    return beat.open === newest.epoch && (beat.flags & FLAG.complete) !== 0;
  }

  private wantsIn(host: HostId, newest: View): boolean {
    const wishes = FLAG.disk | FLAG.wantsIn;
    if (host === this.ground.self) {
      return (this.ground.flags(true) & (wishes | FLAG.leaving)) === wishes;
    }
    const peer = this.peers.of(host);
    const beat = peer?.beat ?? null;
    if (peer === null || beat === null || !peer.greeted || peer.diverged !== "") return false;
    if (!this.peers.isAlive(host) || (beat.flags & FLAG.voting) === 0) return false;
    if ((beat.flags & (wishes | FLAG.leaving)) !== wishes) return false;
    // It must reach every member: else the view with it could not open.
    return newest.members.every((member) => {
      const heard = (beat.hears & (1 << member.host)) !== 0;
      if (member.host === this.ground.self) return heard;
      const hears = ((this.peers.of(member.host)?.beat?.hears ?? 0) & (1 << host)) !== 0;
      return heard && hears;
    });
  }

  /** Somebody else's or our own life that could be a member of the next view. */
  private hasHeir(newest: View): boolean {
    const { ground, keeper } = this;
    const accused = this.peers.accused(recipientsOf(newest));
    const fits = (entry: Member): boolean => {
      if (entry.host === ground.self) {
        const { hasStore, diskOk } = ground.local;
        return entry.inc === keeper.state.inc && hasStore && diskOk && !ground.leaving;
      }
      const peer = this.peers.of(entry.host);
      if (peer === null || !peer.greeted || !this.peers.isAlive(entry.host)) return false;
      const flags = peer.beat?.flags ?? 0;
      const able = (flags & (FLAG.disk | FLAG.leaving)) === FLAG.disk;
      return able && peer.inc === entry.inc && (accused & (1 << entry.host)) === 0;
    };
    if (newest.members.some(fits)) return true;
    return newest.joining.some((entry) => fits(entry) && this.isComplete(entry, newest));
  }
}

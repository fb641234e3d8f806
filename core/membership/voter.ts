/**
 * The voter: R1's promise with R2's seal, R4's accept, R14's way back from a lost memory.
 *
 *   blank --inquiry (R14)--> voting --PREPARE--> promised e, sealed --ACCEPT--> waiting for
 *   grants to run out --> accepted e --PREPARE of a higher epoch--> ...
 *
 * Invariants:
 *  1. `sealedEpoch` only grows, and the host sealed before the promise leaves.
 *  2. An answer leaves only after what it says is durable (keeper.ts).
 *  3. A voter that learns of a decided view it took no part in accepts it too, if it promised
 *     nothing newer: it seals, lets its grants run out, and can then grant in that view.
 */
import { type Epoch, type HostId, proposerOf } from "../base/units.ts";
import {
  type Ballot,
  type Member,
  type MessageOf,
  recipientsOf,
  lists,
} from "../format/membership_wire.ts";
import type { Grants } from "./grants.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";
import { newestForced } from "./line.ts";
import type { Opener } from "./opener.ts";
import type { Peers } from "./peers.ts";

/** A promise to somebody else keeps a voter from supporting a rival for so long. */
const LOYALTY_MS = 300;

export class Voter {
  sealedEpoch: Epoch = 0;
  /** When this process last promised; -Infinity = never. */
  promisedAtMs = Number.NEGATIVE_INFINITY;
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly peers: Peers;
  private readonly grants: Grants;
  private readonly opener: Opener;
  /** A ballot that waits for grants to run out. */
  private pending: Ballot | null = null;
  private acceptAtMs = Number.POSITIVE_INFINITY;

  constructor(ground: Ground, keeper: Keeper, peers: Peers, grants: Grants, opener: Opener) {
    this.ground = ground;
    this.keeper = keeper;
    this.peers = peers;
    this.grants = grants;
    this.opener = opener;
  }

  get nextDeadlineMs(): number {
    return this.acceptAtMs;
  }

  /** R2. Freezes the host below `epoch`. */
  seal(epoch: Epoch): void {
    if (epoch <= this.sealedEpoch) return;
    this.sealedEpoch = epoch;
    this.opener.seal();
    this.ground.local = this.ground.sink.sealed(epoch);
  }

  /** R1: would this voter promise, and is the asker one who may propose? */
  onCanvass(from: HostId, message: MessageOf<"canvass">): void {
    if (!this.keeper.canVote) return;
    const promised = this.keeper.state.promised;
    const yes =
      promised < message.epoch && this.isUnbound(from) && this.mayPropose(from, message.newest);
    this.ground.send(from, { kind: "canvassed", epoch: message.epoch, yes, promised });
    const decided = this.opener.decidedBallot;
    if (decided !== null && decided.view.epoch > message.newest && from !== this.ground.self) {
      this.ground.send(from, { kind: "decided", ballot: decided });
    }
  }

  onPrepare(from: HostId, { epoch }: MessageOf<"prepare">): void {
    const { keeper, ground } = this;
    if (!keeper.canVote || proposerOf(epoch) !== from) return;
    if (epoch <= keeper.state.promised) {
      if (epoch === keeper.state.promised) return;
      ground.send(from, { kind: "reject", epoch, promised: keeper.state.promised });
      return;
    }
    this.pending = null;
    this.acceptAtMs = Number.POSITIVE_INFINITY;
    this.promisedAtMs = ground.nowMs;
    keeper.write({ promised: epoch }, () => {
      if (keeper.state.promised !== epoch || !keeper.canVote) return;
      this.seal(epoch);
      ground.send(from, this.promiseOf(epoch));
    });
  }

  onAccept(from: HostId, { ballot }: MessageOf<"accept">): void {
    const epoch = ballot.view.epoch;
    if (!this.keeper.canVote || proposerOf(epoch) !== from) return;
    if (this.keeper.durable.promised !== epoch) return;
    this.take(ballot);
  }

  /** A decided view: accepted late, unless something newer was promised. */
  learn(ballot: Ballot): void {
    const { keeper } = this;
    const epoch = ballot.view.epoch;
    if (keeper.state.promised > epoch || keeper.acceptedEpoch >= epoch) return;
    if (!keeper.canVote) {
      this.seal(epoch);
      return;
    }
    if (keeper.durable.promised === epoch) {
      this.take(ballot);
      return;
    }
    this.promisedAtMs = this.ground.nowMs;
    keeper.write({ promised: epoch }, () => {
      if (keeper.state.promised !== epoch || !keeper.canVote) return;
      this.seal(epoch);
      this.take(ballot);
    });
  }

  expire(): void {
    if (this.ground.nowMs >= this.acceptAtMs) this.tryAccept();
  }

  private take(ballot: Ballot): void {
    const epoch = ballot.view.epoch;
    if (this.keeper.acceptedEpoch >= epoch || this.pending?.view.epoch === epoch) return;
    if (!this.ground.agreesOnVoters(ballot.view)) return;
    this.pending = ballot;
    this.tryAccept();
  }

  private tryAccept(): void {
    const ballot = this.pending;
    this.acceptAtMs = Number.POSITIVE_INFINITY;
    if (ballot === null) return;
    const { keeper, ground } = this;
    const epoch = ballot.view.epoch;
    if (keeper.state.promised !== epoch || !keeper.canVote) {
      this.pending = null;
      return;
    }
    const until = this.grants.blockedUntilMs(ballot);
    if (until > ground.nowMs) {
      this.acceptAtMs = until;
      return;
    }
    this.pending = null;
    this.grants.returned(ballot);
    const serves = lists(recipientsOf(ballot.view), ground.self, keeper.state.inc);
    const served = serves ? { servedEpoch: epoch, servedBoot: ground.local.boot } : {};
    keeper.write({ accepted: ballot, ...served }, () => {
      if (keeper.canVote && keeper.acceptedEpoch === epoch) this.announce(ballot);
    });
  }

  /** Tells one who seems not to know what this voter accepted, unless it promised more since. */
  remind(peer: HostId): void {
    const accepted = this.keeper.durable.accepted;
    // After amnesia the accepted view is hearsay of others: a vote only if nothing newer was
    // promised, just as any accept.
    if (!this.keeper.canVote || accepted?.view.epoch !== this.keeper.state.promised) return;
    this.announce(accepted, peer);
  }

  /** Tells everyone what this voter accepted. */
  private announce(ballot: Ballot, only: HostId | null = null): void {
    const message: MessageOf<"accepted"> = {
      kind: "accepted",
      ballot,
      voterInc: this.keeper.state.voterInc,
      voters: this.keeper.voterIncs(),
    };
    if (only !== null) {
      this.ground.send(only, message);
      return;
    }
    for (const { id } of this.ground.options.hosts) {
      if (this.peers.isReady(id)) this.ground.send(id, message);
    }
  }

  private isUnbound(from: HostId): boolean {
    const promised = this.keeper.state.promised;
    if (promised <= this.opener.decidedEpoch) return true;
    const proposer = proposerOf(promised);
    if (proposer === from || !this.peers.isAlive(proposer)) return true;
    return this.ground.nowMs - this.promisedAtMs >= LOYALTY_MS;
  }

  private mayPropose(from: HostId, newest: Epoch): boolean {
    const view = this.opener.view;
    if (view === null || newest >= view.epoch) return true;
    return recipientsOf(view).some((entry: Member) => entry.host === from);
  }

  private promiseOf(epoch: Epoch): MessageOf<"promise"> {
    const { ground, keeper, opener } = this;
    const { local } = ground;
    const newestOpen = Math.max(local.newestOpen, opener.openEpoch);
    const vector = local.newestOpen === newestOpen ? [...local.vector] : [];
    const { servedBoot, servedEpoch, inc, voterInc } = keeper.state;
    return {
      kind: "promise",
      epoch,
      inc,
      voterInc,
      accepted: keeper.durable.accepted,
      newestOpen,
      newestId: local.history.find((record) => record.epoch === newestOpen)?.id ?? 0,
      openView: opener.viewOf(newestOpen),
      vector,
      flags: ground.flags(keeper.canVote),
      intact: servedBoot === local.boot ? servedEpoch : 0,
      quiet: this.peers.quiet(),
      hears: this.peers.hears(),
      line: [...local.history],
      voters: keeper.voterIncs(),
    };
  }

  /** What R13 compares, for hello and for promises. */
  stand(): Pick<MessageOf<"hello">, "newestOpen" | "newestId" | "committed" | "forced"> {
    const { local } = this.ground;
    const newestOpen = Math.max(local.newestOpen, this.opener.openEpoch);
    const committed =
      local.newestOpen === newestOpen
        ? local.vector.map(({ sender, committed: seq }) => ({ sender, seq }))
        : [];
    const newestId = local.history.find((record) => record.epoch === newestOpen)?.id ?? 0;
    return { newestOpen, newestId, committed, forced: newestForced(local.history) };
  }
}

/**
 * The proposer: R1 to R4 from the side of the one who wants a new view.
 *
 *   idle --a reason, after a random delay--> canvass --majority says yes--> collect (PREPARE)
 *     --majority promised, and all connected or 200 ms--> decide (ACCEPT) --decided--> idle
 *   any --rejected, out of time, promised to a rival--> idle, waiting at random
 *
 * Invariants:
 *  1. Of one epoch at most one ballot is ever sent: epochs carry the proposer's id, and a voter
 *     promises an epoch once, so no second majority can be had for it, not even after a restart.
 *  2. Nothing is sealed for a proposal that a majority would not support (pre-vote).
 */
import { type Epoch, type HostId, nextEpoch } from "../base/units.ts";
import { type Ballot, FLAG, type MessageOf } from "../format/membership_wire.ts";
import { type Choice, choose, type PromiseMessage } from "./choose.ts";
import { COLLECT_MS } from "./contract.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";
import type { Opener } from "./opener.ts";
import type { Peers } from "./peers.ts";
import type { Reasons } from "./reasons.ts";

const CANVASS_MS = 200;
/** Longest wait for a majority of promises. */
const PROMISES_MS = 800;
/** Longest wait for a decision: grants of 1 s must be able to run out meanwhile. */
const DECIDE_MS = 2000;
/** Ranks let the first of several proposers begin alone. */
const RANK_MS = 40;
/** Before the first proposal of a life, other hosts have this long to show up. */
const FIRST_MS = 300;

type Phase =
  | { readonly kind: "idle" }
  | { readonly kind: "canvass"; readonly epoch: Epoch; readonly yes: Set<HostId>; until: number }
  | {
      readonly kind: "collect";
      readonly epoch: Epoch;
      readonly promises: Map<HostId, PromiseMessage>;
      readonly since: number;
    }
  | { readonly kind: "decide"; readonly ballot: Ballot; readonly until: number };

const IDLE: Phase = { kind: "idle" };

export class Proposer {
  /** Why the last proposal came to nothing; "" = none failed. */
  lastFailure = "";
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly peers: Peers;
  private readonly opener: Opener;
  private readonly reasons: Reasons;
  private phase: Phase = IDLE;
  private proposeAtMs = Number.POSITIVE_INFINITY;
  private failures = 0;
  /** Highest promise heard of; the next epoch is above it. */
  private heardPromised: Epoch = 0;

  constructor(ground: Ground, keeper: Keeper, peers: Peers, opener: Opener, reasons: Reasons) {
    this.ground = ground;
    this.keeper = keeper;
    this.peers = peers;
    this.opener = opener;
    this.reasons = reasons;
  }

  get nextDeadlineMs(): number {
    const { phase } = this;
    if (phase.kind === "idle") return this.proposeAtMs;
    if (phase.kind !== "collect") return phase.until;
    const first = phase.since + COLLECT_MS;
    return this.ground.nowMs < first ? first : phase.since + PROMISES_MS;
  }

  /** After every event: begins, goes on, or gives up. */
  step(): void {
    const { phase, ground } = this;
    if (phase.kind === "idle") {
      this.considerBeginning();
      return;
    }
    if (this.opener.decidedEpoch >= this.epochOf(phase)) {
      this.phase = IDLE;
      this.failures = 0;
      this.lastFailure = "";
      return;
    }
    if (phase.kind !== "canvass" && this.keeper.state.promised > this.epochOf(phase)) {
      this.giveUp("another host proposes too");
    } else if (phase.kind === "collect") {
      this.considerChoosing(phase);
    } else if (ground.nowMs >= phase.until) {
      this.giveUp(
        phase.kind === "canvass"
          ? "no majority of hosts supports a new view"
          : "no majority of hosts accepted the view in time",
      );
    }
  }

  onCanvassed(from: HostId, message: MessageOf<"canvassed">): void {
    this.hear(message.promised);
    const { phase } = this;
    if (phase.kind !== "canvass" || message.epoch !== phase.epoch || !message.yes) return;
    if (!this.ground.voters.includes(from)) return;
    phase.yes.add(from);
    if (phase.yes.size < this.ground.majority) return;
    const epoch = nextEpoch(this.highest(), this.ground.self);
    this.phase = { kind: "collect", epoch, promises: new Map(), since: this.ground.nowMs };
    this.toVoters({ kind: "prepare", epoch });
  }

  onPromise(from: HostId, message: PromiseMessage): void {
    this.keeper.hear(message.voters);
    const { phase } = this;
    if (phase.kind !== "collect" || message.epoch !== phase.epoch) return;
    if (!this.ground.voters.includes(from)) return;
    phase.promises.set(from, message);
  }

  onReject(message: MessageOf<"reject">): void {
    this.hear(message.promised);
    const { phase } = this;
    if (phase.kind === "collect" && message.epoch === phase.epoch) {
      this.giveUp("another host proposes too");
    }
  }

  /** A beat shows that a voter missed our PREPARE or ACCEPT: again. */
  onBeat(from: HostId, beat: MessageOf<"beat">): void {
    this.hear(beat.promised);
    const { phase } = this;
    if (phase.kind === "collect" && beat.promised < phase.epoch) {
      this.ground.send(from, { kind: "prepare", epoch: phase.epoch });
    } else if (phase.kind === "decide" && beat.promised === phase.ballot.view.epoch) {
      if (beat.accepted < beat.promised) {
        this.ground.send(from, { kind: "accept", ballot: phase.ballot });
      }
    }
  }

  private considerBeginning(): void {
    const { ground } = this;
    const reason = this.reasons.wanted();
    if (reason === "") {
      this.proposeAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    if (this.proposeAtMs === Number.POSITIVE_INFINITY) {
      this.proposeAtMs = ground.nowMs + this.reasons.rank() * RANK_MS + this.jitter(8);
      if (this.opener.decidedEpoch === 0 && this.peers.aliveVotes() < ground.voters.length) {
        this.proposeAtMs = Math.max(this.proposeAtMs, ground.startMs + FIRST_MS);
      }
    }
    if (ground.nowMs < this.proposeAtMs) return;
    this.proposeAtMs = Number.POSITIVE_INFINITY;
    const epoch = nextEpoch(this.highest(), ground.self);
    const until = ground.nowMs + CANVASS_MS;
    this.phase = { kind: "canvass", epoch, yes: new Set(), until };
    ground.trace.event("debug", "view.wanted", `A new view is wanted: ${reason}.`, { epoch });
    const newest = Math.max(this.opener.decidedEpoch, this.keeper.acceptedEpoch);
    this.toVoters({ kind: "canvass", epoch, newest });
  }

  private considerChoosing(phase: Extract<Phase, { kind: "collect" }>): void {
    const { ground, keeper } = this;
    const valid = [...phase.promises].filter(([host, promise]) => {
      // R14: promises of an older memory are void.
      return !ground.rules.voterAmnesia || promise.voterInc >= keeper.voterIncOf(host);
    });
    const waitedMs = ground.nowMs - phase.since;
    if (valid.length < ground.majority) {
      if (waitedMs >= PROMISES_MS) this.giveUp("no majority of hosts promised in time");
      return;
    }
    const all = ground.voters.every((host) => phase.promises.has(host) || !this.canPromise(host));
    // Without the rule the proposer names hosts whose promise it does not have.
    if (ground.rules.promiseSet && !all && waitedMs < COLLECT_MS) return;
    valid.sort(([one], [other]) => one - other);
    const choice = choose({
      self: ground.self,
      epoch: phase.epoch,
      id: ground.entropy.u32(),
      promised: valid.map(([host, promise]) => ({ host, promise })),
      voters: ground.voters,
      isData: (host) => ground.isDataHost(host),
      nameOf: (host) => ground.nameOf(host),
      coldStart: ground.options.coldStart,
      accused: this.peers.accused(this.reasons.accusers()),
      diverged: this.peers.diverged(),
      connected: this.peers.hears(),
      rules: ground.rules,
    });
    this.propose(choice, phase.epoch);
  }

  private propose(choice: Choice, epoch: Epoch): void {
    const { ground } = this;
    if (!choice.ok) {
      this.giveUp(choice.why);
      this.proposeAtMs = ground.nowMs + 400 + this.jitter(400);
      return;
    }
    for (const peer of this.peers.all) {
      if ((choice.diverged & (1 << peer.host)) !== 0) this.reasons.refuse(peer);
    }
    const { ballot } = choice;
    if (choice.cold && ballot.view.parent !== 0) {
      const base = ground.namesOf(ballot.view.members);
      const text =
        `Cold start from ${base}: everything flushed is there; ` +
        "writes that were not flushed may be lost.";
      ground.trace.event("warn", "view.cold_start", text, { epoch });
      if (choice.hasLosses) this.tellLosses(base, epoch);
    }
    this.phase = { kind: "decide", ballot, until: ground.nowMs + DECIDE_MS };
    this.toVoters({ kind: "accept", ballot });
  }

  /** R12a: every last member has lost records; one of them must be the base. */
  private tellLosses(base: string, epoch: Epoch): void {
    const text =
      `Durable records of ${base} are lost, as of every other last member; ` +
      "blocks that they held may be old, also flushed ones.";
    this.ground.trace.event("error", "view.cold_start_losses", text, { epoch });
  }

  private giveUp(why: string): void {
    this.phase = IDLE;
    this.lastFailure = why;
    this.failures = Math.min(this.failures + 1, 4);
    this.proposeAtMs = this.ground.nowMs + 30 + this.jitter(40 * 2 ** this.failures);
  }

  private canPromise(host: HostId): boolean {
    if (host === this.ground.self) return true;
    const peer = this.peers.of(host);
    if (peer === null || !peer.greeted || !this.peers.isAlive(host)) return false;
    return peer.beat === null || (peer.beat.flags & FLAG.voting) !== 0;
  }

  private toVoters(message: MessageOf<"canvass"> | MessageOf<"prepare"> | MessageOf<"accept">) {
    for (const host of this.ground.voters) {
      if (this.peers.isReady(host)) this.ground.send(host, message);
    }
  }

  private epochOf(phase: Exclude<Phase, { kind: "idle" }>): Epoch {
    return phase.kind === "decide" ? phase.ballot.view.epoch : phase.epoch;
  }

  private highest(): Epoch {
    const { promised } = this.keeper.state;
    return Math.max(promised, this.heardPromised, this.opener.decidedEpoch);
  }

  private hear(promised: Epoch): void {
    // Far beyond anything real: a lying peer must not exhaust the numbers.
    if (promised < 2 ** 50) this.heardPromised = Math.max(this.heardPromised, promised);
  }

  private jitter(boundMs: number): number {
    return this.ground.random(boundMs);
  }
}

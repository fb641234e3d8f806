/**
 * Membership: which hosts hold every committed write, agreed by votes (R1 to R7, R11 to
 * R16 of docs/protocol.md; see "Views" there). This file only routes: events in, a turn of the
 * parts below, messages out.
 *
 *   peers     lives of the other hosts, links, beats        grants   read grants (R7)
 *   keeper    what must be durable before an answer          voter    promise, seal, accept (R1-R4)
 *   proposer  a new view, from pre-vote to ACCEPT            choose   its value (R3, R12), pure
 *   opener    decided -> reconcile -> ACTIVE -> OPEN (R5)    plan     tails made equal, pure
 *   amnesia   a voter without its memory (R14)               line     histories (R13), pure
 *   reasons   why a view is wanted; what people are told
 *
 * Invariants:
 *  1. A turn runs to completion; calls that come back from the sink wait for its end.
 *  2. The sink is called only from events, never from `setLocal`, `suspect`, `changed`, `leave`:
 *     these are taken up by the next `expire`, for which they ask at once.
 *  3. Whatever a peer says ends in a refusal or in a turn, never in an exception.
 */
import { assert } from "../base/assert.ts";
import type { Entropy, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId } from "../base/units.ts";
import { majorityOf, type MembershipMessage, type MessageOf } from "../format/membership_wire.ts";
import type { View } from "../format/membership_wire.ts";
import type { VoterState } from "../format/votes.ts";
import { Amnesia } from "./amnesia.ts";
import type {
  LocalState,
  MembershipOptions,
  MembershipSink,
  MembershipStatus,
} from "./contract.ts";
import { Grants } from "./grants.ts";
import { Ground } from "./ground.ts";
import { Keeper } from "./keeper.ts";
import { judge } from "./line.ts";
import { Opener } from "./opener.ts";
import { type Peer, Peers } from "./peers.ts";
import { Proposer } from "./proposer.ts";
import { Reasons } from "./reasons.ts";
import { describe } from "./status.ts";
import { Voter } from "./voter.ts";

const NO_EXTRA = new Uint8Array(0);
/** First incarnations are drawn below this; 32 bits leave room for all restarts. */
const FIRST_INC_SPAN = 2 ** 24;
/** Calls from the sink in one turn; more is a loop of ours. */
const TURN_MAX = 10_000;

export class Membership {
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly peers: Peers;
  private readonly grants: Grants;
  private readonly opener: Opener;
  private readonly voter: Voter;
  private readonly amnesia: Amnesia;
  private readonly reasons: Reasons;
  private readonly proposer: Proposer;
  private started = false;
  private isBusy = false;
  private wakes = true;
  private beatNow = false;
  private beatAtMs = Number.POSITIVE_INFINITY;
  /** The incarnation that our hellos name; 0 = none said yet. */
  private saidInc = 0;
  private learnedEpoch: Epoch = 0;
  private readonly deferred: (() => void)[] = [];

  constructor(
    options: MembershipOptions,
    sink: MembershipSink,
    entropy: Entropy,
    trace: Trace,
    rules: Rules,
  ) {
    const ground = new Ground(options, { sink, entropy, trace, rules });
    this.ground = ground;
    this.keeper = new Keeper(ground);
    this.peers = new Peers(ground, this.keeper);
    this.grants = new Grants(ground, this.keeper);
    this.opener = new Opener(ground, this.keeper, this.peers, this.grants);
    this.voter = new Voter(ground, this.keeper, this.peers, this.grants, this.opener);
    this.amnesia = new Amnesia(ground, this.keeper, this.peers, this.grants);
    this.reasons = new Reasons(ground, this.keeper, this.peers, this.opener, this.voter);
    this.proposer = new Proposer(ground, this.keeper, this.peers, this.opener, this.reasons);
  }

  /** Newest decided view known here. */
  get view(): View | null {
    return this.opener.view;
  }

  /** The view is OPEN and this life is one of its recipients. */
  get isOpen(): boolean {
    return this.opener.isOpen;
  }

  get role(): "member" | "joining" | "none" {
    return this.opener.role;
  }

  /** This life's number; 0 until the vote file was written. R14 may raise it while running. */
  get incarnation(): number {
    return this.saidInc === 0 ? 0 : this.keeper.durable.inc;
  }

  /** Until when reads may be answered, if nothing else happens; 0 = not now. */
  get readableUntilMs(): number {
    const view = this.opener.view;
    if (view === null || !this.isOpen || this.role !== "member") return 0;
    if (!this.ground.rules.readGrants) return Number.POSITIVE_INFINITY;
    return this.grants.readableUntilMs(view.epoch, view.voters, blockingOf(view));
  }

  /** True if a majority of voters is reachable: new views, hence writes after a failure. */
  get hasMajority(): boolean {
    return this.peers.aliveVotes() >= this.ground.majority;
  }

  /** Begins this life. `votes` is what the vote file holds; null if there is none. */
  start(nowMs: number, votes: VoterState | null, local: LocalState): void {
    assert(!this.started, "membership: started twice");
    this.started = true;
    this.ground.startMs = nowMs;
    this.ground.local = local;
    this.turn(nowMs, () => {
      const { keeper } = this;
      if (votes !== null) keeper.load(votes);
      const last = local.history.at(-1)?.epoch ?? 0;
      const seen = Math.max(last, local.newestOpen);
      const stale = votes !== null && votes.promised < seen;
      // Without a file the number is drawn far and wide, so that a life whose memory was lost is
      // hardly ever taken for the one before it.
      const first = 1 + Math.floor(this.ground.random(FIRST_INC_SPAN));
      const inc = votes === null ? first : Math.min(votes.inc + 1, 0xffffffff);
      // A store that saw a newer view than the file knows: the file is an old copy (R14).
      const isBlank = votes === null || stale;
      const amnesia = isBlank ? { voterInc: inc, voting: false } : {};
      this.grants.restarted(isBlank);
      keeper.write({ inc, ...amnesia }, null);
    });
  }

  /** Takes up the host's state; any time, acts at the next `expire`. */
  setLocal(local: LocalState): void {
    this.ground.local = local;
    this.beatNow = true;
    this.wakes = true;
  }

  /** Something the host told by `setLocal` (a joiner is complete) should lead to a view. */
  changed(_nowMs: number, _why: string): void {
    this.beatNow = true;
    this.wakes = true;
  }

  /** R16: `host` owes an answer for too long; it is proposed out. */
  suspect(nowMs: number, host: HostId, why: string): void {
    this.ground.nowMs = Math.max(this.ground.nowMs, nowMs);
    // Joiners first: without them the members may well keep up.
    const isJoiner = (this.view?.joining ?? []).some((entry) => entry.host === host);
    if (!isJoiner && this.accusesJoiner()) return;
    this.peers.accuse(host, why);
    this.beatNow = true;
    this.wakes = true;
  }

  /**
   * Orderly leave: asks for a view without this host; `excluded` follows, within 200 ms. False:
   * nobody can take over, there is nothing to wait for.
   */
  leave(nowMs: number): boolean {
    this.ground.nowMs = Math.max(this.ground.nowMs, nowMs);
    this.ground.leaving = true;
    this.beatNow = true;
    this.wakes = true;
    return this.reasons.canLeave();
  }

  linkUp(nowMs: number, host: HostId, _peerInc: number): void {
    this.turn(nowMs, () => {
      if (this.peers.linkUp(host) !== null && this.saidInc !== 0) this.sayHello(host);
    });
  }

  linkDown(nowMs: number, host: HostId): void {
    this.turn(nowMs, () => this.peers.linkDown(host));
  }

  /** A decoded message of a peer. */
  control(nowMs: number, from: HostId, message: MembershipMessage): void {
    this.turn(nowMs, () => {
      const peer = this.peers.of(from);
      if (peer === null || !peer.linked) return;
      if (message.kind === "hello") this.onHello(peer, message);
      else if (message.kind === "stale") this.onStale(message.inc);
      else if (message.kind === "refuse") this.peers.refusedBy(peer, message.why);
      else if (peer.greeted) {
        peer.heardAtMs = this.ground.nowMs;
        this.dispatch(from, message);
      }
    });
  }

  voteDone(nowMs: number, tag: number, ok: boolean): void {
    this.turn(nowMs, () => this.keeper.done(tag, ok));
  }

  /**
   * R5: this recipient holds the union of the plan for `epoch`, and its mirror has begun the
   * epoch. `extra` (at most EXTRA_BYTES_MAX) goes to all recipients with ACTIVE.
   */
  unionHeld(nowMs: number, epoch: Epoch, extra: Uint8Array = NO_EXTRA): void {
    this.turn(nowMs, () => this.opener.unionHeld(epoch, extra));
  }

  /** R7. The host asks when it begins a read and again when it answers it. */
  mayRead(nowMs: number): boolean {
    const view = this.opener.view;
    if (view === null || !this.opener.isOpen || this.opener.role !== "member") return false;
    if (!this.ground.rules.readGrants) return true;
    return this.grants.held(view.epoch, view.voters, blockingOf(view), nowMs);
  }

  status(nowMs: number): MembershipStatus {
    const { ground, keeper, peers, opener, reasons, amnesia, proposer } = this;
    ground.nowMs = Math.max(ground.nowMs, nowMs);
    const readable = this.mayRead(nowMs);
    return describe({ ground, keeper, peers, opener, reasons, amnesia, proposer, readable });
  }

  expire(nowMs: number): void {
    this.turn(nowMs, () => {
      this.wakes = false;
      if (this.saidInc !== 0 && this.ground.nowMs >= this.beatAtMs) this.beatNow = true;
      this.voter.expire();
    });
  }

  nextDeadlineMs(): number {
    if (!this.started) return Number.POSITIVE_INFINITY;
    if (this.wakes) return 0;
    return Math.min(this.beatAtMs, this.voter.nextDeadlineMs, this.proposer.nextDeadlineMs);
  }

  private turn(nowMs: number, work: () => void): void {
    if (this.isBusy) {
      assert(this.deferred.length < TURN_MAX, "membership: a turn does not end");
      this.deferred.push(work);
      return;
    }
    this.isBusy = true;
    this.ground.nowMs = Math.max(this.ground.nowMs, nowMs);
    work();
    let rounds = 0;
    do {
      this.drain();
      this.step();
      rounds += 1;
      assert(rounds < TURN_MAX, "membership: a turn does not end");
    } while (this.deferred.length > 0 || this.ground.inbox.length > 0);
    this.isBusy = false;
  }

  private drain(): void {
    for (;;) {
      const message = this.ground.inbox.shift();
      if (message !== undefined) this.dispatch(this.ground.self, message);
      else {
        const work = this.deferred.shift();
        if (work === undefined) return;
        work();
      }
    }
  }

  /** After every event: what follows from the state as it is now. */
  private step(): void {
    if (!this.started) return;
    const { keeper, opener } = this;
    if (this.saidInc !== keeper.durable.inc && keeper.durable.inc === keeper.state.inc) {
      this.saidInc = keeper.durable.inc;
      this.beatNow = true;
      for (const peer of this.peers.all) if (peer.linked) this.sayHello(peer.host);
      if (this.ground.voters.length === 1) this.amnesia.ask();
    }
    if (this.saidInc === 0) return;
    this.accuseLate();
    opener.activate(this.voter.sealedEpoch);
    opener.tryOpen();
    this.proposer.step();
    if (this.beatNow) this.beat();
  }

  private dispatch(from: HostId, message: MembershipMessage): void {
    switch (message.kind) {
      case "beat":
        this.onBeat(from, message);
        break;
      case "grant":
        this.grants.granted(from, message);
        break;
      case "inquire":
        this.amnesia.onInquire(from, message);
        break;
      case "answer":
        this.amnesia.onAnswer(from, message);
        break;
      case "canvass":
        this.voter.onCanvass(from, message);
        break;
      case "canvassed":
        this.proposer.onCanvassed(from, message);
        break;
      case "prepare":
        this.voter.onPrepare(from, message);
        break;
      case "promise":
        this.proposer.onPromise(from, message);
        break;
      case "reject":
        this.proposer.onReject(message);
        break;
      case "accept":
        this.voter.onAccept(from, message);
        break;
      case "accepted":
        this.opener.onAccepted(from, message);
        this.learned();
        break;
      case "decided":
        this.opener.decide(message.ballot);
        this.learned();
        break;
      case "active":
        this.onActive(from, message);
        break;
      default:
        break;
    }
  }

  /** A newer view may have been decided: vote for it late, and ask for grants at once. */
  private learned(): void {
    const decided = this.opener.decidedBallot;
    if (decided === null || decided.view.epoch === this.learnedEpoch) return;
    this.learnedEpoch = decided.view.epoch;
    this.voter.learn(decided);
    this.beatNow = true;
  }

  private onActive(from: HostId, message: MessageOf<"active">): void {
    const peer = this.peers.of(from);
    if (peer === null || message.inc !== peer.inc) return;
    if (peer.active === null || message.epoch >= peer.active.epoch) peer.active = message;
  }

  private onHello(peer: Peer, message: MessageOf<"hello">): void {
    if (!this.peers.onHello(peer, message)) return;
    // R13: who is ahead, or equal, judges.
    const own = this.voter.stand();
    peer.diverged = "";
    if (message.newestOpen <= own.newestOpen) {
      const same = message.newestOpen === own.newestOpen && message.newestOpen !== 0;
      const known = message.newestId !== 0 && own.newestId !== 0;
      const forked = same && known && message.newestId !== own.newestId;
      const verdict = judge(message, this.ground.local.history);
      if (forked || verdict === "diverged") this.reasons.refuse(peer);
    }
    this.beatTo(peer);
    this.amnesia.ask();
  }

  private onStale(inc: number): void {
    if (inc < this.keeper.state.inc) return;
    this.amnesia.foundStale(inc);
    // This life ends: whatever was open under its number is closed.
    this.voter.seal(Math.max(this.voter.sealedEpoch, this.opener.decidedEpoch) + 1);
  }

  private onBeat(from: HostId, beat: MessageOf<"beat">): void {
    const peer = this.peers.of(from);
    if (peer === null) return;
    peer.beat = beat;
    if (beat.knows !== this.saidInc) this.sayHello(from);
    this.grants.asked(from, peer.inc, beat);
    this.proposer.onBeat(from, beat);
    const { opener, keeper } = this;
    const decided = opener.decidedBallot;
    if (decided !== null && beat.decided < decided.view.epoch) {
      this.ground.send(from, { kind: "decided", ballot: decided });
    } else if (keeper.acceptedEpoch > Math.max(beat.decided, opener.decidedEpoch)) {
      this.voter.remind(from);
    }
    const isOurs = beat.decided === opener.decidedEpoch && opener.activeEpoch === beat.decided;
    if (isOurs && beat.decided !== 0 && beat.open !== beat.decided) opener.sayActive(from);
  }

  private accusesJoiner(): boolean {
    const accused = this.peers.ownAccused();
    return (this.view?.joining ?? []).some((entry) => (accused & (1 << entry.host)) !== 0);
  }

  /** R16: recipients that owe their ACTIVE for too long. */
  private accuseLate(): void {
    const { opener, ground } = this;
    if (opener.isOpen || opener.role === "none") return;
    if (ground.nowMs - opener.decidedAtMs < ground.options.timing.peerTimeoutMs) return;
    if (opener.activeEpoch !== opener.decidedEpoch) return;
    for (const host of opener.missing()) this.peers.accuse(host, "it does not become active");
  }

  private beat(): void {
    this.beatNow = false;
    this.beatAtMs = this.ground.nowMs + this.ground.options.timing.heartbeatMs;
    for (const peer of this.peers.all) if (peer.linked) this.beatTo(peer);
    this.amnesia.ask();
  }

  private beatTo(peer: Peer): void {
    const { ground, keeper, peers, opener } = this;
    const decided = opener.decidedEpoch;
    const isReader = opener.role === "member" && keeper.state.promised === decided;
    ground.send(peer.host, {
      kind: "beat",
      clock: ground.nowMs,
      asks: isReader ? decided : 0,
      knows: peer.greeted ? peer.inc : 0,
      promised: keeper.durable.promised,
      accepted: keeper.durable.accepted?.view.epoch ?? 0,
      decided,
      active: opener.activeEpoch,
      open: opener.isOpen ? opener.openEpoch : 0,
      hears: peers.hears(),
      accused: peers.ownAccused(),
      flags: ground.flags(keeper.canVote),
    });
  }

  private sayHello(host: HostId): void {
    const { inc, voterInc } = this.keeper.durable;
    this.peers.sayHello(host, { inc, voterInc, ...this.voter.stand() });
  }
}

/** Voters that every majority of the view's voters meets: n - m + 1. */
function blockingOf(view: View): number {
  return view.voters.length - majorityOf(view.voters.length) + 1;
}

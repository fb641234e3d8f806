/**
 * From votes to an OPEN view: counts accepts (R4), makes tails equal, waits for ACTIVE of all
 * (R5).
 *
 *   accepts --majority--> decided --reconcile, host calls unionHeld--> ACTIVE --all ACTIVE--> OPEN
 *     any --seal (R2)--> closed, until a newer view is decided
 *
 * Invariants:
 *  1. `decidedBallot` only moves to higher epochs; there is one value per epoch.
 *  2. `isOpen` implies: this life is a recipient, promised = the view's epoch, not sealed beyond
 *     it, and every recipient's life named in the view said ACTIVE.
 */
import type { Epoch, HostId } from "../base/units.ts";
import {
  type Ballot,
  lists,
  majorityOf,
  type MessageOf,
  recipientsOf,
  type View,
} from "../format/membership_wire.ts";
import type { ActiveExtra } from "./contract.ts";
import type { Grants } from "./grants.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";
import { extend } from "./line.ts";
import type { Peers } from "./peers.ts";
import { planFor, unionOf } from "./plan.ts";

/** Epochs whose accepts are counted at one time; older ones are forgotten. */
const TALLIES_MAX = 8;

interface Tally {
  readonly ballot: Ballot;
  readonly votes: Map<HostId, number>;
}

export class Opener {
  decidedBallot: Ballot | null = null;
  decidedAtMs = 0;
  isOpen = false;
  /** Newest view that was OPEN here, in this life. */
  openEpoch: Epoch = 0;
  activeEpoch: Epoch = 0;
  /** Newest view that any voter said it accepted, decided or not. */
  heardView: View | null = null;
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly peers: Peers;
  private readonly grants: Grants;
  private readonly tallies = new Map<Epoch, Tally>();
  private activeView: View | null = null;
  private openView: View | null = null;
  private extra: Uint8Array = new Uint8Array(0);
  /** Epoch for which `reconcile` was given to the host. */
  private plannedEpoch: Epoch = 0;

  constructor(ground: Ground, keeper: Keeper, peers: Peers, grants: Grants) {
    this.ground = ground;
    this.keeper = keeper;
    this.peers = peers;
    this.grants = grants;
  }

  get view(): View | null {
    return this.decidedBallot?.view ?? null;
  }

  get decidedEpoch(): Epoch {
    return this.decidedBallot?.view.epoch ?? 0;
  }

  get role(): "member" | "joining" | "none" {
    const view = this.view;
    const inc = this.keeper.state.inc;
    if (view === null) return "none";
    if (lists(view.members, this.ground.self, inc)) return "member";
    return lists(view.joining, this.ground.self, inc) ? "joining" : "none";
  }

  /** The view of `epoch` if this life was ACTIVE in it. */
  viewOf(epoch: Epoch): View | null {
    if (this.activeView?.epoch === epoch) return this.activeView;
    return this.openView?.epoch === epoch ? this.openView : null;
  }

  /** R2: whatever was open is no more. */
  seal(): void {
    this.isOpen = false;
  }

  onAccepted(from: HostId, message: MessageOf<"accepted">): void {
    const { ballot } = message;
    const epoch = ballot.view.epoch;
    this.keeper.hear(message.voters);
    if (epoch <= this.decidedEpoch || !this.ground.voters.includes(from)) return;
    if (!this.ground.agreesOnVoters(ballot.view)) return;
    if (epoch > (this.heardView?.epoch ?? 0)) this.heardView = ballot.view;
    let tally = this.tallies.get(epoch);
    if (tally === undefined) {
      tally = { ballot, votes: new Map() };
      this.tallies.set(epoch, tally);
      if (this.tallies.size > TALLIES_MAX) this.tallies.delete(Math.min(...this.tallies.keys()));
    }
    if (tally.ballot.view.id !== ballot.view.id) return;
    tally.votes.set(from, message.voterInc);
    let votes = 0;
    for (const [host, voterInc] of tally.votes) {
      // R14: an accept of an older memory is void.
      const isVoid = voterInc < this.keeper.voterIncOf(host);
      if (!isVoid || !this.ground.rules.voterAmnesia) votes += 1;
    }
    if (votes >= majorityOf(ballot.view.voters.length)) this.decide(tally.ballot);
  }

  /** A view that was decided, by our count or by another's. */
  decide(ballot: Ballot): void {
    const { view } = ballot;
    if (view.epoch <= this.decidedEpoch || !this.ground.agreesOnVoters(view)) return;
    const wasIn = this.role !== "none";
    this.decidedBallot = ballot;
    this.decidedAtMs = this.ground.nowMs;
    this.isOpen = false;
    for (const epoch of this.tallies.keys()) if (epoch <= view.epoch) this.tallies.delete(epoch);
    this.grants.begin(view.epoch);
    const members = this.ground.namesOf(view.members);
    const text = `View ${view.epoch} is decided: ${members}.`;
    this.ground.trace.event("info", "view.decided", text, { epoch: view.epoch });
    this.ground.sink.decided(view);
    if (this.role === "none" && (wasIn || this.ground.isData)) this.ground.sink.excluded(view);
  }

  /** R5: begins to make tails equal, once this host's promise of the epoch is durable. */
  activate(sealedEpoch: Epoch): void {
    const ballot = this.decidedBallot;
    if (ballot === null || this.role === "none") return;
    const epoch = ballot.view.epoch;
    if (this.plannedEpoch >= epoch || sealedEpoch !== epoch) return;
    if (this.keeper.state.promised !== epoch || this.keeper.durable.promised !== epoch) return;
    this.plannedEpoch = epoch;
    const plan = planFor(this.ground.self, ballot);
    // What a new joiner had finished was an earlier session.
    if (!plan.continuing && this.role === "joining") {
      this.ground.local = { ...this.ground.local, complete: false };
    }
    const bare = { ...plan, sends: [], mustReach: [] };
    this.ground.sink.reconcile(this.ground.rules.reconcile ? plan : bare);
  }

  /** The host holds the union of `epoch` and has told the mirror to begin. */
  unionHeld(epoch: Epoch, extra: Uint8Array): void {
    if (epoch !== this.plannedEpoch || epoch !== this.decidedEpoch) return;
    if (this.keeper.state.promised !== epoch || this.activeEpoch >= epoch) return;
    this.activeEpoch = epoch;
    this.activeView = this.view;
    this.extra = extra;
    for (const { host } of recipientsOf(this.decidedBallot!.view)) this.sayActive(host);
    this.tryOpen();
  }

  sayActive(to: HostId): void {
    if (to === this.ground.self || !this.peers.isReady(to)) return;
    const { inc } = this.keeper.state;
    this.ground.send(to, { kind: "active", epoch: this.activeEpoch, inc, extra: this.extra });
  }

  /** Recipients that have not said ACTIVE in the decided view. */
  missing(): HostId[] {
    const view = this.view;
    if (view === null || this.role === "none") return [];
    const { rules, self } = this.ground;
    const awaited = rules.joinersCommit ? recipientsOf(view) : view.members;
    return awaited
      .filter(({ host, inc }) => {
        if (host === self) return this.activeEpoch !== view.epoch;
        const active = this.peers.of(host)?.active ?? null;
        if (active === null || active.epoch !== view.epoch) return true;
        return rules.incarnations && active.inc !== inc;
      })
      .map((entry) => entry.host);
  }

  /** OPEN, if every recipient is ACTIVE. */
  tryOpen(): void {
    const ballot = this.decidedBallot;
    if (ballot === null || this.isOpen) return;
    const { view, opening } = ballot;
    const { epoch } = view;
    if (this.activeEpoch !== epoch || this.openEpoch >= epoch) return;
    if (this.keeper.state.promised !== epoch) return;
    if (this.ground.rules.openBarrier && this.missing().length > 0) return;
    this.isOpen = true;
    this.openEpoch = epoch;
    this.openView = view;
    const cut = unionOf(opening);
    const { id, forced } = view;
    const line = extend(opening.line, { epoch, id, from: opening.from, forced, cut });
    this.ground.local = { ...this.ground.local, history: line };
    const text = `View ${epoch} is open: ${this.ground.namesOf(view.members)}.`;
    this.ground.trace.event("info", "view.opened", text, { epoch });
    this.ground.sink.opened(view, cut, this.actives(view), line);
  }

  private actives(view: View): ActiveExtra[] {
    const actives: ActiveExtra[] = [];
    for (const { host } of recipientsOf(view)) {
      const active = this.peers.of(host)?.active ?? null;
      if (host === this.ground.self) actives.push({ host, extra: this.extra });
      else if (active?.epoch === view.epoch) actives.push({ host, extra: active.extra });
    }
    return actives;
  }
}

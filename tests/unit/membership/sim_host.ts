/**
 * One host of the membership simulator: a real Membership machine over an abstract log and a
 * mirror without bytes. Data hosts write while their view is open, send their tails when asked
 * to, copy as joiners. What it does on the wire goes through the world's links.
 */
import type { Trace } from "../../../core/base/ports.ts";
import type { Rules } from "../../../core/base/rules.ts";
import { type Epoch, type HostId, hostId } from "../../../core/base/units.ts";
import {
  entryOf,
  type MembershipMessage,
  type Position,
  recipientsOf,
  type View,
  type ViewRecord,
} from "../../../core/format/membership_wire.ts";
import type { VoterState } from "../../../core/format/votes.ts";
import type {
  LocalState,
  MembershipHost,
  MembershipSink,
  ReconcilePlan,
} from "../../../core/membership/contract.ts";
import { Membership } from "../../../core/membership/membership.ts";
import { AbstractLog } from "./abstract_log.ts";
import type { Cluster } from "./cluster.ts";

export type Wire =
  | { readonly kind: "control"; readonly bytes: Uint8Array }
  | { readonly kind: "data"; readonly epoch: Epoch; readonly upTo: number }
  | { readonly kind: "ack"; readonly epoch: Epoch; readonly upTo: number }
  | {
      readonly kind: "tail";
      readonly epoch: Epoch;
      readonly from: Epoch;
      readonly sender: HostId;
      readonly upTo: number;
    };

export const SILENT: Trace = { event: () => {} };

export class SimHost implements MembershipSink {
  readonly id: HostId;
  readonly kind: MembershipHost["kind"];
  machine: Membership | null = null;
  /** What survives the process: the log (not all of it a power cut), the vote file, the boot. */
  log = new AbstractLog();
  durable = new AbstractLog();
  votes: VoterState | null = null;
  boot: string;
  diskOk = true;
  /** Clock: local = offset + real * rate. */
  rate = 1;
  offsetMs = 0;
  refusals: string[] = [];
  excludedFrom: Epoch = 0;
  life = 0;
  activeEpoch: Epoch = 0;
  private readonly world: Cluster;
  private sealedEpoch: Epoch = 0;
  private promisedSent: Epoch = 0;
  private plan: ReconcilePlan | null = null;
  private complete = false;
  private isJoiner = false;
  private acks: number[] = [];
  private known: number[] = [];
  private copying = 0;

  constructor(world: Cluster, id: number, kind: MembershipHost["kind"]) {
    this.world = world;
    this.id = hostId(id);
    this.kind = kind;
    this.boot = `boot-${id}-0`;
  }

  get inc(): number {
    return this.machine?.incarnation ?? 0;
  }

  get nowMs(): number {
    return this.offsetMs + this.world.nowMs * this.rate;
  }

  start(rules: Rules, options: ConstructorParameters<typeof Membership>[0]): void {
    this.life += 1;
    this.sealedEpoch = 0;
    this.promisedSent = 0;
    this.activeEpoch = 0;
    this.plan = null;
    this.complete = false;
    this.isJoiner = false;
    this.acks = [];
    this.known = [];
    this.machine = new Membership(options, this, this.world.random, SILENT, rules);
    this.machine.start(this.nowMs, this.votes, this.local());
  }

  local(): LocalState {
    const isData = this.kind === "data";
    const newestOpen = Math.max(this.log.newest(), this.activeOpen());
    const counts = this.log.epochs.get(newestOpen) ?? [];
    const vector = counts
      .map((appended, sender) => ({
        sender: hostId(sender),
        appended,
        committed: this.activeEpoch === newestOpen ? (this.known[sender] ?? 0) : 0,
      }))
      .filter((reach) => reach.appended > 0);
    return {
      hasStore: isData,
      diskOk: isData && this.diskOk,
      complete: this.complete,
      hasLosses: false,
      newestOpen,
      vector,
      wantsIn: isData && this.diskOk,
      boot: this.boot,
      history: this.log.line,
    };
  }

  private activeOpen(): Epoch {
    return this.machine?.isOpen === true ? (this.machine.view?.epoch ?? 0) : 0;
  }

  // MembershipSink ------------------------------------------------------------------------

  send(to: HostId, message: MembershipMessage): void {
    if (message.kind === "promise") {
      this.world.observer.promised(this.id, message.inc, message.epoch);
      this.promisedSent = Math.max(this.promisedSent, message.epoch);
    }
    if (message.kind === "grant") {
      this.world.observer.sends("grant", this.id, message.epoch, this.promisedSent);
    }
    this.world.sendControl(this, to, message);
  }

  persist(tag: number, state: VoterState): void {
    this.world.persist(this, tag, state);
  }

  sealed(epoch: Epoch): LocalState {
    const state = this.local();
    this.sealedEpoch = epoch;
    // Our own promise does not pass `send`.
    this.world.observer.promised(this.id, this.inc, epoch);
    this.promisedSent = Math.max(this.promisedSent, epoch);
    return state;
  }

  decided(_view: View): void {}

  reconcile(plan: ReconcilePlan): void {
    this.plan = plan;
    this.isJoiner = entryOf(this.machine!.view!.joining, this.id) !== null;
    if (!plan.continuing && this.isJoiner) this.complete = false;
    this.sendTails(plan);
    this.reached();
  }

  opened(
    view: View,
    cut: readonly Position[],
    _actives: readonly unknown[],
    line: readonly ViewRecord[],
  ): void {
    const plan = this.plan!;
    if (plan.continuing) {
      this.log.trim(plan.from, cut, view.epoch);
      this.durable.trim(plan.from, cut, view.epoch);
    }
    if (!this.isJoiner || plan.continuing) this.log.line = [...line];
    this.world.observer.open(this, view);
    if (this.isJoiner && !this.complete) this.beginCopy(view, line);
  }

  excluded(view: View): void {
    this.excludedFrom = view.epoch;
  }

  refused(_peer: HostId, why: string): void {
    this.refusals.push(why);
  }

  // The mirror without bytes --------------------------------------------------------------

  private sendTails(plan: ReconcilePlan): void {
    const { epoch, from } = plan;
    for (const { to, sender, toSeq } of plan.sends) {
      this.world.sendWire(this, to, { kind: "tail", epoch, from, sender, upTo: toSeq });
    }
    if (plan.sends.length === 0) return;
    const { life } = this;
    this.world.after(150, () => {
      const goesOn = this.life === life && this.plan === plan && this.machine?.isOpen === false;
      if (goesOn && this.sealedEpoch === epoch) this.sendTails(plan);
    });
  }

  /** ACTIVE once the log holds the union. */
  private reached(): void {
    const { plan, machine } = this;
    if (plan === null || machine === null || this.activeEpoch >= plan.epoch) return;
    for (const { sender, seq } of plan.mustReach) {
      if (this.log.count(plan.from, sender) < seq) return;
    }
    this.activeEpoch = plan.epoch;
    this.acks = [];
    this.known = [];
    machine.unionHeld(this.nowMs, plan.epoch);
  }

  wire(from: HostId, message: Wire): void {
    const { machine } = this;
    if (machine === null || message.kind === "control") return;
    if (message.kind === "tail") {
      if (message.epoch !== this.plan?.epoch || this.sealedEpoch !== message.epoch) return;
      if (this.activeEpoch >= message.epoch) return;
      this.log.reach(message.from, message.sender, message.upTo);
      this.reached();
      return;
    }
    const sealed = this.sealedEpoch > message.epoch;
    if (message.epoch !== this.activeEpoch || sealed) return;
    if (message.kind === "data") {
      this.log.reach(message.epoch, from, message.upTo);
      this.world.observer.sends("ack", this.id, message.epoch, this.promisedSent);
      const upTo = this.log.count(message.epoch, from);
      this.world.sendWire(this, from, { kind: "ack", epoch: message.epoch, upTo });
      return;
    }
    this.acks[from] = Math.max(this.acks[from] ?? 0, message.upTo);
    this.settleCommits();
  }

  /** R6: committed is what all recipients acked. */
  private settleCommits(): void {
    const view = this.machine?.view ?? null;
    if (view === null || this.machine?.isOpen !== true || view.epoch !== this.activeEpoch) return;
    let count = this.log.count(view.epoch, this.id);
    const waitsFor = this.world.rules.joinersCommit ? recipientsOf(view) : view.members;
    for (const { host } of waitsFor) {
      if (host !== this.id) count = Math.min(count, this.acks[host] ?? 0);
    }
    if (count <= (this.known[this.id] ?? 0)) return;
    this.known[this.id] = count;
    this.world.observer.commit(view.epoch, this.id, count);
  }

  /** A client writes here: also sends again what was not acked. */
  write(): void {
    const view = this.machine?.view ?? null;
    if (view === null || this.machine?.isOpen !== true || this.machine.role !== "member") return;
    const { epoch } = view;
    if (epoch !== this.activeEpoch || this.sealedEpoch > epoch) return;
    this.world.observer.sends("record", this.id, epoch, this.promisedSent);
    const upTo = this.log.count(epoch, this.id) + 1;
    this.log.reach(epoch, this.id, upTo);
    for (const { host } of recipientsOf(view)) {
      if (host !== this.id) this.world.sendWire(this, host, { kind: "data", epoch, upTo });
    }
    this.settleCommits();
  }

  read(): void {
    const { machine } = this;
    if (machine === null || !machine.mayRead(this.nowMs)) return;
    this.world.observer.read(this, machine.view!);
  }

  /** R11 in one step: after a while everything committed is copied from a member. */
  private beginCopy(view: View, line: readonly ViewRecord[]): void {
    this.copying += 1;
    const { copying, life } = this;
    this.world.after(20 + this.world.random.fraction() * 300, () => {
      const { machine } = this;
      const goesOn = this.life === life && this.copying === copying && machine?.isOpen === true;
      if (!goesOn || machine.view?.epoch !== view.epoch) return;
      const source = view.members
        .map((member) => this.world.hosts[member.host]!)
        .find((host) => host.machine?.isOpen === true && host.activeEpoch === view.epoch);
      if (source === undefined || !this.world.isLinked(this.id, source.id)) {
        this.beginCopy(view, line);
        return;
      }
      const copy = source.log.clone();
      copy.epochs.delete(view.epoch);
      const live = this.log.epochs.get(view.epoch);
      if (live !== undefined) copy.epochs.set(view.epoch, live);
      copy.line = [...line];
      this.log = copy;
      this.durable = copy.clone();
      this.complete = true;
      machine.setLocal(this.local());
      this.world.wake(this);
    });
  }
}

/**
 * A host's part in a change of views: seal, reconcile, ACTIVE, OPEN, exclusion (R2, R5). The
 * decisions are membership's; here they are carried out on the log, the mirror and the leases.
 *
 *   open --sealed--> sealed --reconcile--> equal --unionHeld--> active --opened--> open
 *     ^______________________________________________________________________________|
 *   any --excluded--> outside
 *
 * Invariants:
 *  C1 `parts.epoch` is above 0 only between `opened` and `sealed` (or `excluded`);
 *  C2 `unionHeld` is called only when everything appended so far is in the operating system's
 *     hands: ACTIVE promises what an ack promises (G1);
 *  C3 what `local()` reports of a sealed epoch never shrinks until a newer epoch has records.
 */
import { must } from "../base/assert.ts";
import type { Epoch, HostId, Seq } from "../base/units.ts";
import { decode, encode } from "../format/codec.ts";
import {
  lineCodec,
  type MembershipMessage,
  type Position,
  recipientsOf,
  type View,
  type ViewRecord,
} from "../format/membership_wire.ts";
import type { VoterState } from "../format/votes.ts";
import type { Points } from "../lease/points.ts";
import type {
  ActiveExtra,
  LocalState,
  MembershipSink,
  ReconcilePlan,
} from "../membership/contract.ts";
import type { CopyTarget } from "./copy_target.ts";
import type { Parts } from "./parts.ts";
import { META } from "./store_life.ts";

const KEY_WORDS = 8;

export interface ViewChangeSink {
  sendMembership(to: HostId, message: MembershipMessage): void;
  persistVotes(tag: number, state: VoterState): void;
  /** No I/O until the next `viewOpened`; leases, copies and barriers of the old view are void. */
  viewSealed(): void;
  /** `cut` is how far this host's own stream of the former view is committed. */
  viewOpened(wentOn: boolean, cut: Seq): void;
  viewExcluded(): void;
  peerRefused(peer: HostId, why: string): void;
}

interface Tail {
  epoch: Epoch;
  vector: { sender: HostId; appended: Seq; committed: Seq }[];
}

export class ViewChange implements MembershipSink {
  private readonly parts: Parts;
  private readonly points: Points;
  private readonly target: CopyTarget;
  private readonly sink: ViewChangeSink;
  role: "member" | "joining" | "none" = "none";
  view: View | null = null;
  /** History of opened views, as the store keeps it. */
  line: readonly ViewRecord[] = [];
  /** This host wants to be a recipient: a data host with a good store that is not stopping. */
  wantsIn = false;
  diskOk = true;
  private decidedView: View | null = null;
  private plan: ReconcilePlan | null = null;
  /** What is known of the newest epoch with records or OPEN, once it is sealed. */
  private tail: Tail = { epoch: 0, vector: [] };
  /** True once `unionHeld` was called for the plan at hand. */
  private isActive = false;
  /** Everything at the store up to here must be logged before ACTIVE. */
  private key: Uint8Array = new Uint8Array(0);

  constructor(parts: Parts, points: Points, target: CopyTarget, sink: ViewChangeSink) {
    this.parts = parts;
    this.points = points;
    this.target = target;
    this.sink = sink;
  }

  /** The store was opened: what its log says of the past. */
  recovered(): void {
    const { store, options } = this.parts;
    if (store === null) return;
    const kept = store.getMeta(META.view);
    this.line = kept === null ? [] : (decode(lineCodec, kept.subarray(0, kept.length)) ?? []);
    const opened = this.line.at(-1)?.epoch ?? 0;
    const epoch = Math.max(opened, store.streamEpoch);
    const vector = options.roster.map((entry) => {
      const appended = epoch === store.streamEpoch ? store.streamSeq(entry.id) : 0;
      return { sender: entry.id, appended, committed: 0 };
    });
    this.tail = { epoch, vector };
  }

  /** What PROMISE, R12 and R13 need. */
  local(): LocalState {
    this.noteTail();
    const { store, options } = this.parts;
    return {
      hasStore: store !== null,
      diskOk: this.diskOk,
      complete: this.target.isComplete && this.isCopyDurable,
      hasLosses: store?.hasLosses ?? false,
      newestOpen: this.tail.epoch,
      vector: this.tail.vector,
      wantsIn: this.wantsIn && store !== null,
      boot: options.bootId,
      history: this.line,
    };
  }

  /** Set when the resync's last sync came back; cleared when a session begins. */
  isCopyDurable = false;

  /** Something that `local()` reports has changed. */
  changed(): void {
    this.parts.membership.setLocal(this.local());
  }

  sealed(_epoch: Epoch): LocalState {
    this.noteTail();
    this.plan = null;
    this.isActive = false;
    if (this.parts.epoch !== 0) {
      this.parts.epoch = 0;
      this.parts.serving = false;
      this.sink.viewSealed();
    }
    this.parts.mirror.seal();
    return this.local();
  }

  decided(view: View): void {
    this.decidedView = view;
  }

  reconcile(plan: ReconcilePlan): void {
    this.plan = plan;
    this.isActive = false;
    if (!plan.continuing) {
      this.target.end();
      this.isCopyDurable = false;
    }
    for (const send of plan.sends) {
      this.parts.mirror.resend(this.parts.nowMs, send.to, send.sender, send.fromSeq, send.toSeq);
    }
  }

  /** Called after every batch of events: goes on to ACTIVE when the union is in the log. */
  advance(): void {
    const { plan } = this;
    const { store, mirror } = this.parts;
    if (plan === null || this.isActive || store === null) return;
    if (this.parts.rules.reconcile && plan.continuing) {
      this.noteTail();
      for (const want of plan.mustReach) {
        if (this.appendedOf(plan.from, want.sender) < want.seq) return;
      }
    }
    if (store.loggedLsn < store.lastLsn) return;
    const view = must(this.decidedView, "view change: reconcile without a decided view");
    this.isActive = true;
    if (plan.continuing) this.holdUnion(plan);
    const hosts = recipientsOf(view).map((entry) => entry.host);
    if (!view.members.some((entry) => entry.host === this.parts.self)) this.target.begin();
    this.key = this.drawKey();
    for (const queue of this.parts.uncommitted) queue.clear();
    mirror.begin(
      this.parts.nowMs,
      view.epoch,
      hosts,
      view.members.map((entry) => entry.host),
      [{ host: this.parts.self, key: this.key }],
    );
    this.parts.membership.unionHeld(this.parts.nowMs, view.epoch, this.key);
  }

  opened(
    view: View,
    cut: readonly Position[],
    actives: readonly ActiveExtra[],
    line: readonly ViewRecord[],
  ): void {
    const { parts } = this;
    const wentOn = this.plan?.continuing ?? false;
    const isMember = view.members.some((entry) => entry.host === parts.self);
    const isJoining = view.joining.some((entry) => entry.host === parts.self);
    // The base of a cold start: its log knows what was written, its memory does not.
    if (isMember && this.view === null) parts.recent.knownSince = view.epoch;
    this.view = view;
    this.line = line;
    this.role = isMember ? "member" : isJoining ? "joining" : "none";
    this.tail = { epoch: view.epoch, vector: [] };
    parts.epoch = view.epoch;
    parts.point = 0;
    parts.serving = isMember && parts.store !== null;
    parts.hasCopies = view.members.length >= parts.options.minCopies;
    parts.store?.putMeta(META.view, encode(lineCodec, [...line]));
    if (isMember) {
      this.target.end();
      // Copied from a member; or the base of a cold start, and what it has is the history now.
      const isAlone = parts.options.roster.length === 1;
      if (parts.store?.hasLosses === true && !isAlone) parts.store.forgetLosses();
    }
    const hosts = recipientsOf(view).map((entry) => entry.host);
    const members = view.members.map((entry) => entry.host);
    const sequencer = must(members[0], "view change: a view without members");
    for (const each of actives) {
      if (each.host !== parts.self) parts.mirror.learnKey(each.host, each.extra);
    }
    parts.policing.open(parts.nowMs, view.epoch, sequencer, hosts);
    this.points.open(parts.nowMs, view.epoch, sequencer, members, hosts);
    parts.mirror.opened(parts.nowMs);
    const own = cut.find((position) => position.sender === parts.self)?.seq ?? 0;
    this.plan = null;
    this.sink.viewOpened(wentOn, own);
  }

  excluded(view: View): void {
    this.view = view;
    this.role = "none";
    this.plan = null;
    this.parts.epoch = 0;
    this.parts.serving = false;
    this.target.end();
    this.isCopyDurable = false;
    this.sink.viewExcluded();
  }

  refused(peer: HostId, why: string): void {
    this.sink.peerRefused(peer, why);
  }

  send(to: HostId, message: MembershipMessage): void {
    this.sink.sendMembership(to, message);
  }

  persist(tag: number, state: VoterState): void {
    this.sink.persistVotes(tag, state);
  }

  /** Takes over the mirror's positions while they speak of the newest epoch with records. */
  private noteTail(): void {
    const { mirror } = this.parts;
    const epoch = mirror.vectorEpoch;
    if (epoch < this.tail.epoch || epoch === 0) return;
    const vector = mirror.vector();
    if (epoch === this.tail.epoch || vector.some((each) => each.appended > 0)) {
      this.tail = { epoch, vector };
    }
  }

  /** The union is here: should this view not open, the next one starts from it. */
  private holdUnion(plan: ReconcilePlan): void {
    this.noteTail();
    if (this.tail.epoch !== plan.from) return;
    this.tail = {
      epoch: plan.from,
      vector: plan.cut.map((each) => ({
        sender: each.sender,
        appended: each.seq,
        committed: this.tail.vector.find((own) => own.sender === each.sender)?.committed ?? 0,
      })),
    };
  }

  /** R5: with positions of another epoch this host has no record of `epoch` yet. */
  private appendedOf(epoch: Epoch, sender: HostId): Seq {
    if (this.tail.epoch !== epoch) return 0;
    for (const each of this.tail.vector) if (each.sender === sender) return each.appended;
    return 0;
  }

  private drawKey(): Uint8Array {
    const key = new Uint8Array(KEY_WORDS * 4);
    const view = new DataView(key.buffer);
    for (let word = 0; word < KEY_WORDS; word += 1) {
      view.setUint32(word * 4, this.parts.ports.entropy.u32());
    }
    return key;
  }
}

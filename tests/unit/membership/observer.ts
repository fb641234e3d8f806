/**
 * The global observer: sees every host's log, promises, accepts, commits and reads, and throws on
 * the first breach of V1 to V4 (docs/guarantees.md).
 */
import type { Epoch } from "../../../core/base/units.ts";
import {
  type Ballot,
  entryOf,
  lists,
  majorityOf,
  type View,
} from "../../../core/format/membership_wire.ts";
import { AbstractLog } from "./abstract_log.ts";
import type { SimHost } from "./sim_host.ts";

/** Older views are not checked any more; their members are gone. */
const VIEWS_KEPT = 8;

export class Breach extends Error {}

export class Observer {
  /** All that ever was committed; what of it was by acks; and by the opening of which view. */
  readonly committed = new AbstractLog();
  private readonly acked = new AbstractLog();
  private readonly unions = new Map<Epoch, AbstractLog>();
  readonly flushed = new AbstractLog();
  /** Views opened anywhere, newest last. */
  readonly opened: Epoch[] = [];
  reads = 0;
  writes = 0;
  coldStarts = 0;
  private readonly hosts: readonly SimHost[];
  private readonly ids = new Map<Epoch, number>();
  private readonly promises = new Map<Epoch, Set<string>>();
  private readonly accepts = new Map<Epoch, Map<number, number>>();
  private readonly views = new Map<Epoch, View>();
  private readonly decided = new Map<Epoch, View>();
  private readonly openLogs = new Map<Epoch, string>();

  constructor(hosts: readonly SimHost[]) {
    this.hosts = hosts;
  }

  promised(host: number, inc: number, epoch: Epoch): void {
    const set = this.promises.get(epoch) ?? new Set<string>();
    set.add(`${host}.${inc}`);
    this.promises.set(epoch, set);
  }

  /** A ballot became durable in a voter's file. */
  accepted(voter: number, voterInc: number, ballot: Ballot): void {
    const { view } = ballot;
    const id = this.ids.get(view.epoch) ?? view.id;
    this.check(id === view.id, `V1: two views of epoch ${view.epoch}`);
    this.ids.set(view.epoch, view.id);
    if (!this.views.has(view.epoch)) this.firstAccept(ballot);
    const votes = this.accepts.get(view.epoch) ?? new Map<number, number>();
    votes.set(voter, voterInc);
    this.accepts.set(view.epoch, votes);
    this.membersHold(view);
    if (votes.size >= majorityOf(view.voters.length)) this.decided.set(view.epoch, view);
  }

  /** A voter lost its file: what it had accepted counts no more unless it was decided. */
  forgot(voter: number): void {
    for (const votes of this.accepts.values()) votes.delete(voter);
  }

  private firstAccept(ballot: Ballot): void {
    const { view } = ballot;
    const promisers = this.promises.get(view.epoch);
    for (const { host, inc } of view.members) {
      const has = promisers?.has(`${host}.${inc}`) === true;
      this.check(has, `V1: member ${host}.${inc} of ${view.epoch} did not promise`);
    }
    const parent = this.views.get(view.parent);
    if (parent !== undefined) this.coldStart(ballot, parent);
    this.views.set(view.epoch, view);
    const epochs = [...this.views.keys()].sort((one, other) => one - other);
    for (const epoch of epochs.slice(0, -VIEWS_KEPT)) this.views.delete(epoch);
  }

  /** R12a: a cold start loses nothing flushed, and nothing if a machine kept its memory. */
  private coldStart(ballot: Ballot, parent: View): void {
    const { view } = ballot;
    const known = [...parent.members, ...parent.joining];
    if (view.members.some(({ host, inc }) => lists(known, host, inc))) return;
    this.coldStarts += 1;
    const base = this.hosts[view.members[0]!.host]!;
    const lostFlush = base.log.lacks(this.flushed, view.epoch);
    this.check(lostFlush === null, `G2: cold start ${view.epoch} lost flushed data: ${lostFlush}`);
    for (const { host } of ballot.promisers) {
      const candidate = this.hosts[host]!;
      if (candidate.votes === null) continue;
      const { servedEpoch, servedBoot } = candidate.votes;
      if (entryOf(parent.members, host) === null || servedEpoch !== parent.epoch) continue;
      if (servedBoot !== candidate.boot) continue;
      const lost = base.log.lacks(this.committed, view.epoch);
      this.check(lost === null, `G1: cold start ${view.epoch} lost acknowledged data: ${lost}`);
    }
    for (const log of [this.committed, this.acked, ...this.unions.values()]) {
      for (const [epoch, counts] of log.epochs) {
        for (let sender = 0; sender < counts.length; sender += 1) {
          counts[sender] = Math.min(counts[sender]!, base.log.count(epoch, sender));
        }
      }
    }
  }

  /** V2, for one view: what was committed, by acks or by an opening, in an earlier epoch. */
  private membersHold(view: View): void {
    let opened = 0;
    for (const epoch of this.unions.keys())
      if (epoch < view.epoch) opened = Math.max(opened, epoch);
    const union = this.unions.get(opened) ?? new AbstractLog();
    for (const { host, inc } of view.members) {
      const member = this.hosts[host]!;
      if (member.machine === null || member.inc !== inc) continue;
      const lost = member.log.lacks(this.acked, view.epoch) ?? member.log.lacks(union, view.epoch);
      this.check(lost === null, `V2: member ${host}.${inc} of ${view.epoch} lacks ${lost}`);
    }
  }

  commit(epoch: Epoch, sender: number, count: number): void {
    this.writes += 1;
    this.committed.reach(epoch, sender, count);
    this.acked.reach(epoch, sender, count);
    for (const view of this.views.values()) if (view.epoch > epoch) this.membersHold(view);
  }

  /** The view is OPEN at `host`: the union of what was before is committed (R5). */
  open(host: SimHost, view: View): void {
    if (!this.opened.includes(view.epoch)) this.opened.push(view.epoch);
    if (!lists(view.members, host.id, host.inc)) return;
    const content = host.log.below(view.epoch);
    const before = this.openLogs.get(view.epoch) ?? content;
    this.check(before === content, `R5: members opened ${view.epoch} with different logs`);
    this.openLogs.set(view.epoch, content);
    const union = new AbstractLog();
    for (const [epoch, counts] of host.log.epochs) {
      if (epoch >= view.epoch) continue;
      counts.forEach((count, sender) => {
        if (count > 0) this.committed.reach(epoch, sender, count);
        if (count > 0) union.reach(epoch, sender, count);
      });
    }
    if (!this.unions.has(view.epoch)) this.unions.set(view.epoch, union);
    if (this.unions.size > VIEWS_KEPT) this.unions.delete(Math.min(...this.unions.keys()));
    for (const later of this.views.values()) if (later.epoch > view.epoch) this.membersHold(later);
  }

  /** V4: a read answered by `host` now. */
  read(host: SimHost, view: View): void {
    this.reads += 1;
    for (const [epoch, later] of this.decided) {
      const isIn = epoch <= view.epoch || lists(later.members, host.id, host.inc);
      this.check(isIn, `V4: ${host.id}.${host.inc} reads in ${view.epoch}, out since ${epoch}`);
    }
    const lost = host.log.lacks(this.committed, Number.POSITIVE_INFINITY);
    this.check(lost === null, `V4: ${host.id}.${host.inc} reads an old version: ${lost}`);
  }

  /** V3: an ack, a record or a grant of `epoch` leaves a host that promised `promised`. */
  sends(what: string, host: number, epoch: Epoch, promised: Epoch): void {
    this.check(epoch >= promised, `V3: ${host} ${what} of ${epoch} after promising ${promised}`);
  }

  check(condition: boolean, message: string): void {
    if (!condition) throw new Breach(message);
  }
}

/**
 * R7: read grants, both sides of them. A member may answer reads while it holds unexpired grants
 * of n - m + 1 voters; since a view is decided by m voters, each of whom first lets its grants to
 * excluded hosts run out, no view without the reader can have been decided.
 *
 * Invariant: what the asker believes ends before what the voter honours, for clocks that differ
 * by up to 1 % each (990 ms from the question against 1010 ms from its receipt).
 *
 * Restart: a voter grants only to members of the view it accepted, and accepts a view only after
 * its grants to others ran out. So the grants that a voter's former life may have out are to
 * members of the view in its file, and the restarted voter takes exactly these as given for
 * 1.1 s. A host that is alone in its view thereby waits for nobody.
 */
import { LIMITS } from "../base/limits.ts";
import type { Epoch, HostId } from "../base/units.ts";
import { type Ballot, entryOf, lists, type MessageOf } from "../format/membership_wire.ts";
import { GRANT_HONOUR_MS, GRANT_RESTART_MS, GRANT_VALID_MS } from "./contract.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";

export class Grants {
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  /** As asker: until when each voter's grant is valid, for `epoch`. */
  private readonly validUntil = new Float64Array(LIMITS.hostCountMax);
  private epoch: Epoch = 0;
  /** As voter: until when, and to which life, each host's grant is honoured. */
  private readonly honouredUntil = new Float64Array(LIMITS.hostCountMax);
  private readonly honouredInc = new Float64Array(LIMITS.hostCountMax);

  constructor(ground: Ground, keeper: Keeper) {
    this.ground = ground;
    this.keeper = keeper;
  }

  /** Takes up what a former life may have given. */
  restarted(forgetful: boolean): void {
    if (!this.ground.rules.voterWait) return;
    const until = this.ground.nowMs + GRANT_RESTART_MS;
    const accepted = this.keeper.state.accepted;
    for (const host of this.ground.options.hosts) {
      if (host.kind !== "data" || host.id === this.ground.self) continue;
      const member = accepted === null ? null : entryOf(accepted.view.members, host.id);
      if (member === null && !forgetful) continue;
      this.honouredUntil[host.id] = until;
      this.honouredInc[host.id] = member?.inc ?? 0;
    }
  }

  /** A cluster without any view has no grants out. */
  none(): void {
    this.honouredUntil.fill(0);
  }

  /** Asker: forgets what was for another epoch. */
  begin(epoch: Epoch): void {
    this.epoch = epoch;
    this.validUntil.fill(0);
  }

  /** Asker: a voter's answer to the question of `message.clock`. */
  granted(from: HostId, message: MessageOf<"grant">): void {
    if (message.epoch !== this.epoch || message.clock > this.ground.nowMs) return;
    const until = message.clock + GRANT_VALID_MS;
    if (until > this.validUntil[from]!) this.validUntil[from] = until;
  }

  /** Voter: answers a member's question, or not. */
  asked(from: HostId, inc: number, message: MessageOf<"beat">): void {
    const { keeper, ground } = this;
    if (message.asks === 0 || !keeper.canVote) return;
    const accepted = keeper.durable.accepted;
    if (accepted === null || accepted.view.epoch !== message.asks) return;
    if (keeper.acceptedEpoch !== message.asks) return;
    if (ground.rules.noRenew && keeper.state.promised !== message.asks) return;
    const life = ground.rules.incarnations
      ? inc
      : (entryOf(accepted.view.members, from)?.inc ?? -1);
    if (!lists(accepted.view.members, from, life)) return;
    this.honouredUntil[from] = ground.nowMs + GRANT_HONOUR_MS;
    this.honouredInc[from] = inc;
    ground.send(from, { kind: "grant", clock: message.clock, epoch: message.asks });
  }

  /**
   * R4: until when this voter must wait before it accepts. A grant is returned by a promise of
   * the same life: whoever promised the ballot's epoch has sealed and reads no older one.
   */
  blockedUntilMs(ballot: Ballot): number {
    if (!this.ground.rules.acceptAfterGrants) return 0;
    let until = 0;
    for (const host of this.ground.options.hosts) {
      const inc = this.honouredInc[host.id]!;
      if (host.id === this.ground.self || lists(ballot.view.members, host.id, inc)) continue;
      if (lists(ballot.promisers, host.id, inc)) continue;
      until = Math.max(until, this.honouredUntil[host.id]!);
    }
    return until;
  }

  /**
   * This voter accepts `ballot`: what a promiser outside its view held was for older epochs, and
   * it reads none of those any more. A host that left in order must not hold up the next view too.
   */
  returned(ballot: Ballot): void {
    for (const { host, inc } of ballot.promisers) {
      if (lists(ballot.view.members, host, inc)) continue;
      if (this.honouredInc[host] === inc) this.honouredUntil[host] = 0;
    }
  }

  /** Asker: until when grants of `count` voters (this one's own included) are held. */
  readableUntilMs(epoch: Epoch, voters: readonly HostId[], count: number): number {
    if (this.epoch !== epoch) return 0;
    // Insertion into the `count` longest-lived: no allocation beyond it, at most 16 voters.
    let own = 0;
    if (this.grantsItself(epoch)) own = 1;
    if (count <= own) return Number.POSITIVE_INFINITY;
    let wanted = count - own;
    let bound = Number.POSITIVE_INFINITY;
    while (wanted > 0) {
      const [next, holders] = this.longestBelow(bound, voters);
      if (holders === 0) return 0;
      bound = next;
      wanted -= holders;
    }
    return bound;
  }

  /** R7, on the path of every read: allocates nothing. */
  held(epoch: Epoch, voters: readonly HostId[], count: number, nowMs: number): boolean {
    if (this.epoch !== epoch) return false;
    let held = this.grantsItself(epoch) ? 1 : 0;
    for (let index = 0; index < voters.length; index += 1) {
      const voter = voters[index]!;
      if (voter !== this.ground.self && this.validUntil[voter]! > nowMs) held += 1;
    }
    return held >= count;
  }

  private grantsItself(epoch: Epoch): boolean {
    const { keeper } = this;
    if (!keeper.canVote || keeper.durable.accepted?.view.epoch !== epoch) return false;
    return keeper.state.promised === epoch || !this.ground.rules.noRenew;
  }

  private longestBelow(bound: number, voters: readonly HostId[]): [number, number] {
    let best = 0;
    let holders = 0;
    for (const voter of voters) {
      const until = this.validUntil[voter]!;
      if (voter === this.ground.self || until <= 0 || until >= bound) continue;
      if (until > best) {
        best = until;
        holders = 1;
      } else if (until === best) holders += 1;
    }
    return [best, holders];
  }
}

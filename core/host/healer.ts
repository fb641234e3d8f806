/**
 * Bad blocks of the own store, each kept until it is good again (G5). Whoever finds one (a read,
 * the cleaner, the scrub, recovery) reports it; here a copy is asked of another member and handed
 * to the store.
 *
 *   found -> asked of a member -> healed
 *              |        ^ the next member, or later
 *              +--------+
 *
 * Invariants:
 *  1. The list is bounded. What did not fit is counted as lost from it, and the store is told to
 *     look for bad blocks from the beginning once there is room again.
 *  2. A block leaves the list only when it was healed, overwritten or trimmed. Without another
 *     member, or a good copy, it waits.
 *  3. A copy is asked for only while our version is known committed: then every member has it, and
 *     as long as our index does not move, what it answers is the same version.
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES, type HostId, type VolumeId } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import type { Store } from "../store/store.ts";
import type { Forwarding } from "./forwarding.ts";
import type { Op } from "./op.ts";
import type { Parts } from "./parts.ts";
import type { Peers } from "./peers.ts";

/** Bad blocks on the list. */
const BAD_MAX = 1024;
/** From here on the scrub waits, as long as copies come within `STALL_MS`. */
const HOLD_AT = BAD_MAX / 2;
const STALL_MS = 5000;
/** Copies asked for at once. */
const FETCHES_MAX = 8;
/** Pauses: no room or an uncommitted version; nobody to ask; every member was asked in vain. */
const SOON_MS = 20;
const LATER_MS = 1000;
const IN_VAIN_MS = 30_000;
/** What was healed is told at most so often. */
const TELL_MS = 10_000;

interface BadBlock {
  readonly volume: VolumeId;
  readonly lba: number;
  /** Where the index pointed when it was found bad; below 0: not known yet. */
  place: number;
  /** Bit set of members that have answered without a good copy. */
  tried: number;
  notBeforeMs: number;
  isAway: boolean;
  /** All members were asked in vain, at least once. */
  isInVain: boolean;
}

export class Healer {
  private readonly parts: Parts;
  private readonly peers: Peers;
  private readonly forwarding: Forwarding;
  private list: BadBlock[] = [];
  private fetchCount = 0;
  private hasOverflowed = false;
  private healedCount = 0;
  private tellMs = 0;
  private lastHealMs = Number.NEGATIVE_INFINITY;
  private nextMs = Number.POSITIVE_INFINITY;

  constructor(parts: Parts, peers: Peers, forwarding: Forwarding) {
    this.parts = parts;
    this.peers = peers;
    this.forwarding = forwarding;
  }

  /** Bad blocks that wait for a good copy. */
  get waitingCount(): number {
    return this.list.length;
  }

  /** No member had a good copy of the block when it was asked last. */
  isInVain(volume: VolumeId, lba: number): boolean {
    return this.find(volume, lba)?.isInVain ?? false;
  }

  /** The block is bad here, and no member has another copy, as far as anybody knows. */
  isHopeless(volume: VolumeId, lba: number): boolean {
    return this.members().length === 0 || this.isInVain(volume, lba);
  }

  /** The store found a bad block. False if it is known already. */
  note(volume: VolumeId, lba: number): boolean {
    const { store, nowMs } = this.parts;
    if (store === null) return true;
    const place = store.placeOf(volume, lba);
    const known = this.find(volume, lba);
    if (known !== null) {
      if (known.place === place || place < 0) return false;
      known.place = place;
      known.tried = 0;
      known.notBeforeMs = nowMs;
      known.isInVain = false;
    } else if (this.list.length >= BAD_MAX) {
      this.hasOverflowed = true;
    } else {
      const entry = { volume, lba, place, tried: 0, notBeforeMs: nowMs };
      this.list.push({ ...entry, isAway: false, isInVain: false });
    }
    this.nextMs = nowMs;
    return true;
  }

  /** The store is gone; a new one has bad blocks of its own. */
  clear(): void {
    this.list = [];
    this.hasOverflowed = false;
    this.nextMs = Number.POSITIVE_INFINITY;
  }

  /** Members came or went: those asked in vain may have what they lacked. */
  viewOpened(): void {
    for (const each of this.list) {
      each.tried = 0;
      each.notBeforeMs = this.parts.nowMs;
    }
    if (this.list.length > 0) this.nextMs = this.parts.nowMs;
  }

  /** Asks for copies as far as members, commits and the bound allow. */
  advance(): void {
    const { store, serving, nowMs } = this.parts;
    if (nowMs < this.nextMs || store === null || !serving) return;
    const members = this.members();
    let nextMs = Number.POSITIVE_INFINITY;
    const kept: BadBlock[] = [];
    for (const each of this.list) {
      if (!each.isAway && !this.isStillBad(each, store)) continue;
      kept.push(each);
      if (each.isAway) continue;
      if (each.notBeforeMs <= nowMs && this.fetchCount < FETCHES_MAX) this.ask(each, members);
      // Without room for a fetch the end of another one brings us back.
      if (!each.isAway && each.notBeforeMs > nowMs) nextMs = Math.min(nextMs, each.notBeforeMs);
    }
    this.list = kept;
    this.nextMs = nextMs;
    const isHeld = kept.length >= HOLD_AT && nowMs - this.lastHealMs < STALL_MS;
    if (store.scrubber !== null) store.scrubber.isHeld = isHeld;
    this.tellWhenDone(store);
  }

  nextDeadlineMs(): number {
    return this.parts.serving ? this.nextMs : Number.POSITIVE_INFINITY;
  }

  private find(volume: VolumeId, lba: number): BadBlock | null {
    for (const each of this.list) if (each.lba === lba && each.volume === volume) return each;
    return null;
  }

  private isStillBad(each: BadBlock, store: Store): boolean {
    const place = store.placeOf(each.volume, each.lba);
    // Not known until the index is in memory; found bad before that, or still.
    if (place < 0) return true;
    if (each.place < 0) each.place = place;
    return place === each.place && place !== 0;
  }

  private ask(each: BadBlock, members: readonly HostId[]): void {
    const { parts } = this;
    each.notBeforeMs = parts.nowMs + SOON_MS;
    if (this.isUncommitted(each)) return;
    const member = members.find((host) => (each.tried & (1 << host)) === 0);
    if (member === undefined) {
      this.nobodyLeft(each);
      return;
    }
    const op = parts.ops.take();
    if (op === null) return;
    op.command = COMMAND.read;
    op.localOnly = true;
    op.volume = each.volume;
    op.offset = each.lba * BLOCK_BYTES;
    op.lengthBytes = BLOCK_BYTES;
    op.readEpoch = parts.epoch;
    op.span();
    op.useOwnBuffer(BLOCK_BYTES);
    op.internal = (done, outcome) => this.fetched(each, member, done, outcome);
    each.isAway = this.forwarding.askRepair(op, member, 1);
    if (each.isAway) this.fetchCount += 1;
    else parts.ops.free(op);
  }

  private nobodyLeft(each: BadBlock): void {
    const { nowMs, ports, volumes } = this.parts;
    each.notBeforeMs = nowMs + (each.tried === 0 ? LATER_MS : IN_VAIN_MS);
    if (each.tried === 0) return;
    each.tried = 0;
    if (each.isInVain) return;
    each.isInVain = true;
    const name = volumes.get(each.volume)?.name ?? String(each.volume);
    const text = `block ${each.lba} of ${name} has no good copy on any host; it reads as an error`;
    ports.trace.event("error", "store.no_copy", text, { volume: name, block: each.lba });
  }

  /** Our version might not be at all members yet, or might vanish (R5). */
  private isUncommitted({ volume, lba }: BadBlock): boolean {
    const { uncommitted, mirror } = this.parts;
    for (let sender = 0; sender < uncommitted.length; sender += 1) {
      const seq = uncommitted[sender]!.newestOverlap(volume, lba, 1);
      if (seq > mirror.committedOf(sender as HostId)) return true;
    }
    return false;
  }

  private fetched(each: BadBlock, member: HostId, op: Op, outcome: Outcome): void {
    const { parts } = this;
    this.fetchCount -= 1;
    each.isAway = false;
    this.nextMs = parts.nowMs;
    const { store } = parts;
    // A copy of another view proves nothing about this one.
    if (store === null || !parts.serving || op.readEpoch !== parts.epoch) return;
    if (!this.list.includes(each)) return;
    if (outcome !== OUTCOME.ok) {
      // A member that is changing views cannot tell; one that can has no good copy.
      if (outcome === OUTCOME.io) each.tried |= 1 << member;
      each.notBeforeMs = parts.nowMs + (outcome === OUTCOME.io ? 0 : SOON_MS);
      return;
    }
    const healed = store.heal(each.volume, each.lba, each.place, op.buffer, op.bufferAt);
    if (healed === OUTCOME.pending || each.place < 0) return;
    // Overwritten meanwhile is as good.
    this.list.splice(this.list.indexOf(each), 1);
    this.lastHealMs = parts.nowMs;
    if (healed === OUTCOME.ok) this.healedCount += 1;
  }

  /** The list is empty: said, and what was lost from it is looked for. */
  private tellWhenDone(store: Store): void {
    const { nowMs, ports } = this.parts;
    if (this.list.length > 0) return;
    if (this.healedCount > 0 && nowMs >= this.tellMs) {
      const blocks = this.healedCount;
      const what = blocks === 1 ? "1 bad block was" : `${blocks} bad blocks were`;
      const text = `${what} rewritten with copies of other hosts; none is left`;
      ports.trace.event("info", "store.healed", text, { blocks });
      this.healedCount = 0;
      this.tellMs = nowMs + TELL_MS;
    }
    if (this.healedCount > 0) this.nextMs = this.tellMs;
    if (this.hasOverflowed) store.scrubber?.again();
    this.hasOverflowed = false;
  }

  private members(): HostId[] {
    const view = this.parts.membership.view;
    const hosts = (view?.members ?? []).map((entry) => entry.host);
    return hosts.filter((host) => host !== this.parts.self && this.peers.isUp(host));
  }
}

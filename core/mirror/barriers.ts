/**
 * Barriers (R8), and the syncs that FUA records ask for.
 *
 *   barrier() --> waiting --> round: BARRIER to all recipients --> all answered --> barrierDone
 *                    ^                         |
 *                    +------- view change -----+     (tokens are kept and start again at OPEN)
 *
 * One round is in flight at a time; what comes meanwhile shares the next one, as a group commit
 * does. A recipient answers after a sync of all that it has when BARRIER arrives. It need not
 * wait for its own writes to be committed: a write is acknowledged only after its commit, so
 * every write acknowledged before the FLUSH was in every recipient's log before BARRIER was sent.
 *
 * A sync that fails is never answered: its host is poisoned and leaves the view (R8), and the
 * round starts again in the next one.
 */
import { LIMITS } from "../base/limits.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Seq } from "../base/units.ts";
import type { Generation } from "./generation.ts";
import type { MirrorSink } from "./mirror_sink.ts";

/** Who asked for a sync that is under way. */
const OWN_ROUND = -1;
const OWN_FUA = -2;

interface Sync {
  readonly token: number;
  /** A peer's number, OWN_ROUND or OWN_FUA. */
  readonly asker: number;
  readonly epoch: Epoch;
  readonly id: number;
}

export class Barriers {
  /** A FUA record was appended since the last sync for one was asked for. */
  fuaWanted = false;
  private epoch: Epoch = 0;
  private isOpen = false;
  private waiting: number[] = [];
  private inRound: number[] = [];
  private roundId = 0;
  private roundSinceMs = 0;
  /** Recipients (this host too) that have not answered the round; empty = no round. */
  private missing = new Set<number>();
  private peers: readonly HostId[] = [];
  private view: Generation | null = null;
  /** By sender: what was known committed when the last complete round of the view began. */
  private readonly covered = new Float64Array(LIMITS.hostCountMax);
  /** A round of this view is complete: it covers what older views acknowledged. */
  private hasRound = false;
  private readonly inRoundCovered = new Float64Array(LIMITS.hostCountMax);
  private isRecipient = false;
  private nextToken = 1;
  private syncs: Sync[] = [];
  private isFuaSyncing = false;
  private readonly self: HostId;
  private readonly rules: Rules;
  private readonly sink: MirrorSink;

  constructor(self: HostId, rules: Rules, sink: MirrorSink) {
    this.self = self;
    this.rules = rules;
    this.sink = sink;
  }

  /** R2: the round in flight is void; what it served waits for the next OPEN. */
  seal(): void {
    this.isOpen = false;
    this.waiting = this.inRound.concat(this.waiting);
    this.inRound = [];
    this.missing.clear();
  }

  begin(view: Generation): void {
    this.seal();
    this.view = view;
    this.epoch = view.epoch;
    this.peers = view.recipients.filter((host) => host !== this.self);
    this.isRecipient = view.isRecipient(this.self);
    this.hasRound = false;
  }

  opened(): void {
    this.isOpen = true;
  }

  /**
   * The record of the own stream whose durability everywhere answers a FLUSH that is asked now: its
   * syncs are under way. 0: nothing needs to be waited for. Null: it takes a barrier.
   */
  flushSeq(): Seq | null {
    const out = this.view?.out ?? null;
    if (!this.isOpen || out === null || !this.rules.flushEverywhere) return null;
    if (this.rules.flushKnown && !this.coversOthers) return null;
    if (out.durable >= out.appended) return 0;
    return out.endsSynced ? out.appended : null;
  }

  /**
   * True if all that other members can have acknowledged so far is on stable storage at every
   * recipient: nothing of theirs has arrived here since a round that had all of it. (What is
   * acknowledged is committed, hence here; what was committed when the round began was in every
   * recipient's log before BARRIER was.)
   */
  private get coversOthers(): boolean {
    const ins = this.view?.ins ?? [];
    for (let sender = 0; sender < ins.length; sender += 1) {
      const stream = ins[sender] ?? null;
      if (stream !== null && stream.next - 1 > this.covered[sender]!) return false;
    }
    return this.hasRound;
  }

  /** The host bounds how many it has open (`LIMITS.waitingRequestsMax`). */
  add(token: number): void {
    this.waiting.push(token);
  }

  /** All barriers not answered, which the host takes back (it lost its place in the view). */
  takeAll(): number[] {
    const tokens = this.inRound.concat(this.waiting);
    this.inRound = [];
    this.waiting = [];
    this.missing.clear();
    return tokens;
  }

  /** Starts what can start: the next round, and a sync for FUA records. */
  settle(nowMs: number): void {
    this.askFuaSync();
    if (!this.isOpen || this.missing.size > 0 || this.waiting.length === 0) return;
    this.inRound = this.waiting;
    this.waiting = [];
    this.roundId += 1;
    this.roundSinceMs = nowMs;
    for (const stream of this.view?.ins ?? []) {
      if (stream !== null) this.inRoundCovered[stream.sender] = stream.committed;
    }
    if (this.isRecipient) this.missing.add(this.self);
    if (this.rules.flushEverywhere) for (const peer of this.peers) this.missing.add(peer);
    for (const peer of this.peers) {
      if (this.missing.has(peer)) this.sendBarrier(peer);
    }
    if (this.isRecipient) this.askSync(OWN_ROUND, this.epoch, this.roundId);
    this.finishRound();
  }

  /** At most one sync for FUA at a time: what comes meanwhile shares the next. */
  askFuaSync(): void {
    if (!this.fuaWanted || this.isFuaSyncing) return;
    this.fuaWanted = false;
    this.isFuaSyncing = true;
    this.askSync(OWN_FUA, this.epoch, 0);
  }

  /** A new link: what was asked on the old one may be lost. */
  linkUp(peer: HostId): void {
    if (this.missing.has(peer)) this.sendBarrier(peer);
  }

  /** A peer's BARRIER. False: it asks more than a peer may. */
  serve(peer: HostId, epoch: Epoch, id: number): boolean {
    if (epoch !== this.epoch || !this.isRecipient) return true;
    if (this.syncs.some((sync) => sync.asker === peer && sync.id === id)) return true;
    if (this.syncs.length >= 4 * LIMITS.hostCountMax) return false;
    this.askSync(peer, epoch, id);
    return true;
  }

  answered(peer: HostId, epoch: Epoch, id: number, ok: boolean): void {
    if (epoch !== this.epoch || id !== this.roundId || !ok) return;
    if (this.missing.delete(peer)) this.finishRound();
  }

  syncDone(token: number, ok: boolean): void {
    const index = this.syncs.findIndex((sync) => sync.token === token);
    if (index < 0) return;
    const sync = this.syncs[index] as Sync;
    this.syncs.splice(index, 1);
    if (sync.asker === OWN_FUA) {
      this.isFuaSyncing = false;
      this.askFuaSync();
      return;
    }
    if (!ok || sync.epoch !== this.epoch) return;
    if (sync.asker === OWN_ROUND) {
      this.answered(this.self, sync.epoch, sync.id, true);
      return;
    }
    this.sink.send(sync.asker as HostId, {
      kind: "barrierDone",
      epoch: sync.epoch,
      id: sync.id,
      ok: true,
    });
  }

  /** R16: `peer` has not answered the round for longer than the bound. */
  owes(peer: HostId, nowMs: number, boundMs: number): boolean {
    return this.missing.has(peer) && nowMs - this.roundSinceMs > boundMs;
  }

  private finishRound(): void {
    if (this.missing.size > 0) return;
    this.covered.set(this.inRoundCovered);
    this.hasRound = true;
    const done = this.inRound;
    this.inRound = [];
    for (const token of done) this.sink.barrierDone(token, true);
  }

  private sendBarrier(peer: HostId): void {
    this.sink.send(peer, { kind: "barrier", epoch: this.epoch, id: this.roundId });
  }

  private askSync(asker: number, epoch: Epoch, id: number): void {
    const token = this.nextToken;
    this.nextToken += 1;
    this.syncs.push({ token, asker, epoch, id });
    this.sink.syncWanted(token);
  }
}

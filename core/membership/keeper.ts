/**
 * The voter's memory: what must be durable before an answer that depends on it is given.
 *
 * Invariants:
 *  1. `state` is the newest intention, `durable` what the disk holds; `state` runs ahead.
 *  2. A continuation runs only after a write that contains its change has succeeded.
 *  3. At most one write is in flight; changes meanwhile go together into the next one.
 *  4. After a failed write nothing is written and no vote is given any more.
 */
import type { HostId } from "../base/units.ts";
import type { KnownPeer, VoterState } from "../format/votes.ts";
import type { Ground } from "./ground.ts";

/** Continuations waiting for the disk; past it a request is dropped like a lost message. */
const WAITING_MAX = 256;

export class Keeper {
  state: VoterState;
  durable: VoterState;
  /** Why the file cannot be written any more; "" while it can. */
  broken = "";
  private readonly ground: Ground;
  private waiting: (() => void)[] = [];
  private inFlight: { tag: number; state: VoterState; next: (() => void)[] } | null = null;
  private nextTag = 1;

  constructor(ground: Ground) {
    this.ground = ground;
    this.state = {
      clusterId: ground.options.clusterId,
      self: ground.self,
      inc: 0,
      voterInc: 0,
      voting: false,
      promised: 0,
      accepted: null,
      servedEpoch: 0,
      servedBoot: "",
      known: [],
    };
    this.durable = this.state;
  }

  /** True if this voter may promise, accept and grant (R14). */
  get canVote(): boolean {
    return this.ground.votes && this.durable.voting && this.state.voting && this.broken === "";
  }

  get acceptedEpoch(): number {
    return this.state.accepted?.view.epoch ?? 0;
  }

  load(state: VoterState): void {
    this.state = state;
    this.durable = state;
  }

  /** Changes the state; `then` runs once it is durable (never, if the disk fails). */
  write(change: Partial<VoterState>, then: (() => void) | null): void {
    if (this.broken !== "" || this.waiting.length >= WAITING_MAX) return;
    this.state = { ...this.state, ...change };
    if (then !== null) this.waiting.push(then);
    if (this.inFlight === null) this.flush();
  }

  done(tag: number, ok: boolean): void {
    const flight = this.inFlight;
    if (flight === null || flight.tag !== tag) return;
    this.inFlight = null;
    if (!ok) {
      this.broken = "the voter file cannot be written";
      this.waiting = [];
      this.ground.trace.event("error", "votes.failed", `${this.broken}; this host votes no more.`);
      return;
    }
    this.durable = flight.state;
    for (const next of flight.next) next();
    if (this.inFlight === null && this.state !== this.durable) this.flush();
  }

  knownOf(host: HostId): KnownPeer | null {
    return this.state.known.find((entry) => entry.host === host) ?? null;
  }

  /** The newest voterInc of `host`; votes of an older one are void (R14). */
  voterIncOf(host: HostId): number {
    return host === this.ground.self ? this.state.voterInc : (this.knownOf(host)?.voterInc ?? 0);
  }

  /** Remembers a life of a peer; `then` runs once that is durable. */
  know(peer: KnownPeer, then: (() => void) | null): void {
    const old = this.knownOf(peer.host);
    const same =
      old !== null &&
      old.inc === peer.inc &&
      old.nonce === peer.nonce &&
      old.voterInc === peer.voterInc;
    if (same && then === null) return;
    const others = this.state.known.filter((entry) => entry.host !== peer.host);
    this.write({ known: same ? this.state.known : [...others, peer] }, then);
  }

  /** What others told about voterIncs; only ever grows. Not awaited: it is hearsay. */
  hear(voters: readonly { host: HostId; voterInc: number }[]): void {
    for (const { host, voterInc } of voters) {
      const old = this.knownOf(host);
      if (old === null || host === this.ground.self || old.voterInc >= voterInc) continue;
      this.know({ ...old, voterInc }, null);
    }
  }

  voterIncs(): { host: HostId; voterInc: number }[] {
    const known = this.state.known.map(({ host, voterInc }) => ({ host, voterInc }));
    return [...known, { host: this.ground.self, voterInc: this.state.voterInc }].slice(-16);
  }

  private flush(): void {
    const flight = { tag: this.nextTag, state: this.state, next: this.waiting };
    this.nextTag += 1;
    this.waiting = [];
    this.inFlight = flight;
    this.ground.sink.persist(flight.tag, flight.state);
  }
}

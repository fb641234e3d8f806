/**
 * A deterministic world for Membership machines: seeded delays, links that break and lose what
 * was on its way, partitions (one-way too), clocks that drift by up to 1 %, processes killed,
 * machines that lose power, vote files with delays. Messages pass through their codec.
 */
import { SeededRandom } from "../../../core/base/random.ts";
import type { Rules } from "../../../core/base/rules.ts";
import { ALL_RULES } from "../../../core/base/rules.ts";
import { type HostId, hostId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import { type MembershipMessage, membershipMessage } from "../../../core/format/membership_wire.ts";
import { decodeVotes, encodeVotes, type VoterState } from "../../../core/format/votes.ts";
import type { MembershipHost, MembershipOptions } from "../../../core/membership/contract.ts";
import { EventQueue } from "./event_queue.ts";
import { Observer } from "./observer.ts";
import { SimHost, type Wire } from "./sim_host.ts";

export interface ClusterOptions {
  readonly seed: number;
  readonly kinds: readonly MembershipHost["kind"][];
  readonly rules?: Partial<Rules>;
  readonly coldStart?: "flushed" | "all";
  readonly coldWaitMs?: number;
  /** Largest usual delay of a message, ms. */
  readonly delayMs?: number;
}

const NAMES = ["alpha", "beta", "gamma", "delta", "epsilon"];
const CLUSTER_ID = 77;

/** One direction of a pair of hosts. */
interface Way {
  blocked: boolean;
  /** Something was lost on it: everything after it is lost too, until the link is made anew. */
  broken: boolean;
  slowMs: number;
  lastAtMs: number;
}

export class Cluster {
  nowMs = 0;
  /** Raised by a script to call off what it had planned. */
  healed = 0;
  readonly random: SeededRandom;
  readonly rules: Rules;
  readonly hosts: SimHost[] = [];
  readonly observer: Observer;
  /** Drops messages that a script does not want; true = drop. */
  filter: ((from: number, to: number, message: MembershipMessage | null) => boolean) | null = null;
  /** What a script wants to see of all that is sent. */
  watch: ((from: number, to: number, message: MembershipMessage) => void) | null = null;
  private readonly options: ClusterOptions;
  private readonly queue = new EventQueue();
  private readonly ways = new Map<number, Way>();
  private readonly links = new Map<number, number>();
  private readonly wakeAt: number[] = [];
  private linkNumber = 0;

  constructor(options: ClusterOptions) {
    this.options = options;
    this.random = new SeededRandom(options.seed);
    this.rules = { ...ALL_RULES, ...options.rules };
    options.kinds.forEach((kind, id) => {
      const host = new SimHost(this, id, kind);
      host.rate = 0.99 + this.random.fraction() * 0.02;
      host.offsetMs = this.random.fraction() * 1e6;
      this.hosts.push(host);
    });
    this.observer = new Observer(this.hosts);
    this.every(40, () => this.connect());
  }

  after(delayMs: number, work: () => void): void {
    this.queue.push(this.nowMs + delayMs, work);
  }

  every(periodMs: number, work: () => void): void {
    this.after(periodMs, () => {
      work();
      this.every(periodMs, work);
    });
  }

  run(forMs: number): void {
    const until = this.nowMs + forMs;
    for (;;) {
      const next = this.queue.nextAtMs();
      if (next > until) break;
      this.nowMs = Math.max(this.nowMs, next);
      this.queue.pop()();
    }
    this.nowMs = until;
  }

  /** Runs until the condition holds; false if it did not within the time. */
  runUntil(forMs: number, holds: () => boolean): boolean {
    const until = this.nowMs + forMs;
    while (!holds()) {
      const next = this.queue.nextAtMs();
      if (next > until) return false;
      this.nowMs = Math.max(this.nowMs, next);
      this.queue.pop()();
    }
    return true;
  }

  // Processes -----------------------------------------------------------------------------

  start(id: number): void {
    const host = this.hosts[id]!;
    if (host.machine !== null) return;
    const { coldStart, coldWaitMs, kinds } = this.options;
    const options: MembershipOptions = {
      self: host.id,
      clusterId: CLUSTER_ID,
      hosts: kinds.map((kind, index) => ({ id: hostId(index), kind, name: NAMES[index]! })),
      timing: {
        heartbeatMs: 100,
        silenceMs: 600,
        peerTimeoutMs: 3000,
        coldWaitMs: coldWaitMs ?? 10_000,
      },
      coldStart: coldStart ?? "flushed",
    };
    host.start(this.rules, options);
    this.wake(host);
  }

  startAll(): void {
    for (const host of this.hosts) this.start(host.id);
  }

  /** Ends the process; its machine may lose power with it. */
  stop(id: number, how: "kill" | "power" = "kill"): void {
    const host = this.hosts[id]!;
    if (host.machine === null) return;
    host.machine = null;
    host.life += 1;
    if (how === "power") {
      host.log = host.log.tear(host.durable, () => this.random.fraction());
      host.boot = `boot-${id}-${host.life}`;
    }
    // A killed process's connections end at once; a dead machine's only when somebody notices.
    for (const other of this.hosts) {
      if (other === host) continue;
      if (how === "kill") this.unlink(host.id, other.id);
      else this.unlinkLater(host.id, other.id);
    }
  }

  /** R14 covers one voter without memory at a time: so all others must have theirs. */
  loseVotes(id: number, downMs: number): void {
    const voters = this.hosts.filter((host) => host.kind !== "client");
    if (!voters.every((host) => host.votes?.voting === true)) return;
    if (this.hosts[id]!.kind === "client") return;
    this.stop(id, "power");
    this.hosts[id]!.votes = null;
    this.observer.forgot(id);
    this.after(downMs, () => this.start(id));
  }

  flush(): void {
    const { committed, flushed } = this.observer;
    const open = this.hosts.find((one) => one.machine?.isOpen && one.machine.role === "member");
    const view = open?.machine?.view;
    if (view === undefined || view === null) return;
    const recipients = [...view.members, ...view.joining].map((entry) => this.hosts[entry.host]!);
    const ready = recipients.every(
      (host) => host.machine?.isOpen === true && host.machine.view?.epoch === view.epoch,
    );
    if (!ready) return;
    for (const host of recipients) host.durable = host.log.clone();
    for (const [epoch, counts] of committed.epochs) {
      counts.forEach((count, sender) => {
        if (count > 0) flushed.reach(epoch, sender, count);
      });
    }
  }

  // Links ---------------------------------------------------------------------------------

  /** Blocks one direction. */
  block(from: number, to: number, blocked: boolean): void {
    this.way(from, to).blocked = blocked;
    if (blocked) this.unlinkLater(from, to);
  }

  /** Cuts a host off from some others, both ways. */
  isolate(id: number, from: readonly number[], blocked = true): void {
    for (const other of from) {
      if (other === id) continue;
      this.block(id, other, blocked);
      this.block(other, id, blocked);
    }
  }

  slow(from: number, to: number, slowMs: number): void {
    this.way(from, to).slowMs = slowMs;
  }

  heal(): void {
    for (const way of this.ways.values()) {
      way.blocked = false;
      // What still creeps along a slow way is lost with its connection.
      if (way.slowMs > 0 || way.lastAtMs > this.nowMs + 20) way.broken = true;
      way.slowMs = 0;
    }
    for (let one = 0; one < this.hosts.length; one += 1) {
      for (let other = one + 1; other < this.hosts.length; other += 1) {
        if (this.way(one, other).broken || this.way(other, one).broken) this.unlink(one, other);
      }
    }
  }

  isLinked(one: number, other: number): boolean {
    return this.links.has(this.pair(one, other));
  }

  unlink(one: number, other: number): void {
    const pair = this.pair(one, other);
    if (!this.links.delete(pair)) return;
    for (const [here, there] of [
      [one, other],
      [other, one],
    ] as const) {
      const host = this.hosts[here]!;
      host.machine?.linkDown(host.nowMs, hostId(there));
      if (host.machine !== null) this.wake(host);
    }
  }

  private unlinkLater(one: number, other: number): void {
    const number = this.links.get(this.pair(one, other));
    if (number === undefined) return;
    this.after(300 + this.random.below(3000), () => {
      if (this.links.get(this.pair(one, other)) === number) this.unlink(one, other);
    });
  }

  private connect(): void {
    for (let one = 0; one < this.hosts.length; one += 1) {
      for (let other = one + 1; other < this.hosts.length; other += 1) {
        const [here, there] = [this.hosts[one]!, this.hosts[other]!];
        const up = here.inc > 0 && there.inc > 0;
        const number = this.links.get(this.pair(one, other));
        if (number !== undefined) {
          // A new process in place of the old one: the old connection is found dead.
          const stale = this.lives.get(number) !== `${here.life}.${there.life}`;
          if (up && stale) this.unlink(one, other);
          else if (this.way(one, other).broken || this.way(other, one).broken) {
            this.unlinkLater(one, other);
          }
          continue;
        }
        if (!up || this.way(one, other).blocked || this.way(other, one).blocked) continue;
        this.link(here, there);
      }
    }
  }

  private readonly lives = new Map<number, string>();

  private link(here: SimHost, there: SimHost): void {
    this.linkNumber += 1;
    this.links.set(this.pair(here.id, there.id), this.linkNumber);
    this.lives.set(this.linkNumber, `${here.life}.${there.life}`);
    for (const way of [this.way(here.id, there.id), this.way(there.id, here.id)]) {
      way.broken = false;
      way.lastAtMs = this.nowMs;
    }
    here.machine?.linkUp(here.nowMs, there.id, there.inc);
    there.machine?.linkUp(there.nowMs, here.id, here.inc);
    this.wake(here);
    this.wake(there);
  }

  sendControl(from: SimHost, to: HostId, message: MembershipMessage): void {
    this.watch?.(from.id, to, message);
    const bytes = encode(membershipMessage, message);
    this.transmit(from, to, { kind: "control", bytes }, message);
  }

  sendWire(from: SimHost, to: HostId, message: Wire): void {
    this.transmit(from, to, message, null);
  }

  private transmit(from: SimHost, to: HostId, wire: Wire, message: MembershipMessage | null) {
    const number = this.links.get(this.pair(from.id, to));
    const way = this.way(from.id, to);
    if (number === undefined || way.broken) return;
    if (way.blocked) {
      way.broken = true;
      return;
    }
    if (this.filter?.(from.id, to, message) === true) return;
    const delay = 0.05 + this.random.fraction() * (this.options.delayMs ?? 2) + way.slowMs;
    way.lastAtMs = Math.max(way.lastAtMs + 0.001, this.nowMs + delay);
    const { life } = this.hosts[to]!;
    this.queue.push(way.lastAtMs, () => {
      const host = this.hosts[to]!;
      if (host.machine === null || host.life !== life) return;
      if (this.links.get(this.pair(from.id, to)) !== number) return;
      if (wire.kind === "control") {
        const decoded = decode(membershipMessage, wire.bytes);
        this.observer.check(decoded !== null, "a message did not survive its codec");
        host.machine.control(host.nowMs, from.id, decoded!);
      } else host.wire(from.id, wire);
      this.wake(host);
    });
  }

  // Vote files and timers -----------------------------------------------------------------

  persist(host: SimHost, tag: number, state: VoterState): void {
    const { life } = host;
    const bytes = encodeVotes(state);
    this.after(0.3 + this.random.fraction() * 8, () => {
      // A process that dies meanwhile may or may not have replaced its file.
      if (host.life !== life && this.random.chance(0.5)) return;
      if (host.life !== life && (host.votes === null || host.votes.inc >= state.inc + 1)) return;
      const before = host.votes?.accepted?.view.epoch ?? 0;
      const expected = { clusterId: CLUSTER_ID, self: host.id };
      const decoded = decodeVotes(bytes, expected);
      this.observer.check(decoded.ok, "a vote file did not survive its codec");
      if (!decoded.ok) return;
      host.votes = decoded.state;
      const ballot = decoded.state.accepted;
      if (ballot !== null && ballot.view.epoch !== before) {
        this.observer.accepted(host.id, state.voterInc, ballot);
      }
      if (host.life !== life || host.machine === null) return;
      host.machine.voteDone(host.nowMs, tag, true);
      this.wake(host);
    });
  }

  /** Looks at the host's next deadline and makes sure it is met. */
  wake(host: SimHost): void {
    if (host.machine === null) return;
    const deadline = host.machine.nextDeadlineMs();
    if (deadline === Number.POSITIVE_INFINITY) return;
    const atMs = Math.max(this.nowMs, (deadline - host.offsetMs) / host.rate + 0.001);
    if (this.wakeAt[host.id]! <= atMs && this.wakeAt[host.id]! > this.nowMs) return;
    this.wakeAt[host.id] = atMs;
    const { life } = host;
    this.queue.push(atMs, () => {
      if (host.life !== life || host.machine === null) return;
      if (host.nowMs >= host.machine.nextDeadlineMs()) host.machine.expire(host.nowMs);
      this.wake(host);
    });
  }

  private way(from: number, to: number): Way {
    const key = from * 16 + to;
    let way = this.ways.get(key);
    if (way === undefined) {
      way = { blocked: false, broken: false, slowMs: 0, lastAtMs: 0 };
      this.ways.set(key, way);
    }
    return way;
  }

  private pair(one: number, other: number): number {
    return Math.min(one, other) * 16 + Math.max(one, other);
  }
}

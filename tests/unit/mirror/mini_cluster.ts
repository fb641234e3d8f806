/** Two to four `MiniHost`s on a simulated network, and the promises checked while they run. */
import { SeededRandom } from "../../../core/base/random.ts";
import { ALL_RULES, type Rules } from "../../../core/base/rules.ts";
import { LANE } from "../../../core/base/ports.ts";
import type { HostId } from "../../../core/base/units.ts";
import type { RecordHeader } from "../../../core/format/record.ts";
import type { MirrorOptions } from "../../../core/mirror/mirror_sink.ts";
import { Scheduler } from "../../sim/scheduler.ts";
import { CALM, hostIds, type NetFaults, SimNet } from "../../sim/sim_net.ts";
import { MiniHost } from "./mini_host.ts";

export class Broken extends Error {
  override readonly name = "Broken";
}

interface BarrierMark {
  /** Positions that were acknowledged when the barrier or FLUSH was asked for. */
  readonly mustHave: { sender: number; seq: number }[];
  readonly epoch: number;
}

export class MiniCluster {
  readonly random: SeededRandom;
  readonly scheduler = new Scheduler();
  readonly net: SimNet;
  readonly hosts: MiniHost[] = [];
  members: HostId[];
  recipients: HostId[];
  epoch = 0;
  nextToken = 1;
  private readonly records = new Map<string, number>();
  private readonly barrierMarks = new Map<string, BarrierMark>();
  /** FLUSHes that wait for the own stream's durable horizon. */
  private followers: { host: MiniHost; seq: number; mark: BarrierMark }[] = [];
  /** FLUSHes answered without a barrier. */
  knownFlushes = 0;
  private readonly deadlines = new Map<number, number>();

  constructor(options: {
    seed: number;
    hostCount: number;
    joining?: number;
    faults?: Partial<NetFaults>;
    mirror?: Partial<MirrorOptions>;
    rules?: Partial<Rules>;
  }) {
    this.random = new SeededRandom(options.seed);
    this.recipients = hostIds(options.hostCount);
    this.members = this.recipients.slice(0, options.hostCount - (options.joining ?? 0));
    this.net = new SimNet(
      {
        random: this.random,
        schedule: (delayMs, run) => this.scheduler.after(delayMs, run),
        faults: { ...CALM, ...options.faults },
      },
      {
        peerUp: (host, peer) => this.actAt(host, (each, nowMs) => each.linkUp(nowMs, peer)),
        peerDown: (host, peer) => this.actAt(host, (each, nowMs) => each.linkDown(nowMs, peer)),
        peerData: (host, peer, lane, chunk) =>
          this.actAt(host, (each, nowMs) => {
            if (lane === LANE.data) each.mirror.peerData(nowMs, peer, chunk);
            else each.controlBytes(nowMs, peer, chunk);
          }),
        peerDrain: (host, peer, lane) =>
          this.actAt(host, (each, nowMs) => {
            if (lane === LANE.data) each.mirror.peerDrain(nowMs, peer);
            else each.flush(peer);
          }),
        packet: (host, chunk) =>
          this.actAt(host, (each, nowMs) => each.mirror.packet(nowMs, chunk)),
      },
    );
    const rules = { ...ALL_RULES, ...options.rules };
    for (const id of this.recipients) {
      this.hosts.push(new MiniHost(id, this, this.net, options.mirror ?? {}, rules));
    }
    for (const id of this.recipients) this.net.start(id, 1);
    this.run(50);
  }

  host(index: number): MiniHost {
    const host = this.hosts[index];
    if (host === undefined) throw new Broken("no such host");
    return host;
  }

  get nowMs(): number {
    return this.scheduler.nowMs;
  }

  after(delayMs: number, run: () => void): void {
    this.scheduler.after(delayMs, run);
  }

  run(durationMs: number): void {
    const until = this.nowMs + durationMs;
    while (this.scheduler.step(until)) {}
  }

  /** Runs until `isDone`, at most `boundMs`; false if it never was. */
  runUntil(boundMs: number, isDone: () => boolean): boolean {
    const until = this.nowMs + boundMs;
    while (!isDone()) if (!this.scheduler.step(until)) return isDone();
    return true;
  }

  /** One event at a host, then settle, then its timer. */
  act(host: MiniHost, event: (nowMs: number) => void): void {
    event(this.nowMs);
    host.mirror.settle(this.nowMs);
    this.checkBounds(host);
    this.arm(host);
  }

  retryLater(host: MiniHost): void {
    this.after(0.5, () => this.act(host, (nowMs) => host.mirror.retryHeld(nowMs)));
  }

  /** The store becomes writable: an event, and so a settle. */
  settleLater(host: MiniHost): void {
    this.after(0.5, () => this.act(host, () => {}));
  }

  // Views

  /** All begin the next epoch, then all open. */
  open(options: { multicast?: boolean } = {}): void {
    this.beginAll(options.multicast ?? true);
    this.run(2 * this.net.faults.delayMaxMs);
    for (const host of this.hosts) this.act(host, (nowMs) => host.mirror.opened(nowMs));
  }

  beginAll(isMulticast: boolean): void {
    this.epoch += 64;
    const epoch = this.epoch;
    const keys = this.recipients.map((host) => ({ host, key: Uint8Array.of(host, 1, 2) }));
    for (const host of this.hosts) {
      host.epoch = epoch;
      host.isAppending = true;
      host.committedSeq = new Map();
      host.durableSeq = 0;
      this.act(host, (nowMs) =>
        host.mirror.begin(nowMs, epoch, this.recipients, this.members, isMulticast ? keys : []),
      );
    }
  }

  sealAll(): void {
    for (const host of this.hosts) {
      this.act(host, () => {
        host.mirror.seal();
        host.isAppending = false;
      });
      this.run(this.random.fraction());
    }
  }

  /** R5 as membership plans it; true when all hold the union. */
  reconcile(boundMs: number): boolean {
    const epoch = this.host(0).mirror.vectorEpoch;
    const vectors = this.hosts.map((host) => host.mirror.vector());
    const union = new Map<number, { at: MiniHost; seq: number }>();
    vectors.forEach((vector, index) => {
      for (const { sender, appended } of vector) {
        const best = union.get(sender);
        if (best === undefined || appended > best.seq) {
          union.set(sender, { at: this.host(index), seq: appended });
        }
      }
    });
    vectors.forEach((vector, index) => {
      for (const { sender, appended } of vector) {
        const best = union.get(sender);
        if (best === undefined || appended >= best.seq) continue;
        const to = this.host(index).id;
        this.act(best.at, (nowMs) =>
          best.at.mirror.resend(nowMs, to, sender, appended + 1, best.seq),
        );
      }
    });
    return this.runUntil(boundMs, () =>
      this.hosts.every((host) =>
        [...union].every(([sender, best]) => host.stream(epoch, sender).length === best.seq),
      ),
    );
  }

  // What hosts report

  check(isTrue: boolean, message: string): void {
    if (!isTrue) throw new Broken(message);
  }

  wrote(sender: HostId, header: RecordHeader, check: number): void {
    this.records.set(`${header.epoch}/${sender}/${header.seq}`, check);
  }

  truth(epoch: number, sender: number, seq: number): number {
    return this.records.get(`${epoch}/${sender}/${seq}`) ?? -1;
  }

  committed(at: MiniHost, sender: HostId, seq: number): void {
    if (at.id !== sender) {
      const known = this.host(sender).mirror.committedOf(sender);
      this.check(seq <= known || this.host(sender).epoch !== at.epoch, "committed runs ahead");
      return;
    }
    for (const each of this.hosts) {
      const has = each.loggedSeq(at.epoch, sender) >= seq;
      this.check(has, "committed although a recipient lacks it");
    }
  }

  durable(at: MiniHost, seq: number): void {
    for (const each of this.hosts) {
      const has = each.loggedSeq(at.epoch, at.id, true) >= seq;
      this.check(has, "durable although a recipient has not synced it");
    }
    const isDone = (each: { host: MiniHost; seq: number }): boolean =>
      each.host === at && each.seq <= seq;
    for (const { mark } of this.followers.filter(isDone)) this.answerKnown(mark);
    this.followers = this.followers.filter((each) => !isDone(each));
  }

  /** A FLUSH as a host makes it (core/host/flushes.ts): by what is known, or by a barrier. */
  flush(host: MiniHost): void {
    const seq = host.mirror.flushSeq();
    if (seq === null) this.barrier(host, this.nextToken++);
    else if (seq === 0) this.answerKnown(this.mark());
    else this.followers.push({ host, seq, mark: this.mark() });
  }

  private answerKnown(mark: BarrierMark): void {
    // What a view change interrupts begins again.
    if (mark.epoch !== this.epoch) return;
    this.knownFlushes += 1;
    this.checkFlushed(mark, "a FLUSH was answered before all was durable everywhere");
  }

  private mark(): BarrierMark {
    const mustHave = this.members.map((sender) => ({
      sender,
      seq: this.host(sender).mirror.committedOf(sender),
    }));
    return { mustHave, epoch: this.epoch };
  }

  barrier(host: MiniHost, token: number): void {
    this.barrierMarks.set(`${host.id}/${token}`, this.mark());
    this.act(host, (nowMs) => host.mirror.barrier(nowMs, token));
  }

  barrierDone(host: MiniHost, token: number): void {
    const mark = this.barrierMarks.get(`${host.id}/${token}`);
    if (mark === undefined) throw new Broken("a barrier was answered that was not asked");
    this.barrierMarks.delete(`${host.id}/${token}`);
    this.checkFlushed(mark, "a barrier was answered before all was durable everywhere");
  }

  private checkFlushed(mark: BarrierMark, text: string): void {
    for (const each of this.hosts) {
      for (const { sender, seq } of mark.mustHave) {
        this.check(each.loggedSeq(mark.epoch, sender, true) >= seq, text);
      }
    }
  }

  /** Every member's stream is whole, equal and committed everywhere. */
  isQuiet(): boolean {
    return this.members.every((sender) => {
      const { appended, committed } = this.host(sender).mirror.status();
      return (
        committed === appended &&
        this.hosts.every(
          (host) =>
            host.mirror.appendedOf(sender) === appended &&
            host.mirror.committedOf(sender) === appended,
        )
      );
    });
  }

  private actAt(id: HostId, event: (host: MiniHost, nowMs: number) => void): void {
    const host = this.host(id);
    this.act(host, (nowMs) => event(host, nowMs));
  }

  private checkBounds(host: MiniHost): void {
    const status = host.mirror.status();
    this.check(status.windowBytes <= 32 * 1024 * 1024, "the window is too large");
    this.check(status.windowRecords <= 8192, "the window has too many records");
    this.check(status.heldBytes <= 40 * 1024 * 1024, "too much is held");
  }

  private arm(host: MiniHost): void {
    const deadlineMs = host.mirror.nextDeadlineMs();
    const armed = this.deadlines.get(host.id) ?? Infinity;
    if (deadlineMs >= armed) return;
    this.deadlines.set(host.id, deadlineMs);
    this.after(deadlineMs - this.nowMs, () => {
      if (this.deadlines.get(host.id) !== deadlineMs) return;
      this.deadlines.delete(host.id);
      this.act(host, (nowMs) => {
        if (nowMs >= host.mirror.nextDeadlineMs()) host.mirror.expire(nowMs);
      });
    });
  }
}

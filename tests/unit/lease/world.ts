/**
 * A small deterministic world for policing modules: hosts with a control lane that may be reset
 * and a data lane per pair, each FIFO with its own seeded delays; so the streams of different
 * senders are not ordered against each other at a third host. Every host appends records by the
 * rules R6 and R9c, and an observer checks V6, V7 and the validity of every append.
 */
import { SeededRandom } from "../../../core/base/random.ts";
import type { Rules } from "../../../core/base/rules.ts";
import { type HostId, hostId, type VolumeId, volumeId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import { type LeaseMessage, leaseMessage } from "../../../core/format/lease_wire.ts";
import { CHECK, Policing, type PolicingOptions } from "../../../core/lease/policing.ts";

/** A failed check of the observer. */
export class Violation extends Error {}

export interface WorldOptions {
  readonly hosts: number;
  readonly seed: number;
  readonly rules: Rules;
  readonly agingMs?: number;
  readonly holdMs?: number;
  /** Delay of a message from one host to another, by default up to 2 ms per link. */
  /** Only V7 is checked: shows what the other checks' failures lead to. */
  readonly onlyOrder?: boolean;
  readonly delayMs?: (from: number, to: number, random: SeededRandom) => number;
}

export interface Op {
  readonly id: number;
  readonly host: number;
  readonly volume: VolumeId;
  readonly start: number;
  readonly end: number;
  readonly priority: number;
  state: "waiting" | "flight" | "done" | "cancelled";
  grant: number;
  seq: number;
  acksMissing: number;
  readonly askedMs: number;
  grantedMs: number;
  /** True if it had to ask for its lease. */
  hasAsked: boolean;
}

interface Node {
  readonly policing: Policing;
  /** Op numbers per block, as appended in this epoch. */
  log: Map<number, number[]>;
  /** Per sender: records that have arrived and are not appended, and the last one appended. */
  inbound: { queue: Op[]; appended: number }[];
  nextSeq: number;
  isIn: boolean;
  wakeMs: number;
}

interface Timed {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class World {
  nowMs = 0;
  readonly random: SeededRandom;
  readonly nodes: Node[] = [];
  readonly ops: Op[] = [];
  /** Called when an op is done. */
  onDone: (op: Op) => void = () => {};
  readonly messages = { submit: 0, events: 0, want: 0, hello: 0, synced: 0 };
  refusals = 0;
  sequencer = 0;
  /** Longest time from an admission to its commit. */
  drainMaxMs = 0;
  waitingMax = 0;
  epoch = 64;

  private readonly options: WorldOptions;
  private readonly heap: Timed[] = [];
  private order = 0;
  private waitingNow = 0;
  private readonly inFlight = new Set<Op>();
  private readonly lastAt = new Map<number, number>();
  /** Per directed pair: connection number, and from when it may send and deliver. */
  private readonly link = new Map<number, { made: number; sendMs: number; deliverMs: number }>();

  constructor(options: WorldOptions) {
    this.options = options;
    this.random = new SeededRandom(options.seed);
    const { agingMs = 200, holdMs = 5, rules } = options;
    for (let index = 0; index < options.hosts; index += 1) {
      const settings: PolicingOptions = { self: hostId(index), agingMs, holdMs, retryMs: 250 };
      const policing = new Policing(
        settings,
        {
          send: (to, message) => this.sendControl(index, to, message),
          granted: (token, grant) => this.admitted(this.ops[token]!, grant),
          denied: () => {
            throw new Violation("denied without a reservation");
          },
          tableMoved: () => this.retryHeld(index),
          announced: () => {},
        },
        { event: () => {} },
        rules,
      );
      const inbound = Array.from({ length: options.hosts }, () => ({
        queue: [] as Op[],
        appended: 0,
      }));
      this.nodes.push({
        policing,
        log: new Map(),
        inbound,
        nextSeq: 1,
        isIn: false,
        wakeMs: Number.POSITIVE_INFINITY,
      });
    }
  }

  /** Opens a view; hosts open at slightly different times. Later views end earlier ones. */
  open(members: number[], sequencer = members[0]!): void {
    this.epoch += 64;
    this.sequencer = sequencer;
    this.checkOrder(false);
    const planned = this.heap.filter((timed) => timed.order < 0);
    this.heap.splice(0, this.heap.length, ...planned.sort((one, other) => one.atMs - other.atMs));
    this.inFlight.clear();
    const recipients = members.map((index) => hostId(index));
    for (const [index, node] of this.nodes.entries()) {
      node.policing.close();
      node.isIn = false;
      node.log = new Map();
      node.nextSeq = 1;
      node.wakeMs = Number.POSITIVE_INFINITY;
      for (const from of node.inbound) {
        from.queue = [];
        from.appended = 0;
      }
      if (!members.includes(index)) continue;
      this.at(this.nowMs + this.random.fraction() * 3, () => {
        node.isIn = true;
        node.policing.open(this.nowMs, this.epoch, hostId(sequencer), recipients);
        for (const op of this.ops) {
          if (op.host === index && op.state === "flight") this.start(op);
        }
        this.settle(index);
      });
    }
    this.members = members;
  }
  members: number[] = [];

  /** A local client writes. */
  write(host: number, volume: number, start: number, end: number, priority = 0): Op {
    const op: Op = {
      id: this.ops.length,
      host,
      volume: volumeId(volume),
      start,
      end,
      priority,
      state: "flight",
      grant: 0,
      seq: 0,
      acksMissing: 0,
      askedMs: this.nowMs,
      grantedMs: 0,
      hasAsked: false,
    };
    this.ops.push(op);
    this.start(op);
    this.settle(host);
    return op;
  }

  cancel(op: Op): void {
    if (op.state !== "waiting") return;
    op.state = "cancelled";
    this.waitingNow -= 1;
    this.nodes[op.host]!.policing.cancel(this.nowMs, op.id);
    this.settle(op.host);
    this.onDone(op);
  }

  /** The control connection between two hosts breaks and is made anew. */
  reset(one: number, other: number): void {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      const link = this.linkOf(from, to);
      link.made += 1;
      link.sendMs = this.nowMs + 1 + this.random.fraction() * 5;
    }
    const forth = this.linkOf(one, other);
    const back = this.linkOf(other, one);
    forth.deliverMs = back.sendMs;
    back.deliverMs = forth.sendMs;
    const made = forth.made;
    this.plan(forth.sendMs, () => this.linkUp(one, other, made));
    this.plan(back.sendMs, () => this.linkUp(other, one, made));
  }

  /** Something of the test itself; survives view changes. */
  plan(atMs: number, run: () => void): void {
    this.push({ atMs, order: this.order - 2 ** 40, run });
    this.order += 1;
  }

  /** Runs until nothing happens any more, or until `untilMs`. */
  run(untilMs: number): void {
    for (;;) {
      const next = this.heap[0];
      if (next === undefined || next.atMs > untilMs) break;
      this.pop();
      if (next.atMs > this.nowMs) this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  /** V7: per block, every log is a prefix of the longest; at the end they are equal. */
  checkOrder(isEnd: boolean): void {
    const logs = this.members.map((index) => this.nodes[index]!.log);
    const blocks = new Set<number>();
    for (const log of logs) for (const block of log.keys()) blocks.add(block);
    for (const block of blocks) {
      const orders = logs.map((log) => log.get(block) ?? []);
      const longest = orders.reduce((best, list) => (list.length > best.length ? list : best));
      for (const order of orders) {
        if (isEnd && order.length !== longest.length)
          throw new Violation("V7: a record is lacking");
        for (let index = 0; index < order.length; index += 1) {
          if (order[index] !== longest[index]) throw new Violation("V7: order differs");
        }
      }
    }
  }

  private start(op: Op): void {
    const { policing } = this.nodes[op.host]!;
    const grant = policing.tryAcquire(this.nowMs, op.volume, op.start, op.end, op.priority);
    if (grant > 0) {
      this.admitted(op, grant);
      return;
    }
    op.state = "waiting";
    op.hasAsked = true;
    this.waitingNow += 1;
    this.waitingMax = Math.max(this.waitingMax, this.waitingNow);
    policing.request(this.nowMs, op.id, op.volume, op.start, op.end, op.priority);
  }

  private admitted(op: Op, grant: number): void {
    if (op.state === "waiting") this.waitingNow -= 1;
    if (op.state === "done" || op.state === "cancelled") throw new Violation("granted twice");
    for (const other of this.options.onlyOrder === true ? [] : this.inFlight) {
      if (other.host === op.host || other.volume !== op.volume) continue;
      if (other.start < op.end && other.end > op.start) {
        throw new Violation("V6: two conflicting writes at once");
      }
    }
    const node = this.nodes[op.host]!;
    op.state = "flight";
    op.grant = grant;
    op.grantedMs = this.nowMs;
    op.seq = node.nextSeq;
    node.nextSeq += 1;
    op.acksMissing = this.members.length - 1;
    this.inFlight.add(op);
    this.append(op.host, op);
    for (const to of this.members) {
      if (to !== op.host) this.deliver(op.host, to, 1, () => this.arrived(to, op));
    }
    if (op.acksMissing === 0) this.at(this.nowMs + 0.05, () => this.committed(op));
  }

  private arrived(host: number, op: Op): void {
    const node = this.nodes[host]!;
    node.inbound[op.host]!.queue.push(op);
    this.receive(host, op.host);
  }

  private receive(host: number, sender: number): void {
    const node = this.nodes[host]!;
    const from = node.inbound[sender]!;
    while (from.queue.length > 0) {
      const op = from.queue[0]!;
      const { volume, start, end, grant } = op;
      const verdict = node.policing.check(hostId(sender), volume, start, end, grant);
      if (verdict === CHECK.behind) return;
      if (verdict === CHECK.refuse) {
        this.refusals += 1;
        throw new Violation("R9c: a record was refused");
      }
      if (this.options.onlyOrder !== true && !this.shows(node, op))
        throw new Violation("R6: appended without a valid grant");
      from.queue.shift();
      from.appended = op.seq;
      this.append(host, op);
      this.deliver(host, sender, 1, () => this.acked(op));
    }
  }

  /** What the rule R9c says, found independently of `check`. */
  private shows(node: Node, op: Op): boolean {
    for (const row of node.policing.list()) {
      if (row.volume !== op.volume || row.holder !== op.host) continue;
      if (row.start <= op.start && row.end >= op.end) return true;
    }
    return false;
  }

  private acked(op: Op): void {
    op.acksMissing -= 1;
    if (op.acksMissing === 0) this.committed(op);
  }

  private committed(op: Op): void {
    const { volume, start, end, grant } = op;
    this.inFlight.delete(op);
    op.state = "done";
    this.drainMaxMs = Math.max(this.drainMaxMs, this.nowMs - op.grantedMs);
    this.nodes[op.host]!.policing.finish(this.nowMs, volume, start, end, grant);
    this.settle(op.host);
    this.onDone(op);
  }

  private append(host: number, op: Op): void {
    const { log } = this.nodes[host]!;
    for (let block = op.start; block < op.end; block += 1) {
      const key = op.volume * 2 ** 20 + block;
      const order = log.get(key);
      if (order === undefined) log.set(key, [op.id]);
      else order.push(op.id);
    }
  }

  private retryHeld(host: number): void {
    for (const sender of this.members) if (sender !== host) this.receive(host, sender);
  }

  private sendControl(from: number, to: HostId, message: LeaseMessage): void {
    this.messages[message.kind] += 1;
    const link = this.linkOf(from, to);
    if (this.nowMs < link.sendMs) return;
    const { made } = link;
    const bytes = encode(leaseMessage, message);
    this.deliver(from, to, 0, () => {
      if (this.linkOf(from, to).made !== made) return;
      const decoded = decode(leaseMessage, bytes);
      if (decoded === null) throw new Violation("a message does not decode");
      this.nodes[to]!.policing.control(this.nowMs, hostId(from), decoded);
    });
  }

  private linkUp(at: number, peer: number, made: number): void {
    if (this.linkOf(at, peer).made !== made || !this.nodes[at]!.isIn) return;
    this.nodes[at]!.policing.linkUp(this.nowMs, hostId(peer));
    this.settle(at);
  }

  private settle(host: number): void {
    const node = this.nodes[host]!;
    node.policing.settle(this.nowMs);
    const deadlineMs = Math.max(this.nowMs, node.policing.nextDeadlineMs());
    if (deadlineMs >= node.wakeMs || deadlineMs === Number.POSITIVE_INFINITY) return;
    node.wakeMs = deadlineMs;
    this.at(deadlineMs, () => {
      if (node.wakeMs !== deadlineMs) return;
      node.wakeMs = Number.POSITIVE_INFINITY;
      if (this.nowMs >= node.policing.nextDeadlineMs()) node.policing.expire(this.nowMs);
      this.settle(host);
    });
  }

  /** FIFO per directed pair and lane (0 control, 1 data). */
  private deliver(from: number, to: number, lane: number, run: () => void): void {
    const key = (from * 16 + to) * 2 + lane;
    const { random } = this;
    const delayMs = this.options.delayMs?.(from, to, random) ?? 0.05 + random.fraction() * 2;
    const earliest = lane === 0 ? this.linkOf(from, to).deliverMs : 0;
    const atMs = Math.max(this.lastAt.get(key) ?? 0, this.nowMs + delayMs, earliest);
    this.lastAt.set(key, atMs);
    this.at(atMs, () => {
      run();
      this.settle(to);
    });
  }

  private linkOf(from: number, to: number): { made: number; sendMs: number; deliverMs: number } {
    const key = from * 16 + to;
    const found = this.link.get(key);
    if (found !== undefined) return found;
    const made = { made: 0, sendMs: 0, deliverMs: 0 };
    this.link.set(key, made);
    return made;
  }

  private at(atMs: number, run: () => void): void {
    this.push({ atMs, order: this.order, run });
    this.order += 1;
  }

  private push(timed: Timed): void {
    const { heap } = this;
    heap.push(timed);
    let index = heap.length - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(timed, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = timed;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore(one: Timed, other: Timed): boolean {
  return one.atMs !== other.atMs ? one.atMs < other.atMs : one.order < other.order;
}

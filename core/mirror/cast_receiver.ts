/**
 * Multicast, the receiving end for one sender: puts datagrams in order, feeds their bytes to a
 * framer, finds gaps and asks for them.
 *
 *   datagram --MAC, window--> slots --in order--> Framer --> records
 *                               | gap
 *                               +--random wait--> CASTNAK --> (hold off) --> CASTNAK ...
 *
 * The sender's word of how far it is comes by the control lane and overtakes datagrams that wait
 * in this host's own queues. So what only that word says to be missing is asked for when nothing
 * has arrived for a whole back-off; a gap below a datagram that did arrive is asked for at once.
 *
 * Timers after the NACK procedure of NORM (RFC 5740): a gap starts a random back-off, in which
 * reordered datagrams and repairs asked for by others arrive and cancel the request; after a
 * request comes a hold-off of about a repair's round trip, doubled while nothing arrives.
 *
 * Invariant: `next` only grows within an epoch; a number below it is a replay and is dropped.
 */
import type { Entropy, MacKey } from "../base/ports.ts";
import type { Epoch, HostId } from "../base/units.ts";
import {
  DATAGRAM,
  DATAGRAM_FRESH,
  DATAGRAM_HEADER_BYTES,
  DATAGRAM_KIND,
  DATAGRAM_MAC_BYTES,
  type DatagramHeader,
} from "../format/datagram.ts";
import { NAK_RANGES_MAX } from "../format/mirror_wire.ts";
import type { Framer } from "./framer.ts";
import type { MirrorCounters, MirrorSink } from "./mirror_sink.ts";
import { CAST_WINDOW, NAK_DATAGRAMS_MAX } from "./cast_sender.ts";

const BACKOFF_MIN_MS = 1;
const BACKOFF_SPREAD_MS = 4;
/** So many said to be sent and not here are rather waiting in a queue than lost together. */
const BACKLOG_DATAGRAMS = 64;
const BACKLOG_MS = 40;
/** A timer later than this was kept waiting by a busy loop, and so were the datagrams. */
const LATE_MS = 2;
const HOLD_OFF_MS = 20;
const HOLD_OFF_MAX_MS = 160;

export class CastReceiver {
  readonly sender: HostId;
  readonly framer: Framer;
  key: MacKey | null = null;
  /** False while the sender serves this host by the data lane. */
  isActive = true;
  /** Next datagram to be fed to the framer. */
  next = 1;
  /** Highest number known to exist. */
  highest = 0;
  /** Highest number that arrived. */
  private seen = 0;
  private epoch: Epoch = 0;
  private lastProbe = 0;
  private nakAtMs = Infinity;
  /** `next` when the waiting request was armed. */
  private nextAtArm = 0;
  /** The waiting request was put off because its timer came late. */
  private wasLate = false;
  private holdOffMs = HOLD_OFF_MS;
  private nextAtNak = 0;
  private readonly slots: (Uint8Array | null)[] = [];
  private readonly entropy: Entropy;
  private readonly sink: MirrorSink;
  private readonly counters: MirrorCounters;

  constructor(framer: Framer, entropy: Entropy, sink: MirrorSink, counters: MirrorCounters) {
    this.sender = framer.peer;
    this.framer = framer;
    this.entropy = entropy;
    this.sink = sink;
    this.counters = counters;
  }

  begin(epoch: Epoch): void {
    this.epoch = epoch;
    this.key = null;
    this.isActive = true;
    this.next = 1;
    this.highest = 0;
    this.seen = 0;
    this.lastProbe = 0;
    this.clear();
  }

  /** R2: nothing of this epoch is taken any more. */
  seal(): void {
    this.isActive = false;
    this.key = null;
    this.clear();
  }

  /**
   * A datagram whose MAC was verified. Ownership of `chunk` passes here. False: its bytes are no
   * frames, or a record in them was refused.
   */
  take(nowMs: number, header: DatagramHeader, chunk: Uint8Array): boolean {
    if (header.kind === DATAGRAM_KIND.probe) {
      this.echo(header.number);
      return true;
    }
    const number = header.number;
    if (!this.isActive) return true;
    if (number < this.next || this.slots[number % CAST_WINDOW]) {
      this.counters.datagramsReplayed += 1;
      return true;
    }
    // Beyond the window only a broken sender sends: dropped, and asked for when its turn comes.
    if (number >= this.next + CAST_WINDOW) return true;
    this.counters.datagramsReceived += 1;
    if (number > this.highest) this.highest = number;
    if (number > this.seen) this.seen = number;
    if (number > this.next) {
      this.slots[number % CAST_WINDOW] = chunk;
      this.arm(nowMs);
      return true;
    }
    if (!this.feed(chunk)) return false;
    for (;;) {
      const slot = this.next % CAST_WINDOW;
      const kept = this.slots[slot] ?? null;
      if (kept === null) break;
      this.slots[slot] = null;
      if (!this.feed(kept)) return false;
    }
    if (this.next > this.highest) this.nakAtMs = Infinity;
    return true;
  }

  /** The sender says how far it is: finds the loss of the last datagrams. */
  status(nowMs: number, highest: number): void {
    if (!this.isActive) return;
    this.highest = Math.max(this.highest, Math.min(highest, this.next + CAST_WINDOW));
    this.arm(nowMs);
  }

  /** Datagrams count again from `number`, which starts with a frame. */
  start(nowMs: number, number: number): void {
    if (number < this.next) return;
    this.isActive = true;
    this.next = number;
    this.highest = number - 1;
    this.seen = number - 1;
    this.clear();
    this.arm(nowMs);
  }

  /** The sender serves us by the data lane. */
  stop(): void {
    this.isActive = false;
    this.clear();
  }

  expire(nowMs: number): void {
    if (nowMs < this.nakAtMs) return;
    const isLate = nowMs - this.nakAtMs > LATE_MS && !this.wasLate;
    this.wasLate = isLate;
    this.nakAtMs = Infinity;
    if (!this.isActive || this.next > this.highest) return;
    const top = this.next === this.nextAtArm ? this.highest : Math.min(this.seen, this.highest);
    if (isLate || this.next > top) {
      this.arm(nowMs);
      return;
    }
    if (this.next === this.nextAtNak) {
      this.holdOffMs = Math.min(this.holdOffMs * 2, HOLD_OFF_MAX_MS);
    } else {
      this.holdOffMs = HOLD_OFF_MS;
    }
    this.nextAtNak = this.next;
    this.sendNak(top);
    this.nextAtArm = this.next;
    this.nakAtMs = nowMs + this.holdOffMs + this.random(BACKOFF_SPREAD_MS);
  }

  nextDeadlineMs(): number {
    return this.nakAtMs;
  }

  /** Asks for what is missing up to datagram `top`. */
  private sendNak(top: number): void {
    const ranges: { from: number; count: number }[] = [];
    let named = 0;
    let from = this.next;
    while (from <= top && ranges.length < NAK_RANGES_MAX && named < NAK_DATAGRAMS_MAX) {
      if (this.slots[from % CAST_WINDOW]) {
        from += 1;
        continue;
      }
      let end = from;
      while (end <= top && named < NAK_DATAGRAMS_MAX && !this.slots[end % CAST_WINDOW]) {
        end += 1;
        named += 1;
      }
      ranges.push({ from, count: end - from });
      from = end;
    }
    this.counters.naksSent += 1;
    this.sink.send(this.sender, {
      kind: "castNak",
      epoch: this.epoch,
      next: this.next,
      ranges,
    });
  }

  /** Starts the back-off if a gap is known and no request is waiting. */
  private arm(nowMs: number): void {
    if (this.next > this.highest || this.nakAtMs !== Infinity) return;
    this.nextAtArm = this.next;
    const waitMs = this.highest - this.seen > BACKLOG_DATAGRAMS ? BACKLOG_MS : 0;
    this.nakAtMs = nowMs + waitMs + BACKOFF_MIN_MS + this.random(BACKOFF_SPREAD_MS);
  }

  private feed(chunk: Uint8Array): boolean {
    this.next += 1;
    if (chunk[DATAGRAM.flags.at] === DATAGRAM_FRESH) this.framer.reset();
    const end = chunk.length - DATAGRAM_MAC_BYTES;
    return this.framer.push(chunk, DATAGRAM_HEADER_BYTES, end);
  }

  /** Once per number, so that a replayed probe costs nothing more. */
  private echo(probe: number): void {
    if (probe <= this.lastProbe) return;
    this.lastProbe = probe;
    this.sink.send(this.sender, { kind: "castEcho", epoch: this.epoch, probe });
  }

  private clear(): void {
    this.slots.length = 0;
    this.framer.reset();
    this.nakAtMs = Infinity;
    this.holdOffMs = HOLD_OFF_MS;
    this.nextAtNak = 0;
    this.wasLate = false;
  }

  private random(spreadMs: number): number {
    return (this.entropy.u32() / 4294967296) * spreadMs;
  }
}

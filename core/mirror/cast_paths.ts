/**
 * Who is reached by multicast and who by the data lane: the sender's view of every recipient.
 *
 *               no progress, too many repairs, new link
 *      shared ------------------------------------------> dedicated
 *         ^        (CASTSTOP, the lane goes back to          |
 *         |         what the peer has acknowledged)          |
 *         +--------------------------------------------------+
 *              3 probes in a row echoed (CASTSTART n)
 *
 * Invariant: every shared record reaches each recipient by at least one path. A record may reach
 * it by both; the receiver drops the second by its seq.
 */
import type { Trace } from "../base/ports.ts";
import type { Epoch, HostId, Seq } from "../base/units.ts";
import { type CastSender, NAK_DATAGRAMS_MAX } from "./cast_sender.ts";
import type { MirrorCounters, MirrorSink } from "./mirror_sink.ts";
import type { OutStream } from "./out_stream.ts";
import type { PeerLane } from "./peer_lane.ts";

/** A gap that repair did not close for this long: the peer is served by the data lane. */
const STUCK_MS = 500;
/** In this time, if more than half of at least so many datagrams were asked for again: same. */
const LOSS_PERIOD_MS = 500;
const LOSS_DATAGRAMS_MIN = 64;
/**
 * Time between probes. After a loss they are far apart, since a path that comes and goes costs
 * more than the lane does; after a new link, which says nothing of multicast, they start close
 * together and the time doubles.
 */
const PROBE_MS = 1000;
const PROBE_MIN_MS = 20;
const PROBES_ECHOED = 3;
/** The highest number is told again after this silence, doubled up to the maximum. */
const STATUS_MS = 10;
const STATUS_MAX_MS = 160;

/** What is known of one recipient. */
class Reach {
  readonly lane: PeerLane;
  isShared = true;
  /** Its RESUME for this epoch came: another one means a new link. */
  isGreeted: boolean;
  stuckNext = 0;
  stuckSinceMs = 0;
  /** Asked for in this loss period. */
  askedCount = 0;
  echoCount = 0;
  echoedProbe = 0;

  constructor(lane: PeerLane, epoch: Epoch) {
    this.lane = lane;
    this.isGreeted = lane.resumeEpoch === epoch;
  }
}

export class CastPaths {
  readonly epoch: Epoch;
  private readonly sender: CastSender;
  private readonly stream: OutStream;
  private readonly reaches: Reach[];
  private readonly returning = new Set<Reach>();
  private probeNumber = 0;
  private probeAtMs = Infinity;
  private probeEveryMs = PROBE_MS;
  private statusAtMs = Infinity;
  private statusEveryMs = STATUS_MS;
  private lossSinceMs = 0;
  private lossNumber = 1;
  private readonly sink: MirrorSink;
  private readonly trace: Trace;
  private readonly counters: MirrorCounters;

  constructor(
    parts: { sender: CastSender; stream: OutStream; lanes: readonly PeerLane[] },
    sink: MirrorSink,
    trace: Trace,
    counters: MirrorCounters,
  ) {
    this.epoch = parts.sender.epoch;
    this.sender = parts.sender;
    this.stream = parts.stream;
    this.sink = sink;
    this.trace = trace;
    this.counters = counters;
    const fromSeq = this.stream.ring.nextSeq;
    this.sender.restart(fromSeq);
    this.reaches = parts.lanes.map((lane) => new Reach(lane, this.epoch));
    for (const lane of parts.lanes) lane.castFromSeq = fromSeq;
  }

  /** Sends what may be sent; called in settle and when a timer of pace or repair ran out. */
  pump(nowMs: number): void {
    if (this.returning.size > 0 && !this.sender.isMidFrame) this.finishReturns(nowMs);
    if (!this.reaches.some((reach) => reach.isShared)) {
      this.sender.idle();
      return;
    }
    const before = this.sender.nextNumber;
    this.sender.send(nowMs, this.stream);
    if (this.returning.size > 0 && !this.sender.isMidFrame) {
      this.finishReturns(nowMs);
      this.sender.send(nowMs, this.stream);
    }
    if (this.sender.nextNumber === before) return;
    this.statusEveryMs = STATUS_MS;
    this.statusAtMs = nowMs + STATUS_MS;
    this.noteCommitted();
  }

  /** The ring will drop everything up to `seq`. */
  release(seq: Seq): void {
    this.sender.release(seq);
  }

  isShared(peer: HostId): boolean {
    return this.reaches.some((reach) => reach.lane.peer === peer && reach.isShared);
  }

  /** A receiver's negative acknowledgement. */
  nak(
    nowMs: number,
    peer: HostId,
    next: number,
    ranges: readonly { from: number; count: number }[],
  ): void {
    const reach = this.reachOf(peer);
    if (reach === null || !reach.isShared) return;
    this.counters.naksReceived += 1;
    if (next !== reach.stuckNext) {
      reach.stuckNext = next;
      reach.stuckSinceMs = nowMs;
    } else if (nowMs - reach.stuckSinceMs > STUCK_MS) {
      this.fallBack(nowMs, reach, "datagrams are lost and repairs do not arrive");
      return;
    }
    if (!this.askAll(nowMs, reach, ranges)) {
      this.fallBack(nowMs, reach, "it misses datagrams that are gone from the window");
      return;
    }
    this.judgeLoss(nowMs, reach);
  }

  /** A probe came through to `peer`. */
  echo(peer: HostId, probe: number): void {
    const reach = this.reachOf(peer);
    if (reach === null || reach.isShared || probe !== this.probeNumber) return;
    if (probe === reach.echoedProbe) return;
    reach.echoCount = probe === reach.echoedProbe + 1 ? reach.echoCount + 1 : 1;
    reach.echoedProbe = probe;
    if (reach.echoCount < PROBES_ECHOED) return;
    this.returning.add(reach);
    this.sender.alignWanted = true;
  }

  /** The peer sent RESUME. On a new link: what was told on the old one may be lost. */
  resumed(nowMs: number, peer: HostId): void {
    const reach = this.reachOf(peer);
    if (reach === null) return;
    const isNewLink = reach.isGreeted;
    reach.isGreeted = true;
    if (!isNewLink) return;
    this.probeEveryMs = PROBE_MIN_MS;
    this.probeAtMs = nowMs + PROBE_MIN_MS;
    if (reach.isShared) this.fallBack(nowMs, reach, "its link was made anew");
    else this.sink.send(peer, { kind: "castStop", epoch: this.epoch });
  }

  expire(nowMs: number): void {
    this.sender.repair(nowMs, this.stream);
    if (nowMs >= this.statusAtMs) this.sendStatus(nowMs);
    if (nowMs >= this.probeAtMs) this.sendProbe(nowMs);
    this.pump(nowMs);
  }

  nextDeadlineMs(): number {
    return Math.min(this.sender.nextDeadlineMs(), this.statusAtMs, this.probeAtMs);
  }

  private reachOf(peer: HostId): Reach | null {
    return this.reaches.find((reach) => reach.lane.peer === peer) ?? null;
  }

  /** Notes every datagram asked for. False if one of them cannot be sent again. */
  private askAll(
    nowMs: number,
    reach: Reach,
    ranges: readonly { from: number; count: number }[],
  ): boolean {
    let left = NAK_DATAGRAMS_MAX;
    for (const range of ranges) {
      const end = Math.min(range.from + Math.min(range.count, left), this.sender.nextNumber);
      left -= Math.min(range.count, left);
      for (let number = range.from; number < end; number += 1) {
        const answer = this.sender.want(nowMs, number, reach.lane.peer, this.stream);
        if (answer === "gone") return false;
        // What is asked for twice is not lost twice.
        if (answer === "yes") reach.askedCount += 1;
      }
    }
    return true;
  }

  private judgeLoss(nowMs: number, reach: Reach): void {
    if (nowMs - this.lossSinceMs < LOSS_PERIOD_MS) return;
    const sentCount = this.sender.nextNumber - this.lossNumber;
    const isLossy = sentCount >= LOSS_DATAGRAMS_MIN && reach.askedCount > sentCount / 2;
    this.lossSinceMs = nowMs;
    this.lossNumber = this.sender.nextNumber;
    for (const each of this.reaches) each.askedCount = 0;
    if (isLossy) this.fallBack(nowMs, reach, "more than half of the datagrams are lost");
  }

  private fallBack(nowMs: number, reach: Reach, why: string): void {
    reach.isShared = false;
    reach.echoCount = 0;
    this.counters.fallbacks += 1;
    const lane = reach.lane;
    lane.castFromSeq = Infinity;
    const from = this.stream.receivedBy(lane.peer) + 1;
    if (from < lane.position) lane.seek(this.stream.ring, Math.max(from, this.ringStart));
    this.sink.send(lane.peer, { kind: "castStop", epoch: this.epoch });
    if (this.probeAtMs === Infinity) {
      this.probeEveryMs = PROBE_MS;
      this.probeAtMs = nowMs + PROBE_MS;
    }
    const text = `multicast does not reach the peer (${why}); the dedicated link serves it`;
    this.trace.event("warn", "mirror.path", text, { peer: lane.peer });
    this.sink.pathChanged(lane.peer, text);
  }

  private get ringStart(): Seq {
    return this.stream.ring.firstSeq;
  }

  private finishReturns(nowMs: number): void {
    this.sender.alignWanted = false;
    if (!this.reaches.some((reach) => reach.isShared)) {
      // Nobody listened: what was not packed yet has been left to the data lanes.
      this.sender.restart(this.stream.ring.nextSeq);
    }
    const number = this.sender.nextNumber;
    for (const reach of this.returning) {
      reach.isShared = true;
      reach.echoCount = 0;
      reach.stuckNext = 0;
      reach.stuckSinceMs = nowMs;
      reach.lane.castFromSeq = this.sender.packSeq;
      this.sink.send(reach.lane.peer, { kind: "castStart", epoch: this.epoch, number });
      const text = "multicast reaches the peer again";
      this.trace.event("info", "mirror.path", text, { peer: reach.lane.peer });
      this.sink.pathChanged(reach.lane.peer, text);
    }
    this.returning.clear();
  }

  /** The frames just multicast carried the committed position to everyone listening. */
  private noteCommitted(): void {
    const last = this.sender.lastSeq;
    if (this.sender.isMidFrame || !this.stream.ring.has(last)) return;
    const carried = this.stream.carried(last);
    for (const reach of this.reaches) {
      if (!reach.isShared || carried <= reach.lane.committedTold) continue;
      reach.lane.committedTold = carried;
    }
  }

  private sendStatus(nowMs: number): void {
    let isOwed = false;
    const highest = this.sender.nextNumber - 1;
    for (const reach of this.reaches) {
      const lane = reach.lane;
      if (!reach.isShared || this.stream.receivedBy(lane.peer) >= this.sender.lastSeq) continue;
      isOwed = true;
      if (lane.up) this.sink.send(lane.peer, { kind: "castStatus", epoch: this.epoch, highest });
    }
    this.statusEveryMs = Math.min(this.statusEveryMs * 2, STATUS_MAX_MS);
    this.statusAtMs = isOwed ? nowMs + this.statusEveryMs : Infinity;
  }

  private sendProbe(nowMs: number): void {
    if (this.reaches.every((reach) => reach.isShared)) {
      this.probeAtMs = Infinity;
      return;
    }
    this.probeNumber += 1;
    this.sender.probe(this.probeNumber);
    this.probeEveryMs = Math.min(this.probeEveryMs * 2, PROBE_MS);
    this.probeAtMs = nowMs + this.probeEveryMs;
  }
}

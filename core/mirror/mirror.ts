/**
 * The mirror engine: one host's end of all streams (R2, R5, R6, R8, R16).
 *
 *   sent() --> OutStream (window) --frames--> PeerLane --> data lane --> Framer --> InStream
 *                     |                                                                |
 *                     +------> CastPaths --> datagrams --> CastReceiver --> Framer ----+
 *   committed <-- acks (control lane) <---- logged() <---- store <---- sink.record() --+
 *
 * Life of an epoch:  begin (ACTIVE: receives) -> opened (sends) -> seal (nothing moves) -> begin
 *
 * Invariants
 *  1. After `seal` no record of the epoch is sent, appended or acknowledged; acks that still
 *     arrive are dropped, so the vector given with the promise stays true (R2, V3). A frame whose
 *     first bytes left before the seal is finished: the stream has no other way to go on.
 *  2. A record is appended only if its epoch is the active one, its sender a member, its seq the
 *     next (R6). Both paths, data lane and multicast, end in the same InStream.
 *  3. The streams of the epoch before stay until the view is open here (R5).
 */
import { assert } from "../base/assert.ts";
import type { Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Lsn, Seq } from "../base/units.ts";
import { FRAME_PAYLOAD_BYTES_MAX, type MirrorMessage } from "../format/mirror_wire.ts";
import type { RecordHeader } from "../format/record.ts";
import { Barriers } from "./barriers.ts";
import { type Generation, type GenerationParts, makeGeneration } from "./generation.ts";
import { FLAG_FUA } from "./in_stream.ts";
import { Intake } from "./intake.ts";
import {
  MirrorCounters,
  type MirrorOptions,
  type MirrorPorts,
  type MirrorSink,
  type MirrorStatus,
  type MulticastKey,
  type StreamPosition,
} from "./mirror_sink.ts";
import { Outbox } from "./outbox.ts";
import { statusOf } from "./mirror_status.ts";
import type { PeerLane } from "./peer_lane.ts";

export class Mirror {
  readonly counters = new MirrorCounters();
  private current: Generation | null = null;
  private previous: Generation | null = null;
  private windowWantedBytes = 0;
  private readonly barriers: Barriers;
  private readonly intake: Intake;
  private readonly outbox: Outbox;
  private readonly options: MirrorOptions;
  private readonly sink: MirrorSink;
  private readonly parts: GenerationParts;

  constructor(
    options: MirrorOptions,
    ports: MirrorPorts,
    sink: MirrorSink,
    trace: Trace,
    rules: Rules,
  ) {
    this.options = options;
    this.sink = sink;
    this.barriers = new Barriers(options.self, rules, sink);
    this.parts = { options, sink, rules, counters: this.counters };
    const owner = { sink, trace, counters: this.counters };
    this.intake = new Intake(options.self, ports, owner);
    this.outbox = new Outbox(options, ports, owner);
  }

  // Views

  /** R2: nothing of the epoch is sent, appended or acknowledged any more. */
  seal(): void {
    if (!this.parts.rules.seal) return;
    // A new promise ends the plan of the view before it, also when that view never began here.
    // `begin` does not: others may still lack what this host was to send them.
    this.outbox.dropJobs();
    this.close();
  }

  /**
   * ACTIVE in a decided view: windows are empty, streams start from 1, records of those that are
   * OPEN may be received. `recipients` are members and joining hosts, this one among them.
   */
  begin(
    nowMs: number,
    epoch: Epoch,
    recipients: readonly HostId[],
    members: readonly HostId[],
    multicastKeys: readonly MulticastKey[],
  ): void {
    const old = this.current;
    assert(old === null || epoch > old.epoch, "mirror: an epoch begins twice");
    this.close();
    this.outbox.newEpoch(old?.out?.ring ?? null);
    // A view that was never open here has nothing that R5 could need; the one before it may.
    if (old?.isSeen === true) this.previous = old;
    this.current = makeGeneration(epoch, { recipients, members }, this.parts);
    this.barriers.begin(this.current);
    this.intake.begin(this.current, this.previous);
    for (const { host, key } of multicastKeys) this.learnKey(host, key);
    for (const peer of recipients) this.greet(nowMs, peer);
  }

  /** A host's secret for the current view, from its ACTIVE message; may come after `begin`. */
  learnKey(host: HostId, secret: Uint8Array): void {
    const view = this.current;
    if (view === null || view.sealed) return;
    const key = this.intake.deriveKey(view.epoch, host, secret);
    if (host !== this.options.self) {
      this.intake.setKey(host, key);
      return;
    }
    if (view.out !== null) this.outbox.startMulticast(view.epoch, view.out, key);
  }

  /** OPEN: may send. The epoch before is not needed any more; kept barriers start again. */
  opened(nowMs: number): void {
    const view = this.current;
    assert(view !== null && !view.sealed, "mirror: a view opens that did not begin");
    view.opened = true;
    this.previous = null;
    this.intake.begin(view, null);
    this.outbox.dropJobs();
    this.barriers.opened();
    this.retryHeld(nowMs);
  }

  /** The epoch that `vector` is about: the newest seen OPEN here or with a record here. */
  get vectorEpoch(): Epoch {
    return this.seen()?.epoch ?? 0;
  }

  vector(): StreamPosition[] {
    return this.seen()?.vector() ?? [];
  }

  /** R5: sends `to` the records [fromSeq, toSeq] of `sender` in `vectorEpoch`. */
  resend(_nowMs: number, to: HostId, sender: HostId, fromSeq: Seq, toSeq: Seq): void {
    const view = this.seen();
    if (view === null || to === this.options.self) return;
    const isOwn = sender === this.options.self;
    const ring = isOwn ? view.out?.heldRing : view.ins[sender]?.retained;
    if (ring === undefined) return;
    const job = { epoch: view.epoch, sender, fromSeq, toSeq, next: fromSeq, ring, isOwn };
    this.lane(to).reconcile(job);
  }

  // Sender

  /** True if a record of `recordBytes` fits the window; else `sink.windowOpen` follows. */
  windowFree(recordBytes: number): boolean {
    const out = this.current?.out ?? null;
    if (out?.fits(recordBytes) === true) return true;
    this.windowWantedBytes = Math.max(this.windowWantedBytes, recordBytes);
    return false;
  }

  nextSeq(): Seq {
    return (this.current?.out?.appended ?? 0) + 1;
  }

  /**
   * The record this host just appended as `nextSeq()`, ending at `lsn` in its log. It is copied;
   * it leaves at the next `settle`. The caller asked `windowFree` first.
   */
  sent(
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
    lsn: Lsn,
    viaShared: boolean,
  ): void {
    const view = this.current;
    const out = view?.out ?? null;
    assert(view?.opened === true && out !== null, "mirror: a record outside an open view");
    assert(header.seq === out.appended + 1, "mirror: a record out of order");
    assert(header.epoch === view.epoch, "mirror: a record of another epoch");
    out.append(buffer, at, length, lsn, viaShared && this.outbox.paths !== null);
    this.counters.recordsSent += 1;
    if ((header.flags & FLAG_FUA) === 0) return;
    out.fuaTop = header.seq;
    this.barriers.fuaWanted = true;
  }

  // Receiver

  /** The lease table moved on (R9c), or the store has room: held records are offered again. */
  retryHeld(_nowMs: number): void {
    this.intake.retryAll();
    this.afterInput();
  }

  /** The store has written everything up to `lsn`. */
  logged(nowMs: number, lsn: Lsn): void {
    const view = this.current;
    if (view === null || view.sealed) return;
    for (const stream of view.ins) stream?.logged(lsn);
    if (view.out?.track.logged(lsn) === true) this.progress(nowMs);
  }

  /** Everything up to `lsn` is on stable storage. */
  durable(nowMs: number, lsn: Lsn): void {
    const view = this.current;
    if (view === null || view.sealed) return;
    for (const stream of view.ins) stream?.synced(lsn);
    if (view.out?.track.synced(lsn) === true) this.progress(nowMs);
  }

  // Barriers

  /** See `Barriers.flushSeq`. */
  flushSeq(): Seq | null {
    return this.barriers.flushSeq();
  }

  /** R8: all recipients sync, `sink.barrierDone(token)` follows; begins anew in each view. */
  barrier(_nowMs: number, token: number): void {
    this.counters.barriers += 1;
    this.barriers.add(token);
  }

  /** Takes back all barriers not answered (this host has no place in the view any more). */
  takeBarriers(): number[] {
    return this.barriers.takeAll();
  }

  syncDone(_nowMs: number, token: number, ok: boolean): void {
    this.barriers.syncDone(token, ok);
  }

  // Links

  peerUp(nowMs: number, peer: HostId): void {
    this.lane(peer).linkUp();
    this.intake.linkUp(peer);
    this.greet(nowMs, peer);
    this.barriers.linkUp(peer);
  }

  peerDown(_nowMs: number, peer: HostId): void {
    this.lane(peer).linkDown();
    this.intake.linkDown(peer);
  }

  /** Bytes of the data lane. */
  peerData(_nowMs: number, peer: HostId, chunk: Uint8Array): void {
    if (!this.lane(peer).up) return;
    this.intake.bytes(peer, chunk);
    this.afterInput();
  }

  /** The data lane has room again; it is used at the next `settle`. */
  peerDrain(_nowMs: number, peer: HostId): void {
    this.lane(peer).blocked = false;
  }

  /** A datagram of the shared network; any bytes at all. `chunk` is kept. */
  packet(nowMs: number, chunk: Uint8Array): void {
    this.intake.packet(nowMs, chunk);
    this.afterInput();
  }

  control(nowMs: number, from: HostId, message: MirrorMessage): void {
    const lane = this.lane(from);
    const view = this.current;
    if (message.kind === "resume") {
      lane.resumeEpoch = message.epoch;
      lane.resumeSeq = message.appended;
    }
    if (view === null || view.sealed || message.epoch !== view.epoch) return;
    if (!view.isRecipient(from) || from === this.options.self) return;
    switch (message.kind) {
      case "resume":
        this.resume(nowMs, lane, view, message);
        break;
      case "ack":
        this.acknowledge(nowMs, from, view, message.received, message.durable);
        break;
      case "barrier":
        if (!this.barriers.serve(from, message.epoch, message.id)) this.blame(from, "barriers");
        break;
      case "barrierDone":
        this.barriers.answered(from, message.epoch, message.id, message.ok);
        break;
      case "castNak":
        this.outbox.paths?.nak(nowMs, from, message.next, message.ranges);
        break;
      case "castEcho":
        this.outbox.paths?.echo(from, message.probe);
        break;
      default:
        this.intake.control(nowMs, from, message);
    }
  }

  /** Queues opaque bytes for `to`. False: the queue is full, `sink.bulkDrained` follows. */
  sendBulk(_nowMs: number, to: HostId, bytes: Uint8Array): boolean {
    assert(bytes.length <= FRAME_PAYLOAD_BYTES_MAX, "mirror: bulk frame too large");
    return this.lane(to).pushBulk(this.options.self, bytes);
  }

  // Questions

  committedOf(sender: HostId): Seq {
    return this.seen()?.positionOf(sender).committed ?? 0;
  }

  appendedOf(sender: HostId): Seq {
    return this.seen()?.positionOf(sender).appended ?? 0;
  }

  /** R16: a recipient that owes an ack or a barrier longer than `boundMs`; joiners first. */
  owing(nowMs: number, boundMs: number): HostId | null {
    const view = this.current;
    if (view === null || view.sealed || !view.opened) return null;
    let found: HostId | null = null;
    for (const peer of view.recipients) {
      if (peer === this.options.self) continue;
      const owesAck = view.out?.owes(peer, nowMs, boundMs) === true;
      if (!owesAck && !this.barriers.owes(peer, nowMs, boundMs)) continue;
      if (!view.members.includes(peer)) return peer;
      found ??= peer;
    }
    return found;
  }

  /** Sends what was appended so far: peers then write it while the own log is written. */
  sendAppended(nowMs: number): void {
    this.outbox.sendAppended(nowMs, this.current);
  }

  settle(nowMs: number): void {
    const view = this.current;
    this.intake.retryFull();
    this.afterInput();
    this.barriers.settle(nowMs);
    this.outbox.settle(nowMs, view);
    const out = view?.sealed === false ? view.out : null;
    if (out === null || view?.opened !== true) return;
    if (this.windowWantedBytes > 0 && out.fits(this.windowWantedBytes)) {
      this.windowWantedBytes = 0;
      this.sink.windowOpen();
    }
  }

  expire(nowMs: number): void {
    this.intake.expire(nowMs);
    if (this.current?.sealed === false) this.outbox.paths?.expire(nowMs);
  }

  nextDeadlineMs(): number {
    return Math.min(this.outbox.nextDeadlineMs(), this.intake.nextDeadlineMs());
  }

  status(): MirrorStatus {
    return statusOf(this.options.self, this.current, this.outbox, this.counters);
  }

  private lane(peer: HostId): PeerLane {
    return this.outbox.lane(peer);
  }

  /** The generation that R5 and the vector are about. */
  private seen(): Generation | null {
    if (this.current?.isSeen === true || this.previous === null) return this.current;
    return this.previous;
  }

  private close(): void {
    const view = this.current;
    if (view === null || view.sealed) return;
    view.sealed = true;
    for (const stream of view.ins) stream?.seal();
    this.outbox.close(view);
    this.barriers.seal();
    this.intake.seal();
  }

  /** Tells `peer` from where its stream is wanted; on a new link and in a new view. */
  private greet(_nowMs: number, peer: HostId): void {
    const view = this.current;
    const lane = this.lane(peer);
    if (view === null || view.sealed || !lane.up || !view.isRecipient(peer)) return;
    if (peer === this.options.self) return;
    const stream = view.ins[peer] ?? null;
    this.sink.send(peer, {
      kind: "resume",
      epoch: view.epoch,
      appended: stream === null ? 0 : stream.next - 1,
      received: stream === null ? 0 : stream.track.received,
      durable: stream === null ? 0 : stream.track.durable,
    });
    if (lane.resumeEpoch === view.epoch) lane.position = lane.resumeSeq + 1;
  }

  private resume(
    nowMs: number,
    lane: PeerLane,
    view: Generation,
    message: { appended: Seq; received: Seq; durable: Seq },
  ): void {
    if (view.out === null) return;
    if (message.appended > view.out.appended) {
      this.blame(lane.peer, "it resumes beyond our stream");
      return;
    }
    this.acknowledge(nowMs, lane.peer, view, message.received, message.durable);
    lane.seek(view.out.ring, Math.max(message.appended + 1, view.out.ring.firstSeq));
    this.outbox.paths?.resumed(nowMs, lane.peer);
  }

  private acknowledge(
    nowMs: number,
    from: HostId,
    view: Generation,
    received: Seq,
    durable: Seq,
  ): void {
    if (view.out === null) return;
    if (!view.out.ack(from, received, durable)) {
      this.blame(from, "it acknowledges what was never sent");
      return;
    }
    this.progress(nowMs);
  }

  /** Own stream: moves the commit and durable horizons, and the window. */
  private progress(_nowMs: number): void {
    const out = this.current?.out ?? null;
    if (out === null) return;
    const isCommitMoved = out.advance();
    this.outbox.release(out);
    if (isCommitMoved) this.sink.committed(this.options.self, out.committed);
    if (out.advanceDurable()) this.sink.durable(out.durable);
  }

  /** What input leaves to do once per event. */
  private afterInput(): void {
    if (this.intake.takeFuaWanted()) this.barriers.fuaWanted = true;
    this.barriers.askFuaSync();
  }

  private blame(peer: HostId, why: string): void {
    this.counters.badMessages += 1;
    this.intake.reset(peer, why);
  }
}

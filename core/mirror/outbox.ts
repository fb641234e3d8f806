/**
 * Everything that goes out: the data lanes and the multicast paths of the own stream, the acks
 * of the others' streams, and word of the commit horizon. All of it leaves in `settle`, so that
 * one batch of events costs one send per peer and lane.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { MacKey, PacketLink, StreamLink, Trace } from "../base/ports.ts";
import { type Epoch, type HostId, hostId, type Seq } from "../base/units.ts";
import { CastPaths } from "./cast_paths.ts";
import { CastSender } from "./cast_sender.ts";
import type { Generation } from "./generation.ts";
import type { MirrorCounters, MirrorOptions, MirrorSink } from "./mirror_sink.ts";
import type { OutStream } from "./out_stream.ts";
import { BULK_BYTES_MAX, PeerLane } from "./peer_lane.ts";
import type { RecordRing } from "./record_ring.ts";

const DEFAULT_RATE_BYTES_PER_SECOND = 40_000_000;
/** Longest that word of the commit horizon waits for a frame to carry it, while syncs run. */
const TELL_MS_MAX = 1;

export class Outbox {
  /** Null while this host does not multicast in the current view. */
  paths: CastPaths | null = null;
  private readonly lanes: PeerLane[] = [];
  /** When the commit horizon is told at the latest; Infinity: nobody lacks it, or told at once. */
  private tellAtMs = Infinity;
  private readonly options: MirrorOptions;
  private readonly packets: PacketLink;
  private readonly sink: MirrorSink;
  private readonly trace: Trace;
  private readonly counters: MirrorCounters;

  constructor(
    options: MirrorOptions,
    ports: { link: StreamLink; packets: PacketLink },
    owner: { sink: MirrorSink; trace: Trace; counters: MirrorCounters },
  ) {
    this.options = options;
    this.packets = ports.packets;
    this.sink = owner.sink;
    this.trace = owner.trace;
    this.counters = owner.counters;
    for (let peer = 0; peer < LIMITS.hostCountMax; peer += 1) {
      this.lanes.push(new PeerLane(hostId(peer), ports.link));
    }
  }

  lane(peer: HostId): PeerLane {
    const lane = this.lanes[peer];
    assert(lane !== undefined, "mirror: no such host");
    return lane;
  }

  /** A new epoch: all lanes are at its first record, multicast waits for a key. */
  newEpoch(oldRing: RecordRing | null): void {
    for (const lane of this.lanes) lane.newEpoch(oldRing);
  }

  /** R2: frames in progress are finished from copies; nothing else of the epoch leaves. */
  close(view: Generation): void {
    this.paths = null;
    if (view.out === null) return;
    for (const lane of this.lanes) lane.detach(view.out.ring);
  }

  /** R5: the plan that asked for them is over. */
  dropJobs(): void {
    for (const lane of this.lanes) lane.dropJobs();
  }

  /** From the next record on, shared records are multicast under `key`. */
  startMulticast(epoch: Epoch, stream: OutStream, key: MacKey): void {
    if (!this.options.multicast || this.paths !== null) return;
    const rateBytesPerSecond = this.options.rateBytesPerSecond ?? DEFAULT_RATE_BYTES_PER_SECOND;
    const identity = { epoch, self: this.options.self, rateBytesPerSecond };
    const sender = new CastSender(identity, key, this.packets, this.counters);
    const lanes = stream.peers.map((peer) => this.lane(peer));
    this.paths = new CastPaths({ sender, stream, lanes }, this.sink, this.trace, this.counters);
  }

  /** The window moves on to what is still needed; frames in progress are finished from copies. */
  release(stream: OutStream): void {
    const upTo: Seq = stream.releasable;
    if (upTo < stream.ring.firstSeq) return;
    for (const lane of this.lanes) {
      if (lane.partialSeq > 0 && lane.partialSeq <= upTo) lane.detach(stream.ring);
    }
    this.paths?.release(upTo);
    stream.ring.release(upTo);
  }

  /** Sends records that wait, and nothing else; `settle` follows. */
  sendAppended(nowMs: number, view: Generation | null): void {
    if (view === null || view.sealed || !view.opened || view.out?.hasPeers !== true) return;
    if (view.out.framed <= view.out.appended) this.pump(nowMs, view, view.out);
  }

  settle(nowMs: number, view: Generation | null): void {
    const isLive = view?.sealed === false;
    const out = isLive && view.opened ? view.out : null;
    if (isLive) this.sendAcks(view);
    this.pump(nowMs, view, out);
    for (const lane of this.lanes) {
      if (!lane.up || !lane.bulkRefused || lane.bulkBytes > BULK_BYTES_MAX / 2) continue;
      lane.bulkRefused = false;
      this.sink.bulkDrained(lane.peer);
    }
    if (out === null || view === null || !out.hasPeers) {
      this.tellAtMs = Infinity;
      return;
    }
    if (this.mustTellCommitted(nowMs, view, out)) this.tellCommitted(view, out);
    out.mark(nowMs);
  }

  /** When `settle` has something to do without an event. */
  nextDeadlineMs(): number {
    return Math.min(this.tellAtMs, this.paths?.nextDeadlineMs() ?? Infinity);
  }

  /** Records and other frames of the data lanes, and datagrams. `out`: null if none may go. */
  pump(nowMs: number, view: Generation | null, out: OutStream | null): void {
    if (out !== null) {
      out.frameAll();
      this.paths?.pump(nowMs);
    }
    for (const lane of this.lanes) {
      if (!lane.up) continue;
      const isReady = view !== null && lane.resumeEpoch === view.epoch;
      lane.pump(isReady && view.isRecipient(lane.peer) ? out : null);
    }
  }

  private sendAcks(view: Generation): void {
    for (const sender of view.members) {
      const stream = view.ins[sender] ?? null;
      if (stream === null || !stream.ackDue || !this.lane(sender).up) continue;
      const { received, durable } = stream.track;
      stream.ackSent();
      this.sink.send(sender, { kind: "ack", epoch: view.epoch, received, durable });
    }
  }

  /**
   * Readers on other hosts wait for the commit horizon: it is told unless a frame just did. While
   * each write is synced it waits a moment for the next frame, since the message would wake hosts
   * whose disks need the processors. Otherwise that was slower: it keeps the others awake
   * (bench/RESULTS.md).
   */
  private mustTellCommitted(nowMs: number, view: Generation, out: OutStream): boolean {
    let isLacking = false;
    for (const peer of out.peers) isLacking ||= this.lacksCommitted(peer, view, out);
    if (isLacking && out.endsSynced) {
      if (this.tellAtMs === Infinity) this.tellAtMs = nowMs + TELL_MS_MAX;
      if (nowMs < this.tellAtMs) return false;
    }
    this.tellAtMs = Infinity;
    return isLacking;
  }

  private tellCommitted(view: Generation, out: OutStream): void {
    for (const peer of out.peers) {
      if (!this.lacksCommitted(peer, view, out)) continue;
      this.lane(peer).committedTold = out.committed;
      this.sink.send(peer, { kind: "committed", epoch: view.epoch, seq: out.committed });
    }
  }

  private lacksCommitted(peer: HostId, view: Generation, out: OutStream): boolean {
    const { up, resumeEpoch, committedTold } = this.lane(peer);
    return up && resumeEpoch === view.epoch && committedTold < out.committed;
  }
}

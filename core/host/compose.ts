/**
 * Makes the machines of a host and ties them together: every sink is here, so that who answers
 * whom can be read in one place.
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import type { Rules } from "../base/rules.ts";
import { crc32Text } from "../base/checksum.ts";
import { viewOf } from "../format/layout.ts";
import { type HostId, MIB, type Seq, type VolumeId } from "../base/units.ts";
import { encode } from "../format/codec.ts";
import { BULK, CHANNEL, HOST_MESSAGE, type HostMessage, STORE_POINT } from "../format/host_wire.ts";
import { type LeaseMessage, leaseMessage } from "../format/lease_wire.ts";
import { membershipMessage } from "../format/membership_wire.ts";
import { MIRROR_MESSAGE } from "../format/mirror_wire.ts";
import { encodeVotes } from "../format/votes.ts";
import { DEFAULT_POINT_INTERVAL_MS, Points } from "../lease/points.ts";
import { DEFAULT_POLICING, Policing } from "../lease/policing.ts";
import { Membership } from "../membership/membership.ts";
import { Mirror } from "../mirror/mirror.ts";
import type { MirrorSink } from "../mirror/mirror_sink.ts";
import type { MembershipSink } from "../membership/contract.ts";
import type { StoreSink } from "../store/contract.ts";
import { CopySource } from "./copy_source.ts";
import { CopyTarget } from "./copy_target.ts";
import { Flushes } from "./flushes.ts";
import { Forwarding } from "./forwarding.ts";
import { FrontDoor } from "./front_door.ts";
import { Healer } from "./healer.ts";
import type { HostOptions, HostPorts } from "./machine.ts";
import { Marks } from "./marks.ts";
import { type Op, OP_STATE } from "./op.ts";
import { makeParts, type Parts } from "./parts.ts";
import { Peers } from "./peers.ts";
import { Reads } from "./reads.ts";
import { RecordsIn } from "./records_in.ts";
import { Room } from "./room.ts";
import { Router } from "./router.ts";
import { StatusBoard } from "./status_board.ts";
import { StoreLife, SYNC_FOR, META } from "./store_life.ts";
import { ViewChange } from "./view_change.ts";
import { Writes } from "./writes.ts";

/** What the composition tells the host. */
export interface ComposeSink {
  storeSettled(): void;
  storeClosed(): void;
  /** Something that the others should hear of soon. */
  stateChanged(): void;
  viewOpened(): void;
}

export class Composition {
  readonly parts: Parts;
  readonly peers: Peers;
  readonly front: FrontDoor;
  readonly room: Room;
  readonly writes: Writes;
  readonly reads: Reads;
  readonly flushes: Flushes;
  readonly forwarding: Forwarding;
  readonly source: CopySource;
  readonly target: CopyTarget;
  readonly life: StoreLife;
  readonly points: Points;
  readonly change: ViewChange;
  readonly records: RecordsIn;
  readonly router: Router;
  readonly healer: Healer;
  readonly board: StatusBoard;
  readonly storeSink: StoreSink;
  private readonly sink: ComposeSink;
  private readonly marks: Marks;

  constructor(options: HostOptions, ports: HostPorts, rules: Rules, sink: ComposeSink) {
    this.sink = sink;
    const { self } = options;
    const { trace } = ports;
    this.peers = new Peers(options.roster.length, self, ports.streams);
    this.storeSink = this.makeStoreSink();
    const mirror = this.makeMirror(options, ports, rules);
    const policing = this.makePolicing(options, mirror, trace, rules);
    this.points = this.makePoints(self, policing);
    const membership = this.makeMembership(options, ports, rules);
    this.parts = makeParts(
      options,
      ports,
      rules,
      { mirror, membership, policing },
      {
        finish: (op, outcome) => this.router.finish(op, outcome),
        dispatch: (op) => this.router.dispatch(op),
        repair: (op) => this.router.repair(op),
      },
    );
    const { parts } = this;
    this.front = new FrontDoor(parts);
    this.flushes = new Flushes(parts);
    this.room = new Room(parts);
    this.writes = new Writes(
      parts,
      this.room,
      (op) => this.flushes.start(op),
      () => this.points.wrote(),
    );
    const extents = (op: Op, pairs: number[]): void => this.router.finishExtents(op, pairs);
    this.reads = new Reads(parts, extents);
    this.forwarding = new Forwarding(
      parts,
      (op, outcome) => this.router.repaired(op, outcome),
      extents,
    );
    this.source = new CopySource(parts, (volume, lba) => this.healer.isHopeless(volume, lba));
    this.target = new CopyTarget(parts, {
      askCopy: (to, ask) => this.sendHost(to, { kind: "copyStart", ...ask }),
      giveCredit: (to, credit) => this.sendHost(to, { kind: "copyCredit", ...credit }),
      lost: (volume, lba) => this.storeSink.badBlock(volume, lba, "no host has a good copy of it"),
      copied: () => this.life.sync(SYNC_FOR.copied, 0),
    });
    this.life = new StoreLife(parts, {
      storeSettled: () => sink.storeSettled(),
      storeFailed: (why) => this.storeFailed(why),
      storeClosed: () => sink.storeClosed(),
      synced: (purpose, token, ok) => this.synced(purpose, token, ok),
    });
    this.change = new ViewChange(parts, this.points, this.target, {
      sendMembership: (to, message) =>
        this.peers.get(to)?.lane.queue(CHANNEL.membership, membershipMessage, message),
      persistVotes: (tag, state) => ports.votes.write(tag, encodeVotes(state)),
      viewSealed: () => this.viewSealed(),
      viewOpened: (wentOn, cut) => this.viewOpened(wentOn, cut),
      viewExcluded: () => this.viewExcluded(),
      peerRefused: (peer, why) =>
        trace.event("error", "peer.refused", why, { peer: options.roster[peer]?.name ?? peer }),
    });
    this.records = new RecordsIn(parts, this.target, (sender, point) =>
      this.points.markApplied(parts.nowMs, sender, point),
    );
    this.marks = new Marks(parts, (point) => this.points.markApplied(parts.nowMs, self, point));
    this.router = new Router(parts, this);
    this.healer = new Healer(parts, this.peers, this.forwarding);
    this.board = new StatusBoard(parts, this);
  }

  /** Asks a member for (the rest of) the regions this joiner lacks. */
  askCopy(): void {
    const { parts, peers } = this;
    const members = this.change.view?.members ?? [];
    const candidates = members.map((each) => each.host).filter((host) => peers.isUp(host));
    if (parts.epoch !== 0) this.target.ask(candidates);
  }

  tellCopyTotal(to: HostId, session: number): void {
    const totalBytes = this.parts.store?.stats().usedBytes ?? 0;
    this.sendHost(to, { kind: "copyTotal", session, totalBytes });
    this.sendHost(to, { kind: "recentRequests", origins: this.parts.recent.list() });
  }

  /** A host told how much its store takes, or the view is another one. */
  noteRoom(): void {
    const { view } = this.change;
    if (view === null) return;
    const ids = (list: readonly { host: HostId }[]): HostId[] => list.map(({ host }) => host);
    this.room.note(ids(view.members), ids(view.joining), this.peers);
  }

  /** What a member has is more than this host's store takes: it can never be in sync. */
  tooSmall(totalBytes: number): void {
    const takes = this.parts.store?.sizeBytes ?? 0;
    if (totalBytes <= takes) return;
    const mib = (bytes: number): string => (bytes / MIB).toFixed(1);
    this.life.fail(
      `the store is too small: it takes ${mib(takes)} MiB, the volumes hold ${mib(totalBytes)}`,
    );
  }

  private sendHost(to: HostId, message: HostMessage): void {
    this.peers.get(to)?.lane.queue(CHANNEL.host, HOST_MESSAGE, message);
  }

  private sendLease(to: HostId, message: LeaseMessage): void {
    this.peers.get(to)?.lane.queue(CHANNEL.lease, leaseMessage, message);
  }

  private granted(token: number, grant: number): void {
    const op = this.parts.ops.at(token);
    if (op.state === OP_STATE.lease) this.writes.granted(op, grant);
  }

  private denied(token: number, why: string): void {
    const op = this.parts.ops.at(token);
    if (op.state !== OP_STATE.lease) return;
    this.parts.ports.trace.event("warn", "lease.denied", why);
    this.parts.finish(op, OUTCOME.refused);
  }

  private viewSealed(): void {
    this.parts.policing.close();
    this.points.close();
    this.marks.close();
    this.source.endAll();
  }

  private viewOpened(wentOn: boolean, cut: Seq): void {
    const { parts } = this;
    this.noteRoom();
    if (parts.serving) {
      if (wentOn) this.writes.reopened(cut);
      else this.writes.excluded();
      this.forwarding.recall();
    } else {
      this.abandonLeases();
      this.writes.excluded();
    }
    this.flushes.restart();
    this.reads.advance();
    this.healer.viewOpened();
    if (this.change.role === "joining") this.askCopy();
    this.sink.stateChanged();
    this.sink.viewOpened();
    this.router.unpark();
  }

  private viewExcluded(): void {
    this.viewSealed();
    this.abandonLeases();
    this.writes.excluded();
    this.flushes.restart();
    this.reads.advance();
    this.router.unpark();
    this.sink.stateChanged();
  }

  /** Requests that wait for a lease here go elsewhere. */
  private abandonLeases(): void {
    const { parts } = this;
    for (const op of parts.ops.slots) {
      if (op.state !== OP_STATE.lease) continue;
      parts.policing.cancel(parts.nowMs, op.index);
      parts.dispatch(op);
    }
  }

  private storeFailed(why: string): void {
    const { parts } = this;
    parts.serving = false;
    this.change.diskOk = false;
    this.change.wantsIn = false;
    parts.ports.trace.event("error", "store.failed", `the store failed: ${why}`);
    this.target.end();
    this.healer.clear();
    this.abandonLeases();
    this.writes.excluded();
    this.flushes.restart();
    this.reads.abandon();
    this.change.changed();
    this.sink.stateChanged();
  }

  private synced(purpose: number, token: number, ok: boolean): void {
    const { parts } = this;
    if (purpose === SYNC_FOR.mirror) parts.mirror.syncDone(parts.nowMs, token, ok);
    else if (purpose === SYNC_FOR.point) this.points.synced(parts.nowMs, token, ok);
    else if (ok && this.target.isComplete) {
      this.change.isCopyDurable = true;
      parts.store?.forgetLosses();
      this.life.lossWhy = "";
      this.change.changed();
    }
  }

  private makeMirror(options: HostOptions, ports: HostPorts, rules: Rules): Mirror {
    const multicast = options.volumes.some((volume) => volume.mirror === "shared");
    return new Mirror(
      { self: options.self, multicast, rateBytesPerSecond: options.multicastBytesPerSecond },
      { link: ports.streams, packets: ports.packets, mac: ports.mac, entropy: ports.entropy },
      this.makeMirrorSink(),
      ports.trace,
      rules,
    );
  }

  private makePolicing(
    options: HostOptions,
    mirror: Mirror,
    trace: HostPorts["trace"],
    rules: Rules,
  ): Policing {
    return new Policing(
      { ...DEFAULT_POLICING, self: options.self, agingMs: options.timing.agingMs },
      {
        send: (to, message) => this.sendLease(to, message),
        granted: (token, grant) => this.granted(token, grant),
        denied: (token, why) => this.denied(token, why),
        tableMoved: () => mirror.retryHeld(this.parts.nowMs),
        announced: (kind, point) => this.points.announced(this.parts.nowMs, kind, point),
      },
      trace,
      rules,
    );
  }

  private makePoints(self: HostId, policing: Policing): Points {
    return new Points(
      { self, intervalMs: DEFAULT_POINT_INTERVAL_MS },
      {
        send: (to, message) => this.sendLease(to, message),
        announce: (kind, point) => policing.announce(this.parts.nowMs, kind, point),
        tagWanted: (point) => this.marks.tag(point),
        pointSyncWanted: (ticket) => this.life.sync(SYNC_FOR.point, ticket),
        pointReached: (epoch, point) =>
          this.parts.store?.putMeta(META.point, encode(STORE_POINT, { epoch, point })),
      },
    );
  }

  private makeMembership(options: HostOptions, ports: HostPorts, rules: Rules): Membership {
    // The view change is made after the machines it commands; until then nothing is called.
    const sink: MembershipSink = {
      send: (to, message) => this.change.send(to, message),
      persist: (tag, state) => this.change.persist(tag, state),
      sealed: (epoch) => this.change.sealed(epoch),
      decided: (view) => this.change.decided(view),
      reconcile: (plan) => this.change.reconcile(plan),
      opened: (view, cut, actives, line) => this.change.opened(view, cut, actives, line),
      excluded: (view) => this.change.excluded(view),
      refused: (peer, why) => this.change.refused(peer, why),
    };
    return new Membership(
      {
        self: options.self,
        clusterId: crc32Text(options.clusterName),
        hosts: options.roster,
        timing: options.timing,
        coldStart: options.coldStart,
      },
      sink,
      ports.entropy,
      ports.trace,
      rules,
    );
  }

  private makeStoreSink(): StoreSink {
    return {
      storeOpened: (result) => this.life.opened(result, this.storeSink),
      storeClosed: () => this.sink.storeClosed(),
      logged: (lsn) => this.parts.mirror.logged(this.parts.nowMs, lsn),
      synced: (token, ok) => {
        const { store, mirror, nowMs } = this.parts;
        if (ok && store !== null) mirror.durable(nowMs, store.durableLsn);
        this.life.synced(token, ok);
      },
      readDone: (token, outcome) => this.readDone(token, outcome),
      badBlock: (volume: VolumeId, lba, why) => {
        // A block that every read finds bad anew is one line in the log.
        if (!this.healer.note(volume, lba)) return;
        const name = this.parts.volumes.get(volume)?.name ?? String(volume);
        this.parts.ports.trace.event("warn", "store.bad", `block ${lba} of ${name}: ${why}`);
      },
      storeWritable: () => {
        this.marks.put();
        this.writes.roomOpened();
        this.parts.mirror.retryHeld(this.parts.nowMs);
      },
      storeFailed: (why) => this.life.fail(why),
    };
  }

  private readDone(token: number, outcome: Outcome): void {
    const op = this.parts.ops.at(token);
    if (op.state === OP_STATE.data) this.reads.dataRead(op, outcome);
    else if (op.state === OP_STATE.edge) this.writes.edgeRead(op, outcome);
  }

  private makeMirrorSink(): MirrorSink {
    const host = this;
    return {
      get appendedLsn() {
        return host.records.appendedLsn;
      },
      send: (to, message) =>
        this.peers.get(to)?.lane.queue(CHANNEL.mirror, MIRROR_MESSAGE, message),
      record: (...args) => this.records.record(...args),
      reconciled: (...args) => this.records.reconciled(...args),
      committed: (sender, seq) => {
        this.parts.uncommitted[sender]?.commit(seq);
        if (sender === this.parts.self) this.writes.committed(seq);
        this.reads.advance();
      },
      durable: (seq) => {
        this.writes.durable(seq);
        this.flushes.durable(seq);
      },
      syncWanted: (token) => this.life.sync(SYNC_FOR.mirror, token),
      barrierDone: (token, ok) => this.flushes.done(this.parts.ops.at(token), ok),
      windowOpen: () => {
        this.marks.put();
        this.writes.roomOpened();
      },
      bulk: (from, buffer, at, length) => this.bulk(from, buffer, at, length),
      bulkDrained: (peer) => this.forwarding.drained(peer),
      pathChanged: (peer, text) =>
        this.parts.ports.trace.event("warn", "path.changed", text, {
          peer: this.parts.options.roster[peer]?.name ?? peer,
        }),
    };
  }

  private bulk(from: HostId, buffer: Uint8Array, at: number, length: number): void {
    const kind = length > 0 ? viewOf(buffer).getUint8(at) : 0;
    let isSound = false;
    if (kind === BULK.forward) isSound = this.forwarding.request(from, buffer, at, length);
    else if (kind === BULK.forwardReply) {
      isSound = this.forwarding.replied(from, buffer, at, length);
    } else if (kind >= BULK.copy && kind <= BULK.copyLost) {
      isSound = this.target.receive(from, buffer, at, length);
    }
    if (!isSound) {
      this.parts.ports.streams.reset(from, "it sent a bulk frame that does not parse");
    }
  }
}

/** Makes a host's machines, tied together. */
export function compose(
  options: HostOptions,
  ports: HostPorts,
  rules: Rules,
  sink: ComposeSink,
): Composition {
  return new Composition(options, ports, rules, sink);
}

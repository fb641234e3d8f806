/**
 * A host: the composition of the machines, and the only place that knows them all. Events come in
 * (machine.ts) and are routed to the machine they belong to; what machines owe each other flows
 * through the sinks made here; `settle` hands out what a batch of events has collected.
 *
 * The order inside `settle` matters: what waited is looked at first (it may append), then new
 * records leave for the peers (who write them while we do), then the store (one log write for
 * all), then the mirror (acks and the rest), then the control lanes, then the clients' replies.
 */
import { assert, must } from "../base/assert.ts";
import { crc32Text } from "../base/checksum.ts";
import { type Disk, LANE, type Lane } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { HostId } from "../base/units.ts";
import { CHANNEL, HOST_MESSAGE } from "../format/host_wire.ts";
import { decodeVotes, type VoterState } from "../format/votes.ts";
import { type Composition, compose } from "./compose.ts";
import { ControlIn } from "./control_in.ts";
import type {
  HostMachine,
  HostOptions,
  HostPorts,
  HostStart,
  HostStatus,
  LeaseStatus,
} from "./machine.ts";
import type { OpenMode } from "./store_life.ts";

/** How often each host tells the others about itself. */
const STATE_MS = 1000;
/** A view that does not open for this long is worth a line in the log. */
const WAITING_MS = 2000;
/** How often parked requests are looked at without another reason, and debts are checked. */
const LOOK_MS = 20;
const DEBT_MS = 250;
/** Longest wait for requests in flight, and for a view without us, at an orderly stop. */
const STOP_FINISH_MS = 1500;
const STOP_LEAVE_MS = 700;
/** Rounds of one settle at most. */
const SETTLE_TURNS = 8;

export class Host implements HostMachine {
  phase: HostMachine["phase"] = "starting";
  private readonly made: Composition;
  private readonly control: ControlIn;
  private votes: VoterState | null = null;
  private isStarted = false;
  private nextStateMs = 0;
  private lastWaiting = "";
  private lastOpenMs = 0;
  private nextLookMs = 0;
  private nextDebtMs = 0;
  private stopStep: "none" | "finishing" | "leaving" | "closing" = "none";
  private stopDeadlineMs = Number.POSITIVE_INFINITY;

  constructor(options: HostOptions, ports: HostPorts, rules: Rules) {
    this.made = compose(options, ports, rules, {
      storeSettled: () => this.storeSettled(),
      storeClosed: () => this.finishStop(),
      stateChanged: () => {
        this.nextStateMs = 0;
      },
      viewOpened: () => this.becomeReady(),
    });
    this.control = new ControlIn(this.made);
  }

  get incarnation(): number {
    return this.made.parts.membership.incarnation;
  }

  start(nowMs: number, start: HostStart): void {
    const { parts, life } = this.made;
    const { options } = parts;
    parts.nowMs = nowMs;
    if (start.votes !== null) {
      const clusterId = crc32Text(options.clusterName);
      const decoded = decodeVotes(start.votes, { clusterId, self: parts.self });
      // The driver refuses to start on a document that does not decode.
      assert(decoded.ok, "host: an unreadable voter file was handed over");
      this.votes = decoded.state;
    }
    const self = must(options.roster[parts.self], "host: not in the roster");
    if (self.kind !== "data" || start.disk === null) {
      life.absent(self.kind === "data" ? start.diskWhy : "");
      this.storeSettled();
      return;
    }
    const isNew =
      this.votes === null || (this.votes.accepted === null && this.votes.servedEpoch === 0);
    this.openStore(start.disk, isNew ? "new" : "existing");
  }

  stop(nowMs: number): void {
    const { parts, front, change } = this.made;
    parts.nowMs = nowMs;
    if (this.stopStep !== "none") return;
    this.phase = "stopping";
    this.stopStep = "finishing";
    this.stopDeadlineMs = nowMs + STOP_FINISH_MS;
    change.wantsIn = false;
    front.shutdown();
    if (!this.isStarted) this.finishStop();
  }

  peerUp(nowMs: number, peer: HostId, peerInc: number): void {
    const { parts, peers, points } = this.made;
    const known = peers.get(peer);
    if (known === null) return;
    parts.nowMs = nowMs;
    known.lane.linkUp();
    parts.mirror.peerUp(nowMs, peer);
    parts.membership.linkUp(nowMs, peer, peerInc);
    parts.policing.linkUp(nowMs, peer);
    points.linkUp(nowMs, peer);
    this.nextStateMs = 0;
  }

  peerDown(nowMs: number, peer: HostId): void {
    const { parts, peers, forwarding, source, router } = this.made;
    const known = peers.get(peer);
    if (known === null) return;
    parts.nowMs = nowMs;
    known.lane.linkDown();
    known.state = null;
    known.downSinceMs = nowMs;
    parts.mirror.peerDown(nowMs, peer);
    parts.membership.linkDown(nowMs, peer);
    source.end(peer);
    router.forgetProxy();
    forwarding.lost(peer);
  }

  peerData(nowMs: number, peer: HostId, lane: Lane, chunk: Uint8Array): void {
    const { parts, peers } = this.made;
    const known = peers.get(peer);
    if (known === null) return;
    parts.nowMs = nowMs;
    if (lane === LANE.data) {
      parts.mirror.peerData(nowMs, peer, chunk);
    } else if (!known.lane.receive(chunk, this.control.take)) {
      parts.ports.streams.reset(peer, "it sent bytes that are no control message");
    }
  }

  peerDrain(nowMs: number, peer: HostId, lane: Lane): void {
    this.made.parts.nowMs = nowMs;
    if (lane === LANE.data) this.made.parts.mirror.peerDrain(nowMs, peer);
    else this.made.peers.get(peer)?.lane.drained();
  }

  packet(nowMs: number, chunk: Uint8Array): void {
    this.made.parts.nowMs = nowMs;
    this.made.parts.mirror.packet(nowMs, chunk);
  }

  clientOpen(nowMs: number, client: number): void {
    this.made.parts.nowMs = nowMs;
    this.made.front.open(client);
  }

  clientData(nowMs: number, client: number, chunk: Uint8Array): void {
    this.made.parts.nowMs = nowMs;
    this.made.front.data(client, chunk);
  }

  clientDrain(nowMs: number, client: number): void {
    this.made.parts.nowMs = nowMs;
    this.made.front.drained(client);
  }

  clientClosed(nowMs: number, client: number): void {
    this.made.parts.nowMs = nowMs;
    this.made.front.closed(client);
  }

  diskDone(nowMs: number, tag: number, result: number): void {
    this.made.parts.nowMs = nowMs;
    this.made.life.diskDone(tag, result);
  }

  voteDone(nowMs: number, tag: number, result: number): void {
    const { parts } = this.made;
    parts.nowMs = nowMs;
    parts.membership.voteDone(nowMs, tag, result >= 0);
    this.becomeReady();
  }

  settle(nowMs: number): void {
    this.made.parts.nowMs = nowMs;
    // A session that had reached a limit may go on once its replies have left.
    for (let turn = 0; turn < SETTLE_TURNS; turn += 1) {
      this.settleOnce(nowMs);
      if (!this.made.front.flush()) break;
    }
    this.advanceStop();
  }

  private settleOnce(nowMs: number): void {
    const { parts, writes, reads, target, source, life, change, router, front, healer } = this.made;
    front.settle();
    writes.roomOpened();
    if (parts.serving) {
      reads.advance();
      source.pump();
      healer.advance();
    }
    if (target.isActive) target.pump();
    // A grant, a view or a link may have come with this batch.
    if (router.parkedCount > 0) router.unpark();
    // Grants append records and barriers want syncs, so these come before what carries them.
    parts.policing.settle(nowMs);
    this.made.points.settle(nowMs);
    parts.mirror.sendAppended(nowMs);
    life.settle();
    change.advance();
    parts.mirror.settle(nowMs);
    life.settle();
    this.made.peers.each((peer) => {
      peer.lane.settle();
    });
  }

  expire(nowMs: number): void {
    const { parts, life, front, points, router, target } = this.made;
    parts.nowMs = nowMs;
    if (!this.isStarted) {
      life.expire();
      return;
    }
    if (parts.membership.nextDeadlineMs() <= nowMs) parts.membership.expire(nowMs);
    if (parts.mirror.nextDeadlineMs() <= nowMs) parts.mirror.expire(nowMs);
    if (parts.policing.nextDeadlineMs() <= nowMs) parts.policing.expire(nowMs);
    if (points.nextDeadlineMs() <= nowMs) points.expire(nowMs);
    life.expire();
    if (front.nextDeadlineMs() <= nowMs) front.expire();
    if (nowMs >= this.nextLookMs) {
      this.nextLookMs = nowMs + LOOK_MS;
      router.unpark();
      this.becomeReady();
    }
    if (nowMs >= this.nextDebtMs) {
      this.nextDebtMs = nowMs + DEBT_MS;
      this.checkDebts(nowMs);
      if (target.isStalled) this.made.askCopy();
    }
    if (nowMs >= this.nextStateMs) {
      this.nextStateMs = nowMs + STATE_MS;
      this.tellState();
    }
    this.advanceStop();
  }

  nextDeadlineMs(): number {
    const { parts, life, front, points, healer } = this.made;
    if (!this.isStarted) return life.nextDeadlineMs();
    return Math.min(
      parts.membership.nextDeadlineMs(),
      parts.mirror.nextDeadlineMs(),
      parts.policing.nextDeadlineMs(),
      points.nextDeadlineMs(),
      life.nextDeadlineMs(),
      front.nextDeadlineMs(),
      healer.nextDeadlineMs(),
      this.nextStateMs,
      this.nextDebtMs,
      this.mustLook ? this.nextLookMs : Number.POSITIVE_INFINITY,
      this.stopDeadlineMs,
    );
  }

  mayRecover(nowMs: number, force: boolean): string | null {
    const { parts, life } = this.made;
    parts.nowMs = nowMs;
    if (this.phase === "stopping" || this.phase === "stopped") return "the host is stopping";
    if (life.state === "opening") return "the store is being opened already";
    if (life.state === "ok") return "the store works and needs no recovery";
    return force ? null : this.made.board.whyNoSource();
  }

  recover(nowMs: number, disk: Disk, force: boolean): string | null {
    const why = this.mayRecover(nowMs, force);
    if (why === null) this.openStore(disk, force ? "force" : "recover");
    return why;
  }

  scrub(nowMs: number): string | null {
    this.made.parts.nowMs = nowMs;
    return this.made.life.scrub();
  }

  setScrubRate(nowMs: number, bytesPerSecond: number | null): void {
    this.made.parts.nowMs = nowMs;
    this.made.life.setScrubRate(bytesPerSecond);
  }

  status(nowMs: number): HostStatus {
    this.made.parts.nowMs = nowMs;
    return this.made.board.status(this.phase === "ready");
  }

  leases(): readonly LeaseStatus[] {
    return this.made.board.leases();
  }

  /** The parts, for the simulator's observer; nothing else may look inside. */
  get inside(): Composition {
    return this.made;
  }

  private get mustLook(): boolean {
    return this.made.router.parkedCount > 0 || this.phase === "starting";
  }

  private openStore(disk: Disk, mode: OpenMode): void {
    this.made.life.open(disk, this.made.storeSink, mode);
  }

  /** The store opened, or will not: membership may start, or hears of it. */
  private storeSettled(): void {
    const { parts, life, change } = this.made;
    change.diskOk = life.state === "ok";
    change.wantsIn = life.state === "ok" && this.stopStep === "none";
    change.recovered();
    if (life.why !== "") parts.ports.trace.event("warn", "store.absent", life.why);
    if (this.isStarted) {
      change.changed();
      return;
    }
    this.isStarted = true;
    this.lastOpenMs = parts.nowMs;
    parts.membership.start(parts.nowMs, this.votes, change.local());
  }

  private becomeReady(): void {
    if (this.phase !== "starting" || !this.isStarted) return;
    const { parts, router } = this.made;
    const self = must(parts.options.roster[parts.self], "host: not in the roster");
    const isUp = self.kind === "witness" ? parts.membership.incarnation > 0 : parts.epoch !== 0;
    if (isUp || (parts.membership.view !== null && router.proxy() !== null)) {
      this.phase = "ready";
      this.nextStateMs = 0;
    }
  }

  /** G8: whatever keeps the view from opening is said once, and again when it changes. */
  private tellWaiting(): void {
    const { parts } = this.made;
    if (parts.epoch !== 0) this.lastOpenMs = parts.nowMs;
    const isLong = parts.nowMs - this.lastOpenMs > WAITING_MS;
    const why = isLong ? parts.membership.status(parts.nowMs).why : "";
    // The sentence may count seconds; only its words make it another one.
    const words = why.replace(/[0-9]+/g, "");
    if (words === this.lastWaiting) return;
    this.lastWaiting = words;
    if (why !== "") parts.ports.trace.event("warn", "view.waiting", why);
  }

  private tellState(): void {
    const { board, peers } = this.made;
    this.tellWaiting();
    board.watchFill();
    const state = board.ownState(this.phase === "ready");
    this.made.noteRoom();
    peers.each((peer) => {
      peer.lane.queue(CHANNEL.host, HOST_MESSAGE, { kind: "state", ...state });
    });
  }

  /** R16: a recipient that owes an answer for too long is proposed out. */
  private checkDebts(nowMs: number): void {
    const { parts } = this.made;
    if (parts.epoch === 0) return;
    const bound = parts.options.timing.peerTimeoutMs;
    const debtor =
      parts.mirror.owing(nowMs, bound) ??
      parts.policing.owing(nowMs, bound) ??
      this.made.points.owing(nowMs, bound);
    if (debtor === null) return;
    const name = parts.options.roster[debtor]?.name ?? `host ${debtor}`;
    parts.membership.suspect(nowMs, debtor, `${name} owes an answer for more than ${bound} ms`);
  }

  private advanceStop(): void {
    const { parts, life, change } = this.made;
    if (this.stopStep === "none" || !this.isStarted) return;
    const isLate = parts.nowMs >= this.stopDeadlineMs;
    if (this.stopStep === "finishing") {
      if (parts.ops.busyCount > 0 && !isLate) return;
      this.stopStep = "leaving";
      this.stopDeadlineMs = parts.nowMs + STOP_LEAVE_MS;
      if (!parts.membership.leave(parts.nowMs)) this.stopDeadlineMs = parts.nowMs;
      return;
    }
    if (this.stopStep !== "leaving") return;
    const isAlone = parts.options.roster.length === 1;
    if (change.role !== "none" && !isAlone && !isLate) return;
    this.stopStep = "closing";
    this.stopDeadlineMs = Number.POSITIVE_INFINITY;
    life.close();
  }

  private finishStop(): void {
    this.phase = "stopped";
  }
}

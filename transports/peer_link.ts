/**
 * StreamLink over TCP: to each peer one pair of connections (control, data), authenticated both
 * ways (core/membership/handshake.ts), over the dedicated link or else the shared network.
 *
 *   LinkSocket established -> half pair -> both lanes there: promote -> peerUp
 *                                                  either lane lost: drop -> peerDown
 *
 * Invariants
 *  1. At most one pair per peer is current; `peerUp` and `peerDown` alternate, and bytes flow
 *     only between them. A newer pair replaces the current one (down, then up): it was just
 *     authenticated, the old one may be a connection whose other end is gone.
 *  2. No event is delivered from inside `send` or `reset`.
 *  3. Connections that have not finished their handshake are at most `PENDING_MAX`; past it the
 *     oldest goes, so that a stranger who opens many cannot keep a host out.
 */
import type { TCPSocketListener } from "bun";
import { must } from "../core/base/assert.ts";
import {
  type Entropy,
  LANE,
  type Lane,
  type Mac,
  type MacKey,
  type StreamLink,
  type Trace,
} from "../core/base/ports.ts";
import type { HostId } from "../core/base/units.ts";
import {
  Handshake,
  type HandshakeDial,
  type HandshakeSelf,
  handshakeKey,
  LINK_VERSION_MAX,
  LINK_VERSION_MIN,
  PATH,
  type Path,
} from "../core/membership/handshake.ts";
import { LINK_HANDLERS, LinkSocket, type LinkSocketOwner } from "./link_socket.ts";
import { LogGate } from "./log_gate.ts";
import { type DialerOwner, PeerDialer } from "./peer_dialer.ts";
import { parseHostPort, socketErrorText } from "./tcp.ts";

const PENDING_MAX = 64;
const HALF_PAIRS_MAX = 32;
const HALF_PAIR_MS_MAX = 5000;
const TICK_MS = 50;
const SAME_EVENT_INTERVAL_MS = 10_000;
/** A standby path counts as up for so long after it last answered. */
const PATH_SEEN_MS = 30_000;

/** Where one host of the roster is reached. Addresses are "host:port". */
export interface HostAddresses {
  readonly id: HostId;
  readonly name: string;
  /** Dedicated link. */
  readonly link: string;
  /** Second path over the shared network (TCP and UDP on the same port), or null. */
  readonly shared: string | null;
}

/** One path to one peer, for `status`. */
export interface PeerPath {
  readonly to: HostId;
  readonly via: "dedicated" | "shared";
  /** In use, or answered a probe lately. */
  readonly up: boolean;
  /** Smoothed round trip as TCP measures it, microseconds; -1 when not in use. */
  readonly rttMicros: number;
}

export interface PeerEvents {
  peerUp(peer: HostId, peerInc: number): void;
  peerDown(peer: HostId): void;
  peerData(peer: HostId, lane: Lane, chunk: Uint8Array): void;
  peerDrain(peer: HostId, lane: Lane): void;
}

export interface PeerLinkPorts {
  readonly mac: Mac;
  readonly entropy: Entropy;
  readonly trace: Trace;
  nowMs(): number;
}

/** Both lanes of one link, whole or in the making. */
class LinkPair {
  readonly peer: HostId;
  readonly peerInc: number;
  readonly path: Path;
  readonly bornMs: number;
  readonly lanes: (LinkSocket | null)[] = [null, null];

  constructor(peer: HostId, peerInc: number, path: Path, bornMs: number) {
    this.peer = peer;
    this.peerInc = peerInc;
    this.path = path;
    this.bornMs = bornMs;
  }

  laneOf(socket: LinkSocket): Lane | null {
    if (this.lanes[LANE.control] === socket) return LANE.control;
    return this.lanes[LANE.data] === socket ? LANE.data : null;
  }

  close(): void {
    for (const lane of this.lanes) lane?.close();
  }
}

/** What is known of one other host. */
class Peer {
  readonly addresses: HostAddresses;
  /** Null when the peer dials us. */
  readonly dialer: PeerDialer | null;
  current: LinkPair | null = null;
  /** The current pair was reset; `peerDown` is on its way. */
  isDying = false;
  readonly seenMs = [-Infinity, -Infinity];

  constructor(addresses: HostAddresses, dialer: PeerDialer | null) {
    this.addresses = addresses;
    this.dialer = dialer;
  }
}

export class PeerLinks implements StreamLink, LinkSocketOwner, DialerOwner {
  private readonly self: HostAddresses;
  private readonly clusterName: string;
  private readonly ports: PeerLinkPorts;
  private readonly events: PeerEvents;
  private readonly key: MacKey;
  private readonly peers = new Map<HostId, Peer>();
  private readonly pending = new Set<LinkSocket>();
  private readonly halves = new Map<string, LinkPair>();
  private readonly listeners: TCPSocketListener<LinkSocket | undefined>[] = [];
  private readonly gate = new LogGate(SAME_EVENT_INTERVAL_MS);
  private me: HandshakeSelf | null = null;
  private timer: ReturnType<typeof setInterval> | null = null;

  constructor(
    options: {
      readonly self: HostId;
      readonly clusterName: string;
      readonly hosts: readonly HostAddresses[];
      /** Control lanes go over the shared network while the data lanes have the dedicated link. */
      readonly controlOverShared?: boolean;
    },
    ports: PeerLinkPorts,
    events: PeerEvents,
  ) {
    this.clusterName = options.clusterName;
    this.ports = ports;
    this.events = events;
    this.key = handshakeKey(ports.mac, options.clusterName);
    this.self = must(
      options.hosts.find((host) => host.id === options.self),
      "peer link: this host is not in the roster",
    );
    for (const host of options.hosts) {
      if (host.id === options.self) continue;
      const controlOverShared = options.controlOverShared ?? false;
      const addresses = { dedicated: host.link, shared: host.shared, controlOverShared };
      const dials = options.self < host.id;
      const dialer = dials ? new PeerDialer(host.id, addresses, this, ports.entropy) : null;
      this.peers.set(host.id, new Peer(host, dialer));
    }
  }

  /** Opens the listeners; throws one sentence. Connections are refused until `start`. */
  listen(): void {
    if (this.peers.size === 0) return;
    const { link, shared } = this.self;
    for (const address of shared === null || shared === link ? [link] : [link, shared]) {
      this.listeners.push(this.listenAt(address));
    }
  }

  /** Begins to dial and to accept, as this incarnation (> 0). */
  start(incarnation: number): void {
    this.me = {
      self: this.self.id,
      incarnation,
      clusterName: this.clusterName,
      hosts: [this.self.id, ...this.peers.keys()],
      versionMin: LINK_VERSION_MIN,
      versionMax: LINK_VERSION_MAX,
    };
    if (this.peers.size === 0) return;
    this.timer ??= setInterval(() => this.tick(), TICK_MS);
    this.tick();
  }

  /** Ends everything without further events. */
  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.me = null;
    for (const listener of this.listeners) listener.stop(true);
    this.listeners.length = 0;
    for (const socket of this.pending) socket.close();
    for (const half of this.halves.values()) half.close();
    for (const peer of this.peers.values()) {
      peer.dialer?.stop();
      peer.current?.close();
      peer.current = null;
    }
    this.pending.clear();
    this.halves.clear();
  }

  send(peer: HostId, lane: Lane, buffer: Uint8Array, at: number, length: number): number {
    const socket = this.peers.get(peer)?.current?.lanes[lane];
    return socket === undefined || socket === null ? -1 : socket.send(buffer, at, length);
  }

  reset(peer: HostId, why: string): void {
    const state = this.peers.get(peer);
    const pair = state?.current;
    if (state === undefined || pair === undefined || pair === null || state.isDying) return;
    state.isDying = true;
    pair.close();
    setImmediate(() => this.drop(state, pair, why));
  }

  paths(): PeerPath[] {
    const nowMs = this.ports.nowMs();
    const found: PeerPath[] = [];
    for (const [to, peer] of this.peers) {
      found.push(pathOf(to, peer, PATH.dedicated, nowMs));
      if (peer.addresses.shared !== null) found.push(pathOf(to, peer, PATH.shared, nowMs));
    }
    return found;
  }

  newSocket(dial: HandshakeDial, remote: string): LinkSocket {
    return new LinkSocket(this.newHandshake(dial), this, remote);
  }

  dialFailed(peer: HostId, path: Path, why: string): void {
    const state = this.peers.get(peer);
    // While a link is up a missing second path is a matter of `status`, not of the log.
    if (state === undefined || state.current !== null) return;
    const via = path === PATH.dedicated ? "dedicated link" : "shared network";
    const { name } = state.addresses;
    this.log("warn", "link.unreachable", `${name} cannot be reached over the ${via}: ${why}`);
  }

  established(socket: LinkSocket): void {
    this.pending.delete(socket);
    const result = must(socket.result, "peer link: established without a result");
    const peer = this.peers.get(result.peer);
    const nowMs = this.ports.nowMs();
    if (peer === undefined) {
      socket.close();
      return;
    }
    peer.seenMs[result.path] = nowMs;
    if (peer.dialer?.probed(nowMs, socket) === true) return;
    const key = `${result.peer}/${result.peerInc}/${result.path}/${result.link}`;
    let half = this.halves.get(key);
    if (half === undefined) {
      half = new LinkPair(result.peer, result.peerInc, result.path, nowMs);
      this.halves.set(key, half);
      if (this.halves.size > HALF_PAIRS_MAX) this.dropOldestHalf();
    }
    half.lanes[result.lane]?.close();
    half.lanes[result.lane] = socket;
    if (half.lanes[LANE.control] === null || half.lanes[LANE.data] === null) return;
    this.halves.delete(key);
    this.promote(peer, half);
  }

  data(socket: LinkSocket, chunk: Uint8Array): void {
    const { peer } = must(socket.result, "peer link: data before the handshake");
    const pair = this.peers.get(peer)?.current;
    const lane = pair?.laneOf(socket) ?? null;
    if (lane !== null) this.events.peerData(peer, lane, chunk);
  }

  drain(socket: LinkSocket): void {
    const peer = socket.result?.peer;
    if (peer === undefined) return;
    const lane = this.peers.get(peer)?.current?.laneOf(socket) ?? null;
    if (lane !== null) this.events.peerDrain(peer, lane);
  }

  closed(socket: LinkSocket, why: string): void {
    const nowMs = this.ports.nowMs();
    if (this.pending.delete(socket)) {
      const known = socket.handshake.isRefusal ? "refused" : "gave up";
      this.log("warn", "link.refused", `link from ${socket.remote} ${known}: ${why}`);
      return;
    }
    for (const peer of this.peers.values()) {
      if (peer.current !== null && peer.current.laneOf(socket) !== null) {
        this.drop(peer, peer.current, why);
        return;
      }
    }
    this.dropHalfOf(socket);
    for (const peer of this.peers.values()) {
      if (peer.dialer?.failed(nowMs, socket, why) === true) return;
    }
  }

  private promote(peer: Peer, pair: LinkPair): void {
    if (peer.current !== null) this.drop(peer, peer.current, "a new link replaces it");
    peer.current = pair;
    peer.dialer?.up(this.ports.nowMs(), pair.path);
    const via = pair.path === PATH.dedicated ? "dedicated link" : "shared network";
    this.ports.trace.event("info", "link.up", `${peer.addresses.name} is connected by the ${via}`, {
      peer: peer.addresses.name,
      incarnation: pair.peerInc,
    });
    this.events.peerUp(pair.peer, pair.peerInc);
    for (const lane of pair.lanes) lane?.flow();
  }

  private drop(peer: Peer, pair: LinkPair, why: string): void {
    if (peer.current !== pair) return;
    peer.current = null;
    peer.isDying = false;
    peer.seenMs[pair.path] = -Infinity;
    pair.close();
    const { name } = peer.addresses;
    this.log("warn", "link.down", `the link to ${name} is down: ${why}`);
    peer.dialer?.down(this.ports.nowMs());
    this.events.peerDown(pair.peer);
  }

  private dropHalfOf(socket: LinkSocket): void {
    for (const [key, half] of this.halves) {
      if (half.laneOf(socket) === null) continue;
      half.close();
      this.halves.delete(key);
      return;
    }
  }

  private dropOldestHalf(): void {
    for (const [key, half] of this.halves) {
      half.close();
      this.halves.delete(key);
      return;
    }
  }

  private tick(): void {
    if (this.me === null) return;
    const nowMs = this.ports.nowMs();
    for (const socket of this.pending) socket.expire(nowMs);
    for (const [key, half] of this.halves) {
      if (nowMs - half.bornMs < HALF_PAIR_MS_MAX) continue;
      half.close();
      this.halves.delete(key);
    }
    for (const peer of this.peers.values()) peer.dialer?.tick(nowMs);
  }

  private listenAt(address: string): TCPSocketListener<LinkSocket | undefined> {
    const target = parseHostPort(address);
    if (target === null) throw new Error(`link address ${address} is not host:port`);
    try {
      return Bun.listen<LinkSocket | undefined>({
        ...target,
        socket: {
          ...LINK_HANDLERS,
          open: (socket) => {
            if (this.me === null) {
              socket.terminate();
              return;
            }
            socket.data = this.accept(socket.remoteAddress);
            socket.data.attach(socket);
          },
        },
      });
    } catch (error) {
      throw new Error(`cannot listen on ${address}: ${socketErrorText(error)}`);
    }
  }

  private accept(remote: string): LinkSocket {
    if (this.pending.size >= PENDING_MAX) {
      for (const oldest of this.pending) {
        oldest.close();
        this.pending.delete(oldest);
        this.log("warn", "link.crowded", "too many unfinished handshakes: the oldest was closed");
        break;
      }
    }
    const socket = new LinkSocket(this.newHandshake(null), this, remote);
    this.pending.add(socket);
    return socket;
  }

  private newHandshake(dial: HandshakeDial | null): Handshake {
    const me = must(this.me, "peer link: handshake before start");
    return new Handshake(this.ports.nowMs(), me, dial, {
      key: this.key,
      entropy: this.ports.entropy,
    });
  }

  private log(level: "info" | "warn", code: string, text: string): void {
    if (this.gate.pass(this.ports.nowMs(), text)) this.ports.trace.event(level, code, text);
  }
}

function pathOf(to: HostId, peer: Peer, path: Path, nowMs: number): PeerPath {
  const { current } = peer;
  const inUse = current !== null && current.path === path;
  const seen = nowMs - (peer.seenMs[path] ?? -Infinity) < PATH_SEEN_MS;
  return {
    to,
    via: path === PATH.dedicated ? "dedicated" : "shared",
    up: inUse || seen,
    rttMicros: inUse ? (current.lanes[LANE.control]?.rttMicros() ?? -1) : -1,
  };
}

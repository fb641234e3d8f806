/**
 * Dialing one peer (the lower host number dials): which path is tried when.
 *
 *  - down: the dedicated link at once, the shared path 200 ms later; each again after a back-off
 *    of 50 ms to 1 s. Whichever is up first is used, with one exception: a peer that was away
 *    (the dedicated link was refused, not silent) answers on both paths when it comes, and the
 *    back-offs would decide by chance. There the shared path is only probed first; when it
 *    answers, the dedicated link is dialled at once and has 250 ms before the shared path is
 *    taken. Moving later would cost a break of the link.
 *  - up on the shared path: the dedicated link is tried every 3 s, and taken when it answers.
 *  - up on the dedicated link: the shared path is probed every 10 s with a handshake on one lane
 *    that is then closed, so that `status` knows whether the second path is there.
 *
 * With control over the shared network wanted, the dedicated link is *split* as soon as the shared
 * path answers a probe: its control lane (policing, votes, acks) goes by the shared address, its
 * data lane stays. Losing either lane is losing the link; then the plain one is dialled at once.
 */
import type { Entropy } from "../core/base/ports.ts";
import { LANE, type Lane } from "../core/base/ports.ts";
import type { HostId } from "../core/base/units.ts";
import { LINK_ID_BYTES } from "../core/format/handshake_wire.ts";
import { type HandshakeDial, PATH, type Path, randomBytes } from "../core/membership/handshake.ts";
import { LINK_HANDLERS, type LinkSocket } from "./link_socket.ts";
import { parseHostPort, socketErrorText } from "./tcp.ts";

const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 1000;
/** Head start of the dedicated link over the shared path. */
const SHARED_DELAY_MS = 200;
const RETURN_INTERVAL_MS = 3000;
const PROBE_INTERVAL_MS = 10_000;
/** The first probe comes sooner when the link is to be split. */
const SPLIT_DELAY_MS = 500;
/** What the dedicated link of a peer that is there by a probe may take. */
const MEETING_MS_MAX = 250;
/** Connecting and both handshakes must be done by then. */
const ATTEMPT_MS_MAX = 2500;
/** Ticks come every 50 ms unless the loop is held up. */
const STALL_MS = 100;
/** A link that lived shorter than this does not count as success for the back-off. */
const STABLE_MS = 2000;

export interface DialerOwner {
  /** A socket whose events go to the owner. */
  newSocket(dial: HandshakeDial, remote: string): LinkSocket;
  /** A path could not be had; said once per try. */
  dialFailed(peer: HostId, path: Path, why: string): void;
}

interface Attempt {
  readonly sockets: LinkSocket[];
  readonly startedMs: number;
  readonly isProbe: boolean;
  readonly isSplit: boolean;
}

/** One of the two ways to a peer. */
class Route {
  readonly path: Path;
  readonly address: string;
  attempt: Attempt | null = null;
  nextMs = 0;
  backoffMs = BACKOFF_MS_MIN;
  /** The last try of this path ended with a refusal, which takes no time, rather than silence. */
  wasRefused = false;

  constructor(path: Path, address: string) {
    this.path = path;
    this.address = address;
  }
}

export class PeerDialer {
  private readonly peer: HostId;
  private readonly routes: Route[];
  private readonly owner: DialerOwner;
  private readonly entropy: Entropy;
  /** Where the control lane of a split link goes; null = links are not split. */
  private readonly splitAddress: string | null;
  private upPath: Path | null = null;
  private isSplit = false;
  /** The peer was found by a probe; the shared path is next unless the dedicated one comes up. */
  private hasMet = false;
  private changedMs = -Infinity;
  private tickedMs = -Infinity;

  constructor(
    peer: HostId,
    addresses: {
      readonly dedicated: string;
      readonly shared: string | null;
      readonly controlOverShared: boolean;
    },
    owner: DialerOwner,
    entropy: Entropy,
  ) {
    this.peer = peer;
    this.owner = owner;
    this.entropy = entropy;
    this.routes = [new Route(PATH.dedicated, addresses.dedicated)];
    if (addresses.shared !== null) this.routes.push(new Route(PATH.shared, addresses.shared));
    this.splitAddress = addresses.controlOverShared ? addresses.shared : null;
  }

  /** The link is up over `path`; other attempts end. */
  up(nowMs: number, path: Path): void {
    this.upPath = path;
    this.hasMet = false;
    this.changedMs = nowMs;
    this.isSplit = this.routes.some((route) => route.path === path && route.attempt?.isSplit);
    for (const route of this.routes) {
      if (route.path === path) route.wasRefused = false;
      if (route.path === path) route.attempt = null;
      else this.abandon(route);
      route.nextMs =
        nowMs + (route.path === PATH.dedicated ? RETURN_INTERVAL_MS : PROBE_INTERVAL_MS);
      if (route.path === PATH.shared && this.isToSplit) route.nextMs = nowMs + SPLIT_DELAY_MS;
    }
  }

  /** The link is down: dial again at once, or after the back-off if it never stood. */
  down(nowMs: number): void {
    const stood = nowMs - this.changedMs >= STABLE_MS;
    this.upPath = null;
    this.isSplit = false;
    this.changedMs = nowMs;
    for (const route of this.routes) {
      if (stood) route.backoffMs = BACKOFF_MS_MIN;
      else this.backOff(route, nowMs);
      if (stood) route.nextMs = nowMs + (route.path === PATH.shared ? SHARED_DELAY_MS : 0);
    }
  }

  /** A socket of ours failed or was refused; true if it belonged to an attempt. */
  failed(nowMs: number, socket: LinkSocket, why: string): boolean {
    const route = this.routeOf(socket);
    if (route === null) return false;
    if (route.attempt?.isSplit !== true) route.wasRefused = true;
    this.endAttempt(nowMs, route, why);
    if (!this.hasMet) return true;
    // The dedicated link is refused by a peer that is there: the shared path, now.
    if (route.path === PATH.shared) this.hasMet = false;
    else for (const other of this.routes) if (other !== route) other.nextMs = nowMs;
    return true;
  }

  /** True if `socket` was a probe, which is over with its handshake; the path works. */
  probed(nowMs: number, socket: LinkSocket): boolean {
    const route = this.routeOf(socket);
    if (route === null || route.attempt?.isProbe !== true) return false;
    this.abandon(route);
    route.nextMs = nowMs + (this.upPath === null ? MEETING_MS_MAX : PROBE_INTERVAL_MS);
    if (this.upPath === null) this.meet(nowMs);
    else if (this.isToSplit) this.split(nowMs);
    return true;
  }

  tick(nowMs: number): void {
    // After the start, and when our own loop stood still so that answers are still unread, the
    // shared path has to wait for its turn again.
    if (nowMs - this.tickedMs > STALL_MS) this.headStart(nowMs);
    this.tickedMs = nowMs;
    for (const route of this.routes) {
      const { attempt } = route;
      if (attempt !== null && nowMs - attempt.startedMs > ATTEMPT_MS_MAX) {
        route.wasRefused = false;
        this.endAttempt(nowMs, route, "no answer");
      }
      if (route.attempt === null && nowMs >= route.nextMs && route.path !== this.upPath) {
        this.start(nowMs, route);
      }
    }
  }

  stop(): void {
    for (const route of this.routes) this.abandon(route);
  }

  private headStart(nowMs: number): void {
    for (const route of this.routes) {
      if (route.path !== PATH.shared) continue;
      route.nextMs = Math.max(route.nextMs, nowMs + SHARED_DELAY_MS);
    }
  }

  /** The peer is there: its dedicated link is dialled now, whatever the back-off says. */
  private meet(nowMs: number): void {
    this.hasMet = true;
    for (const route of this.routes) {
      if (route.path === PATH.dedicated && route.attempt === null) this.start(nowMs, route);
    }
  }

  /** The link is up, plain, and should be split. */
  private get isToSplit(): boolean {
    return this.splitAddress !== null && this.upPath === PATH.dedicated && !this.isSplit;
  }

  private split(nowMs: number): void {
    for (const route of this.routes) {
      if (route.path === PATH.dedicated && route.attempt === null) {
        this.start(nowMs, route, this.splitAddress);
      }
    }
  }

  private isAway(): boolean {
    return (
      !this.hasMet && this.routes.some((route) => route.path === PATH.dedicated && route.wasRefused)
    );
  }

  /** Dials `route`, its control lane at another address if one is given. */
  private start(nowMs: number, route: Route, controlAddress: string | null = null): void {
    const isProbe = route.path === PATH.shared && (this.upPath !== null || this.isAway());
    const link = randomBytes(this.entropy, LINK_ID_BYTES);
    const lanes: readonly Lane[] = isProbe ? [LANE.control] : [LANE.control, LANE.data];
    const isSplit = controlAddress !== null;
    const attempt: Attempt = { sockets: [], startedMs: nowMs, isProbe, isSplit };
    const addresses = lanes.map((lane) =>
      lane === LANE.control ? (controlAddress ?? route.address) : route.address,
    );
    route.attempt = attempt;
    for (const [index, lane] of lanes.entries()) {
      const dial = { peer: this.peer, lane, path: route.path, link };
      attempt.sockets.push(this.owner.newSocket(dial, addresses[index] ?? route.address));
    }
    for (const [index, socket] of attempt.sockets.entries()) {
      void connect(socket, addresses[index] ?? route.address);
    }
  }

  private endAttempt(nowMs: number, route: Route, why: string): void {
    this.abandon(route);
    this.backOff(route, nowMs);
    this.owner.dialFailed(this.peer, route.path, why);
  }

  private backOff(route: Route, nowMs: number): void {
    const idleMs = this.upPath === null ? 0 : RETURN_INTERVAL_MS;
    // A quarter of jitter, so that many hosts do not dial a returning one in step.
    const jitter = 1 + (this.entropy.u32() / 4294967296) * 0.25;
    route.nextMs = nowMs + Math.max(route.backoffMs * jitter, idleMs);
    route.backoffMs = Math.min(route.backoffMs * 2, BACKOFF_MS_MAX);
  }

  private abandon(route: Route): void {
    const { attempt } = route;
    route.attempt = null;
    if (attempt !== null) for (const socket of attempt.sockets) socket.close();
  }

  private routeOf(socket: LinkSocket): Route | null {
    for (const route of this.routes) {
      if (route.attempt?.sockets.includes(socket)) return route;
    }
    return null;
  }
}

/** Connects `socket`; every failure reaches its owner through `lost`. */
async function connect(socket: LinkSocket, address: string): Promise<void> {
  const target = parseHostPort(address);
  if (target === null) {
    socket.lost("the address is not host:port");
    return;
  }
  try {
    await Bun.connect({ ...target, data: socket, socket: LINK_HANDLERS });
  } catch (error) {
    socket.lost(socketErrorText(error));
  }
}

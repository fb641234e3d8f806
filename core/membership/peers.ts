/**
 * The other hosts as this one sees them: links, lives (incarnations), what their last beat said.
 *
 * A peer is *greeted* when its hello on the present link named a life that is not older than the
 * newest one known. It is *alive* while it is greeted and heard within `silenceMs`, or lost its
 * link less than `LINK_GRACE_MS` ago. Nothing but a hello is taken from a peer not greeted.
 *
 * Two processes of one id (R14): every process draws a nonce. A nonce that comes back after
 * another one took its place proves that both live; both are refused until this has stopped.
 */
import type { HostId } from "../base/units.ts";
import type { MessageOf } from "../format/membership_wire.ts";
import { LINK_GRACE_MS, type MembershipHost } from "./contract.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";

/** How long two processes of one id are refused after they were last seen to alternate. */
const DOUBLED_MS = 10_000;

export class Peer {
  readonly host: HostId;
  readonly kind: MembershipHost["kind"];
  linked = false;
  greeted = false;
  /** When the link was lost; -Infinity = it never was there. */
  lostAtMs = Number.NEGATIVE_INFINITY;
  /** When anything was last heard; -Infinity = never. */
  heardAtMs = Number.NEGATIVE_INFINITY;
  inc = 0;
  nonce = 0;
  lastNonce = 0;
  beat: MessageOf<"beat"> | null = null;
  hello: MessageOf<"hello"> | null = null;
  active: MessageOf<"active"> | null = null;
  /** R13: why the two must not work together; "" = nothing known. */
  diverged = "";
  /** What it said when it refused to work with us; "" = it did not, on this link. */
  refusedWhy = "";
  doubledUntilMs = 0;
  accusedUntilMs = 0;
  accusedWhy = "";

  constructor(host: MembershipHost) {
    this.host = host.id;
    this.kind = host.kind;
  }
}

export class Peers {
  readonly all: readonly Peer[];
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly byHost = new Map<HostId, Peer>();
  private readonly nonce: number;

  constructor(ground: Ground, keeper: Keeper) {
    this.ground = ground;
    this.keeper = keeper;
    this.nonce = ground.entropy.u32();
    this.all = ground.options.hosts
      .filter((host) => host.id !== ground.self)
      .map((host) => new Peer(host));
    for (const peer of this.all) this.byHost.set(peer.host, peer);
  }

  of(host: HostId): Peer | null {
    return this.byHost.get(host) ?? null;
  }

  linkUp(host: HostId): Peer | null {
    const peer = this.of(host);
    if (peer === null) return null;
    if (peer.linked) this.linkDown(host);
    peer.linked = true;
    return peer;
  }

  linkDown(host: HostId): void {
    const peer = this.of(host);
    if (peer === null || !peer.linked) return;
    // One already given up for its silence does not come back to life by losing its link.
    const wasAlive = this.isAlive(host);
    peer.linked = false;
    peer.refusedWhy = "";
    if (peer.greeted) peer.lostAtMs = wasAlive ? this.ground.nowMs : Number.NEGATIVE_INFINITY;
    peer.greeted = false;
  }

  /** R13: `peer` judged, and will not work with this host. */
  refusedBy(peer: Peer, why: string): void {
    peer.refusedWhy = why;
    this.ground.sink.refused(peer.host, why);
  }

  /** True if the host counts as reachable; this host always is. */
  isAlive(host: HostId): boolean {
    if (host === this.ground.self) return true;
    const peer = this.of(host);
    if (peer === null) return false;
    const { nowMs, options } = this.ground;
    if (!peer.greeted) return nowMs - peer.lostAtMs <= LINK_GRACE_MS;
    return nowMs - peer.heardAtMs <= options.timing.silenceMs;
  }

  /** True if a message sent now has a way to the host. */
  isReady(host: HostId): boolean {
    return host === this.ground.self || (this.of(host)?.greeted ?? false);
  }

  /** Hosts heard now, as a bit set; this host included. */
  hears(): number {
    let set = 1 << this.ground.self;
    for (const peer of this.all) if (this.isAlive(peer.host)) set |= 1 << peer.host;
    return set;
  }

  /** Hosts not heard for `coldWaitMs`, nor could have been (R12a). */
  quiet(): number {
    const { nowMs, startMs, options } = this.ground;
    let set = 0;
    for (const peer of this.all) {
      const since = Math.max(peer.heardAtMs, startMs);
      if (nowMs - since >= options.timing.coldWaitMs) set |= 1 << peer.host;
    }
    return set;
  }

  aliveVotes(): number {
    let count = 0;
    for (const voter of this.ground.voters) if (this.isAlive(voter)) count += 1;
    return count;
  }

  sayHello(host: HostId, hello: Omit<MessageOf<"hello">, "kind" | "nonce">): void {
    this.ground.sink.send(host, { kind: "hello", nonce: this.nonce, ...hello });
  }

  /** Takes a hello; true if the peer is greeted now. */
  onHello(peer: Peer, message: MessageOf<"hello">): boolean {
    const { ground, keeper } = this;
    if (!peer.linked) return false;
    if (peer.nonce === 0) peer.nonce = keeper.knownOf(peer.host)?.nonce ?? 0;
    if (message.nonce !== peer.nonce) {
      if (peer.nonce !== 0 && message.nonce === peer.lastNonce) {
        peer.doubledUntilMs = ground.nowMs + DOUBLED_MS;
      }
      peer.lastNonce = peer.nonce;
      peer.nonce = message.nonce;
    }
    peer.greeted = false;
    if (ground.nowMs < peer.doubledUntilMs) {
      const why = `two processes claim to be ${ground.nameOf(peer.host)}; both are refused`;
      ground.sink.send(peer.host, { kind: "refuse", why });
      ground.sink.refused(peer.host, why);
      return false;
    }
    const known = keeper.knownOf(peer.host);
    const older = known !== null && message.inc < known.inc;
    const other = known !== null && message.inc === known.inc && message.nonce !== known.nonce;
    if (ground.rules.voterAmnesia && (older || other)) {
      ground.sink.send(peer.host, { kind: "stale", inc: known.inc });
      return false;
    }
    peer.greeted = true;
    peer.inc = message.inc;
    peer.heardAtMs = ground.nowMs;
    peer.hello = message;
    const voterInc = Math.max(message.voterInc, known?.voterInc ?? 0);
    keeper.know({ host: peer.host, inc: message.inc, nonce: message.nonce, voterInc }, null);
    return true;
  }

  /** Accuses a host (R16): it is proposed out and not taken in again for a while. */
  accuse(host: HostId, why: string): void {
    const peer = this.of(host);
    if (peer === null) return;
    peer.accusedUntilMs = this.ground.nowMs + this.ground.options.timing.peerTimeoutMs;
    peer.accusedWhy = why;
  }

  /** Hosts this one accuses, as a bit set. */
  ownAccused(): number {
    let set = 0;
    for (const peer of this.all) {
      if (peer.accusedUntilMs > this.ground.nowMs) set |= 1 << peer.host;
    }
    return set;
  }

  /** Accused by this host or by one that is not accused itself; lower ids are heard first. */
  accused(accusers: readonly { readonly host: HostId }[]): number {
    let set = this.ownAccused();
    const self = 1 << this.ground.self;
    for (const { host } of accusers) {
      const peer = this.of(host);
      if (peer === null || peer.beat === null || (set & (1 << host)) !== 0) continue;
      if (this.isAlive(host)) set |= peer.beat.accused & ~self;
    }
    return set;
  }

  diverged(): number {
    let set = 0;
    for (const peer of this.all) if (peer.diverged !== "") set |= 1 << peer.host;
    return set;
  }
}

/** What people are told about views (G8): one plain sentence whenever something is not well. */
import type { HostId } from "../base/units.ts";
import { FLAG } from "../format/membership_wire.ts";
import type { Amnesia } from "./amnesia.ts";
import type { MembershipStatus, PeerStatus } from "./contract.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";
import type { Opener } from "./opener.ts";
import type { Peer, Peers } from "./peers.ts";
import type { Proposer } from "./proposer.ts";
import type { Reasons } from "./reasons.ts";

interface Parts {
  readonly ground: Ground;
  readonly keeper: Keeper;
  readonly peers: Peers;
  readonly opener: Opener;
  readonly reasons: Reasons;
  readonly amnesia: Amnesia;
  readonly proposer: Proposer;
  readonly readable: boolean;
}

export function describe(parts: Parts): MembershipStatus {
  const { ground, peers, opener } = parts;
  const newest = parts.reasons.newest();
  const votes = peers.aliveVotes();
  return {
    epoch: newest?.epoch ?? 0,
    members: newest?.members ?? [],
    joining: newest?.joining ?? [],
    role: opener.role,
    open: opener.isOpen,
    votes,
    voters: ground.voters.length,
    majority: votes >= ground.majority,
    readable: parts.readable,
    why: whyOf(parts, votes),
    peers: peers.all.map((peer) => describePeer(parts, peer)),
  };
}

function whyOf(parts: Parts, votes: number): string {
  const { ground, keeper, opener, amnesia, proposer, peers } = parts;
  if (keeper.broken !== "") return keeper.broken;
  if (keeper.durable.inc === 0) return "starting";
  if (votes < ground.majority) {
    const count = `${votes} of ${ground.voters.length} votes`;
    const gone = ground.voters.filter((host) => !peers.isAlive(host));
    const names = gone.map((host) => unreachable(parts, host)).join(", ");
    return `writes frozen: ${count}, ${names}`;
  }
  if (amnesia.isBlank) return amnesia.why();
  if (opener.isOpen || opener.role === "none") return roleWhy(parts);
  const view = opener.view;
  if (view !== null && keeper.state.promised === view.epoch) {
    const names = opener.missing().map((host) => ground.nameOf(host));
    return names.length === 0 ? "" : `waiting for ${names.join(" and ")} to become active`;
  }
  return proposer.lastFailure === "" ? "a new view is being agreed" : proposer.lastFailure;
}

function roleWhy({ ground, peers, opener, proposer, keeper }: Parts): string {
  if (opener.isOpen) return "";
  for (const { refusedWhy } of peers.all) if (refusedWhy !== "") return refusedWhy;
  if (opener.view === null && keeper.state.accepted === null) {
    return proposer.lastFailure === "" ? "no view has been agreed yet" : proposer.lastFailure;
  }
  if (!ground.isData) return "";
  if (proposer.lastFailure !== "") return proposer.lastFailure;
  return "this host is not in the view; it is served by the others";
}

function unreachable({ ground, peers }: Parts, host: HostId): string {
  const heard = peers.of(host)?.heardAtMs ?? Number.NEGATIVE_INFINITY;
  const name = ground.nameOf(host);
  if (heard === Number.NEGATIVE_INFINITY) return `${name} not heard since the start`;
  return `${name} unreachable for ${Math.floor((ground.nowMs - heard) / 1000)} s`;
}

function describePeer({ ground, peers }: Parts, peer: Peer): PeerStatus {
  const reachable = peers.isAlive(peer.host);
  const flags = reachable ? (peer.beat?.flags ?? 0) : 0;
  const since = Math.max(peer.heardAtMs, ground.startMs);
  let why = peer.diverged || peer.refusedWhy;
  if (why === "" && peer.accusedUntilMs > ground.nowMs) why = peer.accusedWhy;
  if (why === "" && ground.nowMs < peer.doubledUntilMs) {
    why = `two processes claim to be ${ground.nameOf(peer.host)}`;
  }
  if (why === "" && !reachable) why = "unreachable";
  return {
    host: peer.host,
    name: ground.nameOf(peer.host),
    reachable,
    silentMs: reachable ? 0 : ground.nowMs - since,
    inc: peer.inc,
    diskOk: (flags & FLAG.disk) !== 0,
    wantsIn: (flags & FLAG.wantsIn) !== 0,
    leaving: (flags & FLAG.leaving) !== 0,
    openEpoch: peer.beat?.open ?? 0,
    why,
  };
}

/**
 * R5: how the tails of the sealed epoch become equal. A pure function of the ballot, so that all
 * recipients compute the same: per sender the most advanced continuing recipient, the lowest id
 * among equals, sends the others what they lack.
 */
import type { HostId } from "../base/units.ts";
import type { Ballot, Opening, Position } from "../format/membership_wire.ts";
import type { ReconcilePlan } from "./contract.ts";
import { seqIn } from "./line.ts";

/** What of `opening.from` happened: per sender the longest prefix that one of them has. */
export function unionOf(opening: Opening): Position[] {
  const union: Position[] = [];
  for (const host of opening.continuing) {
    for (const { sender, seq } of host.vector) {
      const known = union.find((position) => position.sender === sender);
      if (known === undefined) union.push({ sender, seq });
      else if (seq > known.seq) known.seq = seq;
    }
  }
  union.sort((one, other) => one.sender - other.sender);
  return union;
}

/** What `self` has to send and to reach before its ACTIVE. */
export function planFor(self: HostId, ballot: Ballot): ReconcilePlan {
  const { opening, view } = ballot;
  const cut = unionOf(opening);
  const continuing = opening.continuing.some((entry) => entry.host === self);
  const base = { epoch: view.epoch, from: opening.from, cut, continuing };
  if (!continuing) return { ...base, sends: [], mustReach: [] };
  const sends: { to: HostId; sender: HostId; fromSeq: number; toSeq: number }[] = [];
  for (const { sender, seq } of cut) {
    if (mostAdvanced(opening, sender, seq) !== self) continue;
    for (const { host, vector } of opening.continuing) {
      const has = seqIn(vector, sender);
      if (host !== self && has < seq)
        sends.push({ to: host, sender, fromSeq: has + 1, toSeq: seq });
    }
  }
  return { ...base, sends, mustReach: cut };
}

function mostAdvanced(opening: Opening, sender: HostId, seq: number): HostId | null {
  let best: HostId | null = null;
  for (const { host, vector } of opening.continuing) {
    if (seqIn(vector, sender) !== seq) continue;
    if (best === null || host < best) best = host;
  }
  return best;
}

/**
 * R3 and R12a: from the promises to the one value of an epoch. Pure, so that it is tested by
 * tables and so that nothing but the promises can enter a view.
 */
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId } from "../base/units.ts";
import {
  type Ballot,
  entryOf,
  FLAG,
  lists,
  type Member,
  type MessageOf,
  type Opening,
  type Position,
  recipientsOf,
  type View,
  type ViewRecord,
} from "../format/membership_wire.ts";
import { extend, judge, newestForced } from "./line.ts";
import { unionOf } from "./plan.ts";

export type PromiseMessage = MessageOf<"promise">;

export interface Promised {
  readonly host: HostId;
  readonly promise: PromiseMessage;
}

export interface ChoiceInput {
  readonly self: HostId;
  readonly epoch: Epoch;
  /** Random id of the view to be made. */
  readonly id: number;
  /** In id order, void ones (R14) already removed. */
  readonly promised: readonly Promised[];
  readonly voters: readonly HostId[];
  readonly isData: (host: HostId) => boolean;
  readonly nameOf: (host: HostId) => string;
  readonly coldStart: "flushed" | "all";
  /** Bit sets: proposed out (R16), diverged (R13), connected. */
  readonly accused: number;
  readonly diverged: number;
  readonly connected: number;
  readonly rules: Rules;
}

export type Choice =
  | {
      readonly ok: true;
      readonly ballot: Ballot;
      readonly cold: boolean;
      /** The base of a cold start has lost records: no better one was there. */
      readonly hasLosses: boolean;
      readonly diverged: number;
    }
  | { readonly ok: false; readonly why: string };

/** The value that `input.self` proposes, or why there is none. */
export function choose(input: ChoiceInput): Choice {
  const newest = newestAccepted(input.promised);
  const parent = newest?.view ?? null;
  const eligible = parent === null ? [] : eligibleOf(input, parent);
  if (eligible.length > 0 && parent !== null) {
    const members = pickMembers(input, eligible);
    const opening = continueFrom(input, parent, members);
    return finish(input, { parent, members, ...opening, cold: false });
  }
  const base = coldBase(input, parent);
  if (typeof base === "string") return { ok: false, why: base };
  if (!input.rules.oneBase) return finishWithout(input, parent);
  const { promise, host } = base;
  const from = promise.newestOpen;
  const continuing = from === 0 ? [] : [{ host, vector: positionsOf(promise) }];
  const members = [{ host, inc: promise.inc }];
  return finish(input, { parent, members, from, continuing, line: promise.line, cold: true });
}

function newestAccepted(promised: readonly Promised[]): Ballot | null {
  let newest: Ballot | null = null;
  for (const { promise } of promised) {
    const accepted = promise.accepted;
    if (accepted === null) continue;
    if (newest === null || accepted.view.epoch > newest.view.epoch) newest = accepted;
  }
  return newest;
}

function has(promise: PromiseMessage, flag: number): boolean {
  return (promise.flags & flag) !== 0;
}

function sameLife(input: ChoiceInput, entries: readonly Member[], one: Promised): boolean {
  if (input.rules.incarnations) return lists(entries, one.host, one.promise.inc);
  return entryOf(entries, one.host) !== null;
}

/** R3: members of P in the same life; complete joiners of P that saw it open. */
function eligibleOf(input: ChoiceInput, parent: View): Member[] {
  const eligible: Member[] = [];
  for (const one of input.promised) {
    if (!has(one.promise, FLAG.disk)) continue;
    const wasMember = sameLife(input, parent.members, one);
    const hasJoined =
      sameLife(input, parent.joining, one) &&
      one.promise.newestOpen === parent.epoch &&
      has(one.promise, FLAG.complete);
    if (wasMember || hasJoined) eligible.push({ host: one.host, inc: one.promise.inc });
  }
  if (!input.rules.promiseSet) {
    for (const member of parent.members) {
      const there = (input.connected & (1 << member.host)) !== 0;
      const known = input.promised.some((one) => one.host === member.host);
      if (there && !known) eligible.push(member);
    }
  }
  return eligible;
}

/** Less those leaving, proposed out, or not heard by the others; but never nobody. */
function pickMembers(input: ChoiceInput, eligible: readonly Member[]): Member[] {
  const wanted = eligible.filter((member) => {
    const promise = promiseOf(input, member.host);
    const leaving = promise !== null && has(promise, FLAG.leaving);
    return !leaving && (input.accused & (1 << member.host)) === 0;
  });
  const from = wanted.length > 0 ? wanted : eligible;
  const members: Member[] = [];
  const ordered = [...from].sort((one, other) => rank(input, one) - rank(input, other));
  for (const member of ordered) {
    if (members.every((other) => hearEachOther(input, member.host, other.host))) {
      members.push(member);
    }
  }
  return members.sort((one, other) => one.host - other.host);
}

function rank(input: ChoiceInput, member: Member): number {
  return member.host === input.self ? -1 : member.host;
}

function hearEachOther(input: ChoiceInput, one: HostId, other: HostId): boolean {
  const first = promiseOf(input, one);
  const second = promiseOf(input, other);
  if (first === null || second === null) return true;
  return (first.hears & (1 << other)) !== 0 && (second.hears & (1 << one)) !== 0;
}

function promiseOf(input: ChoiceInput, host: HostId): PromiseMessage | null {
  return input.promised.find((one) => one.host === host)?.promise ?? null;
}

function positionsOf(promise: PromiseMessage): Position[] {
  return promise.vector.map(({ sender, appended }) => ({ sender, seq: appended }));
}

/**
 * R5: the highest o among lives listed in P counts. Whoever was a recipient of that view was
 * ACTIVE in it, for else nobody could have seen it open; its recipients go on.
 */
function continueFrom(
  input: ChoiceInput,
  parent: View,
  members: readonly Member[],
): Pick<Opening, "from" | "continuing" | "line"> {
  const listed = input.promised.filter((one) => sameLife(input, recipientsOf(parent), one));
  let best: Promised | null = null;
  for (const one of listed) {
    // A joiner's o counts only if this life saw that view; else it is what a dead life left.
    const isMember = entryOf(members, one.host) !== null;
    if (!isMember && one.promise.openView?.epoch !== one.promise.newestOpen) continue;
    if (best === null || one.promise.newestOpen > best.promise.newestOpen) best = one;
  }
  if (best === null) return { from: 0, continuing: [], line: [] };
  const from = best.promise.newestOpen;
  const opened = listed.find((one) => one.promise.openView?.epoch === from)?.promise.openView;
  const continuing: Opening["continuing"] = [];
  for (const one of listed) {
    const isMember = entryOf(members, one.host) !== null;
    const wasThere = opened != null && sameLife(input, recipientsOf(opened), one);
    if (!isMember && !wasThere) continue;
    const vector = one.promise.newestOpen === from ? positionsOf(one.promise) : [];
    continuing.push({ host: one.host, vector });
  }
  const line = listed.find(
    (one) => one.promise.newestOpen === from && one.promise.line.at(-1)?.epoch === from,
  );
  return { from, continuing, line: (line ?? best).promise.line };
}

/** R12a: the one base of a cold start, or why there is none yet. */
function coldBase(input: ChoiceInput, parent: View | null): Promised | string {
  const names = (hosts: readonly Member[]): string =>
    hosts.map((member) => input.nameOf(member.host)).join(" and ");
  const candidates = input.promised.filter((one) => {
    if (!input.isData(one.host) || !has(one.promise, FLAG.disk)) return false;
    return parent === null || entryOf(parent.members, one.host) !== null;
  });
  if (candidates.length === 0) {
    if (parent === null) return "no host with a store takes part";
    return `waiting for ${names(parent.members)}, who held the newest writes`;
  }
  const absent = (parent?.members ?? []).filter((member) => promiseOf(input, member.host) === null);
  if (absent.length > 0) {
    if (input.coldStart === "all") {
      return `cold_start is "all": waiting for ${names(absent)}`;
    }
    for (const { promise } of input.promised) {
      const heard = absent.filter((member) => (promise.quiet & (1 << member.host)) === 0);
      if (heard.length > 0) return `cold start: still waiting for ${names(heard)}`;
    }
  }
  const epoch = parent?.epoch ?? 0;
  const base = candidates.reduce((best, one) => (isBetterBase(one, best, epoch) ? one : best));
  if (absent.length > 0 && has(base.promise, FLAG.losses)) {
    // Its old blocks would be copied over good ones when the others come back.
    const own = input.nameOf(base.host);
    return `durable records of ${own}'s store are lost: waiting for ${names(absent)}`;
  }
  return base;
}

function isBetterBase(one: Promised, best: Promised, parent: Epoch): boolean {
  const intact = (promised: Promised): number =>
    parent !== 0 && promised.promise.intact === parent ? 1 : 0;
  const losses = ({ promise }: Promised): number => (has(promise, FLAG.losses) ? 1 : 0);
  if (losses(one) !== losses(best)) return losses(one) < losses(best);
  if (intact(one) !== intact(best)) return intact(one) > intact(best);
  if (one.promise.newestOpen !== best.promise.newestOpen) {
    return one.promise.newestOpen > best.promise.newestOpen;
  }
  const sum = ({ promise }: Promised): number =>
    promise.vector.reduce((total, reach) => total + reach.appended, 0);
  // Promises come in id order, so the lowest id stays among equals.
  return sum(one) > sum(best);
}

interface Draft {
  readonly parent: View | null;
  readonly members: Member[];
  readonly from: Epoch;
  readonly continuing: Opening["continuing"];
  readonly line: readonly ViewRecord[];
  readonly cold: boolean;
}

function finish(input: ChoiceInput, draft: Draft): Choice {
  const { id, epoch } = input;
  const joining: Member[] = [];
  const goesOn = (host: HostId): boolean => draft.continuing.some((entry) => entry.host === host);
  const admit = (one: Promised): void => {
    const others = [...draft.members, ...joining];
    if (!others.every((other) => hearEachOther(input, one.host, other.host))) return;
    joining.push({ host: one.host, inc: one.promise.inc });
  };
  const willing = input.promised.filter((one) => isWilling(input, draft, one));
  for (const one of willing) if (goesOn(one.host)) admit(one);
  const kept = [...draft.members, ...joining];
  const continuing = draft.continuing.filter((entry) => entryOf(kept, entry.host) !== null);
  const line = draft.line.filter((record) => record.epoch <= draft.from);
  const cut = unionOf({ from: draft.from, continuing, line });
  const ahead = extend(line, { epoch, id, from: draft.from, forced: false, cut });
  let diverged = 0;
  for (const one of willing) {
    if (goesOn(one.host)) continue;
    // What a cold start loses, all last recipients agreed to lose (R12a).
    const agreed =
      draft.cold &&
      (draft.parent === null || entryOf(recipientsOf(draft.parent), one.host) !== null);
    if (!agreed && judge(standOf(one.promise), ahead) === "diverged") diverged |= 1 << one.host;
    else admit(one);
  }
  joining.sort((one, other) => one.host - other.host);
  const view: View = {
    epoch,
    id,
    parent: draft.parent?.epoch ?? 0,
    voters: [...input.voters],
    members: draft.members,
    joining,
    forced: false,
  };
  const promisers = input.promised.map(({ host, promise }) => ({ host, inc: promise.inc }));
  const opening: Opening = { from: draft.from, continuing, line };
  const { cold } = draft;
  const hasLosses = cold && input.promised.some((one) => isLossyBase(draft, one));
  return { ok: true, ballot: { view, opening, promisers }, cold, hasLosses, diverged };
}

function isLossyBase(draft: Draft, { host, promise }: Promised): boolean {
  return has(promise, FLAG.losses) && entryOf(draft.members, host) !== null;
}

/** A data host that could be taken into `joining`. */
function isWilling(input: ChoiceInput, draft: Draft, { host, promise }: Promised): boolean {
  if (entryOf(draft.members, host) !== null || !input.isData(host)) return false;
  if (!has(promise, FLAG.disk) || !has(promise, FLAG.wantsIn)) return false;
  if (has(promise, FLAG.leaving)) return false;
  return ((input.accused | input.diverged) & (1 << host)) === 0;
}

/** Only with the rule `oneBase` off: all come back with what each of them has. */
function finishWithout(input: ChoiceInput, parent: View | null): Choice {
  const all = input.promised.filter((one) => {
    if (!input.isData(one.host) || !has(one.promise, FLAG.disk)) return false;
    return parent === null || entryOf(parent.members, one.host) !== null;
  });
  const members = all.map(({ host, promise }) => ({ host, inc: promise.inc }));
  return finish(input, { parent, members, from: 0, continuing: [], line: [], cold: true });
}

function standOf(promise: PromiseMessage): Parameters<typeof judge>[0] {
  const committed = promise.vector.map((reach) => ({ sender: reach.sender, seq: reach.committed }));
  const { newestOpen, newestId } = promise;
  return { newestOpen, newestId, committed, forced: newestForced(promise.line) };
}

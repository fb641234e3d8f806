/**
 * What hosts say to each other about views: every message of the membership machine, declared
 * once. Types, encoder and decoder follow from the declarations (codec.ts); the protocol itself
 * is told in docs/protocol.md, chapter "Views".
 *
 * Invariants: a decoded view has at least one member, names no host twice, and every list is
 * within `LIMITS.hostCountMax`. Codes of the union are append only, never reused.
 */
import { LIMITS } from "../base/limits.ts";
import { type Epoch, type HostId, proposerOf } from "../base/units.ts";
import {
  blob,
  bool,
  type Codec,
  type Decoded,
  f64,
  id,
  list,
  optional,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  union,
} from "./codec.ts";

/** Opened views a host remembers for R13; older ones are forgotten. */
export const LINE_MAX = 16;
/** Bytes a host may attach to its ACTIVE (multicast key, reservations). */
export const EXTRA_BYTES_MAX = 8192;
/** Bytes of a boot id. */
export const BOOT_BYTES_MAX = 64;

const HOSTS = LIMITS.hostCountMax;

/** A codec whose decoder also refuses values that `holds` does not accept. */
function checked<T>(base: Codec<T>, holds: (value: T) => boolean): Codec<T> {
  return {
    write: (writer, value) => base.write(writer, value),
    read: (reader) => {
      const value = base.read(reader);
      if (!reader.failed && !holds(value)) reader.fail();
      return value;
    },
  };
}

export const hostCodec = id<HostId>(u8, HOSTS);
/** Far above any real epoch, so that the next one can always be counted; more is refused. */
const EPOCH_MAX = 2 ** 50;
const epochCodec = id<Epoch>(u64, EPOCH_MAX);

export const memberCodec = struct({ host: hostCodec, inc: u32 });
/** One life of one host. */
export type Member = Decoded<typeof memberCodec>;

export const positionCodec = struct({ sender: hostCodec, seq: u64 });
/** A place in one sender's stream. */
export type Position = Decoded<typeof positionCodec>;

export const reachCodec = struct({ sender: hostCodec, appended: u64, committed: u64 });
/** How far a host has one sender's stream: contiguous prefix in its log, known committed. */
export type Reach = Decoded<typeof reachCodec>;

export const viewRecordCodec = struct({
  epoch: epochCodec,
  id: u32,
  /** The opened view before it: the epoch that `cut` speaks of. 0 = none. */
  from: epochCodec,
  forced: bool,
  /** The union with which the view opened: what of `from` happened. */
  cut: list(positionCodec, HOSTS),
});
/** One opened view in a host's history (R13). The host keeps the line in its store. */
export type ViewRecord = Decoded<typeof viewRecordCodec>;
/** A host's history of opened views, oldest first. */
export const lineCodec = list(viewRecordCodec, LINE_MAX);

export const viewCodec = checked(
  struct({
    epoch: epochCodec,
    id: u32,
    parent: epochCodec,
    voters: list(hostCodec, HOSTS),
    members: list(memberCodec, HOSTS),
    joining: list(memberCodec, HOSTS),
    forced: bool,
  }),
  isSoundView,
);
/** The agreed membership (docs/protocol.md, "Views"). Recipients = members + joining. */
export type View = {
  epoch: Epoch;
  id: number;
  parent: Epoch;
  voters: HostId[];
  members: Member[];
  joining: Member[];
  forced: boolean;
};

function isSoundView(view: View): boolean {
  if (view.members.length === 0 || view.voters.length === 0) return false;
  if (view.epoch <= view.parent || proposerOf(view.epoch) >= HOSTS) return false;
  let seen = 0;
  for (const entry of [...view.members, ...view.joining]) {
    if ((seen & (1 << entry.host)) !== 0) return false;
    seen |= 1 << entry.host;
  }
  let voters = 0;
  for (const voter of view.voters) {
    if ((voters & (1 << voter)) !== 0) return false;
    voters |= 1 << voter;
  }
  return true;
}

export const openingCodec = struct({
  /** The highest o among the continuing recipients: the epoch whose tails are made equal. */
  from: epochCodec,
  /** Continuing recipients and what each has of `from`; all others copy (R11). */
  continuing: list(struct({ host: hostCodec, vector: list(positionCodec, HOSTS) }), HOSTS),
  /** The history that ends in `from`. */
  line: lineCodec,
});
/** How the view's recipients become equal (R5), fixed by its proposer from the promises. */
export type Opening = Decoded<typeof openingCodec>;

export const ballotCodec = struct({
  view: viewCodec,
  opening: openingCodec,
  /** Who promised this epoch: they have sealed, so they use no grant of an older one. */
  promisers: list(memberCodec, HOSTS),
});
/** What voters accept: one value per epoch. */
export type Ballot = Decoded<typeof ballotCodec>;

const voterIncs = list(struct({ host: hostCodec, voterInc: u32 }), HOSTS);

/** Bits of a beat's `flags`. */
export const FLAG = {
  /** Has a store on a working disk. */
  disk: 1,
  wantsIn: 2,
  complete: 4,
  leaving: 8,
  voting: 16,
  /** Durable records of its store are lost: blocks may be old (R12). */
  losses: 32,
} as const;

export const membershipMessage = union({
  /** First on every link, and again when the other side does not know us. */
  hello: {
    code: 1,
    body: struct({
      inc: u32,
      voterInc: u32,
      /** Drawn once per process: tells a restart from a second process. */
      nonce: u32,
      newestOpen: epochCodec,
      newestId: u32,
      committed: list(positionCodec, HOSTS),
      /** Newest forced view in the sender's history; 0 = none. */
      forced: epochCodec,
    }),
  },
  /** The receiver's incarnation is not above the one the sender knows (R14). */
  stale: { code: 2, body: struct({ inc: u32 }) },
  beat: {
    code: 3,
    body: struct({
      /** Sender's clock; comes back in `grant`. */
      clock: f64,
      /** Epoch for which the sender asks a grant; 0 = asks none. */
      asks: epochCodec,
      /** Incarnation of the receiver that the sender has greeted; 0 = none. */
      knows: u32,
      promised: epochCodec,
      accepted: epochCodec,
      decided: epochCodec,
      active: epochCodec,
      open: epochCodec,
      /** Hosts the sender hears, and hosts it wants out (R16), as bit sets. */
      hears: u16,
      accused: u16,
      flags: u8,
    }),
  },
  grant: { code: 4, body: struct({ clock: f64, epoch: epochCodec }) },
  /** R14: a voter that lost its memory asks the others. */
  inquire: { code: 5, body: struct({ voterInc: u32 }) },
  answer: {
    code: 6,
    body: struct({
      /** The asker's, recorded durably by the one who answers. */
      voterInc: u32,
      voting: bool,
      promised: epochCodec,
      accepted: optional(ballotCodec),
      newestOpen: epochCodec,
    }),
  },
  /** R1: pre-vote. `newest`: epoch of the newest view the asker knows. */
  canvass: { code: 7, body: struct({ epoch: epochCodec, newest: epochCodec }) },
  canvassed: { code: 8, body: struct({ epoch: epochCodec, yes: bool, promised: epochCodec }) },
  prepare: { code: 9, body: struct({ epoch: epochCodec }) },
  promise: {
    code: 10,
    body: struct({
      epoch: epochCodec,
      inc: u32,
      voterInc: u32,
      accepted: optional(ballotCodec),
      /** o: newest epoch seen OPEN or of which the log has a record. */
      newestOpen: epochCodec,
      newestId: u32,
      /** The view of that epoch, if it was of this incarnation. */
      openView: optional(viewCodec),
      vector: list(reachCodec, HOSTS),
      flags: u8,
      /** Newest view in which this host served and since which its machine did not reboot. */
      intact: epochCodec,
      /** Hosts not heard for `coldWaitMs`, and hosts heard now, as bit sets. */
      quiet: u16,
      hears: u16,
      line: lineCodec,
      voters: voterIncs,
    }),
  },
  reject: { code: 11, body: struct({ epoch: epochCodec, promised: epochCodec }) },
  accept: { code: 12, body: struct({ ballot: ballotCodec }) },
  accepted: {
    code: 13,
    body: struct({ ballot: ballotCodec, voterInc: u32, voters: voterIncs }),
  },
  decided: { code: 14, body: struct({ ballot: ballotCodec }) },
  active: {
    code: 15,
    body: struct({ epoch: epochCodec, inc: u32, extra: blob(EXTRA_BYTES_MAX) }),
  },
  /** The sender will not work with the receiver (R13, R14). */
  refuse: { code: 16, body: struct({ why: text(512) }) },
});
export type MembershipMessage = Decoded<typeof membershipMessage>;
export type MessageOf<K extends MembershipMessage["kind"]> = Extract<
  MembershipMessage,
  { kind: K }
>;

/** Members and joining: the one set that everything waits for. */
export function recipientsOf(view: View): Member[] {
  return [...view.members, ...view.joining];
}

/** The entry of `host` in `entries`, or null. */
export function entryOf(entries: readonly Member[], host: HostId): Member | null {
  for (const entry of entries) if (entry.host === host) return entry;
  return null;
}

/** True if this very life of the host is listed. */
export function lists(entries: readonly Member[], host: HostId, inc: number): boolean {
  return entryOf(entries, host)?.inc === inc;
}

/** Votes needed of `count` voters. */
export function majorityOf(count: number): number {
  return Math.floor(count / 2) + 1;
}

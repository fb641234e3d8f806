/**
 * What the membership machine takes and gives: options, what it must know of its host, and the
 * sink. Times are milliseconds of CLOCK_BOOTTIME.
 */
import type { Epoch, HostId, Seq } from "../base/units.ts";
import type {
  Member,
  MembershipMessage,
  Position,
  Reach,
  View,
  ViewRecord,
} from "../format/membership_wire.ts";
import type { VoterState } from "../format/votes.ts";

/** Length of a grant, as the voter means it (R7). */
export const GRANT_MS = 1000;
/** The asker uses it for 1 % less from its question on, so that slow clocks do no harm. */
export const GRANT_VALID_MS = 990;
/** The voter honours it for 1 % more from receipt on, so that fast clocks do no harm. */
export const GRANT_HONOUR_MS = 1010;
/** How long a restarted voter assumes grants of its former life to be out. */
export const GRANT_RESTART_MS = 1100;
/** R3: longest wait for promises beyond a majority. */
export const COLLECT_MS = 200;
/** A lost link has this long to come back before its host counts as unreachable. */
export const LINK_GRACE_MS = 250;

export interface MembershipTiming {
  readonly heartbeatMs: number;
  /** Silence after which a peer counts as unreachable. */
  readonly silenceMs: number;
  readonly peerTimeoutMs: number;
  readonly coldWaitMs: number;
}

export interface MembershipHost {
  readonly id: HostId;
  readonly kind: "data" | "witness" | "client";
  readonly name: string;
}

export interface MembershipOptions {
  readonly self: HostId;
  /** crc32 of the cluster's name. */
  readonly clusterId: number;
  readonly hosts: readonly MembershipHost[];
  readonly timing: MembershipTiming;
  /** R12a: may some of the last members start without the others. */
  readonly coldStart: "flushed" | "all";
}

/** What PROMISE, R12 and R13 need from the host. Frozen while the host is sealed. */
export interface LocalState {
  /** There is a store (never for witness and client). */
  readonly hasStore: boolean;
  readonly diskOk: boolean;
  /** Finished joining in `newestOpen` (R11). */
  readonly complete: boolean;
  /** Durable records of the store are lost, and nothing made them good: blocks may be old. */
  readonly hasLosses: boolean;
  /** o: newest epoch seen OPEN or of which the log has a record; 0 = none (a fresh store). */
  readonly newestOpen: Epoch;
  /** Per sender what the log has of the streams of `newestOpen`. */
  readonly vector: readonly Reach[];
  /** Wants to be taken into `joining`. */
  readonly wantsIn: boolean;
  /** Identifies this boot of the machine, at most 64 bytes. */
  readonly boot: string;
  /** The line that `opened` gave last, as kept in the store (oldest first). */
  readonly history: readonly ViewRecord[];
}

/** R5: what this host has to do before it may say ACTIVE. */
export interface ReconcilePlan {
  readonly epoch: Epoch;
  /** The sealed epoch whose tails are made equal; 0 = there was none. */
  readonly from: Epoch;
  /**
   * True: this host goes on from `from` (a joiner's session goes on too). False: it begins anew
   * as a joiner, copies bring everything, nothing is sent or reached here.
   */
  readonly continuing: boolean;
  /** The union: what of `from` happened. What a host has beyond it never happened. */
  readonly cut: readonly Position[];
  /** What this host sends to others, its log's order; bounds inclusive. */
  readonly sends: readonly {
    readonly to: HostId;
    readonly sender: HostId;
    readonly fromSeq: Seq;
    readonly toSeq: Seq;
  }[];
  /** What this host must have in its log before it calls `unionHeld`. */
  readonly mustReach: readonly Position[];
}

/** What a recipient attached to its ACTIVE. */
export interface ActiveExtra {
  readonly host: HostId;
  readonly extra: Uint8Array;
}

export interface MembershipSink {
  send(to: HostId, message: MembershipMessage): void;
  /** Writes the voter file durably; `voteDone(now, tag, ok)` follows. One at a time. */
  persist(tag: number, state: VoterState): void;
  /**
   * R2: from now on nothing of an epoch below `epoch` is sent, appended, acked or read. Returns
   * the frozen state, synchronously. May come again with a higher epoch.
   */
  sealed(epoch: Epoch): LocalState;
  decided(view: View): void;
  /** This host is a recipient: make tails equal, then call `unionHeld` (may be at once). */
  reconcile(plan: ReconcilePlan): void;
  /** The view is OPEN here. `line` is the history to be kept in the store. */
  opened(
    view: View,
    cut: readonly Position[],
    actives: readonly ActiveExtra[],
    line: readonly ViewRecord[],
  ): void;
  /** A decided view without this life of this host. */
  excluded(view: View): void;
  /** R13, R14: this host and `peer` will not work together; one sentence why. */
  refused(peer: HostId, why: string): void;
}

export interface PeerStatus {
  readonly host: HostId;
  readonly name: string;
  readonly reachable: boolean;
  /** Milliseconds since anything was heard of it; 0 while reachable. */
  readonly silentMs: number;
  readonly inc: number;
  /** What it says of itself; false while unreachable. */
  readonly diskOk: boolean;
  readonly wantsIn: boolean;
  readonly leaving: boolean;
  /** Epoch that is open there as far as known. */
  readonly openEpoch: Epoch;
  /** Why it is not in the view, one sentence; "" if nothing is wrong. */
  readonly why: string;
}

export interface MembershipStatus {
  readonly epoch: Epoch;
  readonly members: readonly Member[];
  readonly joining: readonly Member[];
  readonly role: "member" | "joining" | "none";
  readonly open: boolean;
  /** Votes reachable, this host's included, of how many. */
  readonly votes: number;
  readonly voters: number;
  readonly majority: boolean;
  /** This host may answer reads now. */
  readonly readable: boolean;
  /** One sentence; "" when all is well. */
  readonly why: string;
  readonly peers: readonly PeerStatus[];
}

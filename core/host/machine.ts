/**
 * The host seen from outside: what it is made of, the events it takes and the questions it
 * answers. `transports/drive.ts` and the simulator's world are its two drivers.
 */
import type {
  ClientLink,
  Disk,
  Entropy,
  Lane,
  Mac,
  PacketLink,
  StreamLink,
  Trace,
  VoteFile,
} from "../base/ports.ts";
import type { HostId, VolumeId } from "../base/units.ts";
import type { ScrubStats } from "../store/contract.ts";

export type HostKind = "data" | "witness" | "client";

export interface RosterEntry {
  readonly id: HostId;
  readonly name: string;
  readonly kind: HostKind;
  /** 0..7, priority of write requests received at this host. */
  readonly priority: number;
}

export interface VolumeOptions {
  readonly id: VolumeId;
  readonly name: string;
  readonly sizeBytes: number;
  /** Records travel by the dedicated link (TCP) or once for all by multicast. */
  readonly mirror: "dedicated" | "shared";
  /** "durable": every write as if it had FUA. */
  readonly ack: "sync" | "durable";
  readonly readOnly: boolean;
}

export interface HostTiming {
  readonly heartbeatMs: number;
  /** Silence after which a peer counts as unreachable. */
  readonly silenceMs: number;
  readonly peerTimeoutMs: number;
  readonly coldWaitMs: number;
  /** Bounds the wait for a reservation; there are none in this version, so nothing reads it. */
  readonly policingTimeoutMs: number;
  readonly agingMs: number;
  /** A disk operation that takes longer fails the disk. */
  readonly diskTimeoutMs: number;
  /** From the beginning of one pass of the scrub to that of the next. */
  readonly scrubEveryMs: number;
}

export const DEFAULT_TIMING: HostTiming = {
  heartbeatMs: 100,
  silenceMs: 600,
  peerTimeoutMs: 5000,
  coldWaitMs: 10_000,
  policingTimeoutMs: 10_000,
  agingMs: 2000,
  diskTimeoutMs: 20_000,
  scrubEveryMs: 14 * 24 * 3_600_000,
};

export interface HostOptions {
  readonly self: HostId;
  readonly clusterName: string;
  readonly roster: readonly RosterEntry[];
  readonly volumes: readonly VolumeOptions[];
  readonly timing: HostTiming;
  readonly minCopies: number;
  readonly coldStart: "flushed" | "all";
  /** Identifies one boot of the machine (R12: a host whose machine did not reboot). */
  readonly bootId: string;
  /** Bytes per segment of a store made anew; without, by the disk's size. */
  readonly segmentBytes?: number;
  /** What this host may multicast, 64 KiB/s at least. */
  readonly multicastBytesPerSecond: number;
  /** What the scrub may read a second; 0 = no scrub, null = it chooses. */
  readonly scrubBytesPerSecond: number | null;
  /** Milliseconds since 1970 at `nowMs` 0: for times that people read, for nothing else. */
  readonly wallOffsetMs: number;
  /** Memory for the store's index. */
  readonly indexBytes: number;
}

export interface HostPorts {
  readonly streams: StreamLink;
  readonly packets: PacketLink;
  readonly clients: ClientLink;
  readonly votes: VoteFile;
  readonly mac: Mac;
  readonly entropy: Entropy;
  readonly trace: Trace;
}

/** What the driver hands over at start. */
export interface HostStart {
  /** Content of the vote file; null when there is none. */
  readonly votes: Uint8Array | null;
  /** The store's disk; null for a witness, a client, or a disk that cannot be opened. */
  readonly disk: Disk | null;
  /** Why `disk` is null on a data host. */
  readonly diskWhy: string;
}

/** The events a host takes. Every call runs to completion; `settle` follows each batch. */
export interface HostMachine {
  /** Phase of life: clients are accepted once `ready`, the process may exit once `stopped`. */
  readonly phase: "starting" | "ready" | "stopping" | "stopped";
  /** The incarnation, known once the vote file was written for this start (0 before). */
  readonly incarnation: number;
  start(nowMs: number, start: HostStart): void;
  /** Orderly hand-over (SIGTERM): clients end, leases and grants go back, the store closes. */
  stop(nowMs: number): void;
  peerUp(nowMs: number, peer: HostId, peerInc: number): void;
  peerDown(nowMs: number, peer: HostId): void;
  peerData(nowMs: number, peer: HostId, lane: Lane, chunk: Uint8Array): void;
  peerDrain(nowMs: number, peer: HostId, lane: Lane): void;
  packet(nowMs: number, chunk: Uint8Array): void;
  clientOpen(nowMs: number, client: number): void;
  clientData(nowMs: number, client: number, chunk: Uint8Array): void;
  clientDrain(nowMs: number, client: number): void;
  clientClosed(nowMs: number, client: number): void;
  diskDone(nowMs: number, tag: number, result: number): void;
  voteDone(nowMs: number, tag: number, result: number): void;
  settle(nowMs: number): void;
  expire(nowMs: number): void;
  nextDeadlineMs(): number;
  /**
   * Why `vsan recover` is refused now, in one sentence; null if it may begin. Null also means
   * that the host is done with the disk it had, if any: the driver may close it. Unless forced,
   * a host in sync must be there to rebuild from, since what lies on the disk will be lost.
   */
  mayRecover(nowMs: number, force: boolean): string | null;
  /**
   * `vsan recover`: gives the host a disk to (re)build a store on. Refuses like `mayRecover`, or
   * null when begun: the disk is the host's then. Progress is in `status`.
   */
  recover(nowMs: number, disk: Disk, force: boolean): string | null;
  /** Begins a pass of the scrub now. Null, or why not. */
  scrub(nowMs: number): string | null;
  /** Changes `scrubBytesPerSecond` while the host runs. */
  setScrubRate(nowMs: number, bytesPerSecond: number | null): void;
  status(nowMs: number): HostStatus;
  leases(): readonly LeaseStatus[];
}

export interface LeaseStatus {
  readonly volume: string;
  readonly startByte: number;
  readonly endByte: number;
  readonly holder: string;
  readonly priority: number;
  readonly waiting: readonly string[];
}

/** The document of `vsan mirror status --json` (docs/cli.md), less what only transports know. */
export interface HostStatus {
  readonly cluster: string;
  readonly host: string;
  readonly view: {
    readonly epoch: number;
    readonly members: readonly string[];
    readonly joining: readonly string[];
    readonly majority: boolean;
    readonly open: boolean;
    readonly why: string;
  };
  readonly hosts: readonly {
    readonly name: string;
    readonly kind: HostKind;
    readonly connected: boolean;
    readonly state: "in-sync" | "syncing" | "behind" | "diverged" | "diskless" | "offline";
    readonly disk: "ok" | "failed" | "none";
    readonly why: string;
    readonly store: {
      readonly sizeBytes: number;
      readonly usedBytes: number;
      readonly segmentsFree: number;
      readonly writeAmplification: number;
      readonly badBlocksHealed: number;
      readonly badBlocksWaiting: number;
      readonly indexBytes: number;
      readonly indexMisses: number;
      readonly scrub: ScrubStats;
    } | null;
  }[];
  readonly volumes: readonly {
    readonly name: string;
    readonly sizeBytes: number;
    readonly io: "ok" | "read-only" | "frozen" | "offline";
    readonly why: string;
    readonly clients: number;
    readonly usedBytes: number;
  }[];
  readonly resync: readonly {
    readonly to: string;
    readonly from: string;
    readonly doneBytes: number;
    readonly totalBytes: number;
    readonly bytesPerSecond: number;
    readonly etaSeconds: number;
  }[];
  /** Reads of this host's clients: at its own store, and pieces of them asked of other hosts. */
  readonly reads: { readonly local: number; readonly remote: number };
}

/** What the mirror owes its host: the sink, its answer codes, and the options of a mirror. */
import type { Entropy, Mac, PacketLink, StreamLink } from "../base/ports.ts";
import type { HostId, Lsn, Seq } from "../base/units.ts";
import type { MirrorMessage } from "../format/mirror_wire.ts";
import type { RecordHeader } from "../format/record.ts";

/** What the host did with a record of another's stream. */
export const RECEIVE = {
  /** Appended to the store; `MirrorSink.appendedLsn` is its end in the log. */
  appended: 1,
  /** The lease table is behind the record's grant (R9c): kept until `retryHeld`. */
  hold: 2,
  /** The store's buffers are busy: kept until the next `settle` or `retryHeld`. */
  full: 3,
  /** The record must not be appended (R9c): the link is reset, the record comes again. */
  refuse: 4,
} as const;
export type Receive = (typeof RECEIVE)[keyof typeof RECEIVE];

/** Implemented by the host. Called only from inside events, never from requests. */
export interface MirrorSink {
  /** End in the log of the record appended last inside `record` or `reconciled`. */
  readonly appendedLsn: Lsn;
  /** Control lane. A message to a peer whose link is down may be dropped. */
  send(to: HostId, message: MirrorMessage): void;
  /** A verified record, next in its stream; `buffer` is valid during the call only. */
  record(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): Receive;
  /** R5: a record of the sealed epoch this host lacked. False: not now, offered again. */
  reconciled(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): boolean;
  /** Known committed moved, of the own stream or of another's. */
  committed(sender: HostId, seq: Seq): void;
  /** Own stream: FUA records up to `seq` are on stable storage on all recipients. */
  durable(seq: Seq): void;
  /** The host syncs its store and answers `syncDone(token)`. */
  syncWanted(token: number): void;
  barrierDone(token: number, ok: boolean): void;
  windowOpen(): void;
  /** Opaque bytes from `from`; `buffer` is valid during the call only. */
  bulk(from: HostId, buffer: Uint8Array, at: number, length: number): void;
  bulkDrained(peer: HostId): void;
  /** Multicast does not reach `peer`, or does again. */
  pathChanged(peer: HostId, text: string): void;
}

export interface MirrorOptions {
  readonly self: HostId;
  /** True if this host may multicast records sent with `viaShared`. */
  readonly multicast: boolean;
  /** Pace of multicast, bytes per second. */
  readonly rateBytesPerSecond?: number;
  /** Own window; default and maximum `LIMITS.windowBytes`. At least two largest records. */
  readonly windowBytes?: number;
  /** Own window in records; default and maximum `LIMITS.windowRecordsMax`. */
  readonly windowRecords?: number;
}

export interface MirrorPorts {
  readonly link: StreamLink;
  readonly packets: PacketLink;
  readonly mac: Mac;
  readonly entropy: Entropy;
}

/** A host's secret for one view, from its ACTIVE message; its multicast key derives from it. */
export interface MulticastKey {
  readonly host: HostId;
  readonly key: Uint8Array;
}

/** How far this host is in the stream of `sender`. */
export interface StreamPosition {
  readonly sender: HostId;
  readonly appended: Seq;
  readonly committed: Seq;
}

/** Everything the mirror counts; only ever grows. */
export class MirrorCounters {
  recordsSent = 0;
  recordsAppended = 0;
  duplicates = 0;
  heldRecords = 0;
  /** Frames of an older epoch, of no stream we are in, or after the seal. */
  oldFrames = 0;
  badFrames = 0;
  badRecords = 0;
  refusedRecords = 0;
  badMessages = 0;
  resets = 0;
  bulkFrames = 0;
  barriers = 0;
  datagramsSent = 0;
  datagramsReceived = 0;
  datagramsForged = 0;
  datagramsReplayed = 0;
  naksSent = 0;
  naksReceived = 0;
  repairsUnicast = 0;
  repairsMulticast = 0;
  fallbacks = 0;
}

export interface MirrorStatus {
  readonly epoch: number;
  readonly sealed: boolean;
  readonly open: boolean;
  readonly appended: Seq;
  readonly committed: Seq;
  readonly windowBytes: number;
  readonly windowRecords: number;
  readonly heldBytes: number;
  readonly retainedBytes: number;
  readonly peers: readonly {
    readonly peer: HostId;
    readonly up: boolean;
    readonly path: "dedicated" | "shared";
    readonly received: Seq;
    readonly bulkBytes: number;
  }[];
  readonly counters: Readonly<MirrorCounters>;
}

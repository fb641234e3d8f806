/**
 * What hosts say to each other above the machines: the control lane's framing, the state each
 * host tells the others, forwarded requests (R15) and resync copies (R11).
 *
 * Control lane: frames of { u32 length of what follows, u8 channel, message }. A channel belongs
 * to one machine and its message codec. Data lane bulk frames (their framing is the mirror's)
 * begin with one of the `BULK` layouts below, all of which begin with the same `kind` byte.
 */
import { LIMITS } from "../base/limits.ts";
import { bool, type Decoded, f64, list, struct, text, u8, u16, u32, u64, union } from "./codec.ts";
import { layout } from "./layout.ts";

/** Control-lane channels. Append only. */
/** 5 is reserved: points travel as lease messages. */
export const CHANNEL = { membership: 1, lease: 2, mirror: 3, host: 4 } as const;
/** Bytes before a control message: length and channel. */
export const CONTROL_HEADER_BYTES = 5;

/** See `ScrubStats`. */
const SCRUB_STATUS = struct({
  bytesPerSecond: u64,
  isRunning: bool,
  share: f64,
  passes: u32,
  endedMs: u64,
  checkedBlocks: u64,
  badBlocks: u64,
  readsMedium: bool,
});

const STORE_STATE = struct({
  sizeBytes: u64,
  usedBytes: u64,
  segmentsFree: u32,
  writeAmplification: f64,
  badBlocksHealed: u32,
  /** Bad blocks that wait for a good copy. */
  badBlocksWaiting: u32,
  /** Memory that the index takes, and pages of it that were read again. */
  indexBytes: u64,
  indexMisses: u64,
  scrub: SCRUB_STATUS,
});

/** Told to every peer once a second and at every change: for people, and for room (room.ts). */
const HOST_STATE = struct({
  /** 0 none, 1 ok, 2 failed. */
  disk: u8,
  complete: bool,
  /** It refuses writes to new blocks; the others see by `sizeBytes` when they must. */
  full: bool,
  ready: bool,
  why: text(512),
  store: STORE_STATE,
  /** Resync of this host, when it runs: source and progress. */
  resyncFrom: u8,
  resyncDone: u64,
  resyncTotal: u64,
  resyncRate: u64,
});
export type HostState = Decoded<typeof HOST_STATE>;

/** Most recent requests per origin that a joiner learns (R15). */
const RECENT_MAX = 256;

export const HOST_MESSAGE = union({
  state: { code: 1, body: HOST_STATE },
  /** Joiner to source: send every region from this place on, `credits` regions ahead. */
  copyStart: {
    code: 2,
    body: struct({ session: u32, epoch: u64, volume: u32, region: u32, credits: u16 }),
  },
  /** Joiner to source: `credits` more regions may travel. */
  copyCredit: { code: 3, body: struct({ session: u32, credits: u16 }) },
  /** Either side: this session is over (source leaves, joiner starts again elsewhere). */
  copyStop: { code: 4, body: struct({ session: u32, why: text(256) }) },
  /** Source to joiner: bytes of data there are to copy, for the progress bar. */
  copyTotal: { code: 5, body: struct({ session: u32, totalBytes: u64 }) },
  /** Source to joiner: newest requests per origin (R15). */
  recentRequests: {
    code: 6,
    body: struct({
      origins: list(
        struct({ origin: u16, originInc: u32, requests: list(u64, RECENT_MAX) }),
        LIMITS.hostCountMax,
      ),
    }),
  },
});
export type HostMessage = Decoded<typeof HOST_MESSAGE>;

/** The newest sync point, as the store's log keeps it (R10). */
export const STORE_POINT = struct({ epoch: u64, point: u32 });

/** Kinds of bulk frame. Append only. */
export const BULK = {
  forward: 1,
  forwardReply: 2,
  copy: 3,
  copyHole: 4,
  copyRegion: 5,
  copyLost: 6,
} as const;

/** A client's request for a member to execute (R15). WRITE data follow. */
export const FORWARD = layout(
  "forwarded request",
  { endian: "little", sizeBytes: 56 },
  {
    kind: "u8",
    command: "u8",
    /** Bit 0 FUA, bit 1 NO_HOLE. */
    flags: "u8",
    priority: "u8",
    volume: "u32",
    offset: "u64",
    lengthBytes: "u32",
    /** The origin's slot, echoed in the reply. */
    slot: "u32",
    /** Number of the request's first record at its origin; 0 for requests that write nothing. */
    request: "u64",
    /** Epoch in which the origin first tried it. */
    firstEpoch: "u64",
    originInc: "u32",
    /** 1 if an earlier proxy may have executed it. */
    retry: "u8",
    origin: "u8",
    /** Counts uses of the slot, so that a late answer finds nobody. */
    generation: "u16",
    /** The reader's limit: a read for repair is answered from the proxy's own store only. */
    localOnly: "u8",
    reserved0: "u8",
    reserved1: "u16",
    reserved2: "u32",
  },
);

/** The answer. READ data, or BLOCK_STATUS pairs of u32 (length, flags), follow. */
export const FORWARD_REPLY = layout(
  "forwarded reply",
  { endian: "little", sizeBytes: 16 },
  {
    kind: "u8",
    /** An outcome, or `FORWARD_AGAIN`. */
    outcome: "u8",
    generation: "u16",
    slot: "u32",
    lengthBytes: "u32",
    reserved: "u32",
  },
);
/** The proxy cannot execute now (not a member any more): ask another. */
export const FORWARD_AGAIN = 255;

/** Resync frames: `copy` has `blockCount` blocks behind it, the others have none; see BULK. */
export const COPY = layout(
  "resync copy",
  { endian: "little", sizeBytes: 48 },
  {
    kind: "u8",
    reserved0: "u8",
    reserved1: "u16",
    session: "u32",
    volume: "u32",
    blockCount: "u32",
    /** First block. In `copyRegion`: first block after the region(s) that are now whole. */
    lba: "u64",
    tagEpoch: "u64",
    tagPoint: "u32",
    /** In `copyRegion`: 1 when nothing follows. */
    last: "u32",
    reserved2: "u64",
  },
);

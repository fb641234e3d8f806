/**
 * The mirror's wire: frames on the data lane, messages on the control lane
 * (docs/protocol_mirror.md).
 *
 *   +----------------+----------------------------+----------------+-----
 *   | frame header   | payload: a record verbatim | frame header   | ...
 *   |      32 B      | (or opaque bytes of bulk)  |      32 B      |
 *   +----------------+----------------------------+----------------+-----
 *
 * The header has a checksum of its own: a flipped bit in `committed` would let a reader see an
 * uncommitted write, and a flipped length would desynchronise the stream. Records carry theirs.
 */
import { crc32 } from "../base/checksum.ts";
import { LIMITS } from "../base/limits.ts";
import { bool, type Codec, type Decoded, list, struct, u64, union } from "./codec.ts";
import { layout } from "./layout.ts";

/** Kinds of frame. Append only, never reuse. */
export const FRAME_TYPE = {
  /** A record of the stream (epoch, sender). */
  record: 1,
  /** R5: a retained record of a sealed epoch, of any sender. */
  reconcile: 2,
  /** Opaque bytes for the peer's host (resync copies, forwarded requests). */
  bulk: 3,
} as const;

export const FRAME = layout(
  "mirror frame",
  { endian: "little", sizeBytes: 32 },
  {
    /** CRC-32 of bytes 4 to 31. */
    check: "u32",
    /** Bytes after the header. */
    length: "u32",
    type: "u8",
    /** 0. */
    flags: "u8",
    /** Whose stream. */
    sender: "u16",
    reserved: "u32",
    epoch: "u64",
    /** What the sender of the frame knows committed of its own stream in `epoch`; else 0. */
    committed: "u64",
  },
);

export const FRAME_HEADER_BYTES = FRAME.sizeBytes;
/** Largest payload of one frame. */
export const FRAME_PAYLOAD_BYTES_MAX = LIMITS.dataFrameBytesMax - FRAME_HEADER_BYTES;

/** What a frame header says; reused by hot code. */
export class FrameHeader {
  type = 0;
  sender = 0;
  length = 0;
  epoch = 0;
  committed = 0;
}

/** Writes a header at `buffer[at, at+32)`. `view` is a DataView over `buffer`. */
export function encodeFrameHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  header: FrameHeader,
): void {
  FRAME.length.set(view, at, header.length);
  FRAME.type.set(view, at, header.type);
  FRAME.flags.set(view, at, 0);
  FRAME.sender.set(view, at, header.sender);
  FRAME.reserved.set(view, at, 0);
  FRAME.epoch.set(view, at, header.epoch);
  FRAME.committed.set(view, at, header.committed);
  FRAME.check.set(view, at, crc32(buffer, at + 4, FRAME_HEADER_BYTES - 4));
}

/** Decodes and checks the 32 bytes at `at`; false if anything is wrong (`out` is undefined). */
export function decodeFrameHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  out: FrameHeader,
): boolean {
  if (FRAME.check.get(view, at) !== crc32(buffer, at + 4, FRAME_HEADER_BYTES - 4)) return false;
  out.length = FRAME.length.get(view, at);
  out.type = FRAME.type.get(view, at);
  out.sender = FRAME.sender.get(view, at);
  out.epoch = FRAME.epoch.get(view, at);
  out.committed = FRAME.committed.get(view, at);
  if (out.length > FRAME_PAYLOAD_BYTES_MAX || out.sender >= LIMITS.hostCountMax) return false;
  if (out.epoch < 0 || out.committed < 0) return false;
  if (FRAME.flags.get(view, at) !== 0 || FRAME.reserved.get(view, at) !== 0) return false;
  return out.type >= FRAME_TYPE.record && out.type <= FRAME_TYPE.bulk;
}

/** Ranges of missing datagrams in one CASTNAK. */
export const NAK_RANGES_MAX = 64;

const range: Codec<{ from: number; count: number }> = struct({ from: u64, count: u64 });

/**
 * Control messages of the mirror. Each speaks of one stream, that of the message's receiver
 * (`ack`, `resume`, `castNak`, `castEcho`) or of its sender (the others), in `epoch`.
 */
export const MIRROR_MESSAGE = union({
  /** On every new link and at every new view: "send me your stream from `appended` + 1". */
  resume: {
    code: 1,
    body: struct({ epoch: u64, appended: u64, received: u64, durable: u64 }),
  },
  /** Cumulative: your records up to here are in my log / on my stable storage. */
  ack: { code: 2, body: struct({ epoch: u64, received: u64, durable: u64 }) },
  /** My stream is committed up to `seq`; sent when no frame carries it soon. */
  committed: { code: 3, body: struct({ epoch: u64, seq: u64 }) },
  /** R8: make durable all that you have, then answer. */
  barrier: { code: 4, body: struct({ epoch: u64, id: u64 }) },
  barrierDone: { code: 5, body: struct({ epoch: u64, id: u64, ok: bool }) },
  /** Multicast: my highest datagram so far (finds the loss of the last ones). */
  castStatus: { code: 6, body: struct({ epoch: u64, highest: u64 }) },
  /** Multicast: I have everything below `next`; of what follows, these are missing. */
  castNak: {
    code: 7,
    body: struct({ epoch: u64, next: u64, ranges: list(range, NAK_RANGES_MAX) }),
  },
  /** Multicast: count on datagrams from `number`, which starts with a frame. */
  castStart: { code: 8, body: struct({ epoch: u64, number: u64 }) },
  /** Multicast: you are served by the data lane from now on. */
  castStop: { code: 9, body: struct({ epoch: u64 }) },
  /** Multicast: your probe with this number reached me. */
  castEcho: { code: 10, body: struct({ epoch: u64, probe: u64 }) },
});
export type MirrorMessage = Decoded<typeof MIRROR_MESSAGE>;

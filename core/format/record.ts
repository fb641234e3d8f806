/**
 * The record: the unit of the log, and, byte for byte, of the mirror's stream.
 *
 *   +--------+  +-------+------+  +-------+------+
 *   | header |  | entry | 4096 |  | entry | 4096 |  ...   one entry and one block per lba
 *   |  80 B  |  | 16 B  |  B   |  | 16 B  |  B   |
 *   +--------+  +-------+------+  +-------+------+
 *
 * The header has its own checksum, so that lengths are trusted before the body is touched. Every
 * block is preceded by an entry with its checksum and its address: one contiguous read of
 * `ENTRY + BLOCK` bytes from anywhere in the log fetches and verifies one block (G5), and a block
 * found at the wrong place (misdirected or lost write) does not verify.
 *
 * All sizes are multiples of 16, so a place in the log fits an index entry in units of 16 bytes.
 */
import { CrcJoin, crc32, crc32Short } from "../base/checksum.ts";
import { LIMITS } from "../base/limits.ts";
import { BLOCK_BYTES, type HostId, type VolumeId } from "../base/units.ts";
import { layout } from "./layout.ts";

/** "vsR1" little-endian. */
export const RECORD_MAGIC = 0x31527376;

/** Kinds of record. On disk and on the wire: append only, never reuse. */
export const RECORD_TYPE = {
  /** `blockCount` blocks of data follow. */
  write: 1,
  /** `blockCount` blocks from `lba` become holes that read as zeros; no body. */
  zero: 2,
  /** A document of `bodyBytes` (at most 4 KiB, padded to 16) for slot `lba`. Never mirrored. */
  meta: 3,
  /** Resync: blocks copied from a member; like `write`, outside any stream (seq 0). */
  copy: 4,
  /** Resync: like `zero`, outside any stream (seq 0). */
  copyZero: 5,
  /** MARK(k): a sync point's mark in a sender's stream (R10); no body. */
  mark: 6,
  /** Resync: blocks of which no member has a good copy; reading them is an error. No body. */
  copyLost: 7,
} as const;
export type RecordType = (typeof RECORD_TYPE)[keyof typeof RECORD_TYPE];

export const RECORD = layout(
  "record header",
  { endian: "little", sizeBytes: 80 },
  {
    magic: "u32",
    /** CRC-32 of bytes 8 to 79. */
    headerCheck: "u32",
    type: "u8",
    /** Bit 0: FUA. Others 0. */
    flags: "u8",
    /** Host that executed the write. */
    sender: "u16",
    volume: "u32",
    blockCount: "u32",
    /** Bytes after the header. */
    bodyBytes: "u32",
    lba: "u64",
    epoch: "u64",
    /** Position in the stream (epoch, sender), from 1; 0 outside any stream. */
    seq: "u64",
    /** Number of the lease event that allowed the write (R9). */
    grant: "u64",
    /** Request number at its origin (R15); 0 = none. */
    request: "u64",
    /** Sync point the record is tagged with, (epoch, tagPoint) (R10). For copies: the region's. */
    tagPoint: "u32",
    originInc: "u32",
    /** Host whose client made the request. */
    origin: "u16",
    reserved: "u16",
    /** CRC-32 of a meta record's body; 0 otherwise (blocks carry their own). */
    bodyCheck: "u32",
  },
);

export const ENTRY = layout(
  "block entry",
  { endian: "little", sizeBytes: 16 },
  {
    /** CRC-32 of the 12 bytes after it and the 4096 bytes of the block. */
    check: "u32",
    volume: "u32",
    lba: "u64",
  },
);

export const RECORD_HEADER_BYTES = RECORD.sizeBytes;
/** One block with its entry, as it lies in the log. */
export const STORED_BLOCK_BYTES = ENTRY.sizeBytes + BLOCK_BYTES;

/** Bytes of a whole record with `blockCount` blocks of data. */
export function writeRecordBytes(blockCount: number): number {
  return RECORD_HEADER_BYTES + blockCount * STORED_BLOCK_BYTES;
}

/** Largest record, bytes. */
export const RECORD_BYTES_MAX = writeRecordBytes(LIMITS.recordBlocksMax);

/** What a record's header says; plain numbers, reused by hot code. */
export class RecordHeader {
  type = 0;
  flags = 0;
  sender = 0;
  volume = 0;
  blockCount = 0;
  bodyBytes = 0;
  lba = 0;
  epoch = 0;
  seq = 0;
  grant = 0;
  request = 0;
  tagPoint = 0;
  originInc = 0;
  origin = 0;
}

/** True if records of this type carry blocks of data. */
export function hasBlocks(type: number): boolean {
  return type === RECORD_TYPE.write || type === RECORD_TYPE.copy;
}

/**
 * Encodes `header` at `buffer[at, at+80)` with its checksum. For a meta record the body must
 * already lie behind it. `view` is a DataView over `buffer`.
 */
export function encodeRecordHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  header: RecordHeader,
): void {
  RECORD.magic.set(view, at, RECORD_MAGIC);
  RECORD.type.set(view, at, header.type);
  RECORD.flags.set(view, at, header.flags);
  RECORD.sender.set(view, at, header.sender);
  RECORD.volume.set(view, at, header.volume);
  RECORD.blockCount.set(view, at, header.blockCount);
  RECORD.bodyBytes.set(view, at, header.bodyBytes);
  RECORD.lba.set(view, at, header.lba);
  RECORD.epoch.set(view, at, header.epoch);
  RECORD.seq.set(view, at, header.seq);
  RECORD.grant.set(view, at, header.grant);
  RECORD.request.set(view, at, header.request);
  RECORD.tagPoint.set(view, at, header.tagPoint);
  RECORD.originInc.set(view, at, header.originInc);
  RECORD.origin.set(view, at, header.origin);
  RECORD.reserved.set(view, at, 0);
  const isMeta = header.type === RECORD_TYPE.meta;
  const bodyCheck = isMeta ? crc32(buffer, at + RECORD_HEADER_BYTES, header.bodyBytes) : 0;
  RECORD.bodyCheck.set(view, at, bodyCheck);
  RECORD.headerCheck.set(view, at, crc32(buffer, at + 8, RECORD_HEADER_BYTES - 8));
}

/**
 * Decodes and checks the header at `at`: magic, checksum, type, and that its lengths agree with
 * each other and with every limit. False if anything is wrong; `out` is then undefined. At least
 * 80 bytes must be there; the body need not be.
 */
export function decodeRecordHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  out: RecordHeader,
): boolean {
  if (RECORD.magic.get(view, at) !== RECORD_MAGIC) return false;
  const check = crc32(buffer, at + 8, RECORD_HEADER_BYTES - 8);
  if (RECORD.headerCheck.get(view, at) !== check) return false;
  out.type = RECORD.type.get(view, at);
  out.flags = RECORD.flags.get(view, at);
  out.sender = RECORD.sender.get(view, at);
  out.volume = RECORD.volume.get(view, at);
  out.blockCount = RECORD.blockCount.get(view, at);
  out.bodyBytes = RECORD.bodyBytes.get(view, at);
  out.lba = RECORD.lba.get(view, at);
  out.epoch = RECORD.epoch.get(view, at);
  out.seq = RECORD.seq.get(view, at);
  out.grant = RECORD.grant.get(view, at);
  out.request = RECORD.request.get(view, at);
  out.tagPoint = RECORD.tagPoint.get(view, at);
  out.originInc = RECORD.originInc.get(view, at);
  out.origin = RECORD.origin.get(view, at);
  return headerIsSound(out);
}

function headerIsSound(header: RecordHeader): boolean {
  if (header.lba < 0 || header.epoch < 0 || header.seq < 0 || header.grant < 0) return false;
  if (header.request < 0 || header.flags > 1 || header.sender >= LIMITS.hostCountMax) return false;
  if (header.lba + header.blockCount > 2 ** 40) return false;
  switch (header.type) {
    case RECORD_TYPE.write:
    case RECORD_TYPE.copy:
      return (
        header.blockCount >= 1 &&
        header.blockCount <= LIMITS.recordBlocksMax &&
        header.bodyBytes === header.blockCount * STORED_BLOCK_BYTES
      );
    case RECORD_TYPE.zero:
    case RECORD_TYPE.copyZero:
      return header.blockCount >= 1 && header.bodyBytes === 0;
    case RECORD_TYPE.copyLost:
      return (
        header.blockCount >= 1 &&
        header.blockCount <= LIMITS.recordBlocksMax &&
        header.bodyBytes === 0
      );
    case RECORD_TYPE.mark:
      return header.blockCount === 0 && header.bodyBytes === 0;
    case RECORD_TYPE.meta:
      return header.bodyBytes <= LIMITS.metaBytesMax && header.bodyBytes % 16 === 0;
    default:
      return false;
  }
}

/** Writes the entry of the block that lies at `at + 16`. */
export function encodeEntry(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  volume: VolumeId | number,
  lba: number,
): void {
  ENTRY.volume.set(view, at, volume);
  ENTRY.lba.set(view, at, lba);
  ENTRY.check.set(view, at, crc32(buffer, at + 4, STORED_BLOCK_BYTES - 4));
}

/** True if the stored block at `at` is whole and is block `lba` of `volume`. */
export function verifyEntry(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  volume: VolumeId | number,
  lba: number,
): boolean {
  return (
    ENTRY.check.get(view, at) === crc32(buffer, at + 4, STORED_BLOCK_BYTES - 4) &&
    ENTRY.volume.get(view, at) === volume &&
    ENTRY.lba.get(view, at) === lba
  );
}

/** `verifyEntry` for an entry at `entryAt` of one buffer and its block at `blockAt` of another. */
export function verifyPair(
  entries: Uint8Array,
  view: DataView,
  entryAt: number,
  blocks: Uint8Array,
  blockAt: number,
  volume: VolumeId | number,
  lba: number,
): boolean {
  const seed = crc32Short(entries, entryAt + 4, ENTRY.sizeBytes - 4);
  return (
    ENTRY.check.get(view, entryAt) === crc32(blocks, blockAt, BLOCK_BYTES, seed) &&
    ENTRY.volume.get(view, entryAt) === volume &&
    ENTRY.lba.get(view, entryAt) === lba
  );
}

/**
 * Checks a whole record of `length` bytes at `at`: header, every block's entry, or a meta body.
 * False if any byte is wrong. Used by mirror receivers before they append verbatim.
 */
export function verifyRecord(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  length: number,
  out: RecordHeader,
): boolean {
  if (length < RECORD_HEADER_BYTES || !decodeRecordHeader(buffer, view, at, out)) return false;
  if (length !== RECORD_HEADER_BYTES + out.bodyBytes) return false;
  const body = at + RECORD_HEADER_BYTES;
  if (out.type === RECORD_TYPE.meta) {
    return RECORD.bodyCheck.get(view, at) === crc32(buffer, body, out.bodyBytes);
  }
  if (!hasBlocks(out.type)) return true;
  for (let index = 0; index < out.blockCount; index += 1) {
    const entryAt = body + index * STORED_BLOCK_BYTES;
    if (!verifyEntry(buffer, view, entryAt, out.volume, out.lba + index)) return false;
  }
  return true;
}

/** What an entry's checksum is about. */
const CHECKED_BYTES = STORED_BLOCK_BYTES - 4;
const checkedJoin = new CrcJoin(CHECKED_BYTES);

/**
 * CRC-32 of a whole record at `at`, continuing from `seed`. Its blocks are not read again: their
 * entries, which were just made or verified, say their part. A block that changes in memory after
 * that verifies neither by its entry nor by this.
 */
export function recordCrc(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  length: number,
  seed: number,
): number {
  if (!hasBlocks(RECORD.type.get(view, at))) return crc32(buffer, at, length, seed);
  let check = crc32(buffer, at, RECORD_HEADER_BYTES, seed);
  const end = at + length;
  for (let entryAt = at + RECORD_HEADER_BYTES; entryAt < end; entryAt += STORED_BLOCK_BYTES) {
    check = crc32Short(buffer, entryAt, 4, check);
    check = checkedJoin.join(check, ENTRY.check.get(view, entryAt));
  }
  return check;
}

/** Whose stream a header belongs to. */
export function senderOf(header: RecordHeader): HostId {
  return header.sender as HostId;
}

/**
 * What lies in a segment: batches. A batch is what one write to the disk added to the log.
 *
 *   +--------------+--------+--------+-----+---------------------------+
 *   | batch header | item 0 | item 1 | ... | directory, 16 B per item  |
 *   |     80 B     |        |        |     |                           |
 *   +--------------+--------+--------+-----+---------------------------+
 *
 * An item is a record (`record.ts`, byte for byte as mirrored) or one of the store's own items,
 * which have a header of 32 bytes. A batch begins right behind the one before it if that one is
 * not durable yet, else at the next multiple of 4096, so no durable byte is ever written again.
 *
 * Batches of one lane form a chain: `seq` only ever grows over the life of the store, both lanes
 * draw from one counter, and `previousSeq` names the lane's batch before. So stale bytes of a
 * segment's earlier life are never taken for log. `durableSeq` says what was on stable storage
 * when the batch was written: a gap below it is damage, a gap above it is the torn end.
 *
 * The directory repeats what each item is about: a record whose header rotted can still be named.
 */
import { crc32 } from "../base/checksum.ts";
import { roundUp } from "../base/units.ts";
import { layout } from "./layout.ts";
import { STORED_BLOCK_BYTES } from "./record.ts";

/** "vsB1" little-endian. */
export const BATCH_MAGIC = 0x31427376;
/** "vsI1" little-endian. */
export const ITEM_MAGIC = 0x31497376;

/** Lanes of the log: what clients write, and what the store itself moves and checkpoints. */
export const LOG_LANE = { hot: 0, cold: 1 } as const;

export const BATCH = layout(
  "batch header",
  { endian: "little", sizeBytes: 80 },
  {
    magic: "u32",
    /** CRC-32 of bytes 8 to 79. */
    headerCheck: "u32",
    storeIdLow: "u32",
    storeIdHigh: "u32",
    /** Session (one open of the store) that wrote it. */
    session: "u32",
    lane: "u8",
    reservedA: "u8",
    reservedB: "u16",
    seq: "u64",
    previousSeq: "u64",
    durableSeq: "u64",
    /** Where this header lies, in units of 16 bytes. */
    place: "u64",
    /** Bytes from this header to the end of the directory. */
    lengthBytes: "u32",
    itemCount: "u32",
    /** Segment in which the lane goes on when this one is full. */
    successor: "u32",
    /** CRC-32 of everything after this header. */
    bodyCheck: "u32",
    /** CRC-32 of the directory alone. */
    directoryCheck: "u32",
    reservedC: "u32",
  },
);

export const DIRECTORY = layout(
  "directory entry",
  { endian: "little", sizeBytes: 16 },
  {
    volume: "u32",
    lbaLow: "u32",
    lbaHigh: "u8",
    /** Type of the record, or 128 + kind of the item. */
    type: "u8",
    reserved: "u16",
    /** Blocks of a record that covers blocks; else the item's bytes after its header. */
    count: "u32",
  },
);

/** Kinds of the store's own items. On disk: append only, never reuse. */
export const ITEM_KIND = {
  /**
   * `number` blocks moved by the cleaner, verbatim with entries; behind them the place of each
   * (MOVE_SOURCE) before. A move counts for every version of the volume whose index names exactly
   * that place.
   */
  move: 1,
  /** A page of the index. */
  page: 2,
  /** A node of the index: the pages and tags of 256 regions. */
  node: 3,
  /** A chunk of a checkpoint's root. */
  root: 4,
  /** The volume `subject`, as it is now, is kept as snapshot `number`. No body. */
  snapshot: 5,
  /** Snapshot `number` of the volume `subject` is given up. No body. */
  drop: 6,
} as const;

export const ITEM = layout(
  "item header",
  { endian: "little", sizeBytes: 32 },
  {
    magic: "u32",
    /** CRC-32 of bytes 8 to 31. */
    headerCheck: "u32",
    kind: "u8",
    /** Of a page: 0 dense, 1 sparse. */
    form: "u8",
    /** Of a sparse page: entries. */
    count: "u16",
    bodyBytes: "u32",
    /** CRC-32 of the body; of a move: of the places alone (its blocks carry their own). */
    bodyCheck: "u32",
    /** Segment moved from, volume of a page, node or snapshot, number of a root chunk. */
    subject: "u32",
    /**
     * Blocks of a move, region of a page, number of a node or snapshot, place of a root's chunk
     * before (0 = none).
     */
    number: "u64",
  },
);

export const MOVE_SOURCE = layout(
  "move source",
  { endian: "little", sizeBytes: 8 },
  {
    /** Where the block's entry lay, in units of 16 bytes. */
    place: "u64",
  },
);

export const BATCH_HEADER_BYTES = BATCH.sizeBytes;
export const ITEM_HEADER_BYTES = ITEM.sizeBytes;
export const DIRECTORY_ENTRY_BYTES = DIRECTORY.sizeBytes;
/** Unit of places in the log, bytes. */
export const PLACE_UNIT = 16;

/** A batch header as plain numbers; reused. */
export class BatchHeader {
  storeIdLow = 0;
  storeIdHigh = 0;
  session = 0;
  lane = 0;
  seq = 0;
  previousSeq = 0;
  durableSeq = 0;
  place = 0;
  lengthBytes = 0;
  itemCount = 0;
  successor = 0;
  bodyCheck = 0;
  directoryCheck = 0;
}

/**
 * Encodes the header at `at`; items and directory must lie behind it already. `itemsCheck` is the
 * CRC-32 of the items.
 */
export function encodeBatchHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  header: BatchHeader,
  itemsCheck: number,
): void {
  const directoryBytes = header.itemCount * DIRECTORY_ENTRY_BYTES;
  const end = at + header.lengthBytes;
  header.directoryCheck = crc32(buffer, end - directoryBytes, directoryBytes);
  header.bodyCheck = crc32(buffer, end - directoryBytes, directoryBytes, itemsCheck);
  BATCH.magic.set(view, at, BATCH_MAGIC);
  BATCH.storeIdLow.set(view, at, header.storeIdLow);
  BATCH.storeIdHigh.set(view, at, header.storeIdHigh);
  BATCH.session.set(view, at, header.session);
  BATCH.lane.set(view, at, header.lane);
  BATCH.reservedA.set(view, at, 0);
  BATCH.reservedB.set(view, at, 0);
  BATCH.seq.set(view, at, header.seq);
  BATCH.previousSeq.set(view, at, header.previousSeq);
  BATCH.durableSeq.set(view, at, header.durableSeq);
  BATCH.place.set(view, at, header.place);
  BATCH.lengthBytes.set(view, at, header.lengthBytes);
  BATCH.itemCount.set(view, at, header.itemCount);
  BATCH.successor.set(view, at, header.successor);
  BATCH.bodyCheck.set(view, at, header.bodyCheck);
  BATCH.directoryCheck.set(view, at, header.directoryCheck);
  BATCH.reservedC.set(view, at, 0);
  BATCH.headerCheck.set(view, at, crc32(buffer, at + 8, BATCH_HEADER_BYTES - 8));
}

/** Decodes and checks the header at `at` (80 bytes must be there), not the body. */
export function decodeBatchHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  out: BatchHeader,
): boolean {
  if (BATCH.magic.get(view, at) !== BATCH_MAGIC) return false;
  const check = crc32(buffer, at + 8, BATCH_HEADER_BYTES - 8);
  if (BATCH.headerCheck.get(view, at) !== check) return false;
  out.storeIdLow = BATCH.storeIdLow.get(view, at);
  out.storeIdHigh = BATCH.storeIdHigh.get(view, at);
  out.session = BATCH.session.get(view, at);
  out.lane = BATCH.lane.get(view, at);
  out.seq = BATCH.seq.get(view, at);
  out.previousSeq = BATCH.previousSeq.get(view, at);
  out.durableSeq = BATCH.durableSeq.get(view, at);
  out.place = BATCH.place.get(view, at);
  out.lengthBytes = BATCH.lengthBytes.get(view, at);
  out.itemCount = BATCH.itemCount.get(view, at);
  out.successor = BATCH.successor.get(view, at);
  out.bodyCheck = BATCH.bodyCheck.get(view, at);
  out.directoryCheck = BATCH.directoryCheck.get(view, at);
  if (out.seq < 1 || out.previousSeq < 0 || out.previousSeq >= out.seq) return false;
  if (out.durableSeq < 0 || out.durableSeq >= out.seq || out.lane > 1) return false;
  if (out.lengthBytes % PLACE_UNIT !== 0) return false;
  return out.lengthBytes >= BATCH_HEADER_BYTES + out.itemCount * DIRECTORY_ENTRY_BYTES;
}

/** Writes one directory entry at `at`. */
export function encodeDirectory(
  view: DataView,
  at: number,
  type: number,
  volume: number,
  lba: number,
  count: number,
): void {
  DIRECTORY.volume.set(view, at, volume);
  DIRECTORY.lbaLow.set(view, at, lba >>> 0);
  DIRECTORY.lbaHigh.set(view, at, Math.floor(lba / 4294967296));
  DIRECTORY.type.set(view, at, type);
  DIRECTORY.reserved.set(view, at, 0);
  DIRECTORY.count.set(view, at, count);
}

/** An item header as plain numbers; reused. */
export class ItemHeader {
  kind = 0;
  form = 0;
  count = 0;
  bodyBytes = 0;
  bodyCheck = 0;
  subject = 0;
  number = 0;
}

/** Bytes of a move's body without the places: `blockCount` blocks with their entries. */
export function movedBytes(blockCount: number): number {
  return blockCount * STORED_BLOCK_BYTES;
}

/** Bytes of the body of a move of so many blocks. */
export function moveBodyBytes(blockCount: number): number {
  return movedBytes(blockCount) + roundUp(blockCount * MOVE_SOURCE.sizeBytes, PLACE_UNIT);
}

/** Encodes the header at `at`; the body must lie behind it already. */
export function encodeItemHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  header: ItemHeader,
): void {
  header.bodyCheck = bodyCheckOf(buffer, at, header);
  ITEM.magic.set(view, at, ITEM_MAGIC);
  ITEM.kind.set(view, at, header.kind);
  ITEM.form.set(view, at, header.form);
  ITEM.count.set(view, at, header.count);
  ITEM.bodyBytes.set(view, at, header.bodyBytes);
  ITEM.bodyCheck.set(view, at, header.bodyCheck);
  ITEM.subject.set(view, at, header.subject);
  ITEM.number.set(view, at, header.number);
  ITEM.headerCheck.set(view, at, crc32(buffer, at + 8, ITEM_HEADER_BYTES - 8));
}

/** Decodes and checks the header at `at`, not the body. */
export function decodeItemHeader(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  out: ItemHeader,
): boolean {
  if (ITEM.magic.get(view, at) !== ITEM_MAGIC) return false;
  const check = crc32(buffer, at + 8, ITEM_HEADER_BYTES - 8);
  if (ITEM.headerCheck.get(view, at) !== check) return false;
  out.kind = ITEM.kind.get(view, at);
  out.form = ITEM.form.get(view, at);
  out.count = ITEM.count.get(view, at);
  out.bodyBytes = ITEM.bodyBytes.get(view, at);
  out.bodyCheck = ITEM.bodyCheck.get(view, at);
  out.subject = ITEM.subject.get(view, at);
  out.number = ITEM.number.get(view, at);
  if (out.kind === ITEM_KIND.move && out.bodyBytes !== moveBodyBytes(out.number)) return false;
  return out.kind >= 1 && out.kind <= 6 && out.bodyBytes % PLACE_UNIT === 0 && out.number >= 0;
}

/** True if the body behind a decoded item header is whole; of a move: its places. */
export function itemBodyIsWhole(buffer: Uint8Array, at: number, header: ItemHeader): boolean {
  return header.bodyCheck === bodyCheckOf(buffer, at, header);
}

function bodyCheckOf(buffer: Uint8Array, at: number, header: ItemHeader): number {
  const skipped = header.kind === ITEM_KIND.move ? movedBytes(header.number) : 0;
  return crc32(buffer, at + ITEM_HEADER_BYTES + skipped, header.bodyBytes - skipped);
}

/**
 * A batch being collected in memory: one log buffer, its items and their directory.
 *
 * The buffer's first byte stands for a multiple of 4096 on disk, so that the write is aligned; if
 * the batch begins inside that page, what lies before it is repeated from the batch before.
 */
import { crc32 } from "../base/checksum.ts";
import { recordCrc } from "../format/record.ts";
import { DIRECTORY_ENTRY_BYTES, encodeDirectory } from "../format/segment.ts";

/** Items in a batch; more begin a new one. */
export const BATCH_ITEMS_MAX = 4096;

export const BATCH_STATE = { free: 0, collecting: 1, sealed: 2, inFlight: 3 } as const;

export class LogBatch {
  readonly buffer: Uint8Array;
  readonly view: DataView;
  state: number = BATCH_STATE.free;
  /** Disk offset of the buffer's first byte. */
  diskOffset = 0;
  segment = 0;
  successor = 0;
  /** Memory position of the batch header. */
  headerAt = 0;
  /** Memory position behind the last item. */
  at = 0;
  /** Memory position that items and directory must not pass. */
  limit = 0;
  itemCount = 0;
  /** CRC-32 of the items so far. */
  itemsCheck = 0;
  /** Bytes of the buffer that its write takes: itself, padding, zeros behind it (log_primer.ts). */
  writeBytes = 0;
  /** Begins in the last page of the batch before. */
  isPacked = false;
  /** The lane's log position behind its last item. */
  endLsn = 0;
  /** Its number and that of the lane's batch before it; set when it is sealed. */
  seq = 0;
  previousSeq = 0;
  private directory = new Uint8Array(64 * DIRECTORY_ENTRY_BYTES);
  private directoryView = new DataView(this.directory.buffer);

  constructor(buffer: Uint8Array) {
    this.buffer = buffer;
    this.view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  /** Notes an item of `length` bytes that was put at `at`. */
  add(type: number, volume: number, lba: number, count: number, length: number): void {
    const entryAt = this.itemCount * DIRECTORY_ENTRY_BYTES;
    if (entryAt === this.directory.length) this.growDirectory();
    encodeDirectory(this.directoryView, entryAt, type, volume, lba, count);
    this.itemsCheck = isItem(type)
      ? crc32(this.buffer, this.at, length, this.itemsCheck)
      : recordCrc(this.buffer, this.view, this.at, length, this.itemsCheck);
    this.itemCount += 1;
    this.at += length;
  }

  private growDirectory(): void {
    const grown = new Uint8Array(this.directory.length * 2);
    grown.set(this.directory);
    this.directory = grown;
    this.directoryView = new DataView(grown.buffer);
  }

  /** Puts the directory behind the items; returns the batch's end in memory. */
  closeBody(): number {
    const bytes = this.itemCount * DIRECTORY_ENTRY_BYTES;
    this.buffer.set(this.directory.subarray(0, bytes), this.at);
    return this.at + bytes;
  }

  /** Memory position behind the directory if the batch were closed now. */
  get end(): number {
    return this.at + this.itemCount * DIRECTORY_ENTRY_BYTES;
  }
}

/** One of the store's own items, not a record (format.md, "directory entry"). */
function isItem(type: number): boolean {
  return type >= 128;
}

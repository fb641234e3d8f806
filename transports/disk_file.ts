/**
 * What both disk backends share: the open file, its memory, reads that need no waiting, and the
 * decision which writes need none either.
 *
 * Why writes are made inline (measured on ext4, Linux 6.18, virtio, 2 cores, us per operation:
 * wall / CPU, preallocated file):
 *
 *                     4 KiB QD1    4 KiB QD32   128 KiB QD1   128 KiB QD32
 *   pwrite inline      6.0 / 6.1    3.1 / 3.1    22 / 23       23 / 23
 *   io_uring WRITE      58 / 47     7.8 / 15    336 / 319      24 / 35
 *
 * ext4 has no non-blocking buffered write (RWF_NOWAIT is refused), so io_uring hands every one
 * to a kernel worker. A buffered write only copies into the page cache, and while another thread
 * ran fdatasync on the same file without pause its p99.9 was 61 us (4 KiB) and 0.5 ms (64 KiB on
 * unwritten extents), at most 7 ms. It may really block in four cases, which go to the backend's
 * asynchronous path instead:
 *  1. too much unflushed data (the kernel throttles writers): more than `INLINE_DIRTY_BYTES_MAX`
 *     written since the last finished sync;
 *  2. a disk that hangs (journal or page locks are held): a sync is unanswered for
 *     `INLINE_STALL_MS_MAX`;
 *  3. the same without a sync: of the asynchronous operations in flight none came back for as long;
 *  4. a file system whose writes go through a server (`isRemote`): FUSE, NFS, SMB, 9P, Ceph.
 * What is left: the first write to a hung local disk after an idle time, if the file system makes
 * it wait (a full journal); nothing was in flight that could have told.
 */
import { closeSync, constants, openSync } from "node:fs";
import { totalmem } from "node:os";
import { MIB } from "../core/base/units.ts";
import { assert } from "../core/base/assert.ts";
import { ERRNO, MEDIUM_ALIGN, READ_PAIRS_MAX, type ReadPairs } from "../core/base/ports.ts";
import { addressOf, errno, libc, mapMemory } from "./libc.ts";

/**
 * Far below where the kernel begins to throttle: (dirty_background_ratio + dirty_ratio) / 2 is
 * 15 % of the free memory by default. A fixed 64 MiB sent most 1 MiB writes to kernel workers.
 */
const INLINE_DIRTY_BYTES_MAX = Math.max(64 * MIB, Math.min(totalmem() / 64, 512 * MIB));
const INLINE_STALL_MS_MAX = 100;
/**
 * A whole log buffer: its copy holds the loop for up to a millisecond. Handed over above 256 KiB,
 * 1 MiB writes cost 1.4 ms of CPU each instead of 1.2 ms, on the same two cores.
 */
const INLINE_WRITE_BYTES_MAX = 4 * MIB;
const RWF_NOWAIT = 8;
const ADVISE_DONTNEED = 4;
const SEEK_DATA = 3;
const IOVEC_BYTES = 16;
/** Smallest piece of memory given out, so that it is never a small typed array, which moves. */
const ALLOCATE_BYTES_MIN = 4096;
export const LOCK_EXCLUSIVE_NOW = 2 | 4;

/** Where completions go. Neither method may throw. */
export interface DiskEvents {
  done(tag: number, result: number): void;
  /** After each group of `done`. */
  batch(): void;
}

/** An open, locked file or block device. */
export class DiskFile {
  readonly path: string;
  readonly fd: number;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly isDevice: boolean;
  /** See `Disk.isThin`. A device may be thin below as well, but cannot be asked for room. */
  readonly isThin: boolean;
  /** Its file system may ask a server for every write. */
  readonly isRemote: boolean;
  /**
   * A second descriptor that passes the page cache (O_DIRECT; the kernel writes dirty pages of the
   * range back first), or `fd` where the file system refuses one, such as tmpfs before Linux 6.6.
   */
  readonly mediumFd: number;
  private readonly symbols = libc();
  private readonly memory: Uint8Array[] = [];
  /** Pieces of memory for one synchronous call, each an address and a length of 64 bits. */
  private readonly iovec = mapMemory(2 * READ_PAIRS_MAX * IOVEC_BYTES);
  private readonly iovecWords = new Uint32Array(this.iovec.bytes.buffer);
  private writtenBytes = 0;
  private flushedBytes = 0;
  private syncWrittenBytes = 0;
  private nextWrittenBytes = 0;
  private syncCount = 0;
  private syncStartedMs = 0;
  private pendingCount = 0;
  private pendingMovedMs = 0;

  constructor(open: {
    readonly path: string;
    readonly fd: number;
    readonly sizeBytes: number;
    readonly sectorBytes: number;
    readonly isDevice: boolean;
    readonly isThin: boolean;
    readonly isRemote: boolean;
  }) {
    this.path = open.path;
    this.fd = open.fd;
    this.sizeBytes = open.sizeBytes;
    this.sectorBytes = open.sectorBytes;
    this.isDevice = open.isDevice;
    this.isThin = open.isThin;
    this.isRemote = open.isRemote;
    this.mediumFd = openMedium(open.fd);
  }

  /** See `Disk.keepsSpace`. */
  get keepsSpace(): boolean {
    return !this.isDevice && !this.isThin;
  }

  get readsMedium(): boolean {
    return this.mediumFd !== this.fd;
  }

  /** To be called before a read by `mediumFd`: without O_DIRECT clean cached pages are let go. */
  prepareMedium(offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.check(offset, buffer, at, length);
    const isAligned = offset % MEDIUM_ALIGN === 0 && (at | length) % MEDIUM_ALIGN === 0;
    assert(isAligned, "disk: unaligned read of the medium");
    if (!this.readsMedium) {
      this.symbols.posix_fadvise(this.fd, offset, length, ADVISE_DONTNEED);
    }
  }

  allocate(lengthBytes: number): Uint8Array {
    assert(lengthBytes > 0 && Number.isSafeInteger(lengthBytes), "disk: bad length to allocate");
    const { bytes } = mapMemory(Math.max(lengthBytes, ALLOCATE_BYTES_MIN));
    this.memory.push(bytes);
    return lengthBytes === bytes.length ? bytes : bytes.subarray(0, lengthBytes);
  }

  /** See `Disk.readNow`. Every failure is -EAGAIN: the waiting read will name the true one. */
  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number {
    this.check(offset, buffer, at, length);
    this.setPiece(0, addressOf(buffer) + at, length);
    return this.readPieces(offset, 1);
  }

  /** See `Disk.readPairsNow`. Every failure is -EAGAIN, as above. */
  readPairsNow(offset: number, pairs: ReadPairs): number {
    const { count, headBytes, bodyBytes } = pairs;
    assert(count > 0 && count <= READ_PAIRS_MAX, "disk: pairs");
    this.check(offset, pairs.heads, 0, count * headBytes);
    this.check(offset + count * headBytes, pairs.bodies, pairs.bodiesAt, count * bodyBytes);
    let head = addressOf(pairs.heads);
    let body = addressOf(pairs.bodies) + pairs.bodiesAt;
    for (let piece = 0; piece < 2 * count; piece += 2) {
      this.setPiece(piece, head, headBytes);
      this.setPiece(piece + 1, body, bodyBytes);
      head += headBytes;
      body += bodyBytes;
    }
    return this.readPieces(offset, 2 * count);
  }

  /**
   * Writes at once if that is not expected to wait. All bytes; -EAGAIN or a short count: write all
   * asynchronously; or another -errno: the write failed and must not be tried again.
   */
  writeNow(offset: number, address: number, length: number): number {
    if (this.isRemote || length > INLINE_WRITE_BYTES_MAX) return -ERRNO.EAGAIN;
    if (this.writtenBytes - this.flushedBytes > INLINE_DIRTY_BYTES_MAX) return -ERRNO.EAGAIN;
    if (this.isStalled) return -ERRNO.EAGAIN;
    const count = Number(this.symbols.pwrite(this.fd, address, length, offset));
    return count < 0 ? -refusalOf(errno()) : count;
  }

  /**
   * See `Disk.isUnwritten`. SEEK_DATA passes over holes and unwritten extents (man lseek(2)); the
   * file's position, which it moves, is used by nobody.
   */
  isUnwritten(offset: number, length: number): boolean {
    if (this.isDevice || this.isRemote) return false;
    const data = Number(this.symbols.lseek(this.fd, offset, SEEK_DATA));
    return data < 0 ? errno() === ERRNO.ENXIO : data >= offset + length;
  }

  /** Nothing comes back from the disk. */
  private get isStalled(): boolean {
    const hasSync = this.syncCount > 0;
    if (!hasSync && this.pendingCount === 0) return false;
    const nowMs = performance.now();
    if (hasSync && nowMs - this.syncStartedMs > INLINE_STALL_MS_MAX) return true;
    return this.pendingCount > 0 && nowMs - this.pendingMovedMs > INLINE_STALL_MS_MAX;
  }

  /** An asynchronous operation is handed to the kernel, or came back. */
  pendingBegins(): void {
    if (this.pendingCount === 0) this.pendingMovedMs = performance.now();
    this.pendingCount += 1;
  }

  pendingEnds(): void {
    assert(this.pendingCount > 0, "disk: an operation ended that never began");
    this.pendingCount -= 1;
    if (this.pendingCount > 0) this.pendingMovedMs = performance.now();
  }

  /** Asserts that a range lies on the disk and in the buffer. */
  check(offset: number, buffer: Uint8Array, at: number, length: number): void {
    assert(offset >= 0 && length >= 0 && at >= 0, "disk: negative range");
    assert(offset + length <= this.sizeBytes, "disk: range past the end");
    assert(at + length <= buffer.length, "disk: range past the buffer");
  }

  /** Accounts for a finished write, inline or not. */
  wrote(lengthBytes: number): void {
    this.writtenBytes += lengthBytes;
  }

  syncBegins(): void {
    if (this.syncCount === 0) {
      this.syncStartedMs = performance.now();
      this.syncWrittenBytes = this.writtenBytes;
    }
    this.nextWrittenBytes = this.writtenBytes;
    this.syncCount += 1;
  }

  /**
   * One of the syncs in flight ended. Which one does not matter: this only estimates how much is
   * unflushed, and the next to end covers at least what the one before it did.
   */
  syncEnds(result: number): void {
    assert(this.syncCount > 0, "disk: a sync ended that never began");
    this.syncCount -= 1;
    this.syncStartedMs = performance.now();
    if (result === 0) this.flushedBytes = this.syncWrittenBytes;
    this.syncWrittenBytes = this.nextWrittenBytes;
  }

  /** Releases the lock and the file. Its memory stays mapped: buffers may still be referenced. */
  close(): void {
    if (this.readsMedium) closeSync(this.mediumFd);
    this.symbols.close(this.fd);
  }

  private setPiece(piece: number, address: number, length: number): void {
    const word = piece * 4;
    this.iovecWords[word] = address >>> 0;
    this.iovecWords[word + 1] = Math.floor(address / 4294967296);
    this.iovecWords[word + 2] = length;
  }

  /** Nothing read although a range inside the disk was asked for is no answer either. */
  private readPieces(offset: number, pieces: number): number {
    const { address } = this.iovec;
    const count = Number(this.symbols.preadv2(this.fd, address, pieces, offset, RWF_NOWAIT));
    return count > 0 ? count : -ERRNO.EAGAIN;
  }
}

/** What a failed write is answered with: only what says "later" is tried again. */
function refusalOf(code: number): number {
  return code === 0 || code === ERRNO.EINTR ? ERRNO.EAGAIN : code;
}

/** The same file once more, by its descriptor: its path may have another file by now. */
function openMedium(fd: number): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_DIRECT);
  } catch {
    return fd; // Said by `readsMedium`.
  }
}

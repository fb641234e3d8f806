/**
 * One io_uring by pure FFI (man io_uring(7), linux/io_uring.h): submission entries are written
 * into shared memory, one `enter` hands over all of them, completions are read from shared
 * memory.
 *
 * Completions wake the loop through an eventfd read by `Bun.file(fd).stream()`, which Bun polls
 * with epoll. That is undocumented, so `selfTest` proves it before anything relies on it (canary
 * `eventfd_stream`).
 *
 * Invariants
 *  1. Entries between the kernel's head and our tail belong to the kernel.
 *  2. At most `entries` submissions are unfinished, so the completion ring, which has twice as
 *     many, never overflows.
 */
import { assert } from "../core/base/assert.ts";
import { bytesAt, errno, libc, mapMemory, scratchMemory } from "./libc.ts";

const SYS_SETUP = 425;
const SYS_ENTER = 426;
const SYS_REGISTER = 427;
const REGISTER_EVENTFD = 4;
const MAP_SHARED_POPULATE = 0x8001;
const OFFSET_SQ_RING = 0;
const OFFSET_CQ_RING = 0x8000000;
const OFFSET_SQES = 0x10000000;
const FEATURE_SINGLE_MMAP = 1;
const EFD_NONBLOCK_CLOEXEC = 0x80800;
const SQE_BYTES = 64;
const CQE_WORDS = 4;

/** Operation codes of linux/io_uring.h that are used here. */
export const URING_OP = {
  nop: 0,
  fsync: 3,
  fallocate: 17,
  read: 22,
  write: 23,
  command: 46,
} as const;

/** One submission; a single reused object. `userData` comes back with the completion. */
export class Submission {
  opcode = 0;
  fd = -1;
  offset = 0;
  address = 0;
  length = 0;
  /** Flags of the operation (fsync flags, rw flags). */
  flags = 0;
  /** The `addr3` word, for `URING_OP.command`. */
  address3 = 0;
  userData = 0;
}

export class Ring {
  readonly entries: number;
  private readonly fd: number;
  private readonly eventFd: number;
  private readonly sqHead: Uint32Array;
  private readonly sqTail: Uint32Array;
  private readonly sqArray: Uint32Array;
  private readonly sqes: DataView;
  private readonly cqHead: Uint32Array;
  private readonly cqTail: Uint32Array;
  private readonly cqWords: Int32Array;
  private readonly cqMask: number;
  private readonly symbols = libc();
  /** Written to `sqes` but not yet taken by `enter`. */
  private unsent = 0;
  private closed = false;
  private readonly complete: (userData: number, result: number) => void;
  private readonly batch: () => void;

  /**
   * `complete` is called for every completion, `batch` once after each group of them.
   * Throws one sentence if the kernel refuses io_uring.
   */
  constructor(
    entries: number,
    complete: (userData: number, result: number) => void,
    batch: () => void,
  ) {
    this.complete = complete;
    this.batch = batch;
    const params = mapMemory(4096);
    const view = new DataView(params.bytes.buffer);
    this.fd = Number(this.symbols.syscall(SYS_SETUP, entries, params.address, 0, 0, 0, 0));
    if (this.fd < 0) throw new Error(`io_uring_setup failed with errno ${errno()}`);
    this.entries = view.getUint32(0, true);
    const word = (at: number): number => view.getUint32(at, true);
    const cqEntries = word(4);
    const sqBytes = word(64) + this.entries * 4;
    const cqBytes = word(100) + cqEntries * 16;
    const single = (word(20) & FEATURE_SINGLE_MMAP) !== 0;
    const sqAddress = this.map(single ? Math.max(sqBytes, cqBytes) : sqBytes, OFFSET_SQ_RING);
    const cqAddress = single ? sqAddress : this.map(cqBytes, OFFSET_CQ_RING);
    const sqesAddress = this.map(this.entries * SQE_BYTES, OFFSET_SQES);
    this.sqHead = wordsAt(sqAddress + word(40), 1);
    this.sqTail = wordsAt(sqAddress + word(44), 1);
    this.sqArray = wordsAt(sqAddress + word(64), this.entries);
    this.sqes = new DataView(bytesAt(sqesAddress, this.entries * SQE_BYTES).buffer);
    this.cqHead = wordsAt(cqAddress + word(80), 1);
    this.cqTail = wordsAt(cqAddress + word(84), 1);
    this.cqMask = wordsAt(cqAddress + word(88), 1)[0]!;
    const cqes = wordsAt(cqAddress + word(100), cqEntries * CQE_WORDS);
    this.cqWords = new Int32Array(cqes.buffer, cqes.byteOffset, cqes.length);
    this.eventFd = this.symbols.eventfd(0, EFD_NONBLOCK_CLOEXEC);
    view.setInt32(0, this.eventFd, true);
    const registered = this.symbols.syscall(
      SYS_REGISTER,
      this.fd,
      REGISTER_EVENTFD,
      params.address,
      1,
      0,
      0,
    );
    if (Number(registered) !== 0) {
      throw new Error(`io_uring refused the eventfd with errno ${errno()}`);
    }
    void this.watch();
  }

  /** Queues one submission; false when the ring is full (submit and wait for completions). */
  push(submission: Submission): boolean {
    const tail = this.sqTail[0]!;
    if ((tail - Atomics.load(this.sqHead, 0)) >>> 0 >= this.entries) return false;
    const index = tail & (this.entries - 1);
    const at = index * SQE_BYTES;
    const { sqes } = this;
    sqes.setUint32(at, submission.opcode, true);
    sqes.setInt32(at + 4, submission.fd, true);
    setU64(sqes, at + 8, submission.offset);
    setU64(sqes, at + 16, submission.address);
    sqes.setUint32(at + 24, submission.length, true);
    sqes.setUint32(at + 28, submission.flags, true);
    setU64(sqes, at + 32, submission.userData);
    setU64(sqes, at + 40, 0);
    setU64(sqes, at + 48, submission.address3);
    setU64(sqes, at + 56, 0);
    this.sqArray[index] = index;
    Atomics.store(this.sqTail, 0, (tail + 1) >>> 0);
    this.unsent += 1;
    return true;
  }

  /**
   * Hands everything pushed to the kernel; true if all was taken. What the kernel could not take
   * now (-EAGAIN, -EBUSY) stays queued for the next call.
   */
  submit(): boolean {
    while (this.unsent > 0) {
      const taken = Number(this.symbols.syscall(SYS_ENTER, this.fd, this.unsent, 0, 0, 0, 0));
      if (taken <= 0) {
        if (taken < 0 && errno() === 4) continue;
        return false;
      }
      this.unsent -= taken;
    }
    return true;
  }

  /** Delivers the completions that are there; their count. */
  reap(): number {
    let head = this.cqHead[0]!;
    const tail = Atomics.load(this.cqTail, 0);
    const count = (tail - head) >>> 0;
    for (let index = 0; index < count; index += 1) {
      const at = (head & this.cqMask) * CQE_WORDS;
      const userData = this.cqWords[at]!;
      const result = this.cqWords[at + 2]!;
      head = (head + 1) >>> 0;
      Atomics.store(this.cqHead, 0, head);
      this.complete(userData, result);
    }
    if (count > 0) this.batch();
    return count;
  }

  /** Closes the ring. The caller made sure that nothing is in flight. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    // One last count, so that the stream's reader wakes, sees `closed` and ends.
    const memory = scratchMemory();
    memory.bytes.fill(0, 0, 8);
    memory.bytes[0] = 1;
    this.symbols.write(this.eventFd, memory.address, 8);
    this.symbols.close(this.fd);
  }

  private async watch(): Promise<void> {
    for await (const _ of Bun.file(this.eventFd).stream()) {
      if (this.closed) break;
      this.reap();
    }
    this.symbols.close(this.eventFd);
  }

  private map(lengthBytes: number, offset: number): number {
    const address = Number(
      this.symbols.mmap(0, lengthBytes, 3, MAP_SHARED_POPULATE, this.fd, offset),
    );
    assert(address > 0 && address < 2 ** 48, "ring: mmap failed");
    return address;
  }
}

function wordsAt(address: number, count: number): Uint32Array {
  return new Uint32Array(bytesAt(address, count * 4).buffer);
}

function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 4294967296), true);
}

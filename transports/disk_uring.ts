/**
 * The disk over io_uring: buffered I/O, so that an unflushed write needs the memory of the
 * operating system only (G1).
 *
 *   read/write/sync/discard -> slot -> ring -> (kernel) -> finish -> events.done
 *                                ^_________ retry: short, EINTR, EAGAIN
 *
 * Invariants
 *  1. A slot belongs to one operation from its start to `events.done`; its tag is answered once.
 *  2. Operations that find no free slot wait in `waiting`, in order, bounded by `WAITING_MAX`.
 *  3. Nothing is delivered from inside a request: inline results wait in `ready` until `deliver`.
 */
import { assert } from "../core/base/assert.ts";
import { ERRNO, type ReadPairs } from "../core/base/ports.ts";
import type { DiskEvents, DiskFile } from "./disk_file.ts";
import type { OpenDisk } from "./disk_open.ts";
import { ReadyQueue } from "./disk_ready.ts";
import { addressOf } from "./libc.ts";
import { Ring, Submission, URING_OP } from "./ring.ts";

const SLOTS = 512;
/** Operations waiting for a slot; more means that our own limits are broken. */
const WAITING_MAX = 65536;
const FSYNC_DATASYNC = 1;
const PUNCH_HOLE_KEEP_SIZE = 3;
/** A fallocate that takes space; only a slot knows this number, the kernel sees FALLOCATE. */
const RESERVE = 255;
/** BLOCK_URING_CMD_DISCARD of linux/blkdev.h, Linux 6.12; older kernels refuse it. */
const COMMAND_DISCARD = 0x1200;
/** After this many retries without progress -EAGAIN is the answer. */
const RETRY_MAX = 100;
const SELF_TEST_MS = 1000;
/** The self-test's completion; no slot has this number. */
const SELF_TEST = 0xffffffff | 0;

interface Waiting {
  readonly tag: number;
  readonly opcode: number;
  readonly fd: number;
  readonly offset: number;
  readonly address: number;
  readonly length: number;
}

export class UringDisk implements OpenDisk {
  readonly backend = "uring";
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly keepsSpace: boolean;
  readonly isThin: boolean;
  readonly readsMedium: boolean;
  private readonly file: DiskFile;
  private readonly events: DiskEvents;
  private readonly ring: Ring;
  private readonly submission = new Submission();
  private readonly ready = new ReadyQueue();
  private readonly free = new Int32Array(SLOTS);
  private freeCount = SLOTS;
  private readonly tags = new Float64Array(SLOTS);
  private readonly opcodes = new Uint8Array(SLOTS);
  private readonly fds = new Int32Array(SLOTS);
  private readonly offsets = new Float64Array(SLOTS);
  private readonly addresses = new Float64Array(SLOTS);
  private readonly lengths = new Float64Array(SLOTS);
  private readonly dones = new Float64Array(SLOTS);
  private readonly retries = new Uint8Array(SLOTS);
  private waiting: Waiting[] = [];
  private waitingAt = 0;
  private tested: (() => void) | null = null;
  private closing: (() => void) | null = null;
  private retryTimer: ReturnType<typeof setTimeout> | null = null;

  /** Throws one sentence if io_uring is refused. Owns `file` from then on. */
  constructor(file: DiskFile, events: DiskEvents) {
    this.file = file;
    this.events = events;
    this.sizeBytes = file.sizeBytes;
    this.sectorBytes = file.sectorBytes;
    this.keepsSpace = file.keepsSpace;
    this.isThin = file.isThin;
    this.readsMedium = file.readsMedium;
    for (let slot = 0; slot < SLOTS; slot += 1) this.free[slot] = SLOTS - 1 - slot;
    this.ring = new Ring(
      SLOTS,
      (userData, result) => this.complete(userData, result),
      () => this.batch(),
    );
  }

  /** True if a completion wakes the loop within a second, as everything here relies on. */
  async selfTest(): Promise<boolean> {
    const woken = new Promise<boolean>((resolve) => {
      this.tested = () => resolve(true);
      setTimeout(() => resolve(false), SELF_TEST_MS).unref();
    });
    this.submission.opcode = URING_OP.nop;
    this.submission.userData = SELF_TEST >>> 0;
    this.ring.push(this.submission);
    this.ring.submit();
    return await woken;
  }

  isUnwritten(offset: number, length: number): boolean {
    return this.file.isUnwritten(offset, length);
  }

  allocate(lengthBytes: number): Uint8Array {
    return this.file.allocate(lengthBytes);
  }

  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number {
    return this.file.readNow(offset, buffer, at, length);
  }

  readPairsNow(offset: number, pairs: ReadPairs): number {
    return this.file.readPairsNow(offset, pairs);
  }

  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.file.check(offset, buffer, at, length);
    this.begin(tag, URING_OP.read, offset, addressOf(buffer) + at, length);
  }

  readMedium(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.file.prepareMedium(offset, buffer, at, length);
    const address = addressOf(buffer) + at;
    this.begin(tag, URING_OP.read, offset, address, length, this.file.mediumFd);
  }

  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.file.check(offset, buffer, at, length);
    const address = addressOf(buffer) + at;
    const count = this.file.writeNow(offset, address, length);
    if (count === length || (count < 0 && count !== -ERRNO.EAGAIN)) {
      if (count > 0) this.file.wrote(length);
      this.ready.push(tag, count);
    } else {
      this.begin(tag, URING_OP.write, offset, address, length);
    }
  }

  /**
   * Handed over at once, not at the end of the turn: what a turn sends comes after this, and wakes
   * others, which may take the processor (0.2 ms until the sync began, two hosts on two cores).
   */
  sync(tag: number): void {
    this.file.syncBegins();
    this.begin(tag, URING_OP.fsync, 0, 0, 0);
    this.submit();
  }

  discard(tag: number, offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.sizeBytes, "disk: range past the end");
    const opcode = this.file.isDevice ? URING_OP.command : URING_OP.fallocate;
    this.begin(tag, opcode, offset, 0, length);
  }

  reserve(tag: number, offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.sizeBytes, "disk: range past the end");
    this.begin(tag, RESERVE, offset, 0, length);
  }

  get isBusy(): boolean {
    return this.freeCount < SLOTS;
  }

  submit(): void {
    // The kernel is out of memory for requests: they stay queued, and are tried again soon.
    if (!this.ring.submit()) this.retryLater();
  }

  deliver(): boolean {
    const count = this.ready.drain(this.events);
    return this.ring.reap() + count > 0;
  }

  /** Gives up the ring, not the file: the self-test failed. */
  abandon(): void {
    this.ring.close();
  }

  async close(): Promise<void> {
    if (this.freeCount < SLOTS) {
      await new Promise<void>((resolve) => {
        this.closing = resolve;
      });
    }
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    this.ring.close();
    this.file.close();
  }

  private begin(
    tag: number,
    opcode: number,
    offset: number,
    address: number,
    length: number,
    fd = this.file.fd,
  ): void {
    if (this.freeCount === 0) {
      assert(this.waiting.length - this.waitingAt < WAITING_MAX, "disk: too many operations");
      this.waiting.push({ tag, opcode, fd, offset, address, length });
      return;
    }
    this.freeCount -= 1;
    this.file.pendingBegins();
    const slot = this.free[this.freeCount]!;
    this.tags[slot] = tag;
    this.opcodes[slot] = opcode;
    this.fds[slot] = fd;
    this.offsets[slot] = offset;
    this.addresses[slot] = address;
    this.lengths[slot] = length;
    this.dones[slot] = 0;
    this.retries[slot] = 0;
    this.push(slot);
  }

  /** Queues what is left of the slot's operation. There is room: a slot per ring entry. */
  private push(slot: number): void {
    const { submission } = this;
    const done = this.dones[slot]!;
    const opcode = this.opcodes[slot]!;
    const rest = this.lengths[slot]! - done;
    submission.opcode = opcode;
    submission.fd = this.fds[slot]!;
    submission.offset = this.offsets[slot]! + done;
    submission.address = this.addresses[slot]! + done;
    submission.length = rest;
    submission.flags = 0;
    submission.address3 = 0;
    submission.userData = slot;
    if (opcode === URING_OP.fsync) {
      submission.flags = FSYNC_DATASYNC;
    } else if (opcode === URING_OP.fallocate) {
      submission.address = rest;
      submission.length = PUNCH_HOLE_KEEP_SIZE;
    } else if (opcode === RESERVE) {
      submission.opcode = URING_OP.fallocate;
      submission.address = rest;
      submission.length = 0;
    } else if (opcode === URING_OP.command) {
      submission.offset = COMMAND_DISCARD;
      submission.address = this.offsets[slot]!;
      submission.address3 = rest;
      submission.length = 0;
    }
    assert(this.ring.push(submission), "disk: ring full although a slot was free");
  }

  private complete(userData: number, result: number): void {
    if (userData === SELF_TEST) {
      this.tested?.();
      return;
    }
    const slot = userData;
    if (this.mustRetry(slot, result)) return;
    const opcode = this.opcodes[slot]!;
    const transfers = opcode === URING_OP.read || opcode === URING_OP.write;
    const total = transfers && result >= 0 ? this.dones[slot]! + result : result;
    if (opcode === URING_OP.fsync) this.file.syncEnds(total);
    if (opcode === URING_OP.write && total > 0) this.file.wrote(total);
    const tag = this.tags[slot]!;
    this.file.pendingEnds();
    this.free[this.freeCount] = slot;
    this.freeCount += 1;
    this.startWaiting();
    this.events.done(tag, total);
  }

  /** True if the operation goes on: interrupted, short with progress, or a refused discard. */
  private mustRetry(slot: number, result: number): boolean {
    const opcode = this.opcodes[slot]!;
    if (result === -ERRNO.EINTR || result === -ERRNO.EAGAIN) {
      if (this.retries[slot]! >= RETRY_MAX) return false;
      this.retries[slot]! += 1;
    } else if (opcode === URING_OP.command && result < 0) {
      // This kernel or device cannot; a punched hole unmaps where it can.
      this.opcodes[slot] = URING_OP.fallocate;
    } else {
      const short = result > 0 && this.dones[slot]! + result < this.lengths[slot]!;
      if (!short || (opcode !== URING_OP.read && opcode !== URING_OP.write)) return false;
      this.dones[slot]! += result;
    }
    this.push(slot);
    return true;
  }

  private startWaiting(): void {
    const next = this.waiting[this.waitingAt];
    if (next === undefined) return;
    this.waitingAt += 1;
    if (this.waitingAt === this.waiting.length) {
      this.waiting = [];
      this.waitingAt = 0;
    }
    this.begin(next.tag, next.opcode, next.offset, next.address, next.length, next.fd);
  }

  private batch(): void {
    this.submit();
    this.events.batch();
    if (this.freeCount === SLOTS && this.closing !== null) this.closing();
  }

  private retryLater(): void {
    this.retryTimer ??= setTimeout(() => {
      this.retryTimer = null;
      this.submit();
    }, 1);
  }
}

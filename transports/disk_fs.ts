/**
 * The disk over `fs` callbacks (Bun's thread pool): where the kernel refuses io_uring, as in some
 * containers. Same semantics as `UringDisk`; at most as many operations at once as the pool has
 * threads, the rest queue in it.
 */
import { fdatasync, read, write } from "node:fs";
import { assert } from "../core/base/assert.ts";
import { ERRNO, type ReadPairs } from "../core/base/ports.ts";
import type { DiskEvents, DiskFile } from "./disk_file.ts";
import type { OpenDisk } from "./disk_open.ts";
import { ReadyQueue } from "./disk_ready.ts";
import { addressOf, errno, libc } from "./libc.ts";

const PUNCH_HOLE_KEEP_SIZE = 3;
const RETRY_MAX = 100;
/** Operations in flight or queued in the pool; more means that our own limits are broken. */
const IN_FLIGHT_MAX = 65536;

/** A transfer under way: what was asked for and how far it is. */
interface Transfer {
  readonly tag: number;
  readonly fd: number;
  readonly isWrite: boolean;
  readonly offset: number;
  readonly buffer: Uint8Array;
  readonly at: number;
  readonly length: number;
  done: number;
  retries: number;
}

export class FsDisk implements OpenDisk {
  readonly backend = "fs";
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly keepsSpace: boolean;
  readonly isThin: boolean;
  readonly readsMedium: boolean;
  private readonly file: DiskFile;
  private readonly events: DiskEvents;
  private readonly ready = new ReadyQueue();
  private inFlight = 0;
  private closing: (() => void) | null = null;

  /** Owns `file` from now on. */
  constructor(file: DiskFile, events: DiskEvents) {
    this.file = file;
    this.events = events;
    this.sizeBytes = file.sizeBytes;
    this.sectorBytes = file.sectorBytes;
    this.keepsSpace = file.keepsSpace;
    this.isThin = file.isThin;
    this.readsMedium = file.readsMedium;
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
    this.begin();
    const { fd } = this.file;
    this.move({ tag, fd, isWrite: false, offset, buffer, at, length, done: 0, retries: 0 });
  }

  readMedium(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.file.prepareMedium(offset, buffer, at, length);
    this.begin();
    const fd = this.file.mediumFd;
    this.move({ tag, fd, isWrite: false, offset, buffer, at, length, done: 0, retries: 0 });
  }

  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.file.check(offset, buffer, at, length);
    const count = this.file.writeNow(offset, addressOf(buffer) + at, length);
    if (count === length || (count < 0 && count !== -ERRNO.EAGAIN)) {
      if (count > 0) this.file.wrote(length);
      this.ready.push(tag, count);
      return;
    }
    this.begin();
    const { fd } = this.file;
    this.move({ tag, fd, isWrite: true, offset, buffer, at, length, done: 0, retries: 0 });
  }

  sync(tag: number): void {
    this.file.syncBegins();
    this.begin();
    fdatasync(this.file.fd, (error) => {
      const result = resultOf(error, 0);
      this.file.syncEnds(result);
      this.finish(tag, result);
    });
  }

  discard(tag: number, offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.sizeBytes, "disk: range past the end");
    this.fallocate(tag, PUNCH_HOLE_KEEP_SIZE, offset, length);
  }

  reserve(tag: number, offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.sizeBytes, "disk: range past the end");
    this.fallocate(tag, 0, offset, length);
  }

  private fallocate(tag: number, mode: number, offset: number, length: number): void {
    const failed = libc().fallocate(this.file.fd, mode, offset, length) !== 0;
    this.ready.push(tag, failed ? -errno() : 0);
  }

  get isBusy(): boolean {
    return this.inFlight > 0;
  }

  submit(): void {}

  deliver(): boolean {
    return this.ready.drain(this.events) > 0;
  }

  async close(): Promise<void> {
    if (this.inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.closing = resolve;
      });
    }
    this.file.close();
  }

  private begin(): void {
    assert(this.inFlight < IN_FLIGHT_MAX, "disk: too many operations");
    this.inFlight += 1;
    this.file.pendingBegins();
  }

  private move(transfer: Transfer): void {
    const { fd, buffer, done } = transfer;
    const at = transfer.at + done;
    const length = transfer.length - done;
    const then = (error: NodeJS.ErrnoException | null, count: number): void => {
      this.moved(transfer, resultOf(error, count));
    };
    if (transfer.isWrite) write(fd, buffer, at, length, transfer.offset + done, then);
    else read(fd, buffer, at, length, transfer.offset + done, then);
  }

  private moved(transfer: Transfer, result: number): void {
    let goesOn = false;
    if (result === -ERRNO.EINTR || result === -ERRNO.EAGAIN) {
      transfer.retries += 1;
      goesOn = transfer.retries <= RETRY_MAX;
    } else if (result > 0) {
      transfer.done += result;
      goesOn = transfer.done < transfer.length;
    }
    if (goesOn) {
      this.move(transfer);
      return;
    }
    const total = result >= 0 ? transfer.done : result;
    if (transfer.isWrite && total > 0) this.file.wrote(total);
    this.finish(transfer.tag, total);
  }

  private finish(tag: number, result: number): void {
    this.inFlight -= 1;
    this.file.pendingEnds();
    this.events.done(tag, result);
    this.events.batch();
    if (this.inFlight === 0 && this.closing !== null) this.closing();
  }
}

/** A negated errno from Node's error (whose `errno` is already negative), or `value`. */
function resultOf(error: NodeJS.ErrnoException | null, value: number): number {
  if (error === null) return value;
  const code = error.errno;
  return typeof code === "number" && code !== 0 ? -Math.abs(code) : -ERRNO.EIO;
}

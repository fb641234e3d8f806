/**
 * Work of the store that takes many steps (open, checkpoint, clean, close), written as generators:
 * straight-line code that yields what it waits for. Synchronous and deterministic; the store
 * resumes a task when an event brought what it waits for. One task runs at a time.
 */
import { type Disk, ERRNO } from "../base/ports.ts";
import { type DiskOps, OP } from "./disk_ops.ts";

/** What a task waits for when it yields. */
export const WAIT = {
  /** The completion of the one operation it started. */
  io: 0,
  /** Its next turn: background work gives way to clients. */
  turn: 1,
  /** Room in the cold lane (`TaskIo.roomBytes`). */
  room: 2,
  /** Everything appended so far, in both lanes, is durable. */
  durable: 3,
  /** A page of the index on its way (`PageCache.bring`). */
  page: 4,
} as const;
export type Wait = (typeof WAIT)[keyof typeof WAIT];
export type Task<T> = Generator<Wait, T, void>;

/** Disk access for tasks: one operation at a time; results are byte counts or -errno. */
export class TaskIo {
  readonly disk: Disk;
  /** Result of the operation, set by the store before it resumes the task. */
  result = 0;
  /** Bytes the task waits for room for, when it yields WAIT.room. */
  roomBytes = 0;
  private readonly ops: DiskOps;

  constructor(disk: Disk, ops: DiskOps) {
    this.disk = disk;
    this.ops = ops;
  }

  *read(offset: number, buffer: Uint8Array, at: number, length: number): Task<number> {
    this.disk.read(this.ops.begin(OP.task, 0), offset, buffer, at, length);
    yield WAIT.io;
    return this.result;
  }

  *write(offset: number, buffer: Uint8Array, at: number, length: number): Task<number> {
    this.disk.write(this.ops.begin(OP.task, 0), offset, buffer, at, length);
    yield WAIT.io;
    return this.result;
  }

  /** Takes the room for a range of a thin disk; true unless there is none. */
  *reserve(offset: number, length: number): Task<boolean> {
    if (this.disk.reserve === undefined) return true;
    this.disk.reserve(this.ops.begin(OP.task, 0), offset, length);
    yield WAIT.io;
    // Where room cannot be promised at all (no fallocate), writes find out.
    return this.result !== -ERRNO.ENOSPC;
  }

  *sync(): Task<number> {
    this.disk.sync(this.ops.begin(OP.task, 0));
    yield WAIT.io;
    return this.result;
  }
}

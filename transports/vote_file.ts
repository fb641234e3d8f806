/**
 * The voter's file, replaced atomically and durably: write a new file beside it, fsync it, rename
 * it over the old one, fsync the directory. So a crash at any moment leaves the old document or
 * the new one, whole.
 *
 * Invariants
 *  1. One replacement at a time, in the order asked for; each tag is answered once.
 *  2. After a failure the next write starts from a new file: no fsync is ever repeated on one
 *     that failed.
 *  3. The file belongs to one process: `PATH.lock` is locked while it runs.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { ERRNO, type VoteFile } from "../core/base/ports.ts";
import { LOCK_EXCLUSIVE_NOW } from "./disk_file.ts";
import { libc } from "./libc.ts";

/** Replacements waiting; past it a write is answered -EAGAIN. Votes are a few per view change. */
const WAITING_MAX = 256;
/** A larger file is not one of ours. */
export const VOTE_BYTES_MAX = 1024 * 1024;

export interface VoteEvents {
  done(tag: number, result: number): void;
}

export type VoteOpened =
  | { readonly ok: true; readonly file: DiskVoteFile; readonly bytes: Uint8Array | null }
  | { readonly ok: false; readonly why: string };

export class DiskVoteFile implements VoteFile {
  private readonly path: string;
  private readonly lockFd: number;
  private readonly events: VoteEvents;
  private readonly waiting: { tag: number; bytes: Uint8Array }[] = [];
  private isBusy = false;
  private idle: (() => void) | null = null;

  private constructor(path: string, lockFd: number, events: VoteEvents) {
    this.path = path;
    this.lockFd = lockFd;
    this.events = events;
  }

  /** Locks and reads the file at `path`; `bytes` is null when there is none. */
  static open(path: string, events: VoteEvents): VoteOpened {
    let lockFd = -1;
    try {
      mkdirSync(dirname(path), { recursive: true });
      lockFd = openSync(`${path}.lock`, constants.O_RDWR | constants.O_CREAT, 0o600);
      if (libc().flock(lockFd, LOCK_EXCLUSIVE_NOW) !== 0) {
        closeSync(lockFd);
        return { ok: false, why: `${path} is in use by another vsan process` };
      }
      rmSync(`${path}.new`, { force: true });
      const bytes = readWhole(path);
      return { ok: true, file: new DiskVoteFile(path, lockFd, events), bytes };
    } catch (error) {
      if (lockFd >= 0) closeSync(lockFd);
      const why = error instanceof Error ? error.message : String(error);
      return { ok: false, why: `${path} cannot be used: ${why}` };
    }
  }

  /** Copies `bytes`; `done(tag, 0 or -errno)` follows. */
  write(tag: number, bytes: Uint8Array): void {
    if (this.waiting.length >= WAITING_MAX) {
      setImmediate(() => this.events.done(tag, -ERRNO.EAGAIN));
      return;
    }
    this.waiting.push({ tag, bytes: bytes.slice() });
    if (!this.isBusy) void this.run();
  }

  /** Finishes what was asked for, then lets the file go. */
  async close(): Promise<void> {
    if (this.isBusy) {
      await new Promise<void>((resolve) => {
        this.idle = resolve;
      });
    }
    closeSync(this.lockFd);
  }

  private async run(): Promise<void> {
    this.isBusy = true;
    for (let next = this.waiting.shift(); next !== undefined; next = this.waiting.shift()) {
      const result = await replace(this.path, next.bytes);
      this.events.done(next.tag, result);
    }
    this.isBusy = false;
    this.idle?.();
  }
}

function readWhole(path: string): Uint8Array | null {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > VOTE_BYTES_MAX) throw new Error("it is too large");
    return new Uint8Array(bytes);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
}

/** 0 or a negated errno. */
async function replace(path: string, bytes: Uint8Array): Promise<number> {
  const fresh = `${path}.new`;
  try {
    const file = await open(fresh, "w", 0o600);
    try {
      let at = 0;
      while (at < bytes.length) {
        const { bytesWritten } = await file.write(bytes, at, bytes.length - at, at);
        if (bytesWritten === 0) return -ERRNO.ENOSPC;
        at += bytesWritten;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, path);
    const directory = await open(dirname(path), "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
    return 0;
  } catch (error) {
    const code = error instanceof Error && "errno" in error ? error.errno : 0;
    return typeof code === "number" && code !== 0 ? -Math.abs(code) : -ERRNO.EIO;
  }
}

/**
 * Opens the store's file or block device for this process alone, and picks the backend.
 *
 * A new file is preallocated (fallocate), so that the store never finds the file system full in
 * mid-life; where the file system cannot, or a thin one is asked for, it is extended sparsely. An
 * existing file keeps its size, and one with holes is thin whatever is asked for. A device is used
 * whole.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  statfsSync,
  unlinkSync,
} from "node:fs";
import { dirname } from "node:path";
import type { Disk } from "../core/base/ports.ts";
import { BLOCK_BYTES, roundDown } from "../core/base/units.ts";
import { type DiskEvents, DiskFile, LOCK_EXCLUSIVE_NOW } from "./disk_file.ts";
import { FsDisk } from "./disk_fs.ts";
import { UringDisk } from "./disk_uring.ts";
import { errno, libc, scratchMemory } from "./libc.ts";

/** A disk with the handles its driver needs. */
export interface OpenDisk extends Disk {
  readonly backend: "uring" | "fs";
  /** Hands what was queued since the last call to the kernel. */
  submit(): void;
  /** Operations are in flight in the kernel. */
  readonly isBusy: boolean;
  /** Delivers results that are there already; true if there were any. Not from inside the core. */
  deliver(): boolean;
  /** Waits for what is in flight, then lets the file go. Nothing may be started any more. */
  close(): Promise<void>;
}

export interface DiskOptions {
  readonly path: string;
  /** Size of a file that does not exist or is empty, bytes; 0 = such a file is refused. */
  readonly sizeBytes: number;
  /** Only what is there already, and no write reaches it: for looking at a store. */
  readonly isReadOnly?: boolean;
  /** A device with fewer bytes is refused. */
  readonly deviceBytesLeast?: number;
  /** A file takes space as it is written and gives it back when that is trimmed. */
  readonly isThin?: boolean;
  /** "fs" forces the fallback (environment: VSAN_DISK=fs). */
  readonly backend?: "auto" | "fs";
}

export type DiskOpened =
  | { readonly ok: true; readonly disk: OpenDisk; readonly created: boolean }
  | {
      readonly ok: false;
      readonly why: string;
      /** Another process has it open: a mistake of the operator rather than a fault of the disk. */
      readonly isInUse: boolean;
    };

const SECTOR_BYTES = 512;
/** Unit of `stat.blocks` (man inode(7)). */
const STAT_BLOCK_BYTES = 512;
const BLKGETSIZE64 = 0x80081272;
const BLKSSZGET = 0x1268;

/** Opens `options.path`; never rejects. */
export async function openDisk(options: DiskOptions, events: DiskEvents): Promise<DiskOpened> {
  let file: DiskFile;
  let created = false;
  try {
    const opened = openFile(options);
    file = opened.file;
    created = opened.created;
  } catch (error) {
    const isInUse = error instanceof InUse || codeOf(error) === "EBUSY";
    return { ok: false, why: sentence(options.path, error), isInUse };
  }
  const forced = options.backend === "fs" || process.env.VSAN_DISK === "fs";
  const disk = forced ? null : await openUring(file, events);
  return { ok: true, disk: disk ?? new FsDisk(file, events), created };
}

async function openUring(file: DiskFile, events: DiskEvents): Promise<UringDisk | null> {
  try {
    const disk = new UringDisk(file, events);
    if (await disk.selfTest()) return disk;
    disk.abandon();
    return null;
  } catch {
    return null; // Refused by the kernel or its sandbox: the fallback serves.
  }
}

function openFile(options: DiskOptions): { file: DiskFile; created: boolean } {
  const { path } = options;
  const probe = openExisting(path, accessOf(options));
  const fd = probe ?? createFile(path, options.sizeBytes);
  try {
    const stat = fstatSync(fd);
    if (stat.isBlockDevice()) return { file: openDevice(options, fd), created: false };
    if (!stat.isFile()) throw new Refusal("is neither a file nor a block device");
    lock(fd);
    let size = stat.size;
    if (size === 0) {
      if (options.sizeBytes < BLOCK_BYTES) throw new Refusal("is empty and no size is given");
      size = extend(fd, options);
    }
    const sizeBytes = roundDown(size, BLOCK_BYTES);
    if (sizeBytes === 0) throw new Refusal("is too small to be a store");
    const isThin = options.isThin === true || !isWhole(fd);
    const open = {
      path,
      fd,
      sizeBytes,
      sectorBytes: SECTOR_BYTES,
      isDevice: false,
      isThin,
      isRemote: isRemote(path),
    };
    return { file: new DiskFile(open), created: stat.size === 0 };
  } catch (error) {
    closeSync(fd);
    if (probe === null) unlinkSync(path);
    throw error;
  }
}

function accessOf(options: DiskOptions): number {
  return options.isReadOnly === true ? constants.O_RDONLY : constants.O_RDWR;
}

class Refusal extends Error {}
class InUse extends Refusal {}

function openExisting(path: string, flags: number): number | null {
  try {
    return openSync(path, flags);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
  }
}

function createFile(path: string, sizeBytes: number): number {
  if (sizeBytes < BLOCK_BYTES) throw new Refusal("does not exist and no size is given");
  mkdirSync(dirname(path), { recursive: true });
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  return openSync(path, flags, 0o600);
}

/** Gives an empty file its size, durably; the size. */
function extend(fd: number, options: DiskOptions): number {
  const size = roundDown(options.sizeBytes, BLOCK_BYTES);
  if (options.isThin !== true && libc().fallocate(fd, 0, 0, size) !== 0) {
    const code = errno();
    if (code === 28) throw new Refusal("does not fit: the file system is full");
    if (code !== 95 && code !== 38) throw new Refusal(`cannot be preallocated (errno ${code})`);
  }
  ftruncateSync(fd, size);
  fsyncSync(fd);
  syncDirectory(dirname(options.path));
  return size;
}

/**
 * True if the file has all its space. Holes punched into it would break what preallocation is for;
 * and on ext4 they hold the lock that writes need until the range is on disk: 4 KiB writes were
 * half as fast with one hole of 16 MiB for every 16 MiB written (bench/RESULTS.md).
 */
function isWhole(fd: number): boolean {
  const { blocks, size } = fstatSync(fd);
  return blocks * STAT_BLOCK_BYTES >= size;
}

/** Magic numbers of file systems with a server behind (linux/magic.h): FUSE, NFS, SMB, 9P, Ceph. */
const REMOTE_MAGIC = [0x65735546, 0x6969, 0xff534d42, 0xfe534d42, 0x01021997, 0x00c36400];

function isRemote(path: string): boolean {
  return REMOTE_MAGIC.includes(statfsSync(path).type >>> 0);
}

/** Makes the names in a directory durable. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** O_EXCL on a device excludes mounts, swap, RAID and other openers of this kind. */
function openDevice(options: DiskOptions, plain: number): DiskFile {
  const { path, deviceBytesLeast = 0 } = options;
  const fd = openSync(path, accessOf(options) | constants.O_EXCL);
  try {
    lock(fd);
    const memory = scratchMemory();
    const view = new DataView(memory.bytes.buffer);
    const ask = (request: number): void => {
      if (libc().ioctl(fd, request, memory.address) !== 0) {
        throw new Refusal(`does not tell its size (errno ${errno()})`);
      }
    };
    ask(BLKSSZGET);
    const sectorBytes = view.getInt32(0, true);
    ask(BLKGETSIZE64);
    const size = view.getUint32(4, true) * 4294967296 + view.getUint32(0, true);
    const sizeBytes = roundDown(size, BLOCK_BYTES);
    if (sizeBytes === 0) throw new Refusal("is empty");
    if (sizeBytes < deviceBytesLeast) {
      throw new Refusal(`has ${sizeBytes} bytes, ${deviceBytesLeast} are asked for`);
    }
    closeSync(plain);
    return new DiskFile({
      path,
      fd,
      sizeBytes,
      sectorBytes,
      isDevice: true,
      isThin: false,
      isRemote: false,
    });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function lock(fd: number): void {
  if (libc().flock(fd, LOCK_EXCLUSIVE_NOW) !== 0) {
    throw new InUse("is in use by another vsan process");
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "may not be opened (permission denied)",
  EPERM: "may not be opened (permission denied)",
  EBUSY: "is in use (mounted, or opened by another program)",
  EISDIR: "is a directory",
  ENOSPC: "does not fit: the file system is full",
  EROFS: "is on a read-only file system",
  ENOTDIR: "has a path that is not a directory",
  ENXIO: "is a device without a disk",
};

function sentence(path: string, error: unknown): string {
  if (error instanceof Refusal) return `${path} ${error.message}`;
  const code = codeOf(error);
  return `${path} ${REASONS[code] ?? `cannot be opened (${code || String(error)})`}`;
}

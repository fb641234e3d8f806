/**
 * The few libc calls that Bun has no API for, by FFI. Pointers are plain numbers.
 *
 * Rule for memory handed to the kernel beyond one call: it comes from `mapMemory` (anonymous
 * mmap), never from a JavaScript allocation, because small typed arrays move once
 * (tests/canary/, `ffi_memory`).
 */
import { dlopen, FFIType, ptr, read, suffix, toArrayBuffer, type Pointer } from "bun:ffi";
import { assert } from "../core/base/assert.ts";

const { i32, i64_fast: i64, u64_fast: u64, ptr: pointer } = FFIType;

const SYMBOLS = {
  mmap: { args: [u64, u64, i32, i32, i32, i64], returns: u64 },
  munmap: { args: [u64, u64], returns: i32 },
  open: { args: [pointer, i32, i32], returns: i32 },
  close: { args: [i32], returns: i32 },
  pwrite: { args: [i32, u64, u64, i64], returns: i64 },
  preadv2: { args: [i32, u64, i32, i64, i32], returns: i64 },
  posix_fadvise: { args: [i32, i64, i64, i32], returns: i32 },
  fallocate: { args: [i32, i32, i64, i64], returns: i32 },
  lseek: { args: [i32, i64, i32], returns: i64 },
  ioctl: { args: [i32, u64, u64], returns: i32 },
  flock: { args: [i32, i32], returns: i32 },
  eventfd: { args: [i32, i32], returns: i32 },
  write: { args: [i32, u64, u64], returns: i64 },
  clock_gettime: { args: [i32, u64], returns: i32 },
  socket: { args: [i32, i32, i32], returns: i32 },
  recv: { args: [i32, u64, u64, i32], returns: i64 },
  sendto: { args: [i32, u64, u64, i32, u64, i32], returns: i64 },
  setsockopt: { args: [i32, i32, i32, u64, i32], returns: i32 },
  getsockopt: { args: [i32, i32, i32, u64, u64], returns: i32 },
  syscall: { args: [i64, u64, u64, u64, u64, u64, u64], returns: i64 },
  __errno_location: { args: [], returns: u64 },
} as const;

function load() {
  const names = [`libc.${suffix}.6`, `libc.${suffix}`];
  for (const name of names) {
    try {
      return dlopen(name, SYMBOLS).symbols;
    } catch {}
  }
  throw new Error("libc could not be loaded");
}

export type Libc = ReturnType<typeof load>;
let loaded: Libc | null = null;

/** The process's libc; loaded at the first call. Throws only where there is none. */
export function libc(): Libc {
  loaded ??= load();
  return loaded;
}

/** errno of the last failed libc call on this thread (a positive number). */
export function errno(): number {
  return read.i32(Number(libc().__errno_location()) as Pointer, 0);
}

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/** A piece of memory that never moves. `address` is what the kernel gets. */
export interface Mapped {
  readonly address: number;
  readonly bytes: Uint8Array;
}

/**
 * Maps `lengthBytes` (> 0) of zeroed, page-aligned memory. It is never unmapped: its users live
 * as long as the process or are few.
 */
export function mapMemory(lengthBytes: number): Mapped {
  const address = Number(
    libc().mmap(0, lengthBytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0),
  );
  assert(address > 0 && address < 2 ** 48, "libc: out of memory");
  return { address, bytes: bytesAt(address, lengthBytes) };
}

/** The bytes at a foreign address as a typed array that does not own them. */
export function bytesAt(address: number, lengthBytes: number): Uint8Array {
  return new Uint8Array(toArrayBuffer(address as Pointer, 0, lengthBytes));
}

/** The address of a typed array's first byte, valid while it cannot move (see above). */
export function addressOf(bytes: Uint8Array): number {
  return ptr(bytes);
}

const scratch = { memory: null as Mapped | null };

/** 4 KiB for the arguments of one synchronous call; contents do not survive it. */
export function scratchMemory(): Mapped {
  scratch.memory ??= mapMemory(4096);
  return scratch.memory;
}

/** Sets an integer socket option; false if the kernel refuses. */
export function setSocketOption(
  fd: number,
  option: { readonly level: number; readonly name: number },
  value: number,
): boolean {
  const memory = scratchMemory();
  new DataView(memory.bytes.buffer).setInt32(0, value, true);
  return libc().setsockopt(fd, option.level, option.name, memory.address, 4) === 0;
}

/** Reads up to `lengthBytes` (<= 2048) of a socket option; null if the kernel refuses. */
export function getSocketOption(
  fd: number,
  option: { readonly level: number; readonly name: number },
  lengthBytes: number,
): DataView | null {
  const memory = scratchMemory();
  const view = new DataView(memory.bytes.buffer);
  view.setInt32(4092, lengthBytes, true);
  const result = libc().getsockopt(
    fd,
    option.level,
    option.name,
    memory.address,
    memory.address + 4092,
  );
  if (result !== 0) return null;
  return new DataView(memory.bytes.slice(0, view.getInt32(4092, true)).buffer);
}

export const SOCKET_OPTION = {
  receiveBuffer: { level: 1, name: 8 },
  receiveBufferForce: { level: 1, name: 33 },
  noDelay: { level: 6, name: 1 },
  tcpInfo: { level: 6, name: 11 },
  /** Milliseconds that sent data may stay unacknowledged (RFC 5482). */
  userTimeout: { level: 6, name: 18 },
  /** 0 stops ICMP errors from poisoning later sends (bun pull/35922). */
  receiveErrors: { level: 0, name: 11 },
} as const;

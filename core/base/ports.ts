/**
 * The ports: all that the core may ask of the world. Each has a real implementation in
 * `transports/` and a simulated one in `tests/sim/`, and one conformance suite runs on both.
 *
 * Contract of every port:
 *  - a call starts an effect and returns at once; it never calls back into the core;
 *  - its completion is delivered later as an event of its own (`diskDone`, `peerDrain`, ...);
 *  - buffers passed in belong to the effect until its completion, unless said otherwise.
 */
import type { HostId } from "./units.ts";

/** Linux errno values that the core tells apart; ports return them negated. */
export const ERRNO = {
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  ENOSPC: 28,
  ETIMEDOUT: 110,
} as const;

/** Alignment of `Disk.readMedium`, bytes: the largest logical sector of devices in use. */
export const MEDIUM_ALIGN = 4096;

/** Pairs in one `readPairsNow`: two pieces of memory each, and Linux takes 1024 (IOV_MAX). */
export const READ_PAIRS_MAX = 128;

/**
 * Where a read puts `count` pairs that lie one behind the other on the disk, each a head and a body
 * behind it: heads to one side, bodies side by side. Reused by its owner.
 */
export interface ReadPairs {
  /** 1 to `READ_PAIRS_MAX`. */
  count: number;
  readonly headBytes: number;
  readonly bodyBytes: number;
  /** Memory of `Disk.allocate`; head n goes to `n * headBytes`. */
  readonly heads: Uint8Array;
  /** Any memory of at least 4096 bytes: the call is over before anything can move it. */
  bodies: Uint8Array;
  /** Body n goes to `bodiesAt + n * bodyBytes`. */
  bodiesAt: number;
}

/**
 * One file or block device. Completions arrive as `diskDone(tag, result)`, in any order; a result
 * is the byte count (a short count is possible and is the caller's to notice) or a negated errno.
 * Overlapping operations in flight have no order.
 */
export interface Disk {
  readonly sizeBytes: number;
  /** Smallest unit the device writes without tearing: 512 or 4096. */
  readonly sectorBytes: number;
  /**
   * True if `discard` would only take space away that was reserved for this disk on purpose (a
   * preallocated file): not worth calling.
   */
  readonly keepsSpace?: boolean;
  /**
   * True if writes may find no room below (a file with holes on a file system that others fill):
   * what is to be written is reserved first.
   */
  readonly isThin?: boolean;
  /**
   * True if the range was never written and a sync of what is written there first costs more (a
   * preallocated file's unwritten extents). A moment's truth, cheap, and allowed to err. Absent
   * where there is no such difference.
   */
  isUnwritten?(offset: number, length: number): boolean;
  /** Memory fit for I/O: page-aligned, never moves, lives as long as the disk. */
  allocate(lengthBytes: number): Uint8Array;
  /** Reads at once if that needs no waiting: bytes read, or -EAGAIN, or another -errno. */
  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number;
  /** Like `readNow`, into many places; a short count names bytes on the disk, heads and bodies. */
  readPairsNow(offset: number, pairs: ReadPairs): number;
  /** Reads into `buffer[at, at+length)`; the buffer must come from `allocate`. */
  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void;
  /**
   * Reads what the device itself holds, past any cache of the operating system: what was written
   * before the call is seen, bytes that rotted under a cached copy are too. `offset`, `at` and
   * `length` are multiples of `MEDIUM_ALIGN`; the buffer must come from `allocate`.
   */
  readMedium(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void;
  /** False where the operating system refuses that: `readMedium` may then see cached copies. */
  readonly readsMedium: boolean;
  /** Writes `buffer[at, at+length)`; the buffer must come from `allocate`. Not durable yet. */
  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void;
  /** Makes every write *completed* before this call durable. Result 0 or -errno. */
  sync(tag: number): void;
  /** Tells the device the range is unused (punched hole or discard). Result 0 or -errno. */
  discard(tag: number, offset: number, length: number): void;
  /**
   * On a thin disk: takes the room for the range now; what it holds does not change. Result 0,
   * -ENOSPC, or -errno where that cannot be promised.
   */
  reserve?(tag: number, offset: number, length: number): void;
}

/** The two connections to each peer. Control is small and urgent, data carries records. */
export const LANE = { control: 0, data: 1 } as const;
export type Lane = (typeof LANE)[keyof typeof LANE];

/**
 * Reliable ordered bytes to each peer, one connection per lane, authenticated both ways. Both
 * lanes come up and go down together (`peerUp`, `peerDown`); after a `peerDown` everything that
 * was not received is lost. Incoming chunks (`peerData`) are the core's to keep.
 */
export interface StreamLink {
  /**
   * Bytes taken (copied) from `buffer[at, at+length)`: all, some, or 0 when the connection is
   * full, in which case `peerDrain(peer, lane)` follows; -1 when it is down.
   */
  send(peer: HostId, lane: Lane, buffer: Uint8Array, at: number, length: number): number;
  /** Drops both connections because of `why`; `peerDown` follows; they are made anew. */
  reset(peer: HostId, why: string): void;
}

/** Best-effort datagrams; lost, doubled, reordered, forged. Received through `packet(chunk)`. */
export interface PacketLink {
  /** To the multicast group. `length` at most `LIMITS.datagramBytesMax`. Copied. */
  multicast(buffer: Uint8Array, at: number, length: number): void;
  /** To one peer. Copied. */
  unicast(peer: HostId, buffer: Uint8Array, at: number, length: number): void;
}

/** NBD clients' connections, by number. Chunks received are the core's to keep. */
export interface ClientLink {
  /** Bytes taken (copied); less than `length` means `clientDrain` follows; -1 when closed. */
  send(client: number, buffer: Uint8Array, at: number, length: number): number;
  /**
   * Bytes that the client has sent and that were not delivered yet, put straight into
   * `buffer[at, at+length)`; they come before the next chunk. 0: nothing is there now, or the
   * link delivers in chunks only. For large payloads: it saves a chunk and a copy.
   */
  receiveNow(client: number, buffer: Uint8Array, at: number, length: number): number;
  /** Stops or restarts reading from this client (backpressure). */
  pause(client: number, paused: boolean): void;
  /** Closes after what `send` took has left. */
  close(client: number): void;
}

/** The voter's file: one small document, replaced atomically and durably. `voteDone(tag, r)`. */
export interface VoteFile {
  write(tag: number, bytes: Uint8Array): void;
}

/** Message authentication with keys derived from the cluster key (HMAC-SHA-256, RFC 2104). */
export interface Mac {
  /** A key bound to `label` (bytes of any length); the cluster key itself never leaves. */
  derive(label: Uint8Array): MacKey;
}
export interface MacKey {
  /** Writes a 16-byte tag over `buffer[at, at+length)` to `out[outAt, outAt+16)`. */
  sign(buffer: Uint8Array, at: number, length: number, out: Uint8Array, outAt: number): void;
  /** True if `out[outAt, outAt+16)` is the tag of `buffer[at, at+length)`. */
  verify(buffer: Uint8Array, at: number, length: number, out: Uint8Array, outAt: number): boolean;
}

/** Randomness for timers and identities. */
export interface Entropy {
  /** Uniform in [0, 2^32). */
  u32(): number;
}

export type TraceLevel = "debug" | "info" | "warn" | "error";
export type TraceValue = string | number | boolean | null;

/**
 * Events for people (G8) and for the simulator's observer. `code` is stable and dotted
 * ("view.opened"), `text` is one plain sentence.
 */
export interface Trace {
  event(
    level: TraceLevel,
    code: string,
    text: string,
    fields?: Readonly<Record<string, TraceValue>>,
  ): void;
}

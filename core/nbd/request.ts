/**
 * One request of an NBD client, from its header to its answer. A session owns a fixed set of them
 * and uses each again and again, so a request costs no allocation; the host must not touch one
 * after it answered it.
 */
import type { VolumeId } from "../base/units.ts";
import { COMMAND, type Command } from "../format/nbd.ts";
import type { Session } from "./session.ts";

/** What `data` and `readBuffer` are when there is none. */
export const NO_BYTES = new Uint8Array(0);

/** Life of a slot: free -> arriving (in the session) -> open (the host has it) -> free. */
export const REQUEST_STATE = { free: 0, arriving: 1, open: 2 } as const;
export type RequestState = (typeof REQUEST_STATE)[keyof typeof REQUEST_STATE];

export class Request {
  readonly session: Session;
  /** Index in the session, 0 to `LIMITS.clientRequestsMax - 1`; unique among open requests. */
  readonly slot: number;
  readonly volume: VolumeId;
  /** Owned by the session. */
  state: RequestState = REQUEST_STATE.free;
  /** What is wanted: read, write, flush, trim, cache, writeZeroes or blockStatus. */
  command: Command = COMMAND.read;
  /** Answer only when the effects are on stable storage on every recipient (G2). */
  fua = false;
  /** WRITE_ZEROES: provision the range. Never together with `fastZero`. */
  noHole = false;
  /** READ: one content chunk; always kept. */
  df = false;
  /** BLOCK_STATUS: one extent; enforced by the session. */
  reqOne = false;
  /** WRITE_ZEROES: answer `OUTCOME.unsupported` at once if it cannot be faster than a write. */
  fastZero = false;
  /**
   * Bytes; `offset + length` is inside the volume and both may have any alignment. Both are 0 for
   * flush; otherwise `length` is 1 to 32 MiB for read and write, 1 to 2^32 - 1 for the others.
   */
  offset = 0;
  length = 0;
  /** WRITE: the payload is `data[dataAt, dataAt + length)`, valid and unchanged until answered. */
  data: Uint8Array = NO_BYTES;
  dataAt = 0;
  /** Owned by the session: `data` comes from the pool, not from a received chunk. */
  dataPooled = false;
  /**
   * READ, after `session.reserveRead`: room for the whole blocks that cover the range. The first
   * block goes to `readBuffer[readAt]`, so the first byte asked for is at
   * `readAt + offset % BLOCK_BYTES`.
   */
  readBuffer: Uint8Array = NO_BYTES;
  readAt = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** For the host: three numbers and a reference, zero and null at the start of each request. */
  hostSlot = 0;
  hostCount = 0;
  hostValue = 0;
  hostState: unknown = null;

  constructor(session: Session, slot: number, volume: VolumeId) {
    this.session = session;
    this.slot = slot;
    this.volume = volume;
  }

  /** Drops every reference to memory, for the next use of the slot. */
  reset(): void {
    this.state = REQUEST_STATE.free;
    this.data = NO_BYTES;
    this.dataPooled = false;
    this.readBuffer = NO_BYTES;
    this.hostSlot = 0;
    this.hostCount = 0;
    this.hostValue = 0;
    this.hostState = null;
  }
}

/**
 * One request of an NBD client, from its header to its answer. A session owns a fixed set of them
 * and uses each again and again, so a request costs no allocation; the host must not touch one
 * after it answered it.
 */
import type { VolumeId } from "../base/units.ts";
import { volumeId } from "../base/units.ts";
import { COMMAND, type Command } from "../format/nbd.ts";
import type { Session } from "./session.ts";

const NO_BYTES = new Uint8Array(0);

/** Life of a slot: free -> filling (its WRITE payload is arriving) -> open (the host has it). */
export const REQUEST_STATE = { free: 0, filling: 1, open: 2 } as const;
export type RequestState = (typeof REQUEST_STATE)[keyof typeof REQUEST_STATE];

export class Request {
  readonly session: Session;
  /** Index in the session, 0 to `LIMITS.clientRequestsMax - 1`. */
  readonly slot: number;
  /** Owned by the session. */
  state: RequestState = REQUEST_STATE.free;
  /** What is wanted: read, write, flush, trim, cache, writeZeroes or blockStatus. */
  command: Command = COMMAND.read;
  /** Answer only when the effects are on stable storage on every recipient (G2). */
  fua = false;
  /** WRITE_ZEROES: provision the range. */
  noHole = false;
  /** READ: one content chunk; always kept. */
  df = false;
  /** BLOCK_STATUS: one extent; enforced by the session. */
  reqOne = false;
  /** WRITE_ZEROES: answer `OUTCOME.unsupported` at once if it cannot be faster than a write. */
  fastZero = false;
  volume: VolumeId = volumeId(0);
  /** Bytes; `offset + length` is inside the volume. Any alignment. Both 0 for flush. */
  offset = 0;
  length = 0;
  /** WRITE: the payload is `data[dataAt, dataAt + length)`, valid and unchanged until answered. */
  data: Uint8Array = NO_BYTES;
  dataAt = 0;
  /**
   * READ, after `session.reserveRead`: room for the whole blocks that cover the range; the first
   * block goes to `readBuffer[readAt]`, so the first byte asked for is at `readFirst`.
   */
  readBuffer: Uint8Array = NO_BYTES;
  readAt = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** For the host: two numbers and a reference of its own, reset to 0, 0 and null for each request. */
  hostSlot = 0;
  hostCount = 0;
  hostState: unknown = null;

  constructor(session: Session, slot: number) {
    this.session = session;
    this.slot = slot;
  }

  /** Drops every reference to memory; the slot may be used again. */
  release(): void {
    this.state = REQUEST_STATE.free;
    this.data = NO_BYTES;
    this.readBuffer = NO_BYTES;
    this.hostState = null;
  }
}

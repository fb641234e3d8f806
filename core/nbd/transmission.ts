/**
 * The client's side of the transmission phase: request headers and payloads in, `Request`s out,
 * each from a fixed set of slots.
 *
 *   header -> admit -> dispatch            (no payload, or all of it in one chunk)
 *             admit -> payload -> dispatch (a WRITE whose payload arrives in pieces)
 *   header -> skip -> header               (refused: a WRITE's payload is consumed first)
 *
 * The rest of a large payload is pulled from the connection straight into its buffer, and so is
 * what follows, until the connection has nothing more now: chunks cost memory of their own and a
 * copy more (bench/RESULTS.md). After `PULL_BYTES` the session goes on in the host's next turn.
 *
 * Invariants: `openCount` requests are between `dispatch` and `release`; `payloadBytes` is the
 * sum of the lengths of the READs and WRITEs that were admitted and not released; nothing is
 * allocated by a length that was not validated.
 */
import { assert } from "../base/assert.ts";
import { KIB } from "../base/units.ts";
import { COMMAND, COMMAND_FLAG, type Command, REQUEST, REQUEST_MAGIC } from "../format/nbd.ts";
import type { BufferPool } from "./buffer_pool.ts";
import { type ClientError, REFUSAL } from "./errno.ts";
import type { Export } from "./export_table.ts";
import { type Input, PROGRESS, type Progress } from "./input.ts";
import type { Output } from "./output.ts";
import { putError } from "./replies.ts";
import { REQUEST_STATE, Request } from "./request.ts";
import type { Session } from "./session.ts";
import { type Terms, validateRequest } from "./validate.ts";

/** A payload that lacks so much is pulled. */
const PULL_FROM_BYTES = 64 * KIB;
/**
 * Pulled in one go, about: then other clients and the replies have their turn. With 2 MiB a client
 * of four requests of 1 MiB waited while we wrote, and we while it sent (bench/RESULTS.md).
 */
export const PULL_BYTES = 512 * KIB;

const PHASE = { header: 0, admit: 1, payload: 2, skip: 3 } as const;
type Phase = (typeof PHASE)[keyof typeof PHASE];

export interface TransmissionOptions {
  readonly session: Session;
  readonly entry: Export;
  readonly structured: boolean;
  readonly hasContext: boolean;
  readonly input: Input;
  readonly output: Output;
  readonly pool: BufferPool;
  readonly requestsMax: number;
  readonly payloadBytesMax: number;
}

export class Transmission {
  readonly terms: Terms;
  openCount = 0;
  payloadBytes = 0;
  /** Why it ended, when `step` said finish or abort. */
  why = "";
  /** The request to hand to the host, when `step` said done. */
  ready: Request | null = null;
  private readonly options: TransmissionOptions;
  private readonly input: Input;
  private readonly output: Output;
  private phase: Phase = PHASE.header;
  private slotCount = 0;
  private readonly freeSlots: Request[] = [];
  /** The request in phase admit or payload. */
  private arriving: Request | null = null;
  private arrivedBytes = 0;
  private skipBytes = 0;
  private refusal: ClientError = REFUSAL.unknownCommand;
  private refusedHigh = 0;
  private refusedLow = 0;

  constructor(options: TransmissionOptions) {
    this.options = options;
    this.input = options.input;
    this.output = options.output;
    const { entry, structured, hasContext } = options;
    this.terms = { sizeBytes: entry.sizeBytes, readOnly: entry.readOnly, structured, hasContext };
  }

  /** `done` means that `ready` is a request for the host. */
  step(stopping: boolean): Progress {
    switch (this.phase) {
      case PHASE.header:
        return this.header(stopping);
      case PHASE.admit:
        return this.admit();
      case PHASE.payload:
        return this.payload();
      case PHASE.skip:
        return this.skip();
    }
  }

  /** True while the next step must wait for a request to be answered. */
  get isFull(): boolean {
    if (this.phase === PHASE.header) return this.openCount >= this.options.requestsMax;
    return this.phase === PHASE.admit && !this.fits();
  }

  /** Takes back a request that the host answered, with all its memory. */
  release(request: Request): void {
    assert(request.state === REQUEST_STATE.open, "nbd: a request was answered twice");
    this.openCount -= 1;
    this.payloadBytes -= costOf(request);
    assert(this.openCount >= 0, "nbd: more answers than requests");
    assert(this.payloadBytes >= 0, "nbd: payload accounting is off");
    this.recycle(request);
  }

  /** The connection is over: what has not fully arrived never will. */
  abandon(): void {
    const request = this.arriving;
    if (request === null) return;
    if (this.phase === PHASE.payload) this.payloadBytes -= costOf(request);
    this.arriving = null;
    this.recycle(request);
  }

  private header(stopping: boolean): Progress {
    if (this.isFull) return PROGRESS.blocked;
    if (!this.input.gather(REQUEST.sizeBytes)) {
      this.input.pullBytes = 0;
      return PROGRESS.starved;
    }
    const view = this.input.sourceView;
    const at = this.input.sourceAt;
    if (REQUEST.magic.get(view, at) !== REQUEST_MAGIC) {
      this.why = "a request did not begin with its magic";
      return PROGRESS.abort;
    }
    const flags = REQUEST.flags.get(view, at);
    const command = REQUEST.command.get(view, at);
    const cookieHigh = REQUEST.cookieHigh.get(view, at);
    const cookieLow = REQUEST.cookieLow.get(view, at);
    const offset = REQUEST.offset.get(view, at);
    const length = REQUEST.lengthBytes.get(view, at);
    const error = validateRequest(this.terms, stopping, command, flags, offset, length);
    if (error !== null) {
      this.refusal = error;
      this.refusedHigh = cookieHigh;
      this.refusedLow = cookieLow;
      this.skipBytes = command === COMMAND.write ? length : 0;
      this.phase = PHASE.skip;
      return PROGRESS.more;
    }
    if (command === COMMAND.disc) {
      this.why = "the client disconnected";
      return PROGRESS.finish;
    }
    const request = this.takeSlot();
    request.command = command as Command;
    setFlags(request, flags);
    request.offset = offset;
    request.length = length;
    request.cookieHigh = cookieHigh;
    request.cookieLow = cookieLow;
    request.state = REQUEST_STATE.arriving;
    this.arriving = request;
    this.phase = PHASE.admit;
    return this.admit();
  }

  private admit(): Progress {
    const request = this.arriving;
    assert(request !== null, "nbd: nothing to admit");
    if (!this.fits()) return PROGRESS.blocked;
    this.payloadBytes += costOf(request);
    if (request.command !== COMMAND.write) return this.dispatch(request);
    if (this.input.reference(request.length)) {
      request.data = this.input.source;
      request.dataAt = this.input.sourceAt;
      return this.dispatch(request);
    }
    request.data = this.options.pool.take(request.length);
    request.dataAt = 0;
    request.dataPooled = true;
    this.arrivedBytes = 0;
    this.phase = PHASE.payload;
    return this.payload();
  }

  private payload(): Progress {
    const request = this.arriving;
    assert(request !== null, "nbd: a payload without its request");
    const left = request.length - this.arrivedBytes;
    const { input } = this;
    if (left - input.heldBytes >= PULL_FROM_BYTES && input.pullBytes === 0) {
      input.pullBytes = PULL_BYTES;
    }
    this.arrivedBytes += input.fill(request.data, this.arrivedBytes, left);
    if (this.arrivedBytes < request.length) return PROGRESS.starved;
    return this.dispatch(request);
  }

  private skip(): Progress {
    this.skipBytes -= this.input.skip(this.skipBytes);
    if (this.skipBytes > 0) return PROGRESS.starved;
    const { refusedHigh, refusedLow, refusal } = this;
    putError(this.output, this.terms.structured, refusedHigh, refusedLow, refusal);
    this.phase = PHASE.header;
    return PROGRESS.more;
  }

  private dispatch(request: Request): Progress {
    request.state = REQUEST_STATE.open;
    this.openCount += 1;
    this.arriving = null;
    this.phase = PHASE.header;
    this.ready = request;
    return PROGRESS.done;
  }

  /** One request always fits, whatever the bound. */
  private fits(): boolean {
    const request = this.arriving;
    if (request === null || this.payloadBytes === 0) return true;
    return this.payloadBytes + costOf(request) <= this.options.payloadBytesMax;
  }

  private takeSlot(): Request {
    const free = this.freeSlots.pop();
    if (free !== undefined) return free;
    assert(this.slotCount < this.options.requestsMax, "nbd: no slot left");
    const request = new Request(this.options.session, this.slotCount, this.options.entry.volume);
    this.slotCount += 1;
    return request;
  }

  private recycle(request: Request): void {
    if (request.dataPooled) this.options.pool.give(request.data);
    if (request.readBuffer.length > 0) this.options.pool.give(request.readBuffer);
    request.reset();
    this.freeSlots.push(request);
  }
}

/** Bytes of memory a request may hold: its payload, or its reply's. */
function costOf(request: Request): number {
  return request.command === COMMAND.read || request.command === COMMAND.write ? request.length : 0;
}

function setFlags(request: Request, flags: number): void {
  request.fua = (flags & COMMAND_FLAG.fua) !== 0;
  request.noHole = (flags & COMMAND_FLAG.noHole) !== 0;
  request.df = (flags & COMMAND_FLAG.df) !== 0;
  request.reqOne = (flags & COMMAND_FLAG.reqOne) !== 0;
  request.fastZero = (flags & COMMAND_FLAG.fastZero) !== 0;
}

/**
 * One NBD client's connection, from greeting to end:
 *
 *   open -> handshake -> transmission -> (finish: open requests are answered) -> closed -> ended
 *               |              |
 *               +--- abort ----+------------------------------------------> closed -> ended
 *
 * Invariants:
 *  1. A request is open from `sink.request` to its one reply.
 *  2. `blocked` means that received bytes wait for a reply or for output to drain; the link is
 *     paused exactly then, and `settle` goes on. What waits is bounded by `heldBytesMax` plus
 *     the chunk that was being read.
 *  3. Once `ending` is not `none` no input is looked at and no request is opened. Open ones are
 *     still answered by the host; after an abort or the end of the transport the answers are
 *     dropped.
 *  4. `sink.ended` is called once, from `settle`, when the connection is closed (by either side)
 *     and nothing is open.
 *
 * Any bytes end at most this connection; `why` says in one sentence why it ended.
 * Source: the NBD project's doc/proto.md. docs/nbd.md says how each part of it is answered.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import type { ClientLink } from "../base/ports.ts";
import { MIB } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import type { BufferPool } from "./buffer_pool.ts";
import { clientError } from "./errno.ts";
import type { Export, ExportTable } from "./export_table.ts";
import { Handshake } from "./handshake.ts";
import { Input, PROGRESS, type Progress } from "./input.ts";
import type { Negotiation } from "./negotiation.ts";
import { putGreeting } from "./option_replies.ts";
import { Output } from "./output.ts";
import { putRead, reserveRead } from "./read_reply.ts";
import { EXTENTS_MAX, putDone, putError, putExtents } from "./replies.ts";
import { REQUEST_STATE, type Request } from "./request.ts";
import { PULL_BYTES, Transmission } from "./transmission.ts";

export interface SessionOptions {
  readonly client: number;
  readonly exports: ExportTable;
  readonly link: ClientLink;
  /** Shared by the host's sessions. */
  readonly pool: BufferPool;
  /** `DEFAULT_SESSION_LIMITS` where not given. */
  readonly limits?: Partial<SessionLimits>;
}

export interface SessionLimits {
  /** Open requests; past it the client is not read. */
  readonly requestsMax: number;
  /** Bytes of open READs and WRITEs; past it the client is not read. One request always fits. */
  readonly payloadBytesMax: number;
  /** From `open` to the choice of an export; past it the connection ends. */
  readonly handshakeMs: number;
  /** For the last output of an ending connection; past it the rest is dropped. */
  readonly lingerMs: number;
  /** Output not taken by the client; past it the client is not read. */
  readonly outputBytesHigh: number;
  /** Input that arrives although the link was paused; past it the connection ends. */
  readonly heldBytesMax: number;
}

export const DEFAULT_SESSION_LIMITS: SessionLimits = {
  requestsMax: LIMITS.clientRequestsMax,
  payloadBytesMax: LIMITS.clientBytesMax,
  handshakeMs: 10_000,
  lingerMs: 1000,
  outputBytesHigh: 4 * MIB,
  heldBytesMax: 4 * MIB,
};

export interface SessionSink {
  /** The host answers exactly once, now or later, in any order. Called from receive and settle. */
  request(session: Session, request: Request): void;
  /** Once: the connection is closed and nothing is open. Called from settle. */
  ended(session: Session): void;
}

const ENDING = { none: 0, finish: 1, abort: 2 } as const;
type Ending = (typeof ENDING)[keyof typeof ENDING];

export class Session {
  readonly client: number;
  /** What the client chose; null during the handshake. */
  chosen: Export | null = null;
  /** Why the connection ended or is ending, one sentence; "" while it goes on. */
  why = "";
  /** A `settle` would do something. */
  needsSettle = false;
  /**
   * After `flush`: the connection may have more of large payloads, which the next turn's `settle`
   * takes. Not this turn's: what came so far is executed first, so that the client, which gets its
   * replies sooner, sends while we write.
   */
  mayPull = false;
  private readonly options: SessionOptions;
  private readonly limits: SessionLimits;
  private readonly sink: SessionSink;
  private readonly input: Input;
  private readonly output: Output;
  private readonly handshake: Handshake;
  /** Null during the handshake. */
  private transmission: Transmission | null = null;
  private ending: Ending = ENDING.none;
  private stopping = false;
  private blocked = false;
  private paused = false;
  private parsing = false;
  /** Closed, by either side. */
  private isClosed = false;
  private endedTold = false;
  private deadlineMs = Number.POSITIVE_INFINITY;

  constructor(options: SessionOptions, sink: SessionSink) {
    this.client = options.client;
    this.options = options;
    this.limits = { ...DEFAULT_SESSION_LIMITS, ...options.limits };
    this.sink = sink;
    const { client, link } = options;
    this.input = new Input((buffer, at, length) => link.receiveNow(client, buffer, at, length));
    this.output = new Output(options.link, options.client, options.pool);
    this.handshake = new Handshake(options.exports, this.input, this.output);
  }

  /** Requests that the host has and did not answer yet. */
  get openCount(): number {
    return this.transmission === null ? 0 : this.transmission.openCount;
  }

  /** Bytes of output that the client has not taken. */
  get outputBytes(): number {
    return this.output.queuedBytes;
  }

  /** Bytes received and not looked at. */
  get heldBytes(): number {
    return this.input.heldBytes;
  }

  /** Greets the client and starts the handshake's deadline. Once, first. */
  open(nowMs: number): void {
    this.deadlineMs = nowMs + this.limits.handshakeMs;
    this.needsSettle = true;
    putGreeting(this.output);
  }

  /** Takes `chunk` over: its bytes must never change. */
  receive(_nowMs: number, chunk: Uint8Array): void {
    if (this.ending !== ENDING.none) return;
    this.needsSettle = true;
    this.input.push(chunk);
    if (!this.mustWait()) this.parse();
    else if (!this.blocked) this.block();
    else if (this.input.heldBytes > this.limits.heldBytesMax) {
      this.end(ENDING.abort, "the client went on sending while it was held back");
    }
  }

  /** READ only, at most once per request: sets `readBuffer` and `readAt`. */
  reserveRead(request: Request): void {
    assert(request.state === REQUEST_STATE.open, "nbd: a read that is not open was reserved");
    assert(request.command === COMMAND.read, "nbd: only a read can be reserved");
    reserveRead(this.options.pool, request);
  }

  /** Answers write, flush, trim, cache and writeZeroes, and anything with an error. */
  replyDone(request: Request, outcome: Outcome): void {
    const transmission = this.answering(request);
    if (outcome !== OUTCOME.ok) {
      this.replyError(transmission, request, outcome);
    } else if (this.ending !== ENDING.abort) {
      assert(request.command !== COMMAND.read, "nbd: a read was answered without data");
      assert(request.command !== COMMAND.blockStatus, "nbd: a status was answered without it");
      putDone(this.output, request.cookieHigh, request.cookieLow);
    }
    transmission.release(request);
  }

  /**
   * Answers a read. On ok `buffer[at]` is the first byte asked for; a large reply is not copied
   * if `buffer` is the reserved one. Any other buffer is the caller's again after the call.
   */
  replyRead(request: Request, outcome: Outcome, buffer: Uint8Array, at: number): void {
    const transmission = this.answering(request);
    assert(request.command === COMMAND.read, "nbd: read data for another command");
    if (outcome !== OUTCOME.ok) {
      this.replyError(transmission, request, outcome);
    } else if (this.ending !== ENDING.abort) {
      const { structured } = transmission.terms;
      putRead(this.output, this.options.pool, structured, request, buffer, at);
    }
    transmission.release(request);
  }

  /**
   * Answers a blockStatus. On ok `extents` holds `count` pairs (bytes, NBD extent flags) from the
   * request's offset on; they may end before or after the range asked for.
   */
  replyExtents(
    request: Request,
    outcome: Outcome,
    extents: readonly number[],
    count = extents.length >>> 1,
  ): void {
    const transmission = this.answering(request);
    assert(request.command === COMMAND.blockStatus, "nbd: extents for another command");
    if (outcome !== OUTCOME.ok) {
      this.replyError(transmission, request, outcome);
    } else if (this.ending !== ENDING.abort) {
      const { cookieHigh, cookieLow, length } = request;
      const countMax = request.reqOne ? 1 : EXTENTS_MAX;
      putExtents(this.output, cookieHigh, cookieLow, length, extents, count, countMax);
    }
    transmission.release(request);
  }

  /**
   * Sends output, goes on with held input (which may call `sink.request`), ends what is over. To
   * be called after each batch of events, before the store's and the mirror's `settle`.
   */
  settle(nowMs: number): void {
    this.output.flush();
    while (this.blocked && !this.mustWait()) {
      this.parse();
      this.output.flush();
    }
    const { mayPull } = this;
    this.mayPull = false;
    if (mayPull && !this.blocked && this.ending === ENDING.none) {
      this.input.mayHaveMore = false;
      this.input.pullBytes = PULL_BYTES;
      this.parse();
      this.output.flush();
    }
    if (this.stopping && this.openCount === 0) this.end(ENDING.finish, "this host is stopping");
    if (!this.isClosed && this.ending !== ENDING.none) this.closeWhenDone(nowMs);
    this.needsSettle = false;
    if (!this.isClosed || this.openCount > 0 || this.endedTold) return;
    this.endedTold = true;
    this.sink.ended(this);
  }

  /**
   * Sends output only: for replies made after this turn's `settle`. If `needsSettle` is true
   * afterwards, another `settle` in this turn would go on with held input or end the session.
   */
  flush(): void {
    this.output.flush();
    this.mayPull = this.input.mayHaveMore;
    this.needsSettle =
      (this.blocked && !this.mustWait()) ||
      (this.openCount === 0 && (this.stopping || this.ending !== ENDING.none));
  }

  /** The link takes output again. */
  drained(_nowMs: number): void {
    this.output.drained();
    this.needsSettle = true;
  }

  /** The transport's connection is gone: what is open is still answered, to nobody. */
  closed(_nowMs: number): void {
    this.end(ENDING.abort, "the client closed the connection");
    this.isClosed = true;
    this.output.kill();
  }

  /** New requests are refused with ESHUTDOWN; the connection ends when nothing is open. */
  shutdown(_nowMs: number): void {
    this.stopping = true;
    this.needsSettle = true;
  }

  /** The handshake, or the sending of the last output, took too long. */
  expire(nowMs: number): void {
    if (nowMs < this.deadlineMs) return;
    this.end(ENDING.abort, "the client chose no export in time");
  }

  nextDeadlineMs(): number {
    return this.deadlineMs;
  }

  /** Received bytes must wait for a reply or for output to drain. */
  private mustWait(): boolean {
    if (this.output.queuedBytes > this.limits.outputBytesHigh) return true;
    return this.transmission?.isFull ?? false;
  }

  private parse(): void {
    assert(!this.parsing, "nbd: the session was re-entered");
    this.parsing = true;
    this.blocked = false;
    let progress: Progress = PROGRESS.more;
    while (progress === PROGRESS.more) {
      if (this.output.queuedBytes > this.limits.outputBytesHigh) progress = PROGRESS.blocked;
      else if (this.transmission === null) progress = this.stepHandshake();
      else progress = this.stepTransmission(this.transmission);
    }
    this.parsing = false;
    if (progress === PROGRESS.blocked) this.block();
    else this.setPaused(false);
    if (progress === PROGRESS.starved) this.input.rest();
  }

  private stepHandshake(): Progress {
    const { handshake } = this;
    const progress = handshake.step(this.stopping);
    if (progress === PROGRESS.done) {
      assert(handshake.negotiation !== null, "nbd: a handshake without an agreement");
      this.transmit(handshake.negotiation);
      return PROGRESS.more;
    }
    if (progress === PROGRESS.finish) this.end(ENDING.finish, handshake.why);
    if (progress === PROGRESS.abort) this.end(ENDING.abort, handshake.why);
    return progress;
  }

  private transmit(agreed: Negotiation): void {
    const { chosen, structured, hasContext } = agreed;
    assert(chosen !== null, "nbd: transmission without an export");
    this.chosen = chosen;
    this.deadlineMs = Number.POSITIVE_INFINITY;
    this.transmission = new Transmission({
      session: this,
      entry: chosen,
      structured,
      hasContext,
      input: this.input,
      output: this.output,
      pool: this.options.pool,
      requestsMax: this.limits.requestsMax,
      payloadBytesMax: this.limits.payloadBytesMax,
    });
  }

  private stepTransmission(transmission: Transmission): Progress {
    const progress = transmission.step(this.stopping);
    if (progress === PROGRESS.done) {
      const request = transmission.ready;
      assert(request !== null, "nbd: no request is ready");
      transmission.ready = null;
      this.sink.request(this, request);
      return PROGRESS.more;
    }
    if (progress === PROGRESS.finish) this.end(ENDING.finish, transmission.why);
    if (progress === PROGRESS.abort) this.end(ENDING.abort, transmission.why);
    return progress;
  }

  private block(): void {
    this.blocked = true;
    this.setPaused(true);
  }

  private setPaused(paused: boolean): void {
    if (paused === this.paused || this.isClosed) return;
    this.paused = paused;
    this.options.link.pause(this.client, paused);
  }

  /** The request's transmission, after checks that it is this session's to answer. */
  private answering(request: Request): Transmission {
    assert(request.session === this, "nbd: a request was answered through another session");
    assert(request.state === REQUEST_STATE.open, "nbd: a request was answered twice");
    assert(this.transmission !== null, "nbd: a request before the transmission phase");
    this.needsSettle = true;
    return this.transmission;
  }

  private replyError(transmission: Transmission, request: Request, outcome: Outcome): void {
    const error = clientError(outcome, request.fastZero);
    if (this.ending === ENDING.abort) return;
    const { cookieHigh, cookieLow } = request;
    putError(this.output, transmission.terms.structured, cookieHigh, cookieLow, error);
  }

  /** No more input; the first reason is kept, an abort overrules a finish. */
  private end(ending: Ending, why: string): void {
    this.needsSettle = true;
    if (ending <= this.ending) return;
    if (this.why === "") this.why = why;
    this.ending = ending;
    this.blocked = false;
    // The handshake's deadline is void; a finish gets one of its own in `closeWhenDone`.
    this.deadlineMs = Number.POSITIVE_INFINITY;
    this.input.clear();
    this.transmission?.abandon();
  }

  /** Closes the link once all is said, or at once after an abort. */
  private closeWhenDone(nowMs: number): void {
    if (this.ending === ENDING.finish) {
      if (this.openCount > 0) return;
      if (this.output.queuedBytes > 0) {
        if (this.deadlineMs === Number.POSITIVE_INFINITY) {
          this.deadlineMs = nowMs + this.limits.lingerMs;
        }
        return;
      }
    }
    this.isClosed = true;
    this.deadlineMs = Number.POSITIVE_INFINITY;
    this.options.link.close(this.client);
    this.output.kill();
  }
}

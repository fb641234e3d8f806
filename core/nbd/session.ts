/** One NBD client's connection as a state machine (skeleton: the public shape). */
import type { ClientLink } from "../base/ports.ts";
import type { Outcome } from "../base/outcome.ts";
import type { BufferPool } from "./buffer_pool.ts";
import type { ExportTable } from "./export_table.ts";
import type { Request } from "./request.ts";

export interface SessionOptions {
  readonly client: number;
  readonly exports: ExportTable;
  readonly link: ClientLink;
  /** Shared by the host's sessions. */
  readonly pool: BufferPool;
  /** Bounds; `DEFAULT_SESSION_LIMITS` unless a test says otherwise. */
  readonly limits?: Partial<SessionLimits>;
}

export interface SessionLimits {
  readonly requestsMax: number;
  readonly payloadBytesMax: number;
  readonly handshakeMs: number;
  readonly lingerMs: number;
  readonly outputBytesHigh: number;
  readonly heldBytesMax: number;
}

export interface SessionSink {
  /** The host answers exactly once, now or later, in any order. Called from receive and settle. */
  request(session: Session, request: Request): void;
  /** Once: the connection is over and no request is in flight. Called from settle. */
  ended(session: Session): void;
}

export class Session {
  readonly client: number;
  constructor(options: SessionOptions, _sink: SessionSink) {
    this.client = options.client;
  }
  /** Greets the client and starts the handshake's deadline. */
  open(_nowMs: number): void {}
  receive(_nowMs: number, _chunk: Uint8Array): void {}
  /** READ only: sets `request.readBuffer` and `request.readAt` (see there). Once per request. */
  reserveRead(_request: Request): void {}
  replyDone(_request: Request, _outcome: Outcome): void {}
  /** `buffer[at]` is the first byte asked for; no copy if `buffer` is the reserved one. */
  replyRead(_request: Request, _outcome: Outcome, _buffer: Uint8Array, _at: number): void {}
  /** `extents`: pairs (bytes, NBD extent flags), `count` pairs. */
  replyExtents(_request: Request, _outcome: Outcome, _extents: number[], _count: number): void {}
  /** Resumes held input (may call sink.request), sends output, ends. */
  settle(_nowMs: number): void {}
  /** Sends output only: for replies made after this turn's `settle`. */
  flush(_nowMs: number): void {}
  /** True when a `settle` would do something. */
  get needsSettle(): boolean {
    return false;
  }
  drained(_nowMs: number): void {}
  closed(_nowMs: number): void {}
  shutdown(_nowMs: number): void {}
  expire(_nowMs: number): void {}
  nextDeadlineMs(): number {
    return Number.POSITIVE_INFINITY;
  }
}

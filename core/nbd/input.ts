/**
 * Bytes received from one client, in the order received, without copying what need not be
 * copied: a structure or payload that lies in one chunk is used where it is, one that straddles
 * chunks is put together. What the chunks lack may be pulled from the connection, straight to
 * where it is wanted.
 *
 * Invariants: `at <= end <= chunk.length`; a gathered piece in progress (`pieceLength > 0`) has
 * consumed its bytes already; `heldBytes` counts all bytes not yet consumed; nothing is pulled
 * while a chunk holds bytes that come before.
 */
import { assert } from "../base/assert.ts";
import { viewOf } from "../format/layout.ts";

/** What a parser says after each step. */
export const PROGRESS = {
  /** Something was consumed: step again. */
  more: 0,
  /** More bytes must arrive. */
  starved: 1,
  /** A reply or the output must make room first. */
  blocked: 2,
  /** This phase is over. */
  done: 3,
  /** The connection ends once everything is answered. */
  finish: 4,
  /** The connection ends now. */
  abort: 5,
} as const;
export type Progress = (typeof PROGRESS)[keyof typeof PROGRESS];

const NO_BYTES = new Uint8Array(0);
const NO_VIEW = viewOf(NO_BYTES);
/** Holds a request header or an option header; grown for the data of an option. */
const PIECE_BYTES = 64;

/** Takes what the connection has now into `buffer[at, at + length)`; how many bytes that was. */
export type Pull = (buffer: Uint8Array, at: number, length: number) => number;

export class Input {
  /** Where the bytes of the last successful `gather` or `reference` are. */
  source: Uint8Array = NO_BYTES;
  sourceView: DataView = NO_VIEW;
  sourceAt = 0;
  /** Received and not consumed. */
  heldBytes = 0;
  /** Bytes that may be pulled from the connection; 0 = only chunks are used. */
  pullBytes = 0;
  /**
   * Something was pulled since this was last cleared: by the time that is dealt with, the
   * connection may well have more.
   */
  mayHaveMore = false;
  private readonly pull: Pull;
  private chunk: Uint8Array = NO_BYTES;
  private view: DataView = NO_VIEW;
  private at = 0;
  private end = 0;
  private waiting: Uint8Array[] = [];
  private waitingHead = 0;
  private piece: Uint8Array = NO_BYTES;
  private pieceView: DataView = NO_VIEW;
  private pieceLength = 0;

  constructor(pull: Pull) {
    this.pull = pull;
  }

  /** Takes `chunk` over; its bytes must not change while a request refers to them. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.heldBytes += chunk.length;
    if (this.at === this.end && this.waitingHead === this.waiting.length) this.begin(chunk);
    else this.waiting.push(chunk);
  }

  /** Forgets everything. */
  clear(): void {
    this.rest();
    this.dropPiece();
    this.chunk = NO_BYTES;
    this.view = NO_VIEW;
    this.at = 0;
    this.end = 0;
    this.heldBytes = 0;
    this.waiting = [];
    this.waitingHead = 0;
    this.pieceLength = 0;
  }

  /**
   * Consumes the next `lengthBytes` and points `source` at them; false until they have all
   * arrived. A caller that got false must ask for the same length next.
   */
  gather(lengthBytes: number): boolean {
    if (this.pieceLength === 0 && this.reference(lengthBytes)) return true;
    if (this.piece.length < lengthBytes) this.growPiece(lengthBytes);
    const more = this.fill(this.piece, this.pieceLength, lengthBytes - this.pieceLength);
    this.pieceLength += more;
    if (this.pieceLength < lengthBytes) return false;
    this.source = this.piece;
    this.sourceView = this.pieceView;
    this.sourceAt = 0;
    this.pieceLength = 0;
    // The memory of a large option is not kept for the life of the connection.
    if (this.piece.length > PIECE_BYTES) this.dropPiece();
    return true;
  }

  /** Lets go of memory that was consumed: an idle connection pins no received chunk. */
  rest(): void {
    this.source = NO_BYTES;
    this.sourceView = NO_VIEW;
  }

  /** Consumes `lengthBytes` where they are if one chunk holds them all; else consumes nothing. */
  reference(lengthBytes: number): boolean {
    if (this.end - this.at < lengthBytes) {
      if (this.at < this.end || !this.next()) return false;
      if (this.end - this.at < lengthBytes) return false;
    }
    this.source = this.chunk;
    this.sourceView = this.view;
    this.sourceAt = this.at;
    this.at += lengthBytes;
    this.heldBytes -= lengthBytes;
    return true;
  }

  /** Consumes up to `lengthBytes` into `out[outAt, ...)`; returns how many. */
  fill(out: Uint8Array, outAt: number, lengthBytes: number): number {
    let done = 0;
    while (done < lengthBytes) {
      if (this.at === this.end && !this.next()) break;
      const count = Math.min(lengthBytes - done, this.end - this.at);
      out.set(this.chunk.subarray(this.at, this.at + count), outAt + done);
      this.at += count;
      done += count;
    }
    this.heldBytes -= done;
    assert(this.heldBytes >= 0, "nbd input: consumed more than was received");
    while (done < lengthBytes && this.pullBytes > 0) {
      const count = this.pull(out, outAt + done, lengthBytes - done);
      if (count === 0) break;
      this.mayHaveMore = true;
      this.pullBytes = Math.max(0, this.pullBytes - count);
      done += count;
    }
    return done;
  }

  /** Consumes and drops up to `lengthBytes`; returns how many. */
  skip(lengthBytes: number): number {
    let done = 0;
    while (done < lengthBytes) {
      if (this.at === this.end && !this.next()) break;
      const count = Math.min(lengthBytes - done, this.end - this.at);
      this.at += count;
      done += count;
    }
    this.heldBytes -= done;
    return done;
  }

  private begin(chunk: Uint8Array): void {
    this.chunk = chunk;
    this.view = viewOf(chunk);
    this.at = 0;
    this.end = chunk.length;
  }

  /** Moves on to the next chunk that waits, if any. */
  private next(): boolean {
    const chunk = this.waiting[this.waitingHead];
    if (chunk === undefined) {
      this.chunk = NO_BYTES;
      this.view = NO_VIEW;
      this.at = 0;
      this.end = 0;
      return false;
    }
    this.waiting[this.waitingHead] = NO_BYTES;
    this.waitingHead += 1;
    if (this.waitingHead === this.waiting.length) {
      this.waiting.length = 0;
      this.waitingHead = 0;
    }
    this.begin(chunk);
    return true;
  }

  private dropPiece(): void {
    this.piece = NO_BYTES;
    this.pieceView = NO_VIEW;
  }

  private growPiece(lengthBytes: number): void {
    const grown = new Uint8Array(Math.max(PIECE_BYTES, lengthBytes));
    grown.set(this.piece.subarray(0, this.pieceLength));
    this.piece = grown;
    this.pieceView = viewOf(grown);
  }
}

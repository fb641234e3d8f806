/**
 * Sends the data of a READ. A small one is copied behind its header into the accumulator, so
 * that many replies go out in one send; a large one is sent from the buffer it was read into,
 * with its header in the headroom.
 */
import { assert } from "../base/assert.ts";
import { BLOCK_BYTES, KIB } from "../base/units.ts";
import { viewOf } from "../format/layout.ts";
import { type BufferPool, HEADROOM_BYTES } from "./buffer_pool.ts";
import type { Output } from "./output.ts";
import { putReadHeader, readHeaderBytes } from "./replies.ts";
import { NO_BYTES, type Request } from "./request.ts";

/** Copying so much costs about what a send of its own does (bench/nbd_session.ts). */
const COPY_BYTES_MAX = 32 * KIB;

/** Room for the blocks that cover the request's range, and for a header before them. */
export function reserveRead(pool: BufferPool, request: Request): void {
  assert(request.readBuffer.length === 0, "nbd: a read was reserved twice");
  request.readBuffer = pool.take(request.length);
  request.readAt = HEADROOM_BYTES;
}

/** `buffer[at, at + request.length)` is what was read; the reserved buffer or any other. */
export function putRead(
  output: Output,
  pool: BufferPool,
  structured: boolean,
  request: Request,
  buffer: Uint8Array,
  at: number,
): void {
  const { cookieHigh, cookieLow, offset, length } = request;
  assert(at >= 0 && at + length <= buffer.length, "nbd: read data outside its buffer");
  const headerBytes = readHeaderBytes(structured);
  if (length <= COPY_BYTES_MAX) {
    const start = output.reserve(headerBytes + length);
    putReadHeader(output.view, start, structured, cookieHigh, cookieLow, offset, length);
    output.buffer.set(buffer.subarray(at, at + length), start + headerBytes);
    return;
  }
  let dataAt = at;
  if (buffer !== request.readBuffer) {
    if (request.readBuffer.length === 0) reserveRead(pool, request);
    dataAt = request.readAt + (offset % BLOCK_BYTES);
    request.readBuffer.set(buffer.subarray(at, at + length), dataAt);
  }
  const reserved = request.readBuffer;
  const start = dataAt - headerBytes;
  assert(start >= 0, "nbd: no room for a header before the data");
  putReadHeader(viewOf(reserved), start, structured, cookieHigh, cookieLow, offset, length);
  output.append(reserved, start, dataAt + length);
  // The client takes it while the next is read, instead of several at once at the turn's end.
  output.flush();
  // The output owns it now and gives it back to the pool.
  request.readBuffer = NO_BYTES;
}

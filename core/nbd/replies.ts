/**
 * Encodes the replies of the transmission phase into an `Output` (proto.md, "Simple reply
 * message", "Structured reply chunk message"). Every reply here is one message: a structured
 * reply has exactly one chunk, which is complete when it is queued and so carries DONE.
 */
import { assert } from "../base/assert.ts";
import {
  CHUNK,
  CHUNK_ERROR,
  CHUNK_FLAG,
  CHUNK_HEADER,
  CHUNK_MAGIC,
  DATA_CHUNK,
  EXTENT,
  SIMPLE_REPLY,
  SIMPLE_REPLY_MAGIC,
} from "../format/nbd.ts";
import type { ClientError } from "./errno.ts";
import type { Output } from "./output.ts";

/** Identifies the `base:allocation` context in replies; opaque to the client. */
export const ALLOCATION_CONTEXT_ID = 1;
/** Descriptors in one BLOCK_STATUS reply; the client asks on from where the reply ends. */
export const EXTENTS_MAX = 4096;

/** Success without payload; allowed for every command but READ, structured or not. */
export function putDone(output: Output, cookieHigh: number, cookieLow: number): void {
  const at = output.reserve(SIMPLE_REPLY.sizeBytes);
  putSimpleHeader(output.view, at, 0, cookieHigh, cookieLow);
}

/** An error, structured (with its sentence) or simple. No payload follows. */
export function putError(
  output: Output,
  structured: boolean,
  cookieHigh: number,
  cookieLow: number,
  error: ClientError,
): void {
  if (!structured) {
    const at = output.reserve(SIMPLE_REPLY.sizeBytes);
    putSimpleHeader(output.view, at, error.error, cookieHigh, cookieLow);
    return;
  }
  const payloadBytes = CHUNK_ERROR.sizeBytes + error.message.length;
  const at = output.reserve(CHUNK_HEADER.sizeBytes + payloadBytes);
  putChunkHeader(output.view, at, CHUNK.error, cookieHigh, cookieLow, payloadBytes);
  const errorAt = at + CHUNK_HEADER.sizeBytes;
  CHUNK_ERROR.error.set(output.view, errorAt, error.error);
  CHUNK_ERROR.messageBytes.set(output.view, errorAt, error.message.length);
  output.buffer.set(error.message, errorAt + CHUNK_ERROR.sizeBytes);
}

export function readHeaderBytes(structured: boolean): number {
  return structured ? DATA_CHUNK.sizeBytes : SIMPLE_REPLY.sizeBytes;
}

/** The header that stands before the data of a READ; `readHeaderBytes` long. */
export function putReadHeader(
  view: DataView,
  at: number,
  structured: boolean,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): void {
  if (!structured) {
    putSimpleHeader(view, at, 0, cookieHigh, cookieLow);
    return;
  }
  putChunkHeader(view, at, CHUNK.offsetData, cookieHigh, cookieLow, 8 + length);
  DATA_CHUNK.offset.set(view, at, offset);
}

/**
 * A BLOCK_STATUS reply from `count` pairs (bytes, flags) in `extents`, which start at the
 * request's offset. Neighbours of equal flags become one, the last is cut at `length`, and
 * `countMax` descriptors at most are sent (1 for REQ_ONE). Nothing known: one extent of flags 0.
 */
export function putExtents(
  output: Output,
  cookieHigh: number,
  cookieLow: number,
  length: number,
  extents: readonly number[],
  count: number,
  countMax: number,
): void {
  const merged = mergeExtents(length, extents, count, countMax);
  const payloadBytes = 4 + (merged.length / 2) * EXTENT.sizeBytes;
  const at = output.reserve(CHUNK_HEADER.sizeBytes + payloadBytes);
  putChunkHeader(output.view, at, CHUNK.blockStatus, cookieHigh, cookieLow, payloadBytes);
  let extentAt = at + CHUNK_HEADER.sizeBytes;
  output.view.setUint32(extentAt, ALLOCATION_CONTEXT_ID);
  extentAt += 4;
  for (let index = 0; index < merged.length; index += 2) {
    EXTENT.lengthBytes.set(output.view, extentAt, merged[index]!);
    EXTENT.flags.set(output.view, extentAt, merged[index + 1]!);
    extentAt += EXTENT.sizeBytes;
  }
}

function mergeExtents(
  length: number,
  extents: readonly number[],
  count: number,
  countMax: number,
): number[] {
  assert(count * 2 <= extents.length, "nbd: fewer extents than announced");
  const merged: number[] = [];
  let left = length;
  for (let index = 0; index < count && left > 0; index += 1) {
    const bytes = Math.min(extents[index * 2]!, left);
    const flags = extents[index * 2 + 1]!;
    if (bytes <= 0) continue;
    const last = merged.length - 1;
    if (last > 0 && merged[last] === flags) merged[last - 1]! += bytes;
    else if (merged.length === countMax * 2) break;
    else merged.push(bytes, flags);
    left -= bytes;
  }
  if (merged.length === 0) merged.push(length, 0);
  return merged;
}

function putSimpleHeader(
  view: DataView,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  SIMPLE_REPLY.magic.set(view, at, SIMPLE_REPLY_MAGIC);
  SIMPLE_REPLY.error.set(view, at, error);
  SIMPLE_REPLY.cookieHigh.set(view, at, cookieHigh);
  SIMPLE_REPLY.cookieLow.set(view, at, cookieLow);
}

function putChunkHeader(
  view: DataView,
  at: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  payloadBytes: number,
): void {
  CHUNK_HEADER.magic.set(view, at, CHUNK_MAGIC);
  CHUNK_HEADER.flags.set(view, at, CHUNK_FLAG.done);
  CHUNK_HEADER.type.set(view, at, type);
  CHUNK_HEADER.cookieHigh.set(view, at, cookieHigh);
  CHUNK_HEADER.cookieLow.set(view, at, cookieLow);
  CHUNK_HEADER.lengthBytes.set(view, at, payloadBytes);
}

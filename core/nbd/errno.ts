/**
 * The one place where outcomes of the core become NBD errors, with the sentence that a client
 * with structured replies is told (proto.md, "Error values").
 */
import { assert } from "../base/assert.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { NBD_ERROR, type NbdError } from "../format/nbd.ts";

/** An error as it goes to the client: the code, and at most 4096 bytes of UTF-8 for people. */
export interface ClientError {
  readonly error: NbdError;
  readonly message: Uint8Array;
}

const encoder = new TextEncoder();

function makeError(error: NbdError, text: string): ClientError {
  return { error, message: encoder.encode(text) };
}

/** What validation refuses, by reason. */
export const REFUSAL = {
  shutdown: makeError(NBD_ERROR.ESHUTDOWN, "this host is stopping"),
  unknownCommand: makeError(NBD_ERROR.EINVAL, "unknown command"),
  unknownFlag: makeError(NBD_ERROR.EINVAL, "a flag that does not apply to this command"),
  readOnly: makeError(NBD_ERROR.EPERM, "the export is read-only"),
  empty: makeError(NBD_ERROR.EINVAL, "a request of zero bytes"),
  tooLong: makeError(NBD_ERROR.EINVAL, "longer than the maximum block size of 32 MiB"),
  pastEnd: makeError(NBD_ERROR.EINVAL, "the range ends past the end of the export"),
  writePastEnd: makeError(NBD_ERROR.ENOSPC, "the range ends past the end of the export"),
  flushRange: makeError(NBD_ERROR.EINVAL, "offset and length of a flush must be zero"),
  noContext: makeError(NBD_ERROR.EINVAL, "no metadata context was selected for this export"),
  slowZero: makeError(NBD_ERROR.ENOTSUP, "provisioned zeroes are not faster than a write"),
} as const;

/**
 * By outcome. `unsupported` is ENOTSUP only for WRITE_ZEROES with FAST_ZERO, the one case that
 * the protocol allows, and EINVAL otherwise.
 */
const BY_OUTCOME: Readonly<Record<Outcome, ClientError>> = {
  [OUTCOME.ok]: makeError(NBD_ERROR.ok, ""),
  [OUTCOME.io]: makeError(NBD_ERROR.EIO, "no good copy could be read or written"),
  [OUTCOME.full]: makeError(NBD_ERROR.ENOSPC, "the store is full"),
  [OUTCOME.refused]: makeError(
    NBD_ERROR.EPERM,
    "the range is leased to another host, or read-only",
  ),
  [OUTCOME.invalid]: makeError(NBD_ERROR.EINVAL, "the request is not valid"),
  [OUTCOME.shutdown]: REFUSAL.shutdown,
  [OUTCOME.unsupported]: makeError(NBD_ERROR.EINVAL, "not supported by this export"),
  // Asserted away in `clientError`; EIO is the safe answer should it ever get here.
  [OUTCOME.pending]: makeError(NBD_ERROR.EIO, "the request was not completed"),
};

const NOT_FAST = makeError(NBD_ERROR.ENOTSUP, "zeroing would not be faster than a write");

/** The client's error for a final outcome. */
export function clientError(outcome: Outcome, fastZero: boolean): ClientError {
  assert(outcome !== OUTCOME.pending, "nbd: a pending outcome is not an answer");
  if (outcome === OUTCOME.unsupported && fastZero) return NOT_FAST;
  return BY_OUTCOME[outcome];
}

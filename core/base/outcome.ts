/**
 * The outcome of a request inside the core: a small number, 0 for success. Translated to NBD
 * errors once, in `core/nbd/errno.ts`, and to exit codes once, in `cmd/exit.ts`.
 */
export const OUTCOME = {
  ok: 0,
  /** No good copy could be read or written. */
  io: 1,
  /** The store has no room; TRIM still works. */
  full: 2,
  /** Refused by policing or because the export is read-only. */
  refused: 3,
  /** The request itself is wrong (past the end, unknown flag). */
  invalid: 4,
  /** The host is stopping. */
  shutdown: 5,
  /** Not supported by this export. */
  unsupported: 6,
  /** Accepted; the answer comes later through the sink. Never sent to a client. */
  pending: 7,
} as const;
export type Outcome = (typeof OUTCOME)[keyof typeof OUTCOME];

/**
 * Assertions. They state what our own code promises, stay on in production, and a failed one
 * ends the process: a storage program that no longer understands itself must stop, not guess.
 * Bad input from a peer, a client or a disk is never an assertion (see `outcome.ts`).
 */

/** Thrown by a failed assertion; caught only by the process's last line of defence. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/**
 * Throws when `condition` is false.
 *
 * `message` must be a constant: a template is built even when the condition holds.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** For the default branch of an exhaustive `switch`. */
export function unreachable(_value: never, message: string): never {
  throw new AssertionError(message);
}

/** Returns `value`, which our own invariants say is present. */
export function must<T>(value: T | null | undefined, message: string): T {
  if (value === null || value === undefined) throw new AssertionError(message);
  return value;
}

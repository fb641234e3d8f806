/**
 * Exit codes, the only place where an error becomes a number for the shell.
 *
 * Commands throw `CommandError`; `main.ts` prints its one sentence on stderr and exits with its
 * code. Any other exception is a defect of vsan and ends with code 1 and its stack.
 */

export const EXIT = {
  done: 0,
  /** Failed at run time. */
  failed: 1,
  /** Wrong use or wrong configuration; nothing was changed. */
  usage: 2,
  /** The cluster is reachable but refuses now: the same command may work later. */
  refused: 3,
  /** Checked, and found damage. */
  damaged: 4,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly code: ExitCode;

  constructor(code: ExitCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The operator asked for something that cannot be meant; exit 2. */
export function usageError(message: string): CommandError {
  return new CommandError(EXIT.usage, message);
}

/** It went wrong while running; exit 1. */
export function failure(message: string): CommandError {
  return new CommandError(EXIT.failed, message);
}

/** The cluster says no for now; exit 3. */
export function refusal(message: string): CommandError {
  return new CommandError(EXIT.refused, message);
}

/** Damage was found; exit 4. */
export function damage(message: string): CommandError {
  return new CommandError(EXIT.damaged, message);
}

/** A command that docs/cli.md names and this version lacks; exit 1. */
export function notInThisVersion(command: string): CommandError {
  return failure(`${command}: not in this version`);
}

/** The message of anything thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

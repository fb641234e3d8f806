/**
 * Every rule about a request of the transmission phase, in one function: behind it the host may
 * rely on all of them (proto.md, "Command flags", "Block size constraints", "Error values").
 */
import { LIMITS } from "../base/limits.ts";
import { COMMAND, COMMAND_FLAG } from "../format/nbd.ts";
import { type ClientError, REFUSAL } from "./errno.ts";

/** What was agreed with the client, as far as it decides which requests are valid. */
export interface Terms {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly structured: boolean;
  /** A metadata context was selected for this very export. */
  readonly hasContext: boolean;
}

/** FUA is accepted on every command, as the protocol demands of a server that advertises it. */
const FLAGS: readonly number[] = flagTable();

function flagTable(): number[] {
  const flags: number[] = [];
  flags[COMMAND.read] = COMMAND_FLAG.fua | COMMAND_FLAG.df;
  flags[COMMAND.write] = COMMAND_FLAG.fua;
  flags[COMMAND.disc] = 0xffff;
  flags[COMMAND.flush] = COMMAND_FLAG.fua;
  flags[COMMAND.trim] = COMMAND_FLAG.fua;
  flags[COMMAND.cache] = COMMAND_FLAG.fua;
  flags[COMMAND.writeZeroes] = COMMAND_FLAG.fua | COMMAND_FLAG.noHole | COMMAND_FLAG.fastZero;
  flags[COMMAND.blockStatus] = COMMAND_FLAG.fua | COMMAND_FLAG.reqOne;
  return flags;
}

/**
 * Null if the request may go to the host, else why not. `offset` is -1 when it was 2^53 or more.
 * DISC is always valid. Payload-less commands may be of any length inside the export.
 */
export function validateRequest(
  terms: Terms,
  stopping: boolean,
  command: number,
  flags: number,
  offset: number,
  length: number,
): ClientError | null {
  const allowed = FLAGS[command];
  if (allowed === undefined) return REFUSAL.unknownCommand;
  if (command === COMMAND.disc) return null;
  if (stopping) return REFUSAL.shutdown;
  if ((flags & ~allowed) !== 0) return REFUSAL.unknownFlag;
  if (command === COMMAND.flush) return offset === 0 && length === 0 ? null : REFUSAL.flushRange;
  const modifies =
    command === COMMAND.write || command === COMMAND.writeZeroes || command === COMMAND.trim;
  if (modifies && terms.readOnly) return REFUSAL.readOnly;
  if (length === 0) return REFUSAL.empty;
  if (command === COMMAND.read || command === COMMAND.write) {
    if (length > LIMITS.requestBytesMax) return REFUSAL.tooLong;
    // DF exists only between parties that negotiated structured replies.
    if ((flags & COMMAND_FLAG.df) !== 0 && !terms.structured) return REFUSAL.unknownFlag;
  }
  if (offset < 0 || offset > terms.sizeBytes - length) {
    return modifies && command !== COMMAND.trim ? REFUSAL.writePastEnd : REFUSAL.pastEnd;
  }
  if (command === COMMAND.blockStatus && !terms.hasContext) return REFUSAL.noContext;
  const slow = COMMAND_FLAG.fastZero | COMMAND_FLAG.noHole;
  if ((flags & slow) === slow) return REFUSAL.slowZero;
  return null;
}

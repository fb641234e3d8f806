/**
 * Following one host's recovery to its end, whoever runs the host.
 *
 * The store may need nothing (the host is in sync), only time (a resync goes on), or a beginning
 * (the disk is failed, missing or blank): `begin` is carried out at most once.
 */
import { CommandError, EXIT, failure } from "./exit.ts";
import type { Progress } from "./progress.ts";
import { ownEntry, type StatusDocument } from "./status_document.ts";

const POLL_MS = 200;
/** How long a host may take to find its view before its state is believed. */
export const SETTLE_MS = 3000;

export interface RecoveryTarget {
  /**
   * Refusals count only when they still stand after so long: a host that has just started does
   * not know the others yet.
   */
  readonly patienceMs: number;
  status(): Promise<StatusDocument>;
  /** True once the host knows its own disk. */
  isReady(): Promise<boolean>;
  /** Starts the rebuild; throws what refuses it. */
  begin(): Promise<void>;
}

/** Resolves when the host is in sync. `isAsked`: rebuild even a host that seems to be well. */
export async function followRecovery(
  target: RecoveryTarget,
  isAsked: boolean,
  progress: Progress,
): Promise<StatusDocument> {
  const begunAt = performance.now();
  let hasBegun = false;
  let badSince = Number.POSITIVE_INFINITY;
  try {
    for (;;) {
      const status = await target.status();
      const own = ownEntry(status);
      const isWell = own.state === "in-sync" && own.disk === "ok";
      if (isWell && (hasBegun || !isAsked)) return status;
      const settled = (await target.isReady()) || performance.now() - begunAt > SETTLE_MS;
      const needsBegin = own.disk !== "ok" || own.state === "diskless" || isAsked;
      if (!hasBegun && needsBegin && settled) {
        hasBegun = await tryBegin(target, performance.now() - begunAt >= target.patienceMs);
        if (hasBegun) badSince = performance.now();
      } else if (hasBegun && own.disk === "failed" && performance.now() - badSince > SETTLE_MS) {
        throw failure(`the disk failed again: ${own.why}`);
      }
      show(status, progress);
      await Bun.sleep(POLL_MS);
    }
  } finally {
    progress.finish();
  }
}

/** True once begun; a refusal is passed on if it `isFinal`. */
async function tryBegin(target: RecoveryTarget, isFinal: boolean): Promise<boolean> {
  try {
    await target.begin();
    return true;
  } catch (thrown) {
    const isRefusal = thrown instanceof CommandError && thrown.code === EXIT.refused;
    if (isFinal || !isRefusal) throw thrown;
    return false;
  }
}

function show(status: StatusDocument, progress: Progress): void {
  const own = ownEntry(status);
  const entry = status.resync.find((resync) => resync.to === status.host);
  if (entry !== undefined && entry.totalBytes > 0) progress.show(entry);
  else if (own.why !== "") progress.note(`${own.name} is ${own.state}: ${own.why}`);
  else if (status.view.why !== "") progress.note(status.view.why);
  else progress.note(`${own.name} is ${own.state}`);
}

/**
 * Lets the writers that the last sync answered join the next one.
 *
 * Writers that wait for their syncs fall into two halves: one waits for the sync under way, the
 * other for the next, which would begin the moment the first ends, before the first half could
 * write again. Each sync then covers half of what it could. So while writes came during a sync, the
 * next one is held until as much was written as before, or nobody wrote for a moment (group commit
 * with a delay: Helland et al., "Group Commit Timers and High Volume Transaction Systems", 1987).
 *
 * Only when to sync is decided here. A client alone never writes during its own sync, so it is
 * never held.
 */

/** A client's turn: reply, its next request. */
const PAUSE_MS_MAX = 0.1;
/** Longest that a sync is held in all: about what the sync takes. */
const HOLD_MS_MAX = 0.4;
/** Syncs without a write meanwhile before nothing is held any more. */
const ALONE_MIN = 8;

export class SyncGather {
  /** Syncs left for which writers are taken to be several. */
  private left = 0;
  private wanted = 0;
  private doneMs = 0;
  private writtenMs = 0;

  /** A batch was handed to the disk, or has been written. */
  wrote(nowMs: number): void {
    this.writtenMs = nowMs;
  }

  /** A sync ended: it covered `coveredBytes`, and `waitingBytes` were written meanwhile. */
  ended(coveredBytes: number, waitingBytes: number, nowMs: number): void {
    if (waitingBytes > 0) this.left = ALONE_MIN;
    else if (this.left > 0) this.left -= 1;
    this.wanted = coveredBytes + waitingBytes;
    this.doneMs = nowMs;
  }

  /** Until when a sync of `bytes` is held; in the past or -Infinity: it may begin. */
  heldUntilMs(bytes: number): number {
    if (this.left === 0 || bytes >= this.wanted) return Number.NEGATIVE_INFINITY;
    const pauseMs = Math.max(this.doneMs, this.writtenMs) + PAUSE_MS_MAX;
    return Math.min(pauseMs, this.doneMs + HOLD_MS_MAX);
  }
}

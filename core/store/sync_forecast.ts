/**
 * Foresees the next sync. A client that flushes after each write answers our reply with a FLUSH a
 * round trip later; a sync begun as soon as the write is logged has then covered part of its way.
 *
 *                 STREAK_MIN syncs in a row, each for few batches
 *   waiting for asks ---------------------------------------------> foreseeing
 *          ^                                                            |
 *          +----------------- UNASKED_MAX syncs nobody asked for -------+
 *
 * Only when to sync is decided here, never what a sync means: a wrong guess costs a sync.
 */

/** Asks in a row, each for at most `BATCHES_MAX` batches, before syncs are foreseen. */
const STREAK_MIN = 4;
const BATCHES_MAX = 2;
/** Foreseen syncs in a row that nobody asked for before waiting for asks again. */
const UNASKED_MAX = 2;

export class SyncForecast {
  private streak = 0;
  private batches = 0;
  private unasked = 0;

  /** True if a sync is likely to be asked for soon after each batch. */
  get foresees(): boolean {
    return this.streak >= STREAK_MIN;
  }

  /** A batch of the hot lane was submitted. */
  wrote(): void {
    this.batches += 1;
  }

  /** A sync was asked for. */
  asked(): void {
    // Several asks for the same batches say nothing new.
    if (this.batches === 0) return;
    this.streak = this.batches <= BATCHES_MAX ? this.streak + 1 : 0;
    this.batches = 0;
    this.unasked = 0;
  }

  /** A sync was begun that nobody has asked for yet. */
  began(): void {
    this.unasked += 1;
    if (this.unasked > UNASKED_MAX) this.streak = 0;
  }
}

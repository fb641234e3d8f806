/**
 * Foresees the next FLUSH. A client that flushes after each write answers our reply with a FLUSH a
 * round trip later; syncs begun as soon as the write is in the logs have then covered part of
 * their way. A host foresees for its clients, and has all recipients sync (core/host/writes.ts); a
 * store foresees for whoever asks it (core/store/log_writer.ts).
 *
 *                 STREAK_MIN asks in a row, each for few writes
 *   waiting for asks ---------------------------------------------> foreseeing
 *          ^                                                            |
 *          +----------------- UNASKED_MAX syncs nobody asked for -------+
 *
 * Only when to sync is decided here, never what a sync means: a wrong guess costs a sync.
 */

/** Asks in a row, each for at most `WRITES_MAX` writes, before syncs are foreseen. */
const STREAK_MIN = 4;
const WRITES_MAX = 2;
/** Foreseen syncs in a row that nobody asked for before waiting for asks again. */
const UNASKED_MAX = 2;

export class FlushForecast {
  private streak = 0;
  private writes = 0;
  private unasked = 0;

  /** True if a sync is likely to be asked for soon after each write. */
  get foresees(): boolean {
    return this.streak >= STREAK_MIN;
  }

  /** Something that a sync could be asked for: a record, or a batch of them. */
  wrote(): void {
    this.writes += 1;
  }

  /** A sync was asked for. */
  asked(): void {
    // Several asks for the same writes say nothing new.
    if (this.writes === 0) return;
    this.streak = this.writes <= WRITES_MAX ? this.streak + 1 : 0;
    this.writes = 0;
    this.unasked = 0;
  }

  /** A sync was begun that nobody has asked for yet. */
  began(): void {
    this.unasked += 1;
    if (this.unasked > UNASKED_MAX) this.streak = 0;
  }
}

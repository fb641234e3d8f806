/**
 * What this host has submitted to the sequencer and not yet seen numbered. Together with the
 * sequencer's check that submissions count up without a gap, every submission is numbered exactly
 * once, however often the link was made anew.
 */
import { assert } from "../base/assert.ts";
import type { Submission } from "../format/lease_wire.ts";
import { HOST_FREES_MAX, HOST_REQUESTS_MAX } from "./table.ts";

/** Submissions of one host on their way: requests, a cancel for each, and FREEs. */
export const SUBMISSIONS_MAX = 2 * HOST_REQUESTS_MAX + HOST_FREES_MAX;

export class Outbox {
  /** Number of the oldest submission not numbered yet. */
  first = 1;
  private items: Submission[] = [];
  private sent = 0;

  clear(): void {
    this.first = 1;
    this.items = [];
    this.sent = 0;
  }

  get size(): number {
    return this.items.length;
  }

  /** True if there is no room for `more` submissions. */
  isFullFor(more: number): boolean {
    return this.items.length + more > SUBMISSIONS_MAX;
  }

  /** Number of the submission. */
  push(what: Submission): number {
    assert(this.items.length < SUBMISSIONS_MAX, "outbox: more submissions than the bound");
    this.items.push(what);
    return this.first + this.items.length - 1;
  }

  /** Submission `number` of this host was numbered by the sequencer. */
  numbered(number: number): void {
    if (number !== this.first || this.items.length === 0) return;
    this.items.shift();
    this.first += 1;
    if (this.sent > 0) this.sent -= 1;
  }

  /** Everything not numbered is to be sent again. */
  rewind(): void {
    this.sent = 0;
  }

  get hasUnsent(): boolean {
    return this.sent < this.items.length;
  }

  /** Number of the first unsent submission. */
  get firstUnsent(): number {
    return this.first + this.sent;
  }

  /** The next unsent submissions, at most `count`; they count as sent. */
  takeUnsent(count: number): Submission[] {
    const taken = this.items.slice(this.sent, this.sent + count);
    this.sent += taken.length;
    return taken;
  }
}

/**
 * The sequencer's part (R9): numbers submissions in the order in which they arrive, keeps the
 * newest events for recipients whose link was made anew, and decides when requests age.
 *
 * The log is bounded without ever losing an event that somebody lacks: numbering stops while the
 * slowest recipient is a whole log behind. Then `stalledBy` names it, for R16.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { HostId } from "../base/units.ts";
import {
  AGE_BATCH_MAX,
  LEASE_BATCH_MAX,
  type LeaseEvent,
  type Submission,
} from "../format/lease_wire.ts";
import { SUBMISSIONS_MAX } from "./outbox.ts";
import type { LeaseTable } from "./table.ts";

/** Events kept for those who lack them. */
export const SEQUENCE_LOG_MAX = 8192;

export class Sequencer {
  /** Number of the newest event. */
  last = 0;
  /** Since when numbering has been stopped by a recipient; Infinity when it is not. */
  stalledSinceMs = Number.POSITIVE_INFINITY;
  private readonly log: (LeaseEvent | null)[] = new Array(SEQUENCE_LOG_MAX).fill(null);
  private readonly others: readonly HostId[];
  private readonly isRecipient = new Uint8Array(LIMITS.hostCountMax);
  /** Per host: the last submission taken. */
  private readonly taken = new Float64Array(LIMITS.hostCountMax);
  /** Of those taken, not numbered yet. */
  private readonly queued = new Uint32Array(LIMITS.hostCountMax);
  /** Per host: the last event it said it applied, and the last one sent to it. */
  private readonly progress = new Float64Array(LIMITS.hostCountMax);
  private readonly sentUpTo = new Float64Array(LIMITS.hostCountMax);
  private readonly greetDue = new Uint8Array(LIMITS.hostCountMax).fill(1);
  /** Not numbered yet: `inbox[inboxAt..]`. */
  private inbox: LeaseEvent[] = [];
  private inboxAt = 0;
  private readonly agingMs: number;
  /** Event number of each waiting request below class 7 -> when it rises; in order of time. */
  private readonly ages = new Map<number, number>();

  constructor(self: HostId, recipients: readonly HostId[], agingMs: number) {
    this.others = recipients.filter((host) => host !== self);
    for (const host of recipients) this.isRecipient[host] = 1;
    this.agingMs = agingMs;
  }

  /** Takes submissions of `from`, numbered from `first` on; those it has already are skipped. */
  submit(from: HostId, first: number, items: readonly Submission[]): void {
    if (this.isRecipient[from] === 0) return;
    for (let index = 0; index < items.length; index += 1) {
      const submitted = first + index;
      if (submitted <= this.taken[from]!) continue;
      // A gap means that earlier ones were lost with a link; they are on their way again.
      if (submitted > this.taken[from]! + 1) return;
      // An honest host never has more on its way; so ours are never turned away.
      if (this.queued[from]! >= SUBMISSIONS_MAX) return;
      this.queued[from]! += 1;
      this.taken[from] = submitted;
      this.inbox.push({ kind: "host", host: from, submitted, what: items[index]! });
    }
  }

  /** Queues a sync point event (R10). */
  announce(kind: "tag" | "point", point: number): void {
    this.inbox.push({ kind, point });
  }

  progressOf(from: HostId, applied: number): void {
    if (applied > this.progress[from]! && applied <= this.last) this.progress[from] = applied;
  }

  /** `from` lacks the events from number `number` on. */
  wanted(from: HostId, number: number): void {
    if (number < 1 || number > this.last + 1 || this.isRecipient[from] === 0) return;
    this.progressOf(from, number - 1);
    if (number === this.last + 1) this.greetDue[from] = 1;
    if (number - 1 < this.sentUpTo[from]!) this.sentUpTo[from] = number - 1;
  }

  /** Numbers the next event and returns it; null when there is none or no room. */
  next(nowMs: number): LeaseEvent | null {
    if (this.inbox.length === 0) {
      this.stalledSinceMs = Number.POSITIVE_INFINITY;
      return null;
    }
    if (this.last - this.slowest() >= SEQUENCE_LOG_MAX) {
      if (this.stalledSinceMs > nowMs) this.stalledSinceMs = nowMs;
      return null;
    }
    this.stalledSinceMs = Number.POSITIVE_INFINITY;
    const event = this.inbox[this.inboxAt]!;
    this.inboxAt += 1;
    if (this.inboxAt === this.inbox.length) {
      this.inbox = [];
      this.inboxAt = 0;
    }
    if (event.kind === "host") this.queued[event.host]! -= 1;
    this.last += 1;
    this.log[this.last % SEQUENCE_LOG_MAX] = event;
    return event;
  }

  /** After the table applied an event: which requests begin or end to age. */
  noteAges(nowMs: number, table: LeaseTable): void {
    for (const request of table.granted) this.ages.delete(request.birth);
    this.ages.delete(table.cancelled);
    const { born } = table;
    if (born !== null && born.level < 7) this.ages.set(born.birth, nowMs + this.agingMs);
  }

  get ageDeadlineMs(): number {
    for (const dueMs of this.ages.values()) return dueMs;
    return Number.POSITIVE_INFINITY;
  }

  /** Queues AGE for the requests that have waited long enough. */
  age(nowMs: number, table: LeaseTable): void {
    let requests: number[] = [];
    for (const [birth, dueMs] of this.ages) {
      if (dueMs > nowMs) break;
      this.ages.delete(birth);
      const request = table.waitingBy(birth);
      if (request === null) continue;
      requests.push(birth);
      // All periods are equal, so appending keeps the map in order of time.
      if (request.level < 6) this.ages.set(birth, nowMs + this.agingMs);
      if (requests.length === AGE_BATCH_MAX) {
        this.inbox.push({ kind: "age", requests });
        requests = [];
      }
    }
    if (requests.length > 0) this.inbox.push({ kind: "age", requests });
  }

  /** The recipient that has stopped the numbering; null if none. */
  stalledBy(): HostId | null {
    if (this.stalledSinceMs === Number.POSITIVE_INFINITY) return null;
    for (const host of this.others) {
      if (this.last - this.progress[host]! >= SEQUENCE_LOG_MAX) return host;
    }
    return null;
  }

  /**
   * Calls `send` with the number of the newest event for those who asked and lack none; at first
   * for everybody, who then knows that submissions sent earlier were lost.
   */
  greet(send: (to: HostId, last: number) => void): void {
    for (const host of this.others) {
      if (this.greetDue[host] === 0) continue;
      this.greetDue[host] = 0;
      send(host, this.last);
    }
  }

  /** Calls `send` with what each recipient has not been sent yet, in bounded batches. */
  flush(send: (to: HostId, first: number, items: LeaseEvent[]) => void): void {
    for (const host of this.others) {
      while (this.sentUpTo[host]! < this.last) {
        const first = this.sentUpTo[host]! + 1;
        const count = Math.min(LEASE_BATCH_MAX, this.last - first + 1);
        const items: LeaseEvent[] = [];
        for (let index = 0; index < count; index += 1) {
          const event = this.log[(first + index) % SEQUENCE_LOG_MAX] ?? null;
          assert(event !== null, "sequencer: an event is no longer in the log");
          items.push(event);
        }
        this.sentUpTo[host] = first + count - 1;
        send(host, first, items);
      }
    }
  }

  private slowest(): number {
    let slowest = this.last;
    for (const host of this.others) slowest = Math.min(slowest, this.progress[host]!);
    return slowest;
  }
}

/**
 * The local writers that wait for a lease, and the requests ("claims") made for them.
 *
 *   request() -> queued -> joined to a claim -> claim granted -> admitted -> gone
 *                  ^                                   |
 *                  +---- a hand-over was on its way ---+        close(): all queued again
 *
 * Several writers share a claim when it covers them, and writers queued in one batch whose ranges
 * overlap or touch become one claim. At most `HOST_REQUESTS_MAX` claims are out; the rest wait in
 * the queue, in the order in which they came.
 */
import type { VolumeId } from "../base/units.ts";
import { HOST_REQUESTS_MAX } from "./table.ts";

export class Waiter {
  readonly token: number;
  readonly volume: VolumeId;
  readonly start: number;
  readonly end: number;
  readonly priority: number;
  claim: Claim | null = null;
  isGone = false;

  constructor(
    token: number,
    volume: VolumeId,
    range: { readonly start: number; readonly end: number },
    priority: number,
  ) {
    this.token = token;
    this.volume = volume;
    this.start = range.start;
    this.end = range.end;
    this.priority = priority;
  }
}

/** One request to the sequencer. */
export class Claim {
  readonly volume: VolumeId;
  start: number;
  end: number;
  readonly priority: number;
  /** Number of the submission; 0 while the claim is being put together. */
  submitted = 0;
  waiters: Waiter[] = [];
  /** Waiters that are not gone. */
  live = 0;

  constructor(first: Waiter) {
    this.volume = first.volume;
    this.start = first.start;
    this.end = first.end;
    this.priority = first.priority;
  }

  add(waiter: Waiter): void {
    waiter.claim = this;
    this.waiters.push(waiter);
    this.live += 1;
  }
}

export class Claims {
  /** All waiters, by token, in the order in which they came. */
  private readonly waiters = new Map<number, Waiter>();
  private queue: Waiter[] = [];
  private readonly bySubmitted = new Map<number, Claim>();

  /** Writers that wait. */
  get size(): number {
    return this.waiters.size;
  }

  /** Claims submitted and not granted. */
  get claimCount(): number {
    return this.bySubmitted.size;
  }

  get hasQueued(): boolean {
    return this.queue.length > 0;
  }

  has(token: number): boolean {
    return this.waiters.has(token);
  }

  add(waiter: Waiter): void {
    this.waiters.set(waiter.token, waiter);
    this.queue.push(waiter);
  }

  /** Ends the wait of `token`. Returns the claim that nobody wants any more, if there is one. */
  cancel(token: number): Claim | null {
    const waiter = this.waiters.get(token);
    if (waiter === undefined) return null;
    return this.leave(waiter);
  }

  /** The waiter was admitted, refused or cancelled. Returns the claim it left empty. */
  leave(waiter: Waiter): Claim | null {
    waiter.isGone = true;
    this.waiters.delete(waiter.token);
    const { claim } = waiter;
    waiter.claim = null;
    if (claim === null) return null;
    claim.live -= 1;
    if (claim.live > 0 || claim.submitted === 0) return null;
    // A claim that was granted is no longer listed, and needs no cancel.
    return this.bySubmitted.delete(claim.submitted) ? claim : null;
  }

  /** All waiters are queued again: the view they asked in is over. */
  requeueAll(): void {
    this.bySubmitted.clear();
    this.queue = [];
    for (const waiter of this.waiters.values()) {
      waiter.claim = null;
      this.queue.push(waiter);
    }
  }

  /** Takes out the claim that was granted; null when nobody waits for it any more. */
  granted(submitted: number): Claim | null {
    const claim = this.bySubmitted.get(submitted) ?? null;
    if (claim !== null) this.bySubmitted.delete(submitted);
    return claim;
  }

  /** Queues `waiters`, in their order, before all others. */
  requeueFirst(waiters: Waiter[]): void {
    for (const waiter of waiters) waiter.claim = null;
    this.queue = waiters.concat(this.queue);
  }

  /**
   * Goes through the queue: `admit` tries to let a writer run at once (and then calls `leave`);
   * others join a claim. Returns the new claims; the caller submits them and calls `listed`.
   */
  assign(admit: (waiter: Waiter) => boolean, roomMax: number): Claim[] {
    const room = Math.min(roomMax, HOST_REQUESTS_MAX - this.bySubmitted.size);
    const made: Claim[] = [];
    const { queue } = this;
    this.queue = [];
    let at = 0;
    for (; at < queue.length; at += 1) {
      const waiter = queue[at]!;
      if (waiter.isGone || admit(waiter)) continue;
      const claim = this.covering(waiter) ?? merged(made, waiter);
      if (claim !== null) {
        claim.add(waiter);
        continue;
      }
      if (made.length >= room) break;
      const fresh = new Claim(waiter);
      fresh.add(waiter);
      made.push(fresh);
    }
    // `admit` may have let new writers queue: they come after those that still wait.
    if (at < queue.length) this.queue = queue.slice(at).concat(this.queue);
    return made.filter((claim) => claim.live > 0);
  }

  listed(claim: Claim, submitted: number): void {
    claim.submitted = submitted;
    this.bySubmitted.set(submitted, claim);
  }

  private covering(waiter: Waiter): Claim | null {
    for (const claim of this.bySubmitted.values()) {
      if (claim.volume !== waiter.volume || claim.priority < waiter.priority) continue;
      if (claim.start <= waiter.start && claim.end >= waiter.end) return claim;
    }
    return null;
  }
}

/** A claim still being put together whose range overlaps or touches the waiter's; widened. */
function merged(made: Claim[], waiter: Waiter): Claim | null {
  for (const claim of made) {
    if (claim.volume !== waiter.volume || claim.priority !== waiter.priority) continue;
    if (claim.start > waiter.end || claim.end < waiter.start) continue;
    claim.start = Math.min(claim.start, waiter.start);
    claim.end = Math.max(claim.end, waiter.end);
    return claim;
  }
  return null;
}

/**
 * The policing module of one host (R9): decides which local writes may run now.
 *
 *   tryAcquire / request --> Claims --submission--> Outbox ~~~~~> Sequencer (first member)
 *          ^                                                          | numbers
 *          | admitted                                                 v
 *        Uses <-- own grant <--------- LeaseTable <~~~~~~~~~~~~~~ events, to all recipients
 *          |                                |
 *        finish --> Yields <-- Handover <---+ somebody waits for what is ours
 *                      +--> FREE --> Outbox
 *
 * Invariants:
 *  1. a use begins only in a range that the table shows ours and that no Yield overlaps;
 *  2. FREE is submitted only when no use overlaps it (rule yieldOnCommit), and the host ends a
 *     use only when its record is committed: so a range changes hands on commit;
 *  3. the table changes only by events applied in the order of their numbers, none left out;
 *  4. every submission is numbered once (Outbox), whatever happens to links;
 *  5. nothing but waiting local writers outlives `close`.
 *
 * All work is done in `settle`, which the host calls after each batch of events; `control` only
 * applies what arrived, so that `check` answers by the newest table.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Point, VolumeId } from "../base/units.ts";
import { type LeaseEvent, type LeaseMessage, VOLUME_BLOCKS_MAX } from "../format/lease_wire.ts";
import { Claims, Waiter } from "./claims.ts";
import { Handover } from "./handover.ts";
import { Outbox, SUBMISSIONS_MAX } from "./outbox.ts";
import { Recent } from "./recent.ts";
import { Sequencer } from "./sequencer.ts";
import { HOST_FREES_MAX, LeaseTable, type LeaseRow, leaseRows } from "./table.ts";
import { Upstream } from "./upstream.ts";
import { Uses } from "./uses.ts";
import type { LeaseRequest } from "./waiting.ts";
import { Yields } from "./yields.ts";

export interface PolicingOptions {
  readonly self: HostId;
  /** A waiting request rises by one class after each of these (sequencer's clock). */
  readonly agingMs: number;
  /** A granted range is kept at least this long before it is given to another host. */
  readonly holdMs: number;
  /** Submissions that the sequencer has not numbered by then are sent again. */
  readonly retryMs: number;
}

export const DEFAULT_POLICING = { agingMs: 2000, holdMs: 5, retryMs: 250 } as const;

export interface PolicingSink {
  /** To a peer; may be lost if its link is down or reset, `linkUp` follows then. */
  send(to: HostId, message: LeaseMessage): void;
  /** The token's write may run now; its use is counted until `finish`. */
  granted(token: number, grant: number): void;
  /** The token's write is refused, and why in one sentence. */
  denied(token: number, why: string): void;
  /** Events were applied: records held back (R9c) may be checked again. */
  tableMoved(): void;
  /** A sync point event was applied (R10): hand it to `Points.announced`. */
  announced(kind: "tag" | "point", point: Point): void;
}

/** What a receiver does with a record (R9c). */
export const CHECK = { ok: 0, behind: 1, refuse: 2 } as const;
export type Check = (typeof CHECK)[keyof typeof CHECK];

/** Rounds of one `settle`; what is left then is done in the next, at once. */
const ROUNDS_MAX = 8;

export class Policing {
  private readonly options: PolicingOptions;
  private readonly sink: PolicingSink;
  private readonly trace: Trace;
  private readonly rules: Rules;

  private isOpen = false;
  private epoch: Epoch = 0;
  private sequencerHost: HostId;
  private table = new LeaseTable();
  /** One of the two is there while a view is open: we number, or we follow. */
  private sequencer: Sequencer | null = null;
  private upstream: Upstream | null = null;
  private handover: Handover;
  private readonly outbox = new Outbox();
  private readonly claims = new Claims();
  private readonly uses = new Uses();
  private readonly recent = new Recent();
  private readonly yields = new Yields();

  /** Tokens past the bound, to be denied in `settle`. */
  private readonly refused: number[] = [];
  /** There is work for `settle`. */
  private isDirty = false;
  /** Somebody's waiting, our leases or our yields changed. */
  private hasMoved = false;
  private hasTableMoved = false;
  private stallTold = false;

  constructor(options: PolicingOptions, sink: PolicingSink, trace: Trace, rules: Rules) {
    this.options = options;
    this.sink = sink;
    this.trace = trace;
    this.rules = rules;
    this.sequencerHost = options.self;
    this.handover = this.newHandover();
  }

  /**
   * A view is OPEN (or ACTIVE) here: the table begins empty. `sequencer` is the view's first
   * member, `recipients` its members and joining hosts. Writers that wait ask anew.
   */
  open(nowMs: number, epoch: Epoch, sequencer: HostId, recipients: readonly HostId[]): void {
    assert(recipients.includes(sequencer), "policing: the sequencer is no recipient");
    this.close();
    const { self, agingMs, retryMs } = this.options;
    this.isOpen = true;
    this.epoch = epoch;
    this.sequencerHost = sequencer;
    this.table = new LeaseTable();
    this.handover = this.newHandover();
    if (sequencer === self) this.sequencer = new Sequencer(self, recipients, agingMs);
    else this.upstream = new Upstream(nowMs, epoch, this.outbox, retryMs);
    this.isDirty = true;
  }

  /**
   * The view was sealed: all leases and uses end; after the next `open` no `finish` may come for
   * them. Waiting tokens stay and ask again then.
   */
  close(): void {
    this.isOpen = false;
    this.sequencer = null;
    this.upstream = null;
    this.outbox.clear();
    this.uses.clear();
    this.recent.clear();
    this.yields.clear();
    this.claims.requeueAll();
    this.stallTold = false;
  }

  /**
   * Admits a write to blocks `[start, end)` if they are all ours: the grant's number, above 0,
   * and one use counted until `finish`. 0: call `request`. Hot; allocates nothing.
   */
  tryAcquire(nowMs: number, volume: VolumeId, start: number, end: number, priority = 0): number {
    if (!this.isOpen || this.uses.isFull) return 0;
    const grant = this.table.grantOf(this.options.self, volume, start, end);
    if (grant === 0 || this.yields.overlap(volume, start, end)) return 0;
    this.uses.add(volume, start, end, grant);
    this.recent.note(nowMs, volume, start, end, priority);
    return grant;
  }

  /**
   * Waits for the lease on `[start, end)`, pieces already held included. Answered from `settle`
   * or `control` by `sink.granted(token, grant)`, across any number of views, unless cancelled.
   * At most `LIMITS.waitingRequestsMax` tokens wait; one more is denied.
   */
  request(
    _nowMs: number,
    token: number,
    volume: VolumeId,
    start: number,
    end: number,
    priority: number,
  ): void {
    assert(start >= 0 && start < end && end <= VOLUME_BLOCKS_MAX, "policing: bad range");
    assert(priority >= 0 && priority <= 7, "policing: bad priority");
    assert(!this.claims.has(token), "policing: the token waits already");
    this.isDirty = true;
    if (this.claims.size >= LIMITS.waitingRequestsMax) {
      this.refused.push(token);
      return;
    }
    this.claims.add(new Waiter(token, volume, { start, end }, priority));
  }

  /** The token no longer waits; nothing is said about it any more. */
  cancel(_nowMs: number, token: number): void {
    const at = this.refused.indexOf(token);
    if (at >= 0) this.refused.splice(at, 1);
    this.dropClaim(this.claims.cancel(token));
  }

  /**
   * Ends a use: its record is committed, or was never appended. Same range and grant as it began
   * with, in the same view; after `close` it has no effect, the use has ended.
   */
  finish(_nowMs: number, volume: VolumeId, start: number, end: number, grant: number): void {
    if (!this.isOpen) return;
    const wasFull = this.uses.isFull;
    const isFound = this.uses.remove(volume, start, end, grant);
    assert(isFound, "policing: no such use");
    if (this.yields.rows.length > 0 && this.yields.useEnded(volume, start, end)) {
      this.isDirty = true;
    }
    if (wasFull) this.isDirty = true;
  }

  /** R9c: what to do with a record of `sender` for `[start, end)` made under `grant`. Hot. */
  check(sender: HostId, volume: VolumeId, start: number, end: number, grant: number): Check {
    if (!this.rules.checkGrant) return CHECK.ok;
    if (!this.isOpen || grant > this.table.applied) return CHECK.behind;
    return this.table.grantOf(sender, volume, start, end) > 0 ? CHECK.ok : CHECK.refuse;
  }

  control(nowMs: number, from: HostId, message: LeaseMessage): void {
    if (!this.isOpen || message.epoch !== this.epoch) return;
    switch (message.kind) {
      case "submit":
        if (this.sequencer === null) return;
        this.sequencer.progressOf(from, message.applied);
        this.sequencer.submit(from, message.first, message.items);
        this.isDirty = true;
        return;
      case "want":
        if (this.sequencer === null) return;
        this.sequencer.wanted(from, message.from);
        this.isDirty = true;
        return;
      case "events":
        if (from !== this.sequencerHost || this.upstream === null) return;
        this.applyAll(nowMs, this.upstream, message.first, message.items);
        return;
      case "hello":
        if (from !== this.sequencerHost || this.upstream === null) return;
        this.upstream.hello(nowMs, message.last, this.table.applied);
        this.isDirty = true;
        return;
      case "synced":
        return;
    }
  }

  /** The link to `peer` was made (anew): what was on its way may be lost. */
  linkUp(nowMs: number, peer: HostId): void {
    if (this.upstream === null || peer !== this.sequencerHost) return;
    this.upstream.restart(nowMs);
    this.isDirty = true;
  }

  /** Sequencer only (`Points`): numbers a sync point event, so that all recipients get it. */
  announce(_nowMs: number, kind: "tag" | "point", point: Point): void {
    if (this.sequencer === null) return;
    this.sequencer.announce(kind, point);
    this.isDirty = true;
  }

  /** R16, at the sequencer: the recipient that has kept everybody waiting for `boundMs`. */
  owing(nowMs: number, boundMs: number): HostId | null {
    if (this.sequencer === null) return null;
    if (nowMs - this.sequencer.stalledSinceMs < boundMs) return null;
    return this.sequencer.stalledBy();
  }

  /** All leases, and who waits for them. */
  list(): LeaseRow[] {
    return this.isOpen ? leaseRows(this.table) : [];
  }

  /** Does the work of a batch of events. Calls the sink. */
  settle(nowMs: number): void {
    for (const token of this.refused.splice(0)) {
      this.sink.denied(token, "too many writes wait for a lease at this host");
    }
    if (!this.isOpen) return;
    for (let round = 0; round < ROUNDS_MAX && this.isDirty && this.isOpen; round += 1) {
      this.isDirty = false;
      if (this.claims.hasQueued && !this.uses.isFull) this.makeClaims(nowMs);
      this.handOver(nowMs);
      if (this.sequencer !== null) this.number(nowMs, this.sequencer);
      this.upstream?.flush(nowMs, this.table.applied, this.sendUp);
    }
    if (this.hasTableMoved) {
      this.hasTableMoved = false;
      this.sink.tableMoved();
    }
  }

  /** A deadline has passed; `settle` must follow. */
  expire(nowMs: number): void {
    if (!this.isOpen) return;
    this.isDirty = true;
    if (nowMs >= this.handover.deadlineMs) this.hasMoved = true;
    if (this.sequencer !== null) this.sequencer.age(nowMs, this.table);
    this.upstream?.expire(nowMs);
  }

  nextDeadlineMs(): number {
    if (this.refused.length > 0) return 0;
    if (!this.isOpen) return Number.POSITIVE_INFINITY;
    if (this.isDirty) return 0;
    const ownMs = this.sequencer?.ageDeadlineMs ?? this.upstream?.deadlineMs;
    return Math.min(this.handover.deadlineMs, ownMs ?? Number.POSITIVE_INFINITY);
  }

  private newHandover(): Handover {
    const { table, uses, recent, yields } = this;
    const { self, holdMs } = this.options;
    return new Handover({ self, holdMs, table, uses, recent, yields });
  }

  /** Lets queued writers run whose range is ours by now; the others' requests are submitted. */
  private makeClaims(nowMs: number): void {
    // Each claim takes a place in the outbox, and later perhaps another for its cancel.
    const taken = HOST_FREES_MAX + this.outbox.size + this.claims.claimCount;
    const room = Math.max(0, Math.floor((SUBMISSIONS_MAX - taken) / 2));
    const made = this.claims.assign((waiter) => this.admit(nowMs, waiter), room);
    for (const claim of made) {
      const { volume, start, end, priority } = claim;
      const submitted = this.outbox.push({
        kind: "request",
        volume,
        start,
        end,
        wishStart: 0,
        wishEnd: VOLUME_BLOCKS_MAX,
        priority,
      });
      this.claims.listed(claim, submitted);
    }
  }

  /** Begins hand-overs that are due, and submits FREE for those that are ready. */
  private handOver(nowMs: number): void {
    const { yields, outbox } = this;
    if (this.hasMoved) {
      this.hasMoved = false;
      this.handover.evaluate(nowMs);
    }
    let room = HOST_FREES_MAX - yields.sentCount;
    for (const row of yields.rows) {
      if (row.isSent || room === 0 || outbox.isFullFor(1)) continue;
      if (row.pending > 0 && this.rules.yieldOnCommit) continue;
      const { volume, start, end } = row;
      outbox.push({ kind: "free", volume, start, end });
      row.isSent = true;
      room -= 1;
    }
  }

  private readonly sendUp = (message: LeaseMessage): void => {
    this.sink.send(this.sequencerHost, message);
  };

  /** Sequencer: numbers what arrived, applies it here, and sends it to the others. */
  private number(nowMs: number, sequencer: Sequencer): void {
    const { epoch, outbox } = this;
    if (outbox.hasUnsent) {
      const first = outbox.firstUnsent;
      sequencer.submit(this.options.self, first, outbox.takeUnsent(outbox.size));
    }
    sequencer.greet((to, last) => this.sink.send(to, { kind: "hello", epoch, last }));
    for (;;) {
      const event = sequencer.next(nowMs);
      if (event === null) break;
      this.apply(nowMs, event);
      if (this.sequencer !== sequencer) return;
      sequencer.noteAges(nowMs, this.table);
    }
    sequencer.flush((to, first, items) => {
      this.sink.send(to, { kind: "events", epoch, first, items });
    });
    const by = sequencer.stalledBy();
    if (by !== null && !this.stallTold) {
      this.trace.event("warn", "lease.stalled", "a recipient does not follow the leases", { by });
    }
    this.stallTold = by !== null;
  }

  private applyAll(
    nowMs: number,
    upstream: Upstream,
    first: number,
    items: readonly LeaseEvent[],
  ): void {
    const { table } = this;
    this.isDirty = true;
    for (let index = 0; index < items.length; index += 1) {
      const number = first + index;
      if (number <= table.applied) continue;
      if (number > table.applied + 1) {
        upstream.missing(nowMs);
        return;
      }
      this.apply(nowMs, items[index]!);
      // The sink may have ended the view.
      if (this.upstream !== upstream) return;
    }
  }

  private apply(nowMs: number, event: LeaseEvent): void {
    const { table } = this;
    const { self } = this.options;
    table.apply(event);
    this.hasMoved = true;
    this.hasTableMoved = true;
    this.isDirty = true;
    const isOwn = event.kind === "host" && event.host === self;
    if (isOwn) {
      this.outbox.numbered(event.submitted);
      const { what } = event;
      if (what.kind === "free") this.yields.freed(what.volume, what.start, what.end);
    }
    this.upstream?.followed(nowMs, isOwn);
    if (event.kind === "tag" || event.kind === "point") {
      this.sink.announced(event.kind, event.point);
    }
    // A copy: what the sink does may apply further events.
    for (const request of table.granted.slice()) {
      const { volume, start, end, host: holder } = request;
      const fields = { volume, start, end, holder };
      this.trace.event("debug", "lease.granted", "a portion changed hands", fields);
      if (holder === self && this.table === table) this.grant(nowMs, request);
    }
  }

  /** An own request was granted: its writers run now, before anybody else can ask for it. */
  private grant(nowMs: number, request: LeaseRequest): void {
    const claim = this.claims.granted(request.submitted);
    if (claim === null) return;
    this.handover.hold(nowMs, request);
    this.yields.drop(request.volume, request.start, request.end);
    const left = claim.waiters.filter((waiter) => !waiter.isGone && !this.admit(nowMs, waiter));
    // A FREE that was on its way before the grant takes the range: ask again.
    if (left.length > 0) this.claims.requeueFirst(left.filter((waiter) => !waiter.isGone));
  }

  private admit(nowMs: number, waiter: Waiter): boolean {
    const { token, volume, start, end, priority } = waiter;
    const grant = this.tryAcquire(nowMs, volume, start, end, priority);
    if (grant === 0) return false;
    this.dropClaim(this.claims.leave(waiter));
    this.sink.granted(token, grant);
    return true;
  }

  private dropClaim(claim: { readonly submitted: number } | null): void {
    if (claim === null || !this.isOpen) return;
    this.outbox.push({ kind: "cancel", request: claim.submitted });
    this.isDirty = true;
  }
}

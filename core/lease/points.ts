/**
 * Sync points (R10): everything tagged below a POINT k that was announced is durable and equal on
 * every recipient.
 *
 *   sequencer: idle --something written, interval over--> TAG(k) --SYNCED(k) of all--> POINT(k)
 *   member:    TAG(k) applied: tag later records k, then MARK(k) into the own stream
 *   recipient: MARK(k) of every member appended: sync, then SYNCED(k) to the sequencer
 *
 * TAG and POINT are events of the lease sequence, so every recipient gets each of them, in order,
 * whatever happens to links; SYNCED is said again when the link to the sequencer is made anew.
 *
 * Invariants: the tag rises before the mark is appended, so no record with a lower tag follows a
 * mark; one point is under way at a time; all of it starts anew with each view.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { Epoch, HostId, Point } from "../base/units.ts";
import type { LeaseMessage } from "../format/lease_wire.ts";

export interface PointsOptions {
  readonly self: HostId;
  /** Pause between sync points while something is written. */
  readonly intervalMs: number;
}

export const DEFAULT_POINT_INTERVAL_MS = 1000;

export interface PointsSink {
  send(to: HostId, message: LeaseMessage): void;
  /** Sequencer only: hand to `Policing.announce`. */
  announce(kind: "tag" | "point", point: Point): void;
  /** At a member: append MARK(point) to the own stream; `currentTag` is `point` already. */
  tagWanted(point: Point): void;
  /** All members' marks are here: sync the store, then `Points.synced(ticket, ok)`. */
  pointSyncWanted(ticket: number): void;
  /** POINT(epoch, point): log it. */
  pointReached(epoch: Epoch, point: Point): void;
}

export class Points {
  /** Tag of records appended now, (epoch, currentTag); 0 before the first TAG of the epoch. */
  currentTag: Point = 0;
  private readonly options: PointsOptions;
  private readonly sink: PointsSink;

  private isOpen = false;
  private epoch: Epoch = 0;
  private sequencer: HostId;
  private members: readonly HostId[] = [];
  private recipients: readonly HostId[] = [];
  /** Newest mark appended here, per sender. */
  private readonly marks = new Uint32Array(LIMITS.hostCountMax);
  /** The lowest of the members'. */
  private marked: Point = 0;
  private syncAsked: Point = 0;
  /** Counts syncs over all views, so that a late answer is never taken for a newer one's. */
  private ticket = 0;
  private syncDone: Point = 0;
  private reached: Point = 0;
  private isTellDue = false;

  /** Sequencer: newest point each recipient has synced; the point under way, 0 = none. */
  private readonly told = new Uint32Array(LIMITS.hostCountMax);
  private pending: Point = 0;
  private pendingSinceMs = 0;
  private isPointSent = false;
  private hasWritten = false;
  private nextTagMs = 0;

  constructor(options: PointsOptions, sink: PointsSink) {
    this.options = options;
    this.sink = sink;
    this.sequencer = options.self;
  }

  /** Together with `Policing.open`. `members` send; `recipients` are members and joining hosts. */
  open(
    nowMs: number,
    epoch: Epoch,
    sequencer: HostId,
    members: readonly HostId[],
    recipients: readonly HostId[],
  ): void {
    assert(members.includes(sequencer), "points: the sequencer is no member");
    this.close();
    this.isOpen = true;
    this.epoch = epoch;
    this.sequencer = sequencer;
    this.members = members.slice();
    this.recipients = recipients.slice();
    this.nextTagMs = nowMs + this.options.intervalMs;
  }

  /** The view was sealed. What was under way is forgotten. */
  close(): void {
    this.isOpen = false;
    this.ticket += 1;
    this.currentTag = 0;
    this.marks.fill(0);
    this.marked = 0;
    this.told.fill(0);
    this.syncAsked = 0;
    this.syncDone = 0;
    this.reached = 0;
    this.pending = 0;
    this.isPointSent = false;
    this.isTellDue = false;
    this.hasWritten = false;
  }

  /** Something was appended here, or is being copied to a joining host: a point is worthwhile. */
  wrote(): void {
    this.hasWritten = true;
  }

  /** A TAG or POINT event was applied (`PolicingSink.announced`). */
  announced(_nowMs: number, kind: "tag" | "point", point: Point): void {
    if (!this.isOpen) return;
    if (kind === "tag") {
      if (point <= this.currentTag) return;
      this.currentTag = point;
      if (this.members.includes(this.options.self)) this.sink.tagWanted(point);
      return;
    }
    if (point <= this.reached) return;
    this.reached = point;
    if (this.pending === point) this.pending = 0;
    this.sink.pointReached(this.epoch, point);
  }

  /** MARK(point) of `sender`'s stream was appended here; the own one included. */
  markApplied(_nowMs: number, sender: HostId, point: Point): void {
    if (!this.isOpen || !this.members.includes(sender)) return;
    if (point <= this.marks[sender]!) return;
    this.marks[sender] = point;
    this.marked = this.members.reduce((low, host) => Math.min(low, this.marks[host]!), point);
  }

  /** The sync of that ticket ended. A failed one is the store's to report. */
  synced(_nowMs: number, ticket: number, ok: boolean): void {
    if (!this.isOpen || ticket !== this.ticket || !ok || this.syncDone === this.syncAsked) return;
    this.syncDone = this.syncAsked;
    this.isTellDue = true;
  }

  control(_nowMs: number, from: HostId, message: LeaseMessage): void {
    if (message.kind !== "synced" || !this.isOpen || message.epoch !== this.epoch) return;
    if (message.point > this.told[from]!) this.told[from] = message.point;
  }

  /** The link to `peer` was made (anew): what was on its way may be lost. */
  linkUp(_nowMs: number, peer: HostId): void {
    if (peer === this.sequencer && this.syncDone > this.reached) this.isTellDue = true;
  }

  settle(nowMs: number): void {
    if (!this.isOpen) return;
    const marked = this.marked;
    if (marked > this.syncAsked && this.syncDone === this.syncAsked) {
      this.syncAsked = marked;
      this.ticket += 1;
      this.sink.pointSyncWanted(this.ticket);
    }
    if (this.isTellDue) {
      this.isTellDue = false;
      if (this.sequencer === this.options.self) this.told[this.options.self] = this.syncDone;
      else {
        const point = this.syncDone;
        this.sink.send(this.sequencer, { kind: "synced", epoch: this.epoch, point });
      }
    }
    if (this.sequencer === this.options.self) this.lead(nowMs);
  }

  /**
   * R16, at the sequencer: a recipient that has not synced the point under way for longer than the
   * bound; joining hosts first. A disk that hangs shows here when no client flushes. Without a mark
   * of some member nobody can sync, so nobody is blamed before the sequencer itself has.
   */
  owing(nowMs: number, boundMs: number): HostId | null {
    const { self } = this.options;
    if (this.pending === 0 || this.isPointSent || this.sequencer !== self) return null;
    if (nowMs - this.pendingSinceMs <= boundMs || this.told[self]! < this.pending) return null;
    const owes = (host: HostId): boolean => host !== self && this.told[host]! < this.pending;
    const debtors = this.recipients.filter(owes);
    return debtors.find((host) => !this.members.includes(host)) ?? debtors[0] ?? null;
  }

  /** `settle` must follow. */
  expire(_nowMs: number): void {}

  nextDeadlineMs(): number {
    const isIdle = !this.isOpen || this.sequencer !== this.options.self || this.pending > 0;
    return isIdle || !this.hasWritten ? Number.POSITIVE_INFINITY : this.nextTagMs;
  }

  /** The sequencer's part. */
  private lead(nowMs: number): void {
    if (this.pending === 0) {
      if (!this.hasWritten || nowMs < this.nextTagMs) return;
      this.hasWritten = false;
      this.nextTagMs = nowMs + this.options.intervalMs;
      this.pending = this.reached + 1;
      this.pendingSinceMs = nowMs;
      this.isPointSent = false;
      this.sink.announce("tag", this.pending);
      return;
    }
    if (this.isPointSent) return;
    for (const host of this.recipients) if (this.told[host]! < this.pending) return;
    this.isPointSent = true;
    this.sink.announce("point", this.pending);
  }
}

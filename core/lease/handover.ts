/**
 * What a holder gives back, when, and how much (R9b). The one part of the module that uses the
 * local clock and the local load; it decides only about this host's own leases.
 *
 * When: a request with nobody ahead overlaps a lease of ours, the minimum hold since our own
 * grant there is over, and no local write of a higher priority ran there lately (the request
 * rises by AGE, so that this ends after (7 - class) * aging at the latest).
 *
 * How much: what the request must have, and around it the unused part of our lease, up to half
 * way to the nearest place where we wrote lately; never a block with a use in flight beyond the
 * must-have, so that the drain is no longer. Two hosts that stream to different parts of a volume
 * so settle after a few hand-overs, each with its own part, and then trade nothing.
 *
 * When the volume's table is crowded, everything of ours in it: the table collapses to few rows.
 */
import type { HostId, VolumeId } from "../base/units.ts";
import { VOLUME_BLOCKS_MAX } from "../format/lease_wire.ts";
import type { Recent } from "./recent.ts";
import { HOST_FREES_MAX, type LeaseTable, type VolumeTable } from "./table.ts";
import type { Gap, Uses } from "./uses.ts";
import type { LeaseRequest } from "./waiting.ts";
import type { Yields } from "./yields.ts";

/** A place written to within this time is in use. */
const ACTIVE_MS = 1000;
/** Own grants whose minimum hold is remembered; past it the oldest hold ends early. */
const FRESH_MAX = 256;
/** Quiet time, in minimum holds, after which a higher priority's writes no longer keep a range. */
const QUIET_HOLDS = 4;

export interface HandoverParts {
  readonly self: HostId;
  readonly holdMs: number;
  readonly table: LeaseTable;
  readonly uses: Uses;
  readonly recent: Recent;
  readonly yields: Yields;
}

interface Fresh {
  readonly volume: VolumeId;
  readonly start: number;
  readonly end: number;
  readonly untilMs: number;
}

export class Handover {
  /** Next time at which `evaluate` may find something new. */
  deadlineMs = Number.POSITIVE_INFINITY;
  private readonly parts: HandoverParts;
  private readonly fresh: Fresh[] = [];
  private readonly gap: Gap = { low: 0, high: 0 };

  constructor(parts: HandoverParts) {
    this.parts = parts;
  }

  /** Begins the minimum hold of what an own request just got. */
  hold(nowMs: number, request: LeaseRequest): void {
    const { fresh } = this;
    while (fresh.length > 0 && (fresh[0]!.untilMs <= nowMs || fresh.length >= FRESH_MAX)) {
      fresh.shift();
    }
    const { volume, start, end } = request;
    fresh.push({ volume, start, end, untilMs: nowMs + this.parts.holdMs });
  }

  /** Begins the hand-overs that are due. True if any began. */
  evaluate(nowMs: number): boolean {
    this.deadlineMs = Number.POSITIVE_INFINITY;
    let hasBegun = false;
    for (const table of this.parts.table.volumes.values()) {
      if (table.waiting.rows.length === 0) continue;
      if (table.isCrowded) {
        if (this.yieldWhole(table)) hasBegun = true;
        continue;
      }
      for (const request of table.waiting.rows) {
        if (request.ahead > 0 || request.host === this.parts.self) continue;
        if (this.consider(nowMs, table, request)) hasBegun = true;
      }
    }
    return hasBegun;
  }

  /** Crowded: gives back all of the volume, once its smaller hand-overs are through. */
  private yieldWhole(table: VolumeTable): boolean {
    const { self, uses, yields } = this.parts;
    const { volume } = table;
    if (!table.leases.rows.some((row) => row.holder === self)) return false;
    if (yields.rows.length >= HOST_FREES_MAX) return false;
    if (yields.overlap(volume, 0, VOLUME_BLOCKS_MAX)) return false;
    const pending = uses.countIn(volume, 0, VOLUME_BLOCKS_MAX);
    yields.begin(volume, 0, VOLUME_BLOCKS_MAX, pending);
    return true;
  }

  private consider(nowMs: number, table: VolumeTable, request: LeaseRequest): boolean {
    const { self } = this.parts;
    const { rows } = table.leases;
    let hasBegun = false;
    let isHeld = false;
    for (let index = table.leases.firstAfter(request.start); index < rows.length; index += 1) {
      const row = rows[index]!;
      if (row.start >= request.end) break;
      if (row.holder !== self) continue;
      if (!isHeld) {
        const untilMs = this.heldUntil(request);
        if (untilMs > nowMs) {
          this.deadlineMs = Math.min(this.deadlineMs, untilMs);
          return false;
        }
        isHeld = true;
      }
      const start = Math.max(row.start, request.start);
      const end = Math.min(row.end, request.end);
      if (this.yieldPart(nowMs, request, start, end, row.start, row.end)) hasBegun = true;
    }
    return hasBegun;
  }

  /** Until when the minimum hold, or our own writes of higher priority, keep the range. */
  private heldUntil(request: LeaseRequest): number {
    const { volume, start, end } = request;
    const { recent, holdMs } = this.parts;
    const last = recent.lastAbove(request.level, volume, start, end);
    let untilMs = last + QUIET_HOLDS * holdMs;
    for (const row of this.fresh) {
      if (row.volume !== volume || row.start >= end || row.end <= start) continue;
      if (row.untilMs > untilMs) untilMs = row.untilMs;
    }
    return untilMs;
  }

  /** Gives back `[start, end)`, less what is on its way already, plus what is unused around. */
  private yieldPart(
    nowMs: number,
    request: LeaseRequest,
    start: number,
    end: number,
    leaseStart: number,
    leaseEnd: number,
  ): boolean {
    const { volume } = request;
    const { uses, yields } = this.parts;
    let hasBegun = false;
    for (let at = start; at < end; ) {
      const covering = yields.rows.find(
        (row) => row.volume === volume && row.start <= at && row.end > at,
      );
      if (covering !== undefined) {
        at = covering.end;
        continue;
      }
      if (yields.rows.length >= HOST_FREES_MAX) return hasBegun;
      const { gap } = this;
      gap.low = Math.max(leaseStart, Math.min(request.wishStart, at));
      gap.high = Math.min(leaseEnd, Math.max(request.wishEnd, end));
      let until = end;
      for (const row of yields.rows) {
        if (row.volume !== volume) continue;
        if (row.end <= at) gap.low = Math.max(gap.low, row.end);
        else gap.high = Math.min(gap.high, row.start);
      }
      until = Math.min(until, gap.high);
      uses.narrowGap(gap, volume, at, until);
      this.parts.recent.narrowGap(gap, volume, at, until, nowMs - ACTIVE_MS);
      yields.begin(volume, gap.low, gap.high, uses.countIn(volume, gap.low, gap.high));
      hasBegun = true;
      at = until;
    }
    return hasBegun;
  }
}

/**
 * The requests waiting for one volume, in the order of R9: class (higher first), then number of
 * the event of the request, then host.
 *
 * Each request counts how many of other hosts precede it and overlap it (`ahead`). The count is
 * kept exact on every change, so that the question "may this one be granted now" (G4: only if
 * none is ahead) costs nothing when a lease is freed.
 */
import type { HostId, VolumeId } from "../base/units.ts";

/** One waiting request. Ranges in blocks. */
export class LeaseRequest {
  readonly host: HostId;
  /** Its host's number for it. */
  readonly submitted: number;
  readonly volume: VolumeId;
  /** Must have. */
  readonly start: number;
  readonly end: number;
  /** Would like; contains `[start, end)`. */
  readonly wishStart: number;
  readonly wishEnd: number;
  /** As asked for, 0 to 7. */
  readonly priority: number;
  /** Number of its event. */
  readonly birth: number;
  /** Priority plus aging, 0 to 7. */
  level: number;
  /** Waiting requests of other hosts that precede and overlap it. */
  ahead = 0;

  constructor(
    asked: {
      readonly volume: VolumeId;
      readonly start: number;
      readonly end: number;
      readonly wishStart: number;
      readonly wishEnd: number;
      readonly priority: number;
    },
    host: HostId,
    submitted: number,
    birth: number,
  ) {
    this.host = host;
    this.submitted = submitted;
    this.volume = asked.volume;
    this.start = asked.start;
    this.end = asked.end;
    this.wishStart = Math.min(asked.wishStart, asked.start);
    this.wishEnd = Math.max(asked.wishEnd, asked.end);
    this.priority = asked.priority;
    this.birth = birth;
    this.level = asked.priority;
  }
}

/** The order of R9: true if `one` comes before `other`. Total over distinct requests. */
export function precedes(one: LeaseRequest, other: LeaseRequest): boolean {
  if (one.level !== other.level) return one.level > other.level;
  if (one.birth !== other.birth) return one.birth < other.birth;
  return one.host < other.host;
}

/** True if both cannot be held at once. */
function conflicts(one: LeaseRequest, other: LeaseRequest): boolean {
  return one.host !== other.host && one.start < other.end && other.start < one.end;
}

export class Waiting {
  /** In order; read only for others. */
  readonly rows: LeaseRequest[] = [];

  insert(request: LeaseRequest): void {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (precedes(this.rows[middle]!, request)) low = middle + 1;
      else high = middle;
    }
    request.ahead = 0;
    for (let index = 0; index < low; index += 1) {
      if (conflicts(this.rows[index]!, request)) request.ahead += 1;
    }
    for (let index = low; index < this.rows.length; index += 1) {
      if (conflicts(this.rows[index]!, request)) this.rows[index]!.ahead += 1;
    }
    this.rows.splice(low, 0, request);
  }

  remove(request: LeaseRequest): void {
    const at = this.rows.indexOf(request);
    if (at < 0) return;
    this.rows.splice(at, 1);
    for (let index = at; index < this.rows.length; index += 1) {
      if (conflicts(this.rows[index]!, request)) this.rows[index]!.ahead -= 1;
    }
  }

  /** Raises it by one class, up to 7 (AGE). */
  raise(request: LeaseRequest): void {
    if (request.level >= 7) return;
    this.remove(request);
    request.level += 1;
    this.insert(request);
  }
}

/**
 * The leases of one volume: who holds which blocks, as disjoint ranges in order.
 *
 * Invariants:
 *  1. rows are sorted by start, not empty, and do not overlap (one holder per block, V6);
 *  2. two rows that touch have different holders, so a range is held by one host if and only if
 *     one row covers it: the hot question needs one binary search.
 *
 * A row keeps the newest grant among those merged into it. That is safe for receivers: waiting
 * for a later event than necessary only holds a record longer (R9c).
 */
import type { HostId } from "../base/units.ts";

/** One held range, `[start, end)` in blocks. */
export class Lease {
  start: number;
  end: number;
  readonly holder: HostId;
  /** Number of the event that made the newest grant in it. */
  grant: number;
  /** Priority of the request that got the newest grant in it, 0 to 7. */
  priority: number;

  constructor(start: number, end: number, holder: HostId, grant: number, priority: number) {
    this.start = start;
    this.end = end;
    this.holder = holder;
    this.grant = grant;
    this.priority = priority;
  }
}

export class Ranges {
  readonly rows: Lease[] = [];

  /** Index of the first row that ends after `block`; `rows.length` if none. */
  firstAfter(block: number): number {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.rows[middle]!.end <= block) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The grant under which `holder` holds all of `[start, end)`; 0 if it does not. */
  grantOf(holder: HostId, start: number, end: number): number {
    const index = this.firstAfter(start);
    if (index === this.rows.length) return 0;
    const row = this.rows[index]!;
    return row.start <= start && row.end >= end && row.holder === holder ? row.grant : 0;
  }

  /** True if no other host than `holder` holds a block of `[start, end)`. */
  isFreeFor(holder: HostId, start: number, end: number): boolean {
    for (let index = this.firstAfter(start); index < this.rows.length; index += 1) {
      const row = this.rows[index]!;
      if (row.start >= end) return true;
      if (row.holder !== holder) return false;
    }
    return true;
  }

  /** Lowest block from which everything up to `start` is free for `holder`. */
  freeFrom(holder: HostId, start: number): number {
    for (let index = this.firstAfter(start) - 1; index >= 0; index -= 1) {
      if (this.rows[index]!.holder !== holder) return this.rows[index]!.end;
    }
    return 0;
  }

  /** Highest block up to which everything from `end` on is free for `holder`, at most `limit`. */
  freeUpTo(holder: HostId, end: number, limit: number): number {
    for (let index = this.firstAfter(end); index < this.rows.length; index += 1) {
      if (this.rows[index]!.holder !== holder) return Math.min(limit, this.rows[index]!.start);
    }
    return limit;
  }

  /** Rows that `give` would add (negative: it merges some). The range must be free. */
  growth(holder: HostId, start: number, end: number): number {
    let absorbed = 0;
    for (let index = this.firstTouching(start); index < this.rows.length; index += 1) {
      const row = this.rows[index]!;
      if (row.start > end) break;
      if (row.holder === holder) absorbed += 1;
    }
    return 1 - absorbed;
  }

  /** Gives `[start, end)` to `lease.holder`; it must be free for that host. Merges its rows. */
  give(lease: Lease): void {
    let first = this.firstTouching(lease.start);
    while (first < this.rows.length && this.rows[first]!.holder !== lease.holder) {
      // A neighbour of another host that only touches on the left stays.
      if (this.rows[first]!.end > lease.start) break;
      first += 1;
    }
    let last = first;
    while (last < this.rows.length) {
      const row = this.rows[last]!;
      if (row.start > lease.end || row.holder !== lease.holder) break;
      lease.start = Math.min(lease.start, row.start);
      lease.end = Math.max(lease.end, row.end);
      lease.grant = Math.max(lease.grant, row.grant);
      last += 1;
    }
    this.rows.splice(first, last - first, lease);
  }

  /** Takes from `holder` what it holds of `[start, end)`. A middle part leaves two rows. */
  take(holder: HostId, start: number, end: number): void {
    const first = this.firstAfter(start);
    const kept: Lease[] = [];
    let last = first;
    for (; last < this.rows.length && this.rows[last]!.start < end; last += 1) {
      const row = this.rows[last]!;
      if (row.holder !== holder) {
        kept.push(row);
        continue;
      }
      if (row.end > end) kept.push(new Lease(end, row.end, holder, row.grant, row.priority));
      if (row.start < start) {
        row.end = start;
        kept.unshift(row);
      }
    }
    this.rows.splice(first, last - first, ...kept);
  }

  /** True if `take` would leave more rows than there are. */
  splits(holder: HostId, start: number, end: number): boolean {
    const index = this.firstAfter(start);
    if (index === this.rows.length) return false;
    const row = this.rows[index]!;
    return row.holder === holder && row.start < start && row.end > end;
  }

  private firstTouching(block: number): number {
    const index = this.firstAfter(block);
    return index > 0 && this.rows[index - 1]!.end === block ? index - 1 : index;
  }
}

/**
 * The newest request numbers appended per origin (R15), so that a request retried through another
 * member executes once. A request's records have consecutive numbers; an origin's numbers only
 * grow, though they may arrive out of order through different proxies.
 */
import { hostId, type HostId } from "../base/units.ts";

/** More than an origin can have unanswered: every client request of a host at the limits. */
const CAPACITY = 8192;
/** What a joiner is told per origin. */
const TOLD = 256;

interface Origin {
  inc: number;
  requests: Float64Array;
  next: number;
}

export class RecentRequests {
  private readonly origins: (Origin | undefined)[] = [];

  /** Notes that the record of `request` was appended. Numbers of an older incarnation are void. */
  note(origin: number, inc: number, request: number): void {
    if (request === 0) return;
    const entry = this.entry(origin);
    if (inc < entry.inc) return;
    if (inc > entry.inc) {
      entry.inc = inc;
      entry.requests.fill(0);
    }
    entry.requests[entry.next] = request;
    entry.next = (entry.next + 1) % CAPACITY;
  }

  /** True if that record was appended. Linear: asked only for retries. */
  has(origin: number, inc: number, request: number): boolean {
    const entry = this.origins[origin];
    return entry !== undefined && entry.inc === inc && entry.requests.includes(request);
  }

  /** The newest of every origin, for a joiner. */
  list(): { origin: HostId; originInc: number; requests: number[] }[] {
    const all: { origin: HostId; originInc: number; requests: number[] }[] = [];
    for (const [index, entry] of this.origins.entries()) {
      if (entry === undefined) continue;
      const requests: number[] = [];
      for (let back = 1; back <= TOLD; back += 1) {
        const request = entry.requests[(entry.next - back + CAPACITY) % CAPACITY]!;
        if (request !== 0) requests.push(request);
      }
      all.push({ origin: hostId(index), originInc: entry.inc, requests });
    }
    return all;
  }

  private entry(origin: number): Origin {
    let entry = this.origins[origin];
    if (entry === undefined) {
      entry = { inc: 0, requests: new Float64Array(CAPACITY), next: 0 };
      this.origins[origin] = entry;
    }
    return entry;
  }
}

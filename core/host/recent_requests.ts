/**
 * The newest request numbers appended per origin (R15), so that a request retried through another
 * member executes once. A request's records have consecutive numbers; an origin's numbers only
 * grow, though they may arrive out of order through different proxies.
 */
import { type Epoch, hostId, type HostId } from "../base/units.ts";

/**
 * Requests kept per origin. An origin may have more unanswered (`LIMITS.waitingRequestsMax`): then
 * a retry of one that fell out is `forgotten`, which answers EIO and never executes it again.
 */
const CAPACITY = 8192;
/** What a joiner is told per origin. */
const TOLD = 256;

interface Origin {
  inc: number;
  /** Requests below this one that are not kept may have been appended before we listened. */
  floor: number;
  requests: Float64Array;
  next: number;
}

export class RecentRequests {
  /**
   * Epoch of the cold start in which this life became a member: what was tried before may be in
   * the log, but this table, which is memory, does not have it.
   */
  knownSince: Epoch = 0;
  private readonly origins: (Origin | undefined)[] = [];

  /** Notes that the record of `request` was appended. Numbers of an older incarnation are void. */
  note(origin: number, inc: number, request: number): void {
    if (request === 0) return;
    const entry = this.entry(origin);
    if (inc < entry.inc) return;
    if (inc > entry.inc) {
      entry.inc = inc;
      entry.floor = 0;
      entry.requests.fill(0);
    }
    entry.requests[entry.next] = request;
    entry.next = (entry.next + 1) % CAPACITY;
  }

  /**
   * Was that record appended? Linear: asked only for requests that another host may have executed
   * too. `forgotten`: it is older than all that is kept, or of a former life of its origin, so
   * nobody can tell any more; it must not be executed. `firstEpoch`: when it was first tried.
   */
  ask(
    origin: number,
    inc: number,
    request: number,
    firstEpoch: Epoch,
  ): "new" | "appended" | "forgotten" {
    const entry = this.origins[origin];
    if (entry?.inc === inc && entry.requests.includes(request)) return "appended";
    if (firstEpoch < this.knownSince) return "forgotten";
    if (entry === undefined || inc > entry.inc) return "new";
    if (inc < entry.inc || request < entry.floor) return "forgotten";
    if (entry.requests[entry.next] === 0) return "new";
    let oldest = Number.POSITIVE_INFINITY;
    for (const kept of entry.requests) if (kept < oldest) oldest = kept;
    return request < oldest ? "forgotten" : "new";
  }

  /** What a member told this joiner of an origin. */
  learn(origin: number, inc: number, requests: readonly number[]): void {
    for (const request of requests) this.note(origin, inc, request);
    const entry = this.entry(origin);
    if (requests.length >= TOLD && entry.inc === inc) {
      entry.floor = Math.max(entry.floor, Math.min(...requests));
    }
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
      entry = { inc: 0, floor: 0, requests: new Float64Array(CAPACITY), next: 0 };
      this.origins[origin] = entry;
    }
    return entry;
  }
}

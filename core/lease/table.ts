/**
 * The table of leases: a pure function of the numbered sequence of events (R9). It knows no
 * clock, no randomness and not which host it runs on, so all recipients that applied the same
 * events hold the same table. Any decoded event is applied without a throw; one that makes no
 * sense changes nothing, everywhere alike.
 *
 *   REQUEST --> waiting --(nobody ahead, range free, room)--> granted = leases
 *                  |                                              |
 *                CANCEL                                         FREE
 *
 * Invariants after every event:
 *  1. per block at most one holder (V6);
 *  2. no waiting request has nobody ahead and a free range, unless the volume has no room;
 *  3. a grant takes no block that another host's waiting request must have.
 *
 * A grant reaches as far into the request's wish as the range is free and nobody waits for it:
 * a lone writer soon holds the whole volume. How much is free under contention is the holders'
 * choice, who know what they use (handover.ts).
 */
import { LIMITS } from "../base/limits.ts";
import type { HostId, VolumeId } from "../base/units.ts";
import type { LeaseEvent, Submission } from "../format/lease_wire.ts";
import { Lease, Ranges } from "./ranges.ts";
import { LeaseRequest, Waiting } from "./waiting.ts";

/** Waiting requests one host may have; its further writers wait at home. */
export const HOST_REQUESTS_MAX = LIMITS.leaseRequestsMax / LIMITS.hostCountMax;
/** FREE submissions of one host on their way. */
export const HOST_FREES_MAX = 64;
/** Rows at which no grant may add one: FREEs on their way still fit below the limit. */
const RANGES_GRANT_MAX = LIMITS.leaseRangesMax - HOST_FREES_MAX * LIMITS.hostCountMax;
/** Rows from which on holders give back all they have in a volume when somebody waits for it. */
const RANGES_CROWDED = RANGES_GRANT_MAX / 2;

/** One held range, for people. Blocks. */
export interface LeaseRow {
  readonly volume: VolumeId;
  readonly start: number;
  readonly end: number;
  readonly holder: HostId;
  readonly priority: number;
  /** Hosts whose requests wait for a part of it, in their order. */
  readonly waiting: readonly HostId[];
}

/** Leases and waiting requests of one volume. */
export class VolumeTable {
  readonly volume: VolumeId;
  readonly leases = new Ranges();
  readonly waiting = new Waiting();
  /** A grant was put off because the table had no room. */
  isStarved = false;

  constructor(volume: VolumeId) {
    this.volume = volume;
  }

  /** So many ranges that they are to be given back whole. */
  get isCrowded(): boolean {
    return this.leases.rows.length >= RANGES_CROWDED;
  }
}

export class LeaseTable {
  /** Number of the newest event applied; 0 = none. */
  applied = 0;
  readonly volumes = new Map<number, VolumeTable>();
  /** Requests granted by the event applied last. */
  readonly granted: LeaseRequest[] = [];
  /** The request that the event applied last put into the queue; null if none (still) waits. */
  born: LeaseRequest | null = null;
  /** Number of the waiting request that the event applied last cancelled; 0 = none. */
  cancelled = 0;
  private readonly submitted = new Float64Array(LIMITS.hostCountMax);
  private readonly waitingOf = new Uint32Array(LIMITS.hostCountMax);
  private readonly byBirth = new Map<number, LeaseRequest>();
  private readonly byName = new Map<number, LeaseRequest>();
  private recent: VolumeTable | null = null;

  /** The volume's part, or null when nobody asked for it yet. Hot. */
  find(volume: VolumeId): VolumeTable | null {
    if (this.recent !== null && this.recent.volume === volume) return this.recent;
    const found = this.volumes.get(volume) ?? null;
    if (found !== null) this.recent = found;
    return found;
  }

  /** The grant under which `holder` holds all of `[start, end)`; 0 if it does not. Hot. */
  grantOf(holder: HostId, volume: VolumeId, start: number, end: number): number {
    const found = this.find(volume);
    return found === null ? 0 : found.leases.grantOf(holder, start, end);
  }

  /** The waiting request of that event number, or null. */
  waitingBy(birth: number): LeaseRequest | null {
    return this.byBirth.get(birth) ?? null;
  }

  /** Requests waiting, all volumes. */
  get waitingCount(): number {
    return this.byBirth.size;
  }

  /** Applies event number `applied + 1`. */
  apply(event: LeaseEvent): void {
    this.applied += 1;
    this.granted.length = 0;
    this.born = null;
    this.cancelled = 0;
    switch (event.kind) {
      case "host":
        if (event.submitted !== this.submitted[event.host]! + 1) return;
        this.submitted[event.host] = event.submitted;
        this.submit(event.host, event.submitted, event.what);
        return;
      case "age":
        for (const birth of event.requests) this.raise(birth);
        return;
      case "tag":
      case "point":
        return;
    }
  }

  private submit(host: HostId, submitted: number, what: Submission): void {
    switch (what.kind) {
      case "request": {
        if (what.start >= what.end || this.waitingOf[host]! >= HOST_REQUESTS_MAX) return;
        const table = this.tableOf(what.volume);
        if (table === null) return;
        const request = new LeaseRequest(what, host, submitted, this.applied);
        this.byBirth.set(request.birth, request);
        this.byName.set(nameOf(host, submitted), request);
        this.waitingOf[host] = this.waitingOf[host]! + 1;
        table.waiting.insert(request);
        this.born = request;
        this.grantAll(table, request.start, request.end);
        return;
      }
      case "cancel": {
        const request = this.byName.get(nameOf(host, what.request));
        if (request === undefined) return;
        this.cancelled = request.birth;
        const table = this.remove(request);
        this.grantAll(table, request.start, request.end);
        return;
      }
      case "free": {
        const table = this.find(what.volume);
        if (table === null || what.start >= what.end) return;
        const { leases } = table;
        const full = leases.rows.length >= LIMITS.leaseRangesMax;
        // Only a host that breaks the bounds of its own submissions gets here; keeping a lease
        // is always safe.
        if (full && leases.splits(host, what.start, what.end)) return;
        leases.take(host, what.start, what.end);
        this.grantAll(table, what.start, what.end);
        return;
      }
    }
  }

  private raise(birth: number): void {
    const request = this.byBirth.get(birth);
    if (request === undefined) return;
    const table = this.volumes.get(request.volume)!;
    table.waiting.raise(request);
    this.grantAll(table, request.start, request.end);
  }

  /**
   * Grants in order what can be granted and overlaps `[start, end)`. One pass is enough: a grant
   * never frees anything, and what it may satisfy beyond its own range (requests of the same
   * host) waits further down, or waited for another host's range and still does.
   */
  private grantAll(table: VolumeTable, start: number, end: number): void {
    let low = start;
    let high = end;
    if (table.isStarved && table.leases.rows.length < RANGES_GRANT_MAX) {
      table.isStarved = false;
      low = 0;
      high = Number.MAX_SAFE_INTEGER;
    }
    const { rows } = table.waiting;
    for (let index = 0; index < rows.length; ) {
      const request = rows[index]!;
      const isTouched = request.start < high && request.end > low;
      if (request.ahead > 0 || !isTouched || !this.grant(table, request)) {
        index += 1;
        continue;
      }
      low = Math.min(low, this.lastStart);
      high = Math.max(high, this.lastEnd);
    }
  }

  private lastStart = 0;
  private lastEnd = 0;

  private grant(table: VolumeTable, request: LeaseRequest): boolean {
    const { leases, waiting } = table;
    const { host } = request;
    if (!leases.isFreeFor(host, request.start, request.end)) return false;
    let start = Math.max(request.wishStart, leases.freeFrom(host, request.start));
    let end = leases.freeUpTo(host, request.end, request.wishEnd);
    for (const other of waiting.rows) {
      if (other.host === host) continue;
      if (other.start < request.start) start = Math.max(start, Math.min(other.end, request.start));
      if (other.end > request.end) end = Math.min(end, Math.max(other.start, request.end));
    }
    const growth = leases.growth(host, start, end);
    if (growth > 0 && leases.rows.length + growth > RANGES_GRANT_MAX) {
      table.isStarved = true;
      return false;
    }
    leases.give(new Lease(start, end, host, this.applied, request.priority));
    this.remove(request);
    this.granted.push(request);
    if (this.born === request) this.born = null;
    this.lastStart = start;
    this.lastEnd = end;
    return true;
  }

  private remove(request: LeaseRequest): VolumeTable {
    const table = this.volumes.get(request.volume)!;
    table.waiting.remove(request);
    this.byBirth.delete(request.birth);
    this.byName.delete(nameOf(request.host, request.submitted));
    this.waitingOf[request.host] = this.waitingOf[request.host]! - 1;
    return table;
  }

  /** Null when there are as many volumes as a cluster may have. */
  private tableOf(volume: VolumeId): VolumeTable | null {
    const found = this.find(volume);
    if (found !== null) return found;
    if (this.volumes.size >= LIMITS.volumeCountMax) return null;
    const made = new VolumeTable(volume);
    this.volumes.set(volume, made);
    return made;
  }
}

function nameOf(host: HostId, submitted: number): number {
  return submitted * LIMITS.hostCountMax + host;
}

/** All leases, and who waits for them. */
export function leaseRows(table: LeaseTable): LeaseRow[] {
  const rows: LeaseRow[] = [];
  for (const { volume, leases, waiting } of table.volumes.values()) {
    for (const { start, end, holder, priority } of leases.rows) {
      const hosts = new Set<HostId>();
      for (const request of waiting.rows) {
        if (request.start < end && request.end > start) hosts.add(request.host);
      }
      hosts.delete(holder);
      rows.push({ volume, start, end, holder, priority, waiting: [...hosts] });
    }
  }
  return rows;
}

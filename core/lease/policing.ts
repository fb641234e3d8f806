/**
 * The policing module of one host (R9): decides which local writes may run now.
 */
import type { Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Point, VolumeId } from "../base/units.ts";
import type { LeaseMessage } from "../format/lease_wire.ts";

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
  send(to: HostId, message: LeaseMessage): void;
  /** The token's write may run now; a use is counted until `finish`. */
  granted(token: number, grant: number): void;
  /** The token's write is refused. */
  denied(token: number, why: string): void;
  /** More events were applied: records held back (R9c) may be checked again. */
  tableMoved(): void;
  /** A sync point event was applied (R10): hand it to `Points.announced`. */
  announced(kind: "tag" | "point", point: Point): void;
}

/** What a receiver does with a record (R9c). */
export const CHECK = { ok: 0, behind: 1, refuse: 2 } as const;
export type Check = (typeof CHECK)[keyof typeof CHECK];

/** One held range, for people. */
export interface LeaseRow {
  readonly volume: VolumeId;
  readonly start: number;
  readonly end: number;
  readonly holder: HostId;
  readonly priority: number;
  readonly waiting: readonly HostId[];
}

export class Policing {
  private readonly options: PolicingOptions;
  private readonly sink: PolicingSink;
  private readonly trace: Trace;
  private readonly rules: Rules;

  constructor(options: PolicingOptions, sink: PolicingSink, trace: Trace, rules: Rules) {
    this.options = options;
    this.sink = sink;
    this.trace = trace;
    this.rules = rules;
  }

  open(_nowMs: number, _epoch: Epoch, _sequencer: HostId, _recipients: readonly HostId[]): void {}
  close(): void {}
  tryAcquire(
    _nowMs: number,
    _volume: VolumeId,
    _start: number,
    _end: number,
    _priority = 0,
  ): number {
    return 0;
  }
  request(
    _nowMs: number,
    _token: number,
    _volume: VolumeId,
    _start: number,
    _end: number,
    _priority: number,
  ): void {}
  cancel(_nowMs: number, _token: number): void {}
  finish(_nowMs: number, _volume: VolumeId, _start: number, _end: number, _grant: number): void {}
  check(_sender: HostId, _volume: VolumeId, _start: number, _end: number, _grant: number): Check {
    return CHECK.ok;
  }
  control(_nowMs: number, _from: HostId, _message: LeaseMessage): void {}
  linkUp(_nowMs: number, _peer: HostId): void {}
  announce(_nowMs: number, _kind: "tag" | "point", _point: Point): void {}
  owing(_nowMs: number, _boundMs: number): HostId | null {
    return null;
  }
  list(): LeaseRow[] {
    return [];
  }
  settle(_nowMs: number): void {}
  expire(_nowMs: number): void {}
  nextDeadlineMs(): number {
    return Number.POSITIVE_INFINITY;
  }
}

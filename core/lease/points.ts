/**
 * Sync points (R10): a recipient's and the sequencer's part.
 */
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
  /** Tag later records with `point` and append MARK(point) to the own stream. */
  tagWanted(point: Point): void;
  /** All senders' marks are here: sync the store, then `Points.synced(point, ok)`. */
  pointSyncWanted(point: Point): void;
  /** POINT(epoch, point): log it. */
  pointReached(epoch: Epoch, point: Point): void;
}

export class Points {
  /** Tag of records appended now; 0 before the first TAG of the epoch. */
  currentTag: Point = 0;
  private readonly options: PointsOptions;
  private readonly sink: PointsSink;

  constructor(options: PointsOptions, sink: PointsSink) {
    this.options = options;
    this.sink = sink;
  }

  open(
    _nowMs: number,
    _epoch: Epoch,
    _sequencer: HostId,
    _members: readonly HostId[],
    _recipients: readonly HostId[],
  ): void {}
  close(): void {}
  wrote(): void {}
  announced(_nowMs: number, _kind: "tag" | "point", _point: Point): void {}
  markApplied(_nowMs: number, _sender: HostId, _point: Point): void {}
  synced(_nowMs: number, _point: Point, _ok: boolean): void {}
  control(_nowMs: number, _from: HostId, _message: LeaseMessage): void {}
  linkUp(_nowMs: number, _peer: HostId): void {}
  settle(_nowMs: number): void {}
  expire(_nowMs: number): void {}
  nextDeadlineMs(): number {
    return Number.POSITIVE_INFINITY;
  }
}

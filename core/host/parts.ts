/**
 * What the parts of a host share: the machines, the options, and the few facts of the moment that
 * several parts ask for. `Host` fills it and is the only one to change it.
 */
import { FlushForecast } from "../base/flush_forecast.ts";
import type { Outcome } from "../base/outcome.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, VolumeId } from "../base/units.ts";
import type { Policing } from "../lease/policing.ts";
import type { Membership } from "../membership/membership.ts";
import type { Mirror } from "../mirror/mirror.ts";
import type { Store } from "../store/store.ts";
import type { HostOptions, HostPorts, VolumeOptions } from "./machine.ts";
import { type Op, OpTable } from "./op.ts";
import { RecentRequests } from "./recent_requests.ts";
import { Uncommitted } from "./uncommitted.ts";

export interface Parts {
  readonly options: HostOptions;
  readonly ports: HostPorts;
  readonly rules: Rules;
  readonly self: HostId;
  readonly mirror: Mirror;
  readonly membership: Membership;
  readonly policing: Policing;
  readonly ops: OpTable;
  /** By sender: records appended here that are not known committed. */
  readonly uncommitted: readonly Uncommitted[];
  readonly recent: RecentRequests;
  /** Of the FLUSHes that requests executed here are followed by. */
  readonly forecast: FlushForecast;
  readonly volumes: ReadonlyMap<VolumeId, VolumeOptions>;
  nowMs: number;
  /** The opened store; null while there is none or it failed. */
  store: Store | null;
  /** The open view's epoch; 0 while none is open here. */
  epoch: Epoch;
  /** This host is a member of the open view with a good store: it executes requests itself. */
  serving: boolean;
  /** The open view has at least `min_copies` members: writes may be acknowledged (G1). */
  hasCopies: boolean;
  /** Sync point that new records are tagged with (R10). */
  point: number;
  /** When a write was refused for want of room last. */
  refusedMs: number;
  /** Answers the request and frees its slot. */
  finish(op: Op, outcome: Outcome): void;
  /** Routes the request (again): executes it here, forwards it, or parks it. */
  dispatch(op: Op): void;
  /** Asks another member for the blocks of the op's next piece, because our copy is bad. */
  repair(op: Op): void;
}

/** The parts of a host before its store is open and its first view. */
export function makeParts(
  options: HostOptions,
  ports: HostPorts,
  rules: Rules,
  machines: Pick<Parts, "mirror" | "membership" | "policing">,
  calls: Pick<Parts, "finish" | "dispatch" | "repair">,
): Parts {
  return {
    options,
    ports,
    rules,
    self: options.self,
    ...machines,
    ops: new OpTable(),
    uncommitted: options.roster.map(() => new Uncommitted()),
    recent: new RecentRequests(),
    forecast: new FlushForecast(),
    volumes: new Map(options.volumes.map((volume) => [volume.id, volume])),
    nowMs: 0,
    store: null,
    epoch: 0,
    serving: false,
    hasCopies: false,
    point: 0,
    refusedMs: Number.NEGATIVE_INFINITY,
    ...calls,
  };
}

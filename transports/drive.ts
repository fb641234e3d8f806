/**
 * The one loop: makes the real ports, turns what happens into calls of one `HostMachine`, and
 * calls `settle` once after each batch of events.
 */
import type { Trace } from "../core/base/ports.ts";
import type { HostId } from "../core/base/units.ts";
import type { HostMachine, HostPorts } from "../core/host/machine.ts";
import type { ControlRoutes } from "./control.ts";
import type { HostAddresses, PeerPath } from "./peer_link.ts";

export interface DriveOptions {
  readonly self: HostId;
  readonly clusterName: string;
  /** The cluster's key, 32 bytes. */
  readonly clusterKey: Uint8Array;
  /** The whole roster, this host included. */
  readonly hosts: readonly HostAddresses[];
  /** File (created with `sizeBytes`) or block device; null for a witness or a client. */
  readonly store: { readonly path: string; readonly sizeBytes: number } | null;
  /** The vote file. */
  readonly statePath: string;
  /** "host:port" or "unix:/path". */
  readonly nbd: readonly string[];
  /** "address:port" of the multicast group, or null. */
  readonly group: string | null;
  /** Path of the control socket, or null. */
  readonly control: string | null;
  readonly trace: Trace;
}

export interface DriveEvents {
  /** The host accepts clients; `nbd` are the addresses really bound ("127.0.0.1:10809"). */
  ready(nbd: readonly string[]): void;
  /** The host has stopped; everything is closed. */
  stopped(): void;
  /** Something in our own code broke; the process must exit (70). Called once. */
  fatal(error: unknown): void;
}

export interface Drive {
  readonly host: HostMachine;
  /** Opens everything and starts the host. Rejects with one sentence if it cannot. */
  start(): Promise<void>;
  /** Orderly stop; `events.stopped` follows. */
  stop(): void;
  nowMs(): number;
  /** State of the paths to the other hosts, for `status`. */
  paths(): readonly PeerPath[];
  /** `vsan recover`: opens `path` (or the configured store) and gives it to the host. */
  recover(options: { path: string | null; force: boolean }): Promise<string | null>;
}

/** Makes the host of a drive from its ports. */
export type HostFactory = (ports: HostPorts) => HostMachine;

export type { ControlRoutes, HostAddresses };

/** Opens the drive of one host; `start` does the rest. */
export declare function openDrive(
  options: DriveOptions,
  control: ControlRoutes,
  events: DriveEvents,
  make: HostFactory,
): Drive;

/** Two authenticated TCP connections to each peer. */
import type { HostId } from "../core/base/units.ts";

/** One path to one peer, for `status`. */
export interface PeerPath {
  readonly to: HostId;
  readonly via: "dedicated" | "shared";
  readonly up: boolean;
  /** Smoothed round trip as TCP measures it, microseconds; -1 when not up. */
  readonly rttMicros: number;
}

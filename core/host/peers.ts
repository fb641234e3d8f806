/**
 * The other hosts: their control lanes, what each last told about itself (`state` messages), and
 * when it was last heard. For routing, ENOSPC and status; membership keeps its own account.
 */
import type { StreamLink } from "../base/ports.ts";
import type { HostId } from "../base/units.ts";
import type { HostState } from "../format/host_wire.ts";
import { ControlLane } from "./control_lane.ts";

export interface Peer {
  readonly id: HostId;
  readonly lane: ControlLane;
  state: HostState | null;
  downSinceMs: number;
}

export class Peers {
  private readonly list: (Peer | null)[];

  constructor(hostCount: number, self: HostId, link: StreamLink) {
    this.list = Array.from({ length: hostCount }, (_, index) => {
      if (index === self) return null;
      const id = index as HostId;
      return { id, lane: new ControlLane(id, link), state: null, downSinceMs: 0 };
    });
  }

  /** The peer, or null for ourselves and numbers outside the roster. */
  get(id: number): Peer | null {
    return this.list[id] ?? null;
  }

  isUp(id: number): boolean {
    return this.get(id)?.lane.up ?? false;
  }

  each(visit: (peer: Peer) => void): void {
    for (const peer of this.list) if (peer !== null) visit(peer);
  }
}

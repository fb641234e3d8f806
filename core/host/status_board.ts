/** What a host says of itself and of the others: `vsan mirror status`, one sentence each (G8). */
import { BLOCK_BYTES, hostId } from "../base/units.ts";
import type { HostState } from "../format/host_wire.ts";
import type { ScrubStats } from "../store/contract.ts";
import type { CopyTarget } from "./copy_target.ts";
import { FillLevel } from "./fill_level.ts";
import type { FrontDoor } from "./front_door.ts";
import type { Healer } from "./healer.ts";
import type { HostStatus, LeaseStatus, RosterEntry } from "./machine.ts";
import type { Parts } from "./parts.ts";
import type { Peers } from "./peers.ts";
import type { Room } from "./room.ts";
import type { Router } from "./router.ts";
import type { StoreLife } from "./store_life.ts";
import type { ViewChange } from "./view_change.ts";

type HostRow = HostStatus["hosts"][number];
type StoreRow = HostRow["store"];

export interface BoardParts {
  readonly front: FrontDoor;
  readonly change: ViewChange;
  readonly target: CopyTarget;
  readonly peers: Peers;
  readonly life: StoreLife;
  readonly router: Router;
  readonly room: Room;
  readonly healer: Healer;
}

const DISK_STATES = ["none", "ok", "failed"] as const;
const NO_SOURCE = 255;
const NO_SCRUB: ScrubStats = {
  bytesPerSecond: 0,
  isRunning: false,
  share: 0,
  passes: 0,
  endedMs: 0,
  checkedBlocks: 0,
  badBlocks: 0,
  readsMedium: false,
};

export class StatusBoard {
  private readonly parts: Parts;
  private readonly from: BoardParts;
  private readonly level = new FillLevel();

  constructor(parts: Parts, from: BoardParts) {
    this.parts = parts;
    this.from = from;
  }

  /** What this host tells the others about itself. */
  ownState(isReady: boolean): HostState {
    const { life, target, change, healer } = this.from;
    const stats = life.stats();
    const elapsed = Math.max(1, this.parts.nowMs - target.startedMs);
    return {
      disk: life.state === "ok" ? 1 : life.state === "failed" ? 2 : 0,
      complete: change.role === "member",
      full: this.level.isFull,
      ready: isReady,
      why: this.ownWhy(),
      store: {
        sizeBytes: stats?.sizeBytes ?? 0,
        usedBytes: stats?.usedBytes ?? 0,
        segmentsFree: stats?.segmentsFree ?? 0,
        writeAmplification: stats?.writeAmplification ?? 1,
        badBlocksHealed: stats?.healedBlocks ?? 0,
        badBlocksWaiting: healer.waitingCount,
        indexBytes: stats?.indexBytes ?? 0,
        indexMisses: stats?.indexMisses ?? 0,
        scrub: stats?.scrub ?? NO_SCRUB,
      },
      resyncFrom: target.isActive && target.source !== null ? target.source : NO_SOURCE,
      resyncDone: target.doneBytes,
      resyncTotal: target.totalBytes,
      resyncRate: Math.round((target.doneBytes / elapsed) * 1000),
    };
  }

  status(isReady: boolean): HostStatus {
    const { options, membership, self } = this.parts;
    const summary = membership.status(this.parts.nowMs);
    const name = (id: number): string => options.roster[id]?.name ?? `host ${id}`;
    const own = this.ownState(isReady);
    return {
      cluster: options.clusterName,
      host: name(self),
      view: {
        epoch: summary.epoch,
        members: summary.members.map((entry) => name(entry.host)),
        joining: summary.joining.map((entry) => name(entry.host)),
        majority: summary.majority,
        open: summary.open,
        why: summary.why,
      },
      hosts: options.roster.map((entry) => this.hostRow(entry, own)),
      volumes: options.volumes.map((volume) => {
        const isServedByOthers = summary.majority && this.hasProxy();
        const io = this.volumeIo(volume.readOnly, isServedByOthers, summary.why);
        return {
          name: volume.name,
          sizeBytes: volume.sizeBytes,
          io: io.io,
          why: io.why === "" && this.level.isFull ? this.fillWhy() : io.why,
          clients: this.from.front.clientsOf(volume),
          usedBytes: this.parts.store?.volumeUsedBytes(volume.id) ?? 0,
        };
      }),
      resync: this.resyncRows(own),
      reads: this.from.router.readCounts,
    };
  }

  /** Why this host's disk cannot be rebuilt now; null while some host in sync is connected. */
  whyNoSource(): string | null {
    const { options, self } = this.parts;
    const others = options.roster.filter((entry) => entry.kind === "data" && entry.id !== self);
    const own = options.roster[self]?.name ?? "this host";
    if (others.length === 0) {
      return `${own} is the only data host: there is nothing to rebuild its disk from`;
    }
    for (const { id } of others) {
      const peer = this.from.peers.get(id);
      if (peer?.lane.up === true && peer.state?.complete === true) return null;
    }
    const names = others.map((entry) => entry.name).join(", ");
    return `no host in sync is connected to rebuild from (${names}): what is left here is kept`;
  }

  leases(): LeaseStatus[] {
    const { policing, volumes, options } = this.parts;
    const name = (id: number): string => options.roster[id]?.name ?? `host ${id}`;
    return policing.list().map((row) => ({
      volume: volumes.get(row.volume)?.name ?? String(row.volume),
      startByte: row.start * BLOCK_BYTES,
      endByte: row.end * BLOCK_BYTES,
      holder: name(row.holder),
      priority: row.priority,
      waiting: row.waiting.map(name),
    }));
  }

  /** Tells when the store fills up past a step, or has room again. */
  watchFill(): void {
    const { store, ports, nowMs, refusedMs } = this.parts;
    if (store === null) return;
    const { dataBytes, sizeBytes } = store;
    if (!this.level.note(dataBytes, sizeBytes, nowMs - refusedMs)) return;
    const fields = { usedBytes: dataBytes, sizeBytes };
    const why = this.fillWhy();
    if (why === "") ports.trace.event("info", "store.room", "the store has room again", fields);
    else ports.trace.event(this.level.isFull ? "error" : "warn", "store.filling", why, fields);
  }

  private fillWhy(): string {
    const { store } = this.parts;
    if (store === null) return "";
    const share = Math.floor((100 * store.dataBytes) / Math.max(1, store.sizeBytes));
    if (this.level.isFull) return `writes to new blocks are refused: ${this.whoIsFull()}`;
    return this.level.percent === 0 ? "" : `the store is ${share} % full`;
  }

  /** The smallest store of the view decides for all. */
  private whoIsFull(): string {
    const { options, self, store } = this.parts;
    const { room } = this.from;
    const isOwn = room.least === null || (store !== null && store.sizeBytes <= room.sizeBytes);
    return `the store of ${options.roster[isOwn ? self : (room.least ?? self)]?.name} is full`;
  }

  private ownWhy(): string {
    const { life, change } = this.from;
    if (life.why !== "") return life.why;
    if (change.role === "joining") return "catching up from the other hosts";
    if (change.role === "none") return this.parts.membership.status(this.parts.nowMs).why;
    return life.lossWhy === "" ? this.fillWhy() : life.lossWhy;
  }

  private hostRow(entry: RosterEntry, own: HostState): HostRow {
    const isSelf = entry.id === this.parts.self;
    const peer = this.from.peers.get(entry.id);
    const connected = isSelf || (peer?.lane.up ?? false);
    const state = isSelf ? own : (peer?.state ?? null);
    const known = this.parts.membership
      .status(this.parts.nowMs)
      .peers.find((each) => each.host === entry.id);
    const row = this.stateOf(entry, connected, state, known?.why ?? "");
    const disk = entry.kind === "data" ? (DISK_STATES[state?.disk ?? 0] ?? "none") : "none";
    return {
      name: entry.name,
      kind: entry.kind,
      connected,
      state: row.state,
      disk,
      why: row.why,
      store: entry.kind === "data" && state !== null ? storeRow(state) : null,
    };
  }

  private stateOf(
    entry: RosterEntry,
    connected: boolean,
    state: HostState | null,
    why: string,
  ): { state: HostRow["state"]; why: string } {
    if (!connected) {
      const since = this.from.peers.get(entry.id)?.downSinceMs ?? 0;
      const seconds = Math.round((this.parts.nowMs - since) / 1000);
      return { state: "offline", why: `${entry.name} has been unreachable for ${seconds} s` };
    }
    if (entry.kind !== "data") return { state: "in-sync", why: "" };
    if (why.includes("diverged")) return { state: "diverged", why };
    if (state !== null && state.disk !== 1) return { state: "diskless", why: state.why };
    const view = this.parts.membership.view;
    const isListed = (list: readonly { host: number }[]): boolean =>
      list.some((each) => each.host === entry.id);
    if (view !== null && isListed(view.members)) {
      return { state: "in-sync", why: state?.complete === true ? state.why : "" };
    }
    if (view !== null && isListed(view.joining)) {
      return { state: "syncing", why: "catching up from the other hosts" };
    }
    return { state: "behind", why: why || state?.why || `${entry.name} is not in the view` };
  }

  private volumeIo(
    readOnly: boolean,
    isServedByOthers: boolean,
    why: string,
  ): { io: HostStatus["volumes"][number]["io"]; why: string } {
    const { parts } = this;
    if (!parts.serving && isServedByOthers) {
      if (readOnly) return { io: "read-only", why: "the volume is configured read-only" };
      return { io: "ok", why: "" };
    }
    if (parts.epoch !== 0 || this.from.change.role === "none") {
      const isServed = parts.serving || parts.membership.view !== null;
      if (!isServed) return { io: "offline", why: why || "no view of the cluster is open" };
      if (readOnly) return { io: "read-only", why: "the volume is configured read-only" };
      if (parts.epoch !== 0 && !parts.hasCopies) return { io: "frozen", why: this.whyFewCopies() };
      if (parts.epoch !== 0 && why === "") return { io: "ok", why: "" };
    }
    if (why === "") return { io: "ok", why: "" };
    return { io: "frozen", why };
  }

  private whyFewCopies(): string {
    const members = this.from.change.view?.members.length ?? 0;
    return `writes frozen: ${members} of min_copies ${this.parts.options.minCopies} hosts in sync`;
  }

  /** A member that is connected executes what this host's clients ask for. */
  private hasProxy(): boolean {
    const members = this.parts.membership.view?.members ?? [];
    return members.some(({ host }) => {
      const peer = this.from.peers.get(host);
      return peer?.lane.up === true && peer.state?.complete === true;
    });
  }

  private resyncRows(own: HostState): HostStatus["resync"][number][] {
    const rows: HostStatus["resync"][number][] = [];
    const { roster } = this.parts.options;
    for (const entry of roster) {
      const state = entry.id === this.parts.self ? own : this.from.peers.get(entry.id)?.state;
      if (state === null || state === undefined || state.resyncFrom === NO_SOURCE) continue;
      const left = Math.max(0, state.resyncTotal - state.resyncDone);
      rows.push({
        to: entry.name,
        from: roster[hostId(state.resyncFrom)]?.name ?? "",
        doneBytes: state.resyncDone,
        totalBytes: Math.max(state.resyncTotal, state.resyncDone),
        bytesPerSecond: state.resyncRate,
        etaSeconds: state.resyncRate > 0 ? Math.ceil(left / state.resyncRate) : 0,
      });
    }
    return rows;
  }
}

function storeRow(state: HostState): StoreRow {
  return { ...state.store };
}

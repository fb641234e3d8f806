/**
 * One real host: makes the ports, the machine and the loop, opens and closes everything in order.
 *
 *   start: vote file locked -> listeners (links, NBD, control) -> store -> host.start
 *          incarnation known -> links dial and accept
 *          phase ready       -> NBD clients are served, `ready`
 *   stop:  host.stop -> phase stopped -> everything closed, `stopped`
 *
 * Whatever may be refused (a file or an address in use, a store of somebody else) is asked for
 * before anything is written, so that a refused start changes nothing.
 */
import type { ClientLink, StreamLink, Trace, VoteFile } from "../core/base/ports.ts";
import type { HostId } from "../core/base/units.ts";
import type { HostMachine, HostPorts } from "../core/host/machine.ts";
import { crc32Text } from "../core/base/checksum.ts";
import { decodeVotes } from "../core/format/votes.ts";
import { BootClock } from "./clock.ts";
import { type ControlRoutes, ControlSocket } from "./control.ts";
import { type DiskOpened, type OpenDisk, openDisk } from "./disk_open.ts";
import { SystemEntropy } from "./entropy.ts";
import { HostLoop, type LoopOwner } from "./loop.ts";
import { HmacMac } from "./mac.ts";
import { Multicast, NO_PACKETS } from "./multicast.ts";
import { NbdListeners } from "./nbd_listen.ts";
import { type HostAddresses, PeerLinks, type PeerPath } from "./peer_link.ts";
import { foreignStore } from "./store_owner.ts";
import { DiskVoteFile } from "./vote_file.ts";

/** A disk that hangs is given up after this when the host stops. */
const DISK_CLOSE_MS_MAX = 2000;
/** A shared network that cannot be used is tried again. */
const PACKETS_RETRY_MS = 5000;
const NOT_YET = { status: 409 };

export interface DriveStore {
  /** File (created with `sizeBytes`) or block device (used whole). */
  readonly path: string;
  readonly sizeBytes: number;
  /** A device with fewer bytes is refused. */
  readonly deviceBytesLeast: number;
  /** A file takes space as it is written and gives it back (`store_alloc`). */
  readonly isThin: boolean;
}

export interface DriveOptions {
  readonly self: HostId;
  readonly clusterName: string;
  /** The cluster's key, 32 bytes. */
  readonly clusterKey: Uint8Array;
  /** The whole roster, this host included. */
  readonly hosts: readonly HostAddresses[];
  /** Control lanes go over the shared network, where both hosts have an address on it. */
  readonly controlOverShared?: boolean;
  /** Null for a witness or a client. */
  readonly store: DriveStore | null;
  /** A store of another host or cluster, or one in use, ends the start; else it is no disk. */
  readonly strictStore: boolean;
  /** The vote file. */
  readonly statePath: string;
  /** "host:port" or "unix:/path". */
  readonly nbd: readonly string[];
  /** "address:port" of the multicast group, or null. */
  readonly group: string | null;
  /** Path of the control socket, or null. */
  readonly control: string | null;
  /** Stay awake for a moment between requests that follow each other closely (idle_poll.ts). */
  readonly busyPoll: boolean;
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
  /** Opens everything and starts the host. Rejects with one sentence, with nothing left open. */
  start(): Promise<void>;
  /** Orderly stop; `events.stopped` follows. */
  stop(): void;
  nowMs(): number;
  /** State of the paths to the other hosts, for `status`. */
  paths(): readonly PeerPath[];
  /**
   * `vsan recover`: opens `path` (or the configured store) and gives it to the host. Null when
   * begun, else why not.
   */
  recover(options: {
    readonly path: string | null;
    readonly force: boolean;
  }): Promise<string | null>;
  /** Runs `work` on the machine as an event of its own, settled afterwards; null if it broke. */
  run<T>(work: (host: HostMachine, nowMs: number) => T): T | null;
}

/** Makes the host of a drive from its ports. */
export type HostFactory = (ports: HostPorts) => HostMachine;

export type { ControlRoutes, HostAddresses };

/** The drive of one host; nothing is opened before `start`. Throws if an address is malformed. */
export function openDrive(
  options: DriveOptions,
  control: ControlRoutes,
  events: DriveEvents,
  make: HostFactory,
): Drive {
  return new RealDrive(options, control, events, make);
}

class RealDrive implements Drive, LoopOwner {
  readonly host: HostMachine;
  private readonly options: DriveOptions;
  private readonly routes: ControlRoutes;
  private readonly events: DriveEvents;
  private readonly trace: Trace;
  private readonly clock = new BootClock();
  private readonly loop: HostLoop;
  private readonly links: PeerLinks;
  private readonly clients: NbdListeners;
  private readonly packets: Multicast | null;
  private packetsTimer: ReturnType<typeof setTimeout> | null = null;
  private control: ControlSocket | null = null;
  private votes: DiskVoteFile | null = null;
  private disk: OpenDisk | null = null;
  private nbdBound: string[] = [];
  private isStarted = false;
  private isLinking = false;
  private isServing = false;
  private isRecovering = false;
  private isClosed = false;

  constructor(
    options: DriveOptions,
    routes: ControlRoutes,
    events: DriveEvents,
    make: HostFactory,
  ) {
    this.options = options;
    this.routes = routes;
    this.events = events;
    this.trace = options.trace;
    const mac = new HmacMac(options.clusterKey);
    const entropy = new SystemEntropy();
    // The ports come first, then the machine on them, then the loop that both report to.
    const late = (): HostLoop => this.loop;
    const linkPorts = { mac, entropy, trace: this.trace, nowMs: () => this.clock.nowMs() };
    this.links = new PeerLinks(options, linkPorts, {
      peerUp: (peer, peerInc) => late().peerUp(peer, peerInc),
      peerDown: (peer) => late().peerDown(peer),
      peerData: (peer, lane, chunk) => late().peerData(peer, lane, chunk),
      peerDrain: (peer, lane) => late().peerDrain(peer, lane),
    });
    const clientEvents = {
      clientOpen: (client: number) => late().clientOpen(client),
      clientData: (client: number, chunk: Uint8Array) => late().clientData(client, chunk),
      clientDrain: (client: number) => late().clientDrain(client),
      clientClosed: (client: number) => late().clientClosed(client),
    };
    this.clients = new NbdListeners(clientEvents, this.trace);
    this.packets = packetsOf(options, (chunk) => late().packet(chunk));
    const votes: VoteFile = { write: (tag, bytes) => this.votes?.write(tag, bytes) };
    const streams: StreamLink = this.links;
    const clients: ClientLink = this.clients;
    const packets = this.packets ?? NO_PACKETS;
    this.host = make({ streams, packets, clients, votes, mac, entropy, trace: this.trace });
    this.loop = new HostLoop(this.host, this.clock, this, options.busyPoll);
  }

  async start(): Promise<void> {
    const opened = DiskVoteFile.open(this.options.statePath, {
      done: (tag, result) => this.loop.voteDone(tag, result),
    });
    if (!opened.ok) throw new Error(opened.why);
    this.votes = opened.file;
    const unusable = this.storeRefusal() ?? this.voteRefusal(opened.bytes);
    if (unusable !== null) {
      await this.close();
      throw new Error(unusable);
    }
    let disk: DiskOpened | null;
    try {
      this.links.listen();
      for (const address of this.options.nbd) {
        this.nbdBound.push(await this.clients.listen(address));
      }
      if (this.options.control !== null) {
        this.control = await ControlSocket.listen(this.options.control, this.guardedRoutes());
      }
      disk = await this.openStore();
    } catch (error) {
      await this.close();
      throw error;
    }
    void this.openPackets();
    const start = {
      votes: opened.bytes,
      disk: this.disk,
      diskWhy: disk === null || disk.ok ? "" : disk.why,
    };
    this.isStarted = true;
    this.loop.run((host, nowMs) => host.start(nowMs, start));
  }

  /** The disk of another host or cluster is a mistake of the operator, not a fault. */
  private storeRefusal(): string | null {
    const { store, strictStore, clusterName, self, hosts } = this.options;
    if (store === null || !strictStore) return null;
    const nameOf = (id: number): string =>
      hosts.find((host) => host.id === id)?.name ?? `host ${id}`;
    return foreignStore(store.path, { clusterName, self, nameOf });
  }

  /** A voter's memory that is damaged or another's is not one that is missing (R14). */
  private voteRefusal(bytes: Uint8Array | null): string | null {
    if (bytes === null) return null;
    const { clusterName, self, statePath } = this.options;
    const votes = decodeVotes(bytes, { clusterId: crc32Text(clusterName), self });
    if (votes.ok) return null;
    return `${statePath}: ${votes.why}; move it away and the other voters are asked instead`;
  }

  stop(): void {
    this.loop.run((host, nowMs) => host.stop(nowMs));
  }

  nowMs(): number {
    return this.clock.nowMs();
  }

  paths(): readonly PeerPath[] {
    return this.links.paths();
  }

  run<T>(work: (host: HostMachine, nowMs: number) => T): T | null {
    return this.loop.run(work);
  }

  async recover(options: { path: string | null; force: boolean }): Promise<string | null> {
    const path = options.path ?? this.options.store?.path ?? null;
    if (path === null) return "this host has no store in the config and none was given";
    if (this.isRecovering) return "a recovery is beginning already";
    this.isRecovering = true;
    try {
      return await this.recoverOn(path, options.force);
    } finally {
      this.isRecovering = false;
    }
  }

  private async recoverOn(path: string, force: boolean): Promise<string | null> {
    const refused = this.loop.run((host, nowMs) => ({ why: host.mayRecover(nowMs, force) }));
    if (refused === null) return "the host has stopped";
    if (refused.why !== null) return refused.why;
    // The host is done with the disk it had, which may be gone although its path is there again:
    // it is let go, lock and all, and the path opened anew.
    await this.releaseDisk();
    const opened = await this.open(path, this.options.store);
    if (!opened.ok) return opened.why;
    this.disk = opened.disk;
    const begun = this.loop.run((host, nowMs) => ({
      why: host.recover(nowMs, opened.disk, force),
    }));
    const why = begun === null ? "the host has stopped" : begun.why;
    if (why !== null) await this.releaseDisk();
    return why;
  }

  submit(): void {
    this.disk?.submit();
  }

  deliver(): boolean {
    return this.disk?.deliver() ?? false;
  }

  diskIsBusy(): boolean {
    return this.disk?.isBusy === true;
  }

  turned(): void {
    const { host } = this;
    if (!this.isLinking && host.incarnation > 0) {
      this.isLinking = true;
      this.links.start(host.incarnation);
    }
    if (!this.isServing && host.phase === "ready") {
      this.isServing = true;
      this.clients.admit();
      this.events.ready(this.nbdBound);
    }
    if (this.isServing && host.phase === "stopping") this.clients.stopListening();
    if (host.phase === "stopped" && !this.isClosed) {
      void this.close().then(() => this.events.stopped());
    }
  }

  fatal(error: unknown): void {
    this.events.fatal(error);
  }

  private async openStore(): Promise<DiskOpened | null> {
    const { store } = this.options;
    if (store === null) return null;
    const { strictStore } = this.options;
    const opened = await this.open(store.path, store);
    if (opened.ok) this.disk = opened.disk;
    else if (strictStore && opened.isInUse) throw new Error(opened.why);
    return opened;
  }

  /** Completions of a disk that is no longer the host's are dropped. */
  private async open(path: string, store: DriveStore | null): Promise<DiskOpened> {
    let mine: OpenDisk | null = null;
    const opened = await openDisk(
      {
        path,
        sizeBytes: store?.sizeBytes ?? 0,
        deviceBytesLeast: store?.deviceBytesLeast ?? 0,
        isThin: store?.isThin ?? false,
      },
      {
        done: (tag, result) => {
          if (this.disk === mine) this.loop.diskDone(tag, result);
        },
        batch: () => {},
      },
    );
    if (opened.ok) {
      mine = opened.disk;
      const text = `store ${path} is open (${opened.disk.backend})`;
      this.trace.event("info", "disk.opened", text, { sizeBytes: opened.disk.sizeBytes });
    }
    return opened;
  }

  private async openPackets(): Promise<void> {
    if (this.packets === null || this.isClosed) return;
    try {
      await this.packets.open();
      if (this.isClosed) this.packets.close();
    } catch (error) {
      if (this.isClosed) return;
      const why = error instanceof Error ? error.message : String(error);
      this.trace.event("warn", "packet.unusable", `${why}; tried again in 5 s`);
      this.packetsTimer = setTimeout(() => void this.openPackets(), PACKETS_RETRY_MS);
    }
  }

  private async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.loop.stop();
    this.clients.stop();
    this.links.stop();
    this.packets?.close();
    if (this.packetsTimer !== null) clearTimeout(this.packetsTimer);
    await this.control?.stop();
    await this.votes?.close();
    await this.releaseDisk();
  }

  /** Closes the disk; one that hangs is given up. */
  private async releaseDisk(): Promise<void> {
    const { disk } = this;
    this.disk = null;
    if (disk === null) return;
    const late = Promise.withResolvers<void>();
    // A timer left behind would keep the process alive.
    const timer = setTimeout(late.resolve, DISK_CLOSE_MS_MAX);
    await Promise.race([disk.close(), late.promise]);
    clearTimeout(timer);
  }

  /** The control socket is there before the host: until then it has one answer. */
  private guardedRoutes(): ControlRoutes {
    const guarded: Record<string, ControlRoutes[string]> = {};
    for (const [key, route] of Object.entries(this.routes)) {
      guarded[key] = (request, url) =>
        this.isStarted ? route(request, url) : new Response("the host is starting\n", NOT_YET);
    }
    return guarded;
  }
}

function packetsOf(options: DriveOptions, packet: (chunk: Uint8Array) => void): Multicast | null {
  const { group, hosts, self } = options;
  const own = hosts.find((host) => host.id === self)?.shared ?? null;
  if (group === null || own === null) return null;
  const peers = new Map<HostId, string>();
  for (const host of hosts) {
    if (host.id !== self && host.shared !== null) peers.set(host.id, host.shared);
  }
  return new Multicast({ group, own, peers }, { packet }, options.trace);
}

/**
 * One real host: makes the ports, the machine and the loop, opens and closes everything in order.
 *
 *   start: vote file -> store -> listeners (links, control) -> host.start
 *          incarnation known -> links dial and accept
 *          phase ready       -> NBD listeners, `ready`
 *   stop:  host.stop -> phase stopped -> everything closed, `stopped`
 */
import type { ClientLink, StreamLink, Trace, VoteFile } from "../core/base/ports.ts";
import type { HostId } from "../core/base/units.ts";
import type { HostMachine, HostPorts } from "../core/host/machine.ts";
import { BootClock } from "./clock.ts";
import { type ControlRoutes, ControlSocket } from "./control.ts";
import { type DiskOpened, type OpenDisk, openDisk } from "./disk_open.ts";
import { SystemEntropy } from "./entropy.ts";
import { HostLoop, type LoopOwner } from "./loop.ts";
import { HmacMac } from "./mac.ts";
import { Multicast, NO_PACKETS } from "./multicast.ts";
import { NbdListeners } from "./nbd_listen.ts";
import { type HostAddresses, PeerLinks, type PeerPath } from "./peer_link.ts";
import { DiskVoteFile } from "./vote_file.ts";

/** A disk that hangs is given up after this when the host stops. */
const DISK_CLOSE_MS_MAX = 2000;
/** A shared network that cannot be used is tried again. */
const PACKETS_RETRY_MS = 5000;

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
  private diskPath = "";
  private isLinking = false;
  private isServing = false;
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
    this.loop = new HostLoop(this.host, this.clock, this);
  }

  async start(): Promise<void> {
    const opened = DiskVoteFile.open(this.options.statePath, {
      done: (tag, result) => this.loop.voteDone(tag, result),
    });
    if (!opened.ok) throw new Error(opened.why);
    this.votes = opened.file;
    const disk = await this.openStore();
    try {
      this.links.listen();
      if (this.options.control !== null) {
        this.control = await ControlSocket.listen(this.options.control, this.routes);
      }
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
    this.loop.run((host, nowMs) => host.start(nowMs, start));
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
    let disk = this.disk;
    if (disk === null || path !== this.diskPath) {
      const opened = await this.open(path, this.options.store?.sizeBytes ?? 0);
      if (!opened.ok) return opened.why;
      disk = opened.disk;
    }
    const given = disk;
    const before = this.disk;
    const pathBefore = this.diskPath;
    this.disk = given;
    this.diskPath = path;
    const begun = this.loop.run((host, nowMs) => ({
      why: host.recover(nowMs, given, options.force),
    }));
    const why = begun === null ? "the host has stopped" : begun.why;
    if (why !== null) {
      this.disk = before;
      this.diskPath = pathBefore;
    }
    const unused = why === null ? before : given;
    if (unused !== null && unused !== this.disk) void unused.close();
    return why;
  }

  submit(): void {
    this.disk?.submit();
  }

  deliver(): boolean {
    return this.disk?.deliver() ?? false;
  }

  turned(): void {
    const { host } = this;
    if (!this.isLinking && host.incarnation > 0) {
      this.isLinking = true;
      this.links.start(host.incarnation);
    }
    if (!this.isServing && host.phase === "ready") {
      this.isServing = true;
      void this.serveClients();
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
    const opened = await this.open(store.path, store.sizeBytes);
    if (opened.ok) {
      this.disk = opened.disk;
      this.diskPath = store.path;
    }
    return opened;
  }

  /** Completions of a disk that is no longer the host's are dropped. */
  private async open(path: string, sizeBytes: number): Promise<DiskOpened> {
    let mine: OpenDisk | null = null;
    const opened = await openDisk(
      { path, sizeBytes },
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

  private async serveClients(): Promise<void> {
    const bound: string[] = [];
    try {
      for (const address of this.options.nbd) bound.push(await this.clients.listen(address));
    } catch (error) {
      // Without its front door the host is of no use; the operator must see why.
      this.loop.stop();
      this.events.fatal(error);
      return;
    }
    this.events.ready(bound);
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
    const { disk } = this;
    if (disk === null) return;
    const timeout = Bun.sleep(DISK_CLOSE_MS_MAX);
    await Promise.race([disk.close(), timeout]);
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

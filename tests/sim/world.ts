/**
 * A whole cluster under one seed: real hosts on simulated disks, network, clocks and randomness,
 * clients that write and read through all of them, faults, and the checks of docs/guarantees.md.
 *
 * A run has three phases: load with faults; healing (everything is restarted and connected); and
 * quiet, after which every request must have been answered, every data host must be a member
 * with the same bytes, and every block's history must be linearizable.
 */
import { crc32Text } from "../../core/base/checksum.ts";
import { SeededRandom } from "../../core/base/random.ts";
import { ALL_RULES, type Rules } from "../../core/base/rules.ts";
import {
  BLOCK_BYTES,
  hostId,
  KIB,
  MIB,
  REGION_BLOCKS,
  type VolumeId,
  volumeId,
} from "../../core/base/units.ts";
import { DEFAULT_TIMING, type HostKind, type HostOptions } from "../../core/host/machine.ts";
import { BlockHistory, type Flush, type Operation } from "./history.ts";
import { type NodeWorld, SimNode } from "./node.ts";
import { Observer } from "./observer.ts";
import { Scheduler } from "./scheduler.ts";
import { type ClientLoad, type ClientWorld, SimClient } from "./sim_client.ts";
import { SimDisk } from "./sim_disk.ts";
import { CALM, SimNet } from "./sim_net.ts";

export interface WorldOptions {
  readonly seed: number;
  readonly kinds: readonly HostKind[];
  readonly mirror: "dedicated" | "shared";
  readonly ack: "sync" | "durable";
  readonly load: ClientLoad;
  readonly clientsPerHost: number;
  readonly rules?: Rules;
  /** Size of each host's disk, bytes; 24 MiB without. */
  readonly diskBytes?: (index: number) => number;
  /** Collects every trace line (for replays). */
  readonly log?: (line: string) => void;
}

/** Thrown by a check: what a seed has found. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** Three regions, so that some are older than a sync point while others are written. */
export const VOLUME_BLOCKS = 3 * REGION_BLOCKS;

export class World implements NodeWorld, ClientWorld {
  readonly scheduler = new Scheduler();
  readonly random: SeededRandom;
  readonly net: SimNet;
  readonly rules: Rules;
  readonly nodes: SimNode[] = [];
  readonly clients: SimClient[] = [];
  readonly volume: VolumeId = volumeId(crc32Text("vol0"));
  readonly options: WorldOptions;
  /** CRC over everything that happened: equal for equal seeds. */
  hash = 0;
  opens = 0;
  blackouts = 0;
  private readonly histories: BlockHistory[] = [];
  private flushes: Flush[] = [];
  private readonly byClient = new Map<number, SimClient>();
  private readonly views = new Map<number, string>();
  private lastMembers: readonly { host: number; inc: number }[] = [];
  private lastOpenEpoch = 0;
  private nextClient = 1;
  private nextValue = 1;
  private isIssuing = true;
  private readonly observer = new Observer(this.nodes, (why) => {
    throw new Violation(why);
  });

  constructor(options: WorldOptions) {
    this.options = options;
    this.random = new SeededRandom(options.seed);
    this.rules = options.rules ?? ALL_RULES;
    const { scheduler } = this;
    this.net = new SimNet(
      {
        random: this.random,
        schedule: (delayMs, run) => scheduler.after(delayMs, run),
        faults: { ...CALM },
      },
      {
        peerUp: (host, peer, inc) => this.at(host, (h, now) => h.peerUp(now, peer, inc)),
        peerDown: (host, peer) => this.at(host, (h, now) => h.peerDown(now, peer)),
        peerData: (host, peer, lane, chunk) =>
          this.at(host, (h, now) => h.peerData(now, peer, lane, chunk)),
        peerDrain: (host, peer, lane) => this.at(host, (h, now) => h.peerDrain(now, peer, lane)),
        packet: (host, chunk) => this.at(host, (h, now) => h.packet(now, chunk)),
      },
    );
    for (let lba = 0; lba < VOLUME_BLOCKS; lba += 1) this.histories.push(new BlockHistory());
    for (const [index, kind] of options.kinds.entries()) {
      const disk = kind === "data" ? this.makeDisk(index, 0) : null;
      const seed = this.random.u32();
      this.nodes.push(new SimNode(hostId(index), this.hostOptions(index), disk, seed, this));
    }
  }

  now(): number {
    return this.scheduler.nowMs;
  }

  later(delayMs: number, run: () => void): void {
    this.scheduler.after(delayMs, run);
  }

  uniqueValue(): number {
    this.nextValue += 1;
    return this.nextValue;
  }

  makeDisk(index: number, generation: number): SimDisk {
    const { scheduler } = this;
    return new SimDisk({
      sizeBytes: this.options.diskBytes?.(index) ?? 24 * MIB,
      seed: this.options.seed * 64 + index * 8 + generation,
      schedule: (delayMs, run) => scheduler.after(delayMs, run),
      done: (tag, result) => {
        const node = this.nodes[index]!;
        if (node.disk !== null) node.event((host, now) => host.diskDone(now, tag, result));
      },
    });
  }

  /** The host dies, and comes back with a new disk that an operator has rebuilt (`recover`). */
  replaceDisk(node: SimNode): void {
    node.kill();
    const disk = this.makeDisk(node.id, 1);
    node.disk = disk;
    node.start();
    const recover = (): void => {
      const { host } = node;
      if (host === null || host.inside.parts.store !== null) return;
      let isRefused = true;
      node.event((_, now) => {
        isRefused = host.recover(now, disk, false) !== null;
      });
      // As long as nobody is there to copy from it is refused.
      if (isRefused) this.scheduler.after(500, recover);
    };
    this.scheduler.after(500, recover);
  }

  startAll(): void {
    for (const node of this.nodes) {
      this.scheduler.after(this.random.fraction() * 30, () => node.start());
    }
  }

  /** Runs until `untilMs`. */
  run(untilMs: number): void {
    while (this.scheduler.step(untilMs)) {}
  }

  /** Connects clients to every running host that accepts them; reconnects lost ones. */
  connectClients(): void {
    if (!this.isIssuing) return;
    for (const node of this.nodes) {
      if (node.host === null || node.host.phase !== "ready" || node.isPaused) continue;
      if (this.options.kinds[node.id] === "witness") continue;
      while (node.clients.size < this.options.clientsPerHost) this.connect(node);
    }
  }

  stopClients(): void {
    this.isIssuing = false;
    for (const client of this.clients) client.isStopped = true;
  }

  get inFlight(): number {
    let count = 0;
    for (const client of this.clients) count += client.isConnected ? client.inFlight : 0;
    return count;
  }

  get completed(): number {
    let count = 0;
    for (const client of this.clients) count += client.completed;
    return count;
  }

  get errors(): number {
    let count = 0;
    for (const client of this.clients) count += client.errors;
    return count;
  }

  /** The check of every block's history; throws a Violation. */
  checkHistories(): void {
    for (const [lba, history] of this.histories.entries()) {
      const why = history.check();
      if (why !== null) throw new Violation(`block ${lba}: ${why}`);
    }
  }

  // NodeWorld

  toClient(_node: SimNode, client: number, bytes: Uint8Array): void {
    this.scheduler.after(0.02, () => this.byClient.get(client)?.receive(bytes));
  }

  clientClosed(_node: SimNode, client: number): void {
    const gone = this.byClient.get(client);
    this.scheduler.after(0.05, () => {
      gone?.disconnected();
      this.byClient.delete(client);
    });
  }

  traced(node: SimNode, level: string, code: string, text: string): void {
    const line = `${this.scheduler.nowMs.toFixed(3)} ${node.id} ${level} ${code} ${text}`;
    this.hash = crc32Text(`${this.hash} ${line}`);
    this.options.log?.(line);
    if (code === "view.opened") this.noteOpened(node);
  }

  settled(node: SimNode): void {
    this.observer.look(node);
    const view = node.host?.inside.parts.membership.view;
    if (view === null || view === undefined) return;
    // V1: one value per epoch.
    const known = this.views.get(view.epoch);
    const text = JSON.stringify(view);
    if (known === undefined) this.views.set(view.epoch, text);
    else if (known !== text) throw new Violation(`V1: two views of epoch ${view.epoch}`);
  }

  // ClientWorld

  toHost(client: SimClient, bytes: Uint8Array): void {
    const node = this.nodes[client.hostIndex]!;
    node.later(0.02, (host, now) => {
      if (node.clients.has(client.id)) host.clientData(now, client.id, bytes);
    });
  }

  record(_volume: number, lba: number, operation: Operation): void {
    this.histories[lba]!.add(operation);
  }

  recordFlush(flush: Flush): void {
    this.flushes.push(flush);
  }

  /** Spreads the blocks that clients use over all regions. */
  place(index: number): number {
    const regions = VOLUME_BLOCKS / REGION_BLOCKS;
    return (index % regions) * REGION_BLOCKS + Math.floor(index / regions);
  }

  writeAnswered(value: number): void {
    this.observer.writeAnswered(value, this.now());
  }

  flushAnswered(flush: Flush): void {
    this.observer.flushAnswered(flush.invokedMs);
  }

  note(text: string): void {
    this.hash = crc32Text(`${this.hash} ${text}`);
    this.options.log?.(`${this.scheduler.nowMs.toFixed(3)} - ${text}`);
  }

  private at(host: number, run: (host: NonNullable<SimNode["host"]>, nowMs: number) => void): void {
    this.nodes[host]!.event(run);
  }

  private connect(node: SimNode): void {
    const id = this.nextClient;
    this.nextClient += 1;
    const client = new SimClient(
      { id, hostIndex: node.id, volume: this.volume, exportName: "vol0" },
      this.options.load,
      this,
    );
    this.clients.push(client);
    this.byClient.set(id, client);
    node.clients.add(id);
    node.event((host, now) => host.clientOpen(now, id));
  }

  /**
   * A view opened somewhere. If none of its members goes on from the last open view, this is a
   * cold start; a base that lost power since may lack what was acknowledged but not flushed.
   */
  private noteOpened(node: SimNode): void {
    const view = node.host?.inside.parts.membership.view;
    if (view === null || view === undefined || view.epoch <= this.lastOpenEpoch) return;
    this.opens += 1;
    const wentOn = view.members.some((each) =>
      this.lastMembers.some((last) => last.host === each.host && last.inc === each.inc),
    );
    if (!wentOn && this.lastOpenEpoch > 0) {
      const base = this.nodes[view.members[0]!.host]!;
      if (base.lostPower) {
        this.blackouts += 1;
        for (const history of this.histories) {
          history.blackout(this.flushes, this.options.ack === "durable");
        }
        this.flushes = [];
        this.observer.blackout();
      }
    }
    for (const each of view.members) this.nodes[each.host]!.lostPower = false;
    this.lastOpenEpoch = view.epoch;
    // A joiner that became a complete copy may be the one that goes on.
    this.lastMembers = [...view.members, ...view.joining];
  }

  private hostOptions(index: number): HostOptions {
    const { kinds, mirror, ack } = this.options;
    return {
      self: hostId(index),
      clusterName: "sim",
      roster: kinds.map((kind, id) => ({
        id: hostId(id),
        name: `host${id}`,
        kind,
        priority: 3,
      })),
      volumes: [
        {
          id: this.volume,
          name: "vol0",
          sizeBytes: VOLUME_BLOCKS * BLOCK_BYTES,
          mirror,
          ack,
          readOnly: false,
        },
      ],
      timing: {
        ...DEFAULT_TIMING,
        coldWaitMs: 3000,
        peerTimeoutMs: 2000,
        diskTimeoutMs: 5000,
        scrubEveryMs: 500,
      },
      minCopies: 1,
      coldStart: "flushed",
      bootId: "",
      segmentBytes: 512 * KIB,
      multicastBytesPerSecond: 40_000_000,
      // So fast that passes take place within a run.
      scrubBytesPerSecond: 8 * MIB,
      wallOffsetMs: 0,
      // As little as there can be: pages come and go.
      indexBytes: 0,
    };
  }
}

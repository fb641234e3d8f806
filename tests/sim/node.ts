/**
 * One simulated machine: its disk, its vote file, its clock, and, while the process runs, the
 * real `Host`. Events reach the host only while it lives and is not paused; everything scheduled
 * for a former life is dropped.
 */
import type { Mac, MacKey, Trace, TraceValue } from "../../core/base/ports.ts";
import type { Rules } from "../../core/base/rules.ts";
import { SeededRandom } from "../../core/base/random.ts";
import { crc32 } from "../../core/base/checksum.ts";
import { Host } from "../../core/host/host.ts";
import type { HostOptions } from "../../core/host/machine.ts";
import type { HostId } from "../../core/base/units.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimDisk } from "./sim_disk.ts";
import type { SimNet } from "./sim_net.ts";

/** Keyed by CRC: enough against the accidents and forgeries that the simulator makes. */
export class SimMac implements Mac {
  derive(label: Uint8Array): MacKey {
    const key = crc32(label, 0, label.length);
    const tag = (buffer: Uint8Array, at: number, length: number): number =>
      crc32(buffer, at, length, key);
    return {
      sign: (buffer, at, length, out, outAt) => {
        out.fill(0, outAt, outAt + 16);
        new DataView(out.buffer, out.byteOffset).setUint32(outAt, tag(buffer, at, length));
      },
      verify: (buffer, at, length, out, outAt) =>
        new DataView(out.buffer, out.byteOffset).getUint32(outAt) === tag(buffer, at, length),
    };
  }
}

export interface NodeWorld {
  readonly scheduler: Scheduler;
  readonly net: SimNet;
  readonly rules: Rules;
  toClient(node: SimNode, client: number, bytes: Uint8Array): void;
  clientClosed(node: SimNode, client: number): void;
  traced(node: SimNode, level: string, code: string, text: string): void;
  /** After every batch of a node's events. */
  settled(node: SimNode): void;
}

export class SimNode {
  readonly id: HostId;
  host: Host | null = null;
  /** Counts lives; events of a former one are dropped. */
  life = 0;
  isPaused = false;
  disk: SimDisk | null;
  readonly clients = new Set<number>();
  /** Power was cut since this host was last a member of an open view. */
  lostPower = false;
  private readonly options: HostOptions;
  private readonly world: NodeWorld;
  private readonly random: SeededRandom;
  private votes: Uint8Array | null = null;
  private readonly clockRate: number;
  private readonly clockOffsetMs: number;
  private boots = 1;
  private isSettling = false;
  private wakeAtMs = Number.POSITIVE_INFINITY;
  private isOnline = false;
  private held: (() => void)[] = [];

  constructor(
    id: HostId,
    options: HostOptions,
    disk: SimDisk | null,
    seed: number,
    world: NodeWorld,
  ) {
    this.id = id;
    this.options = options;
    this.disk = disk;
    this.world = world;
    this.random = new SeededRandom(seed);
    this.clockRate = 1 + (this.random.fraction() - 0.5) * 0.01;
    this.clockOffsetMs = this.random.fraction() * 1e6;
  }

  get isUp(): boolean {
    return this.host !== null;
  }

  nowMs(): number {
    return this.clockOffsetMs + this.world.scheduler.nowMs * this.clockRate;
  }

  start(): void {
    this.life += 1;
    const { net } = this.world;
    const options = { ...this.options, bootId: `boot-${this.id}-${this.boots}` };
    this.host = new Host(
      options,
      {
        streams: net.linkOf(this.id),
        packets: net.packetsOf(this.id),
        clients: {
          send: (client, buffer, at, length) => {
            if (!this.clients.has(client)) return -1;
            this.world.toClient(this, client, buffer.slice(at, at + length));
            return length;
          },
          // Chunks only: what a session does with more is in tests/spec.
          receiveNow: () => 0,
          pause: () => {},
          close: (client) => {
            this.clients.delete(client);
            this.world.clientClosed(this, client);
            this.later(0.01, (host, now) => host.clientClosed(now, client));
          },
        },
        votes: { write: (tag, bytes) => this.writeVotes(tag, bytes) },
        mac: new SimMac(),
        entropy: this.random,
        trace: this.tracer(),
      },
      this.world.rules,
    );
    const { votes, disk } = this;
    this.event((host, now) =>
      host.start(now, { votes, disk, diskWhy: disk === null ? "there is no disk" : "" }),
    );
  }

  /** SIGKILL: the process is gone, the operating system keeps what it was given. */
  kill(): void {
    if (this.host === null) return;
    this.gone();
    this.disk?.crash();
  }

  /** The machine loses power: what was not synced is lost or torn. */
  powerCut(): void {
    this.lostPower = true;
    this.boots += 1;
    if (this.host !== null) this.gone();
    this.disk?.powerCut();
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    const held = this.held;
    this.held = [];
    for (const run of held) run();
  }

  /** An event for the host, now; dropped when it is down, kept when it is paused. */
  event(run: (host: Host, nowMs: number) => void): void {
    const { life } = this;
    const go = (): void => {
      if (this.host === null || this.life !== life) return;
      if (this.isPaused) {
        if (this.held.length < 10_000) this.held.push(go);
        return;
      }
      run(this.host, this.nowMs());
      this.settleSoon();
    };
    go();
  }

  later(delayMs: number, run: (host: Host, nowMs: number) => void): void {
    const { life } = this;
    this.world.scheduler.after(delayMs, () => {
      if (this.life === life) this.event(run);
    });
  }

  private gone(): void {
    this.host = null;
    this.life += 1;
    this.isOnline = false;
    this.isPaused = false;
    this.held = [];
    this.isSettling = false;
    this.wakeAtMs = Number.POSITIVE_INFINITY;
    this.world.net.stop(this.id);
    for (const client of this.clients) this.world.clientClosed(this, client);
    this.clients.clear();
  }

  private settleSoon(): void {
    if (this.isSettling) return;
    this.isSettling = true;
    const { life } = this;
    this.world.scheduler.after(0.002, () => {
      if (this.life !== life || this.host === null) return;
      this.isSettling = false;
      if (this.isPaused) {
        this.held.push(() => this.settleSoon());
        return;
      }
      this.host.settle(this.nowMs());
      if (!this.isOnline && this.host.incarnation > 0) {
        this.isOnline = true;
        this.world.net.start(this.id, this.host.incarnation);
      }
      this.arm();
      this.world.settled(this);
    });
  }

  private arm(): void {
    if (this.host === null) return;
    const deadline = this.host.nextDeadlineMs();
    if (deadline === Number.POSITIVE_INFINITY) return;
    const delayMs = Math.max(0.01, (deadline - this.nowMs()) / this.clockRate + 0.001);
    const at = this.world.scheduler.nowMs + delayMs;
    if (at >= this.wakeAtMs - 0.0005) return;
    this.wakeAtMs = at;
    const { life } = this;
    this.world.scheduler.after(delayMs, () => {
      if (this.life !== life || this.wakeAtMs !== at) return;
      this.wakeAtMs = Number.POSITIVE_INFINITY;
      this.event((host, now) => {
        if (host.nextDeadlineMs() <= now) host.expire(now);
      });
    });
  }

  private writeVotes(tag: number, bytes: Uint8Array): void {
    const { life } = this;
    this.world.scheduler.after(0.1 + this.random.fraction() * 2, () => {
      // A write in flight at a crash may be there or not.
      if (this.life !== life && this.random.chance(0.5)) return;
      if (this.life === life || this.life === life + 1) this.votes = bytes;
      if (this.life === life) this.event((host, now) => host.voteDone(now, tag, 0));
    });
  }

  private tracer(): Trace {
    const { life } = this;
    return {
      event: (level, code, text, _fields?: Readonly<Record<string, TraceValue>>) => {
        if (this.life === life) this.world.traced(this, level, code, text);
      },
    };
  }

  forgetVotes(): void {
    this.votes = null;
  }
}

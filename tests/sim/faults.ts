/**
 * Faults drawn per seed ("swarm testing": Groce et al., ISSTA 2012): each seed has its own subset
 * of fault kinds and rates, so that rare combinations come up.
 */
import type { SeededRandom } from "../../core/base/random.ts";
import { hostId } from "../../core/base/units.ts";
import type { SimDisk } from "./sim_disk.ts";
import type { World } from "./world.ts";

export interface Swarm {
  readonly kill: number;
  readonly powerCut: number;
  readonly pause: number;
  readonly isolate: number;
  readonly oneWay: number;
  readonly reset: number;
  readonly slowNet: number;
  readonly lossyNet: number;
  readonly diskError: number;
  readonly slowDisk: number;
  readonly blackout: number;
  /**
   * Durable blocks rot on one host's medium, half of them under a good copy in its page cache. The
   * atlas of faults keeps a good copy of everything: always the same host's, while another is in
   * sync; and with this fault the others never lose a store's content.
   */
  readonly rot: number;
  /** Mean time between faults. */
  readonly everyMs: number;
  /** How long a host stays down, mean. */
  readonly downMs: number;
}

export function drawSwarm(random: SeededRandom): Swarm {
  const weight = (chance: number): number => (random.chance(chance) ? 1 + random.below(3) : 0);
  return {
    kill: weight(0.7),
    powerCut: weight(0.5),
    pause: weight(0.4),
    isolate: weight(0.5),
    oneWay: weight(0.3),
    reset: weight(0.5),
    slowNet: weight(0.4),
    lossyNet: weight(0.4),
    diskError: weight(0.2),
    slowDisk: weight(0.3),
    blackout: random.chance(0.15) ? 1 : 0,
    rot: weight(0.15),
    everyMs: 150 + random.below(1500),
    downMs: random.chance(0.4) ? 5 + random.below(60) : 200 + random.below(3000),
  };
}

/** With `rot` the others must keep what they have: only the rotting host loses lives. */
const TAKES_A_LIFE: readonly (keyof Swarm)[] = ["kill", "powerCut", "diskError", "blackout"];

function mend(disk: SimDisk): void {
  disk.faults.failWrites = 0;
  disk.faults.failSyncs = 0;
  disk.faults.slowMs = 0;
}

export class Faults {
  private readonly world: World;
  private readonly swarm: Swarm;
  private readonly random: SeededRandom;
  private isActive = true;

  constructor(world: World, swarm: Swarm, random: SeededRandom) {
    this.world = world;
    this.swarm = swarm;
    this.random = random;
    this.next();
  }

  /** No more faults; everything is mended at once. */
  heal(): void {
    this.isActive = false;
    const { world } = this;
    world.net.faults.packetLoss = 0;
    world.net.faults.packetDuplicate = 0;
    world.net.faults.packetReorder = 0;
    world.net.faults.delayMaxMs = 0.2;
    world.net.healAll();
    for (const node of world.nodes) {
      if (node.isPaused) node.resume();
      if (node.disk !== null) mend(node.disk);
      if (!node.isUp) node.start();
    }
    world.note("healed");
  }

  private next(): void {
    this.world.scheduler.after(this.random.fraction() * 2 * this.swarm.everyMs, () => {
      if (!this.isActive) return;
      this.inject();
      this.next();
    });
  }

  private inject(): void {
    const { swarm, random, world } = this;
    const kinds = [
      "kill",
      "powerCut",
      "pause",
      "isolate",
      "oneWay",
      "reset",
      "slowNet",
      "lossyNet",
      "diskError",
      "slowDisk",
      "blackout",
      "rot",
    ] as const;
    let total = 0;
    for (const kind of kinds) total += swarm[kind];
    if (total === 0) return;
    let roll = random.below(total);
    for (const kind of kinds) {
      roll -= swarm[kind];
      if (roll < 0) {
        const isSpared = swarm.rot > 0 && TAKES_A_LIFE.includes(kind);
        const target = isSpared ? this.rotting : random.below(world.nodes.length);
        if (isSpared && kind === "blackout") return;
        world.note(`fault ${kind} at ${target}`);
        this[kind](target);
        return;
      }
    }
  }

  private downFor(): number {
    return this.random.fraction() * 2 * this.swarm.downMs;
  }

  private kill(target: number): void {
    const node = this.world.nodes[target]!;
    if (!node.isUp) return;
    node.kill();
    this.restartLater(target);
  }

  private powerCut(target: number): void {
    const node = this.world.nodes[target]!;
    if (!node.isUp) return;
    node.powerCut();
    this.restartLater(target);
  }

  private blackout(): void {
    for (const node of this.world.nodes) {
      if (!node.isUp) continue;
      if (this.random.chance(0.7)) node.powerCut();
      else node.kill();
      this.restartLater(node.id);
    }
  }

  private restartLater(target: number): void {
    this.world.scheduler.after(this.downFor(), () => {
      const node = this.world.nodes[target]!;
      if (this.isActive && !node.isUp) node.start();
    });
  }

  private pause(target: number): void {
    const node = this.world.nodes[target]!;
    if (node.isPaused || !node.isUp) return;
    node.pause();
    this.world.scheduler.after(this.downFor(), () => {
      if (node.isPaused) node.resume();
    });
  }

  private isolate(target: number): void {
    for (const other of this.world.nodes) {
      if (other.id !== target) this.cutBetween(target, other.id);
    }
  }

  private cutBetween(one: number, other: number): void {
    const { net, scheduler } = this.world;
    net.cut(hostId(one), hostId(other));
    net.cut(hostId(other), hostId(one));
    scheduler.after(this.downFor(), () => {
      net.heal(hostId(one), hostId(other));
      net.heal(hostId(other), hostId(one));
    });
  }

  private oneWay(target: number): void {
    const { net, scheduler, nodes } = this.world;
    const other = this.random.below(nodes.length);
    if (other === target) return;
    net.cut(hostId(target), hostId(other));
    scheduler.after(this.downFor(), () => net.heal(hostId(target), hostId(other)));
  }

  private reset(target: number): void {
    const other = this.random.below(this.world.nodes.length);
    if (other !== target) this.world.net.reset(hostId(target), hostId(other));
  }

  private slowNet(): void {
    const { net, scheduler } = this.world;
    net.faults.delayMaxMs = 0.2 + this.random.fraction() * 60;
    scheduler.after(this.downFor(), () => {
      net.faults.delayMaxMs = 0.2;
    });
  }

  private lossyNet(): void {
    const { net, scheduler } = this.world;
    net.faults.packetLoss = this.random.fraction() * 0.2;
    net.faults.packetDuplicate = this.random.fraction() * 0.1;
    net.faults.packetReorder = this.random.fraction() * 0.2;
    scheduler.after(this.downFor() * 3, () => {
      net.faults.packetLoss = 0;
      net.faults.packetDuplicate = 0;
      net.faults.packetReorder = 0;
    });
  }

  /** Errors on writes or syncs: the host must go on without its disk until it is restarted. */
  private diskError(target: number): void {
    const node = this.world.nodes[target]!;
    if (node.disk === null || !node.isUp) return;
    const others = this.world.nodes.filter((each) => {
      const change = each.host?.inside.change;
      return each.id !== target && change?.role === "member" && change.diskOk;
    });
    if (others.length === 0) return;
    if (this.random.chance(0.5)) node.disk.faults.failWrites = 1;
    else node.disk.faults.failSyncs = 1;
    this.world.scheduler.after(300 + this.downFor(), () => {
      if (node.isUp) node.kill();
      if (node.disk !== null) mend(node.disk);
      if (this.isActive) this.restartLater(target);
      else node.start();
    });
  }

  /** Number of the host that rots: the last data host. */
  private get rotting(): number {
    return this.world.nodes.findLastIndex((node) => node.disk !== null);
  }

  /** Up to 20 of the blocks that clients use. */
  rot(): void {
    const { nodes, volume } = this.world;
    const node = nodes[this.rotting]!;
    const store = node.host?.inside.parts.store ?? null;
    const others = nodes.filter((each) => each !== node && each.host?.inside.parts.serving);
    if (store === null || node.disk === null || others.length === 0) return;
    if (node.host?.inside.parts.serving !== true) return;
    let left = 20;
    for (let tries = 0; tries < 400 && left > 0; tries += 1) {
      const lba = this.world.place(this.random.below(256));
      const place = store.placeOf(volume, lba);
      if (place < 2) continue;
      left -= 1;
      const at = place * 16 + this.random.below(4112);
      const mask = 1 << this.random.below(8);
      if (this.random.chance(0.5)) node.disk.media.flip(at, mask);
      else node.disk.media.rot(at, mask);
    }
  }

  private slowDisk(target: number): void {
    const { disk } = this.world.nodes[target]!;
    if (disk === null) return;
    disk.faults.slowMs = this.random.fraction() * 100;
    this.world.scheduler.after(this.downFor(), () => {
      disk.faults.slowMs = 0;
    });
  }
}

/** A seeded run with every fault that concerns views, then healing. */
import type { Rules } from "../../../core/base/rules.ts";
import type { MembershipHost } from "../../../core/membership/contract.ts";
import { Cluster } from "./cluster.ts";

type Kinds = readonly MembershipHost["kind"][];

const SHAPES: readonly Kinds[] = [
  ["data", "data", "witness"],
  ["data", "data", "data"],
  ["data", "data"],
  ["data", "data", "data", "witness", "witness"],
  ["data", "data", "witness", "client"],
];

export interface ChaosResult {
  readonly cluster: Cluster;
  readonly openAfterMs: number;
}

/** Throws a Breach on the first violation. */
export function chaos(seed: number, rules: Partial<Rules> = {}, turmoilMs = 6000): ChaosResult {
  const kinds = SHAPES[seed % SHAPES.length]!;
  const cluster = new Cluster({ seed, kinds, rules, coldWaitMs: 1500 });
  const { random, hosts } = cluster;
  cluster.startAll();
  cluster.every(7, () => random.pick(hosts).write());
  cluster.every(5, () => random.pick(hosts).read());
  cluster.every(170, () => cluster.flush());
  cluster.run(200 + random.below(600));
  const end = cluster.nowMs + turmoilMs;
  while (cluster.nowMs < end) {
    fault(cluster);
    cluster.run(random.chance(0.5) ? random.below(120) : random.below(1500));
  }
  return calm(cluster);
}

/** What ends a fault does nothing any more once all faults were ended. */
function later(cluster: Cluster, delayMs: number, work: () => void): void {
  const { healed } = cluster;
  cluster.after(delayMs, () => {
    if (cluster.healed === healed) work();
  });
}

function fault(cluster: Cluster): void {
  const { random, hosts } = cluster;
  const id = random.below(hosts.length);
  const other = random.below(hosts.length);
  const all = hosts.map((host) => host.id);
  switch (random.below(10)) {
    case 0:
    case 1:
      cluster.stop(id, random.chance(0.6) ? "power" : "kill");
      // Often faster than any detection.
      later(cluster, random.pick([2, 30, 200, 1200, 3000]), () => cluster.start(id));
      break;
    case 2:
      cluster.isolate(id, all);
      later(cluster, 100 + random.below(3000), () => cluster.isolate(id, all, false));
      break;
    case 3:
      if (id === other) break;
      cluster.block(id, other, true);
      later(cluster, 100 + random.below(3000), () => cluster.block(id, other, false));
      break;
    case 4:
      cluster.slow(id, other, random.pick([20, 200, 900, 2500]));
      later(cluster, 100 + random.below(2500), () => cluster.slow(id, other, 0));
      break;
    case 5:
      if (id !== other) cluster.unlink(id, other);
      break;
    case 6: {
      const host = hosts[id]!;
      host.machine?.suspect(host.nowMs, hosts[other]!.id, "it owes an ack");
      if (host.machine !== null) cluster.wake(host);
      break;
    }
    case 7:
      if (random.chance(0.15)) {
        for (const host of all) {
          cluster.stop(host, random.chance(0.7) ? "power" : "kill");
          later(cluster, random.below(2500), () => cluster.start(host));
        }
      }
      break;
    case 8:
      if (random.chance(0.3)) cluster.loseVotes(id, random.pick([2, 200, 1500]));
      break;
    default:
      if (random.chance(0.3)) cluster.heal();
      break;
  }
}

/** Heals everything, and measures how long it takes until a view is open again (V12). */
function calm(cluster: Cluster): ChaosResult {
  const { hosts, observer } = cluster;
  cluster.healed += 1;
  cluster.heal();
  cluster.startAll();
  const from = cluster.nowMs;
  const isOpen = (): boolean =>
    hosts.some((host) => host.machine?.isOpen && host.machine.role === "member");
  observer.check(cluster.runUntil(3000, isOpen), "V12: no view opens after healing");
  const openAfterMs = cluster.nowMs - from;
  // What a cold start lost and another host still knows is divergence (R13): kept, not merged.
  const data = hosts.filter((host) => host.kind === "data");
  const settled = (): boolean => {
    const welcome = data.filter((host) => !host.refusals.some((why) => why.includes("diverged")));
    return data.every(
      (host) =>
        !welcome.includes(host) ||
        (host.machine?.isOpen === true &&
          host.machine.view!.members.length >= welcome.length &&
          host.machine.mayRead(host.nowMs)),
    );
  };
  cluster.run(1000);
  observer.check(cluster.runUntil(12_000, settled), "V12: not all hosts are members again");
  cluster.run(400);
  observer.check(settled(), "V12: the view does not stay open");
  return { cluster, openAfterMs };
}

/** The shared path: loss and repair, falling back to the data lane and back, forgeries. */
import { expect, test } from "bun:test";
import type { NetFaults } from "../../sim/sim_net.ts";
import { hostId } from "../../../core/base/units.ts";
import { MiniCluster } from "./mini_cluster.ts";

function clusterOf(seed: number, hostCount: number, faults: Partial<NetFaults> = {}): MiniCluster {
  const cluster = new MiniCluster({ seed, hostCount, faults });
  cluster.open();
  return cluster;
}

function stream(cluster: MiniCluster, count: number, everyMs = 0.2): void {
  const host = cluster.host(0);
  for (let each = 0; each < count; each += 1) {
    cluster.act(host, () => host.write(1, { shared: true }));
    cluster.run(everyMs);
  }
}

function pathOf(cluster: MiniCluster, peer: number): string {
  const row = cluster
    .host(0)
    .mirror.status()
    .peers.find((each) => each.peer === peer);
  return row?.path ?? "";
}

test("a shared record is multicast once for all, and not sent by TCP", () => {
  const cluster = clusterOf(1, 4);
  stream(cluster, 50);
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
  const counters = cluster.host(0).mirror.counters;
  expect(counters.datagramsSent).toBeLessThan(50 * 4 + 10);
  expect(counters.fallbacks + counters.naksReceived).toBe(0);
  for (const host of cluster.hosts.slice(1)) {
    expect(host.mirror.counters.duplicates).toBe(0);
    expect(host.log.length).toBe(50);
  }
});

test("fault 38: 20 % loss at one receiver, doubles and disorder are repaired", () => {
  const faults = { packetLoss: 0.2, packetDuplicate: 0.1, packetReorder: 0.2 };
  const cluster = clusterOf(2, 3, faults);
  stream(cluster, 300);
  expect(cluster.runUntil(2000, () => cluster.isQuiet())).toBe(true);
  const counters = cluster.host(0).mirror.counters;
  expect(counters.repairsUnicast).toBeGreaterThan(20);
  expect(counters.repairsMulticast).toBeGreaterThan(5);
  expect(counters.repairsUnicast + counters.repairsMulticast).toBeLessThan(1500);
  expect(pathOf(cluster, 1)).toBe("shared");
});

test("datagrams that wait in the receiver's own queue are not asked for again", () => {
  // The control lane overtakes: what the sender says to have sent takes 30 ms to get here.
  const cluster = clusterOf(18, 2, { packetQueueMs: 30 });
  const sender = cluster.host(0);
  for (let each = 0; each < 100; each += 1) {
    cluster.act(sender, () => sender.write(4, { shared: true }));
  }
  expect(cluster.runUntil(2000, () => cluster.isQuiet())).toBe(true);
  expect(sender.mirror.counters.naksReceived).toBe(0);
  expect(sender.mirror.counters.fallbacks).toBe(0);
});

test("the loss of the very last datagram is found", () => {
  const cluster = clusterOf(3, 2);
  cluster.net.faults.packetLoss = 1;
  stream(cluster, 1);
  cluster.net.faults.packetLoss = 0;
  expect(cluster.runUntil(200, () => cluster.isQuiet())).toBe(true);
  expect(pathOf(cluster, 1)).toBe("shared");
});

test("a host that multicast does not reach is served by TCP, and by multicast again later", () => {
  const cluster = clusterOf(4, 3);
  cluster.net.faults.packetLoss = 1;
  stream(cluster, 20);
  expect(cluster.runUntil(3000, () => cluster.isQuiet())).toBe(true);
  expect(pathOf(cluster, 1)).toBe("dedicated");
  expect(cluster.host(0).paths[0]).toContain("does not reach");
  const before = cluster.host(0).mirror.counters.datagramsSent;
  stream(cluster, 20);
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
  expect(cluster.host(0).mirror.counters.datagramsSent - before).toBeLessThan(3);
  cluster.net.faults.packetLoss = 0;
  expect(cluster.runUntil(6000, () => pathOf(cluster, 1) === "shared")).toBe(true);
  expect(cluster.runUntil(6000, () => pathOf(cluster, 2) === "shared")).toBe(true);
  stream(cluster, 20);
  expect(cluster.runUntil(200, () => cluster.isQuiet())).toBe(true);
  expect(cluster.host(1).log.length).toBe(60);
  expect(cluster.host(0).mirror.counters.datagramsSent - before).toBeGreaterThan(50);
});

test("after a new link multicast serves the host again within a fifth of a second", () => {
  const cluster = clusterOf(19, 2);
  stream(cluster, 5);
  cluster.net.reset(hostId(0), hostId(1));
  expect(cluster.runUntil(1000, () => pathOf(cluster, 1) === "dedicated")).toBe(true);
  expect(cluster.runUntil(200, () => pathOf(cluster, 1) === "shared")).toBe(true);
  expect(cluster.host(0).mirror.counters.fallbacks).toBe(1);
  stream(cluster, 5);
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
  expect(cluster.host(1).log.length).toBe(10);
});

test("paths change back and forth under load without losing a record", () => {
  const cluster = clusterOf(5, 3);
  for (let round = 0; round < 6; round += 1) {
    cluster.net.faults.packetLoss = round % 2 === 0 ? 1 : 0;
    stream(cluster, 400, 10);
  }
  cluster.net.faults.packetLoss = 0;
  expect(cluster.runUntil(3000, () => cluster.isQuiet())).toBe(true);
  const paths = cluster.host(0).paths;
  expect(paths.filter((text) => text.includes("again")).length).toBeGreaterThan(3);
  expect(cluster.host(2).log.length).toBe(2400);
});

test("a return to multicast leaves the backlog of the data lane where it is", () => {
  const cluster = clusterOf(12, 2, { bufferBytes: 5000, delayMaxMs: 2 });
  cluster.net.faults.packetLoss = 1;
  stream(cluster, 1000, 1);
  cluster.net.faults.packetLoss = 0;
  stream(cluster, 5000, 1);
  expect(cluster.host(0).paths.length).toBeGreaterThan(1);
  expect(cluster.runUntil(20_000, () => cluster.isQuiet())).toBe(true);
  expect(cluster.host(1).log.length).toBe(6000);
});

test("a multicast frame cut short starts the frame stream anew", () => {
  const mirror = { rateBytesPerSecond: 1_000_000 };
  const cluster = new MiniCluster({ seed: 13, hostCount: 2, mirror });
  cluster.open();
  const [sender, receiver] = [cluster.host(0), cluster.host(1)];
  sender.committed = () => {};
  cluster.act(sender, () => {
    for (let count = 0; count < 5; count += 1) sender.write(4, { shared: true });
  });
  // As if the receiver had all of it by the other path: the window drops the frame in progress.
  const ack = { kind: "ack", epoch: cluster.epoch, received: 5, durable: 0 } as const;
  cluster.act(sender, (nowMs) => {
    sender.mirror.logged(nowMs, sender.appendedLsn);
    sender.mirror.control(nowMs, hostId(1), ack);
  });
  expect(sender.mirror.status().windowRecords).toBe(0);
  cluster.run(1);
  expect(receiver.log.length).toBeLessThan(5);
  stream(cluster, 5, 20);
  expect(receiver.mirror.status().heldBytes).toBe(5 * 4192);
  expect(receiver.mirror.counters.resets).toBe(0);
});

test("a replayed probe is echoed once", () => {
  const cluster = clusterOf(14, 2);
  cluster.net.faults.packetLoss = 1;
  stream(cluster, 5);
  cluster.runUntil(3000, () => pathOf(cluster, 1) === "dedicated");
  cluster.net.faults.packetLoss = 0;
  cluster.net.faults.packetDuplicate = 1;
  cluster.runUntil(6000, () => pathOf(cluster, 1) === "shared");
  const echoes = cluster.host(1).sends.flatMap(({ message }) => {
    return message.kind === "castEcho" ? [message.probe] : [];
  });
  expect(echoes.length).toBeGreaterThan(2);
  expect(new Set(echoes).size).toBe(echoes.length);
});

test("a datagram is repaired once in a while, however often it is asked for", () => {
  const cluster = clusterOf(15, 2);
  const sender = cluster.host(0);
  cluster.host(1).isMute = true;
  stream(cluster, 10);
  const before = sender.mirror.counters.datagramsSent;
  for (let round = 0; round < 5; round += 1) {
    cluster.act(sender, (nowMs) => {
      const ranges = [{ from: 1, count: 1000 }];
      const nak = { kind: "castNak", epoch: cluster.epoch, next: 1, ranges } as const;
      sender.mirror.control(nowMs, hostId(1), nak);
    });
    cluster.run(3);
  }
  expect(sender.mirror.counters.repairsUnicast).toBe(before);
});

test("a receiver that loses most datagrams is served by TCP although repair works", () => {
  const cluster = clusterOf(6, 2);
  cluster.net.faults.packetLoss = 0.75;
  stream(cluster, 800, 2);
  expect(pathOf(cluster, 1)).toBe("dedicated");
  cluster.net.faults.packetLoss = 0;
  expect(cluster.runUntil(1000, () => cluster.isQuiet())).toBe(true);
});

test("pace: no more than the rate leaves", () => {
  const mirror = { rateBytesPerSecond: 1_000_000 };
  const cluster = new MiniCluster({ seed: 7, hostCount: 2, mirror });
  cluster.open();
  const host = cluster.host(0);
  const start = cluster.nowMs;
  cluster.act(host, () => {
    for (let count = 0; count < 250; count += 1) host.write(1, { shared: true });
  });
  expect(cluster.runUntil(5000, () => cluster.isQuiet())).toBe(true);
  const elapsed = cluster.nowMs - start;
  expect(elapsed).toBeGreaterThan(850);
  expect(elapsed).toBeLessThan(1200);
});

test("fault 39: forged, replayed and old datagrams do nothing but count", () => {
  const cluster = clusterOf(8, 2);
  const captured: Uint8Array[] = [];
  const packet = cluster.host(1).mirror.packet.bind(cluster.host(1).mirror);
  cluster.host(1).mirror.packet = (nowMs, chunk) => {
    captured.push(chunk.slice());
    packet(nowMs, chunk);
  };
  stream(cluster, 20);
  cluster.runUntil(100, () => cluster.isQuiet());
  const receiver = cluster.host(1);
  const appended = receiver.log.length;
  const sends = receiver.sends.length;
  const genuine = captured.slice();
  for (const chunk of genuine) {
    const forged = chunk.slice();
    forged[cluster.random.below(forged.length)]! ^= 1 << cluster.random.below(8);
    cluster.net.inject(hostId(1), forged);
    cluster.net.inject(hostId(1), chunk.slice());
    cluster.net.inject(hostId(1), chunk.slice(0, cluster.random.below(chunk.length)));
  }
  cluster.run(50);
  expect(receiver.log.length).toBe(appended);
  // Not a single answer: a stranger cannot make us send anything.
  expect(receiver.sends.length).toBe(sends);
  const counters = receiver.mirror.counters;
  expect(counters.datagramsReplayed).toBe(genuine.length);
  expect(counters.datagramsForged + counters.oldFrames).toBe(2 * genuine.length);
  cluster.sealAll();
  cluster.open();
  const old = receiver.mirror.counters.oldFrames;
  for (const chunk of genuine) cluster.net.inject(hostId(1), chunk.slice());
  cluster.run(50);
  expect(receiver.mirror.counters.oldFrames).toBe(old + genuine.length);
  stream(cluster, 5);
  expect(cluster.runUntil(200, () => cluster.isQuiet())).toBe(true);
});

test("a host without the sender's key takes nothing by multicast and is served by TCP", () => {
  const cluster = new MiniCluster({ seed: 9, hostCount: 2 });
  cluster.beginAll(false);
  cluster.run(5);
  const [sender, receiver] = [cluster.host(0), cluster.host(1)];
  sender.mirror.learnKey(hostId(0), Uint8Array.of(9, 9));
  receiver.mirror.learnKey(hostId(0), Uint8Array.of(8, 8));
  for (const host of cluster.hosts) cluster.act(host, (nowMs) => host.mirror.opened(nowMs));
  stream(cluster, 5);
  expect(cluster.runUntil(3000, () => cluster.isQuiet())).toBe(true);
  expect(receiver.mirror.counters.datagramsForged).toBeGreaterThan(0);
  expect(pathOf(cluster, 1)).toBe("dedicated");
});

test("a storm of negative acknowledgements is not amplified", () => {
  const cluster = clusterOf(10, 2);
  const sender = cluster.host(0);
  cluster.host(1).holdChance = 0;
  cluster.act(sender, () => {
    for (let count = 0; count < 20; count += 1) sender.write(1, { shared: true });
  });
  const before = sender.mirror.counters.datagramsSent;
  const ranges = Array.from({ length: 64 }, () => ({ from: 1, count: 2 ** 40 }));
  for (let round = 0; round < 1000; round += 1) {
    cluster.act(sender, (nowMs) => {
      const nak = { kind: "castNak", epoch: cluster.epoch, next: round + 1, ranges } as const;
      sender.mirror.control(nowMs, hostId(1), nak);
    });
  }
  cluster.run(5);
  // Each of the datagrams at most once, however often it was asked for.
  expect(sender.mirror.counters.datagramsSent - before).toBeLessThanOrEqual(before + 1);
});

test("dedicated and shared records of one stream merge in order", () => {
  const cluster = clusterOf(11, 3, { packetLoss: 0.1, delayMaxMs: 3 });
  const host = cluster.host(0);
  for (let count = 0; count < 300; count += 1) {
    cluster.act(host, () => host.write(count % 3, { shared: count % 2 === 0 }));
    cluster.run(0.3);
  }
  expect(cluster.runUntil(2000, () => cluster.isQuiet())).toBe(true);
  for (const each of cluster.hosts) expect(each.log.length).toBe(300);
  expect(cluster.host(1).mirror.counters.heldRecords).toBeGreaterThan(10);
});

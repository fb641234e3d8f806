/** View changes: seal, reconcile, begin, open; and barriers across them. */
import { expect, test } from "bun:test";
import { hostId } from "../../../core/base/units.ts";
import { MiniCluster } from "./mini_cluster.ts";

function writeMany(cluster: MiniCluster, index: number, count: number): void {
  const host = cluster.host(index);
  for (let each = 0; each < count; each += 1) cluster.act(host, () => host.write(1));
}

/** Host 2 lacks the last ten records of host 0, host 1 the last five. */
function withUnequalTails(seed: number): MiniCluster {
  const cluster = new MiniCluster({ seed, hostCount: 3 });
  cluster.open();
  writeMany(cluster, 0, 5);
  cluster.run(5);
  cluster.net.cut(hostId(0), hostId(2));
  writeMany(cluster, 0, 5);
  cluster.run(5);
  cluster.net.cut(hostId(0), hostId(1));
  writeMany(cluster, 0, 5);
  cluster.run(5);
  return cluster;
}

test("after a seal nothing is sent, appended or acknowledged (V3)", () => {
  const cluster = new MiniCluster({ seed: 1, hostCount: 2 });
  cluster.open();
  const [sender, receiver] = [cluster.host(0), cluster.host(1)];
  cluster.act(sender, () => {
    for (let count = 0; count < 10; count += 1) sender.write(1);
  });
  cluster.act(receiver, () => {
    receiver.mirror.seal();
    receiver.isAppending = false;
  });
  const sends = receiver.sends.length;
  cluster.run(100);
  expect(receiver.log.length).toBe(0);
  expect(receiver.sends.length).toBe(sends);
  expect(receiver.mirror.counters.oldFrames).toBeGreaterThan(0);
  expect(sender.mirror.status().committed).toBe(0);
});

test("a vector given with a promise stays as it is", () => {
  const cluster = new MiniCluster({ seed: 2, hostCount: 2 });
  cluster.open();
  const sender = cluster.host(0);
  writeMany(cluster, 0, 5);
  cluster.act(sender, () => sender.mirror.seal());
  const vector = sender.mirror.vector();
  cluster.run(100);
  expect(sender.mirror.vector()).toEqual(vector);
  expect(cluster.host(1).log.length).toBe(5);
});

test("R5 makes tails equal, from whoever has most", () => {
  const cluster = withUnequalTails(3);
  expect(cluster.host(1).mirror.appendedOf(hostId(0))).toBe(10);
  expect(cluster.host(2).mirror.appendedOf(hostId(0))).toBe(5);
  cluster.sealAll();
  cluster.net.healAll();
  cluster.run(50);
  expect(cluster.reconcile(1000)).toBe(true);
  for (const host of cluster.hosts) expect(host.mirror.appendedOf(hostId(0))).toBe(15);
  const [first, ...others] = cluster.hosts.map((host) => host.stream(64, 0).map((e) => e.check));
  for (const other of others) expect(other).toEqual(first as number[]);
});

test("R5 without the sender: a receiver passes on what it retained", () => {
  const cluster = withUnequalTails(4);
  cluster.net.stop(hostId(0));
  cluster.run(50);
  for (const index of [1, 2])
    cluster.act(cluster.host(index), () => cluster.host(index).mirror.seal());
  const [most, least] = [cluster.host(1), cluster.host(2)];
  cluster.act(most, (nowMs) => most.mirror.resend(nowMs, hostId(2), hostId(0), 6, 10));
  expect(cluster.runUntil(500, () => least.mirror.appendedOf(hostId(0)) === 10)).toBe(true);
  expect(least.reconciledCount).toBe(5);
});

test("R5 goes on when the one who sends becomes ACTIVE in the same turn", () => {
  const cluster = withUnequalTails(9);
  cluster.net.stop(hostId(0));
  cluster.run(50);
  const [most, least] = [cluster.host(1), cluster.host(2)];
  for (const host of [most, least]) cluster.act(host, () => host.mirror.seal());
  cluster.act(most, (nowMs) => {
    most.mirror.resend(nowMs, hostId(2), hostId(0), 6, 10);
    most.mirror.begin(nowMs, 128, [hostId(1), hostId(2)], [hostId(1), hostId(2)], []);
  });
  expect(cluster.runUntil(500, () => least.mirror.appendedOf(hostId(0)) === 10)).toBe(true);
});

test("R5 goes on over a link reset", () => {
  const cluster = withUnequalTails(5);
  cluster.sealAll();
  cluster.net.faults.bufferBytes = 3000;
  cluster.net.healAll();
  cluster.run(50);
  cluster.after(1, () => cluster.net.reset(hostId(0), hostId(2)));
  cluster.after(30, () => cluster.net.reset(hostId(0), hostId(2)));
  expect(cluster.reconcile(2000)).toBe(true);
});

test("a view that was never open leaves the epoch before to R5", () => {
  const cluster = withUnequalTails(6);
  cluster.sealAll();
  cluster.net.healAll();
  cluster.run(50);
  cluster.beginAll(true);
  expect(cluster.host(0).mirror.vectorEpoch).toBe(64);
  cluster.sealAll();
  cluster.beginAll(true);
  cluster.sealAll();
  expect(cluster.host(0).mirror.vectorEpoch).toBe(64);
  expect(cluster.reconcile(1000)).toBe(true);
  cluster.open();
  expect(cluster.host(0).mirror.vectorEpoch).toBe(256);
  writeMany(cluster, 1, 3);
  expect(cluster.runUntil(500, () => cluster.isQuiet())).toBe(true);
});

test("an ACTIVE host without records of a view takes them by R5 of that view", () => {
  const cluster = new MiniCluster({ seed: 7, hostCount: 3 });
  cluster.open();
  writeMany(cluster, 0, 2);
  cluster.runUntil(100, () => cluster.isQuiet());
  cluster.sealAll();
  cluster.beginAll(false);
  cluster.run(5);
  cluster.net.cut(hostId(0), hostId(2));
  const opener = cluster.host(0);
  cluster.act(opener, (nowMs) => opener.mirror.opened(nowMs));
  writeMany(cluster, 0, 4);
  cluster.run(5);
  expect(cluster.host(1).mirror.vectorEpoch).toBe(128);
  expect(cluster.host(2).mirror.vectorEpoch).toBe(64);
  cluster.sealAll();
  const holder = cluster.host(1);
  cluster.act(holder, (nowMs) => holder.mirror.resend(nowMs, hostId(2), hostId(0), 1, 4));
  const lacking = cluster.host(2);
  expect(cluster.runUntil(500, () => lacking.stream(128, 0).length === 4)).toBe(true);
  expect(lacking.mirror.vectorEpoch).toBe(128);
});

test("records of an older view, and of one not begun, are not appended", () => {
  const cluster = new MiniCluster({
    seed: 8,
    hostCount: 2,
    faults: { delayMinMs: 5, delayMaxMs: 6 },
  });
  cluster.open();
  writeMany(cluster, 0, 3);
  const late = cluster.host(1);
  // Still in flight when the receiver moves on.
  cluster.act(late, () => late.mirror.seal());
  cluster.beginAll(true);
  cluster.run(50);
  expect(late.log.length).toBe(0);
  expect(late.mirror.counters.oldFrames).toBeGreaterThan(0);
});

test("barriers group, and finish when every recipient has synced (R8)", () => {
  const cluster = new MiniCluster({ seed: 9, hostCount: 3 });
  cluster.open();
  for (let token = 1; token <= 20; token += 1) {
    writeMany(cluster, 0, 1);
    cluster.barrier(cluster.host(0), token);
    cluster.run(0.1);
  }
  expect(cluster.runUntil(100, () => cluster.host(0).barriersDone.length === 20)).toBe(true);
  const asked = cluster.host(0).sends.filter(({ message }) => message.kind === "barrier");
  expect(asked.length).toBeLessThan(20);
});

test("a barrier whose view ends starts again when the next opens", () => {
  const cluster = new MiniCluster({ seed: 10, hostCount: 2 });
  cluster.open();
  cluster.host(1).isMute = true;
  cluster.barrier(cluster.host(0), 5);
  cluster.run(20);
  expect(cluster.host(0).barriersDone).toEqual([]);
  expect(cluster.host(0).mirror.owing(cluster.nowMs, 10)).toBe(hostId(1));
  cluster.sealAll();
  cluster.host(1).isMute = false;
  cluster.open();
  expect(cluster.runUntil(50, () => cluster.host(0).barriersDone.length === 1)).toBe(true);
});

test("barriers survive a lost link, and can be taken back", () => {
  const cluster = new MiniCluster({ seed: 11, hostCount: 2 });
  cluster.open();
  cluster.barrier(cluster.host(0), 1);
  cluster.net.reset(hostId(0), hostId(1));
  expect(cluster.runUntil(200, () => cluster.host(0).barriersDone.length === 1)).toBe(true);
  cluster.host(1).isMute = true;
  cluster.barrier(cluster.host(0), 2);
  cluster.barrier(cluster.host(0), 3);
  cluster.run(10);
  expect(cluster.host(0).mirror.takeBarriers()).toEqual([2, 3]);
});

test("plans that come to nothing leave nothing behind", () => {
  const cluster = withUnequalTails(12);
  cluster.sealAll();
  const host = cluster.host(0);
  // The link is cut, so no job gets anywhere.
  for (let round = 0; round < 100; round += 1) {
    cluster.act(host, (nowMs) => {
      host.mirror.resend(nowMs, hostId(2), hostId(0), 6, 15);
      host.mirror.seal();
    });
  }
  cluster.net.healAll();
  cluster.run(50);
  expect(cluster.host(2).mirror.appendedOf(hostId(0))).toBe(5);
  cluster.act(host, (nowMs) => host.mirror.resend(nowMs, hostId(2), hostId(0), 6, 15));
  const isThere = (): boolean => cluster.host(2).mirror.appendedOf(hostId(0)) === 15;
  expect(cluster.runUntil(500, isThere)).toBe(true);
  expect(cluster.host(2).mirror.counters.duplicates).toBeLessThan(10);
});

test("what was held at the seal is never appended, and not in the vector", () => {
  const cluster = new MiniCluster({ seed: 13, hostCount: 2 });
  cluster.open();
  const receiver = cluster.host(1);
  receiver.isHolding = true;
  writeMany(cluster, 0, 5);
  cluster.run(5);
  expect(receiver.mirror.status().heldBytes).toBeGreaterThan(0);
  cluster.act(receiver, () => receiver.mirror.seal());
  receiver.isHolding = false;
  cluster.act(receiver, (nowMs) => receiver.mirror.retryHeld(nowMs));
  expect(receiver.log.length).toBe(0);
  expect(receiver.mirror.appendedOf(hostId(0))).toBe(0);
});

test("a frame in progress at the seal is finished before anything else is sent", () => {
  const cluster = new MiniCluster({ seed: 14, hostCount: 2, faults: { bufferBytes: 2000 } });
  cluster.open();
  const [sender, receiver] = [cluster.host(0), cluster.host(1)];
  cluster.act(sender, () => sender.write(2));
  for (const host of cluster.hosts) cluster.act(host, () => host.mirror.seal());
  cluster.act(sender, (nowMs) => {
    expect(sender.mirror.sendBulk(nowMs, hostId(1), new Uint8Array(5000).fill(3))).toBe(true);
    sender.mirror.resend(nowMs, hostId(1), hostId(0), 1, 1);
  });
  const isThere = (): boolean => receiver.bulks.length === 1 && receiver.reconciledCount === 1;
  expect(cluster.runUntil(200, isThere)).toBe(true);
  expect(receiver.mirror.counters.resets).toBe(0);
});

test("records wait for a peer that has not begun the view", () => {
  const cluster = new MiniCluster({ seed: 15, hostCount: 2 });
  cluster.open();
  cluster.sealAll();
  const [sender, late] = [cluster.host(0), cluster.host(1)];
  const hosts = [hostId(0), hostId(1)];
  cluster.epoch = 128;
  for (const host of cluster.hosts) host.epoch = 128;
  cluster.act(sender, (nowMs) => sender.mirror.begin(nowMs, 128, hosts, hosts, []));
  cluster.act(sender, (nowMs) => sender.mirror.opened(nowMs));
  writeMany(cluster, 0, 3);
  cluster.run(20);
  expect(late.mirror.counters.resets).toBe(0);
  late.isAppending = true;
  cluster.act(late, (nowMs) => late.mirror.begin(nowMs, 128, hosts, hosts, []));
  cluster.run(20);
  expect(late.log.length).toBe(3);
  expect(late.mirror.counters.resets + late.mirror.counters.oldFrames).toBe(0);
});

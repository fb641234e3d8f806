/** Streams over the dedicated link: commit, windows, resume, holds, bounds. */
import { expect, test } from "bun:test";
import { hostId } from "../../../core/base/units.ts";
import { MiniCluster } from "./mini_cluster.ts";

function writeMany(cluster: MiniCluster, index: number, count: number, fua = false): void {
  const host = cluster.host(index);
  for (let each = 0; each < count; each += 1) cluster.act(host, () => host.write(1, { fua }));
}

test("a record commits when all recipients have it in their log, joiners included", () => {
  const cluster = new MiniCluster({ seed: 1, hostCount: 3, joining: 1 });
  cluster.open();
  cluster.host(2).logDelayMs = 20;
  writeMany(cluster, 0, 1);
  cluster.run(1);
  expect(cluster.host(1).loggedSeq(cluster.epoch, 0)).toBe(1);
  expect(cluster.host(0).mirror.status().committed).toBe(0);
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
});

test("a lone recipient commits by its own log", () => {
  const cluster = new MiniCluster({ seed: 1, hostCount: 1 });
  cluster.open();
  writeMany(cluster, 0, 3);
  expect(cluster.host(0).mirror.status().committed).toBe(0);
  expect(cluster.runUntil(10, () => cluster.isQuiet())).toBe(true);
});

test("without further writes the commit horizon is told, once per move", () => {
  const cluster = new MiniCluster({ seed: 2, hostCount: 2 });
  cluster.open();
  writeMany(cluster, 0, 1);
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
  expect(cluster.host(1).committedSeq.get(0)).toBe(1);
  cluster.run(100);
  const told = cluster.host(0).sends.filter(({ message }) => message.kind === "committed");
  expect(told.length).toBe(1);
});

test("with a steady stream the commit horizon rides on frames", () => {
  const cluster = new MiniCluster({ seed: 2, hostCount: 2 });
  cluster.open();
  for (let round = 0; round < 200; round += 1) {
    writeMany(cluster, 0, 1);
    cluster.run(0.05);
  }
  cluster.runUntil(100, () => cluster.isQuiet());
  const frames = 200;
  const told = cluster.host(0).sends.filter(({ message }) => message.kind === "committed");
  expect(told.length).toBeLessThan(frames);
  expect(cluster.host(1).committedSeq.get(0)).toBe(200);
});

test("acks are cumulative: one per settle, not one per record", () => {
  const cluster = new MiniCluster({ seed: 3, hostCount: 2 });
  cluster.open();
  cluster.act(cluster.host(0), () => {
    for (let count = 0; count < 50; count += 1) cluster.host(0).write(1);
  });
  cluster.runUntil(100, () => cluster.isQuiet());
  const acks = cluster.host(1).sends.filter(({ message }) => message.kind === "ack");
  expect(acks.length).toBeLessThan(10);
});

test("a full window stops the writer and opens again (G7)", () => {
  const mirror = { windowBytes: 20_000, windowRecords: 100 };
  const cluster = new MiniCluster({ seed: 4, hostCount: 2, mirror });
  cluster.open();
  const host = cluster.host(0);
  let written = 0;
  cluster.act(host, () => {
    while (host.write(1)) written += 1;
  });
  expect(written).toBe(4);
  expect(host.windowOpens).toBe(0);
  expect(cluster.runUntil(100, () => host.windowOpens === 1)).toBe(true);
  expect(host.mirror.windowFree(4192)).toBe(true);
});

test("a slow peer holds back nobody but the window", () => {
  const cluster = new MiniCluster({ seed: 5, hostCount: 3 });
  cluster.open();
  cluster.net.cut(hostId(0), hostId(2));
  writeMany(cluster, 0, 100);
  cluster.run(20);
  expect(cluster.host(1).loggedSeq(cluster.epoch, 0)).toBe(100);
  expect(cluster.host(0).mirror.status().committed).toBe(0);
  cluster.net.heal(hostId(0), hostId(2));
  expect(cluster.runUntil(200, () => cluster.isQuiet())).toBe(true);
});

test("link resets neither lose nor double a record", () => {
  const cluster = new MiniCluster({ seed: 6, hostCount: 2, faults: { bufferBytes: 9000 } });
  cluster.open();
  for (let round = 0; round < 30; round += 1) {
    writeMany(cluster, round % 2, 5);
    cluster.run(0.3);
    cluster.net.reset(hostId(0), hostId(1));
    cluster.run(5);
  }
  expect(cluster.runUntil(2000, () => cluster.isQuiet())).toBe(true);
  expect(cluster.host(0).log.length).toBe(150);
  expect(cluster.host(1).log.length).toBe(150);
});

test("flipped bits on the data lane reset the link and change nothing", () => {
  const cluster = new MiniCluster({ seed: 7, hostCount: 2, faults: { streamCorrupt: 0.05 } });
  cluster.open();
  for (let round = 0; round < 60; round += 1) {
    writeMany(cluster, 0, 3);
    cluster.run(2);
  }
  cluster.net.faults.streamCorrupt = 0;
  expect(cluster.runUntil(2000, () => cluster.isQuiet())).toBe(true);
  const { badFrames, badRecords, resets } = cluster.host(1).mirror.counters;
  expect(badFrames + badRecords).toBeGreaterThan(2);
  expect(resets).toBe(badFrames + badRecords);
});

test("records behind the lease table are held, unacknowledged, until it moves on (R9c)", () => {
  const cluster = new MiniCluster({ seed: 8, hostCount: 2 });
  cluster.open();
  const receiver = cluster.host(1);
  receiver.isHolding = true;
  writeMany(cluster, 0, 10);
  cluster.run(20);
  expect(receiver.log.length).toBe(0);
  expect(receiver.mirror.status().heldBytes).toBeGreaterThan(40_000);
  expect(cluster.host(0).mirror.status().committed).toBe(0);
  receiver.isHolding = false;
  cluster.act(receiver, (nowMs) => receiver.mirror.retryHeld(nowMs));
  expect(receiver.log.length).toBe(10);
  expect(receiver.mirror.status().heldBytes).toBe(0);
});

test("a refused record resets the link and comes again (R9c)", () => {
  const cluster = new MiniCluster({ seed: 9, hostCount: 2 });
  cluster.open();
  const receiver = cluster.host(1);
  receiver.isRefusing = true;
  writeMany(cluster, 0, 2);
  cluster.runUntil(100, () => receiver.mirror.counters.resets > 0);
  expect(receiver.mirror.counters.refusedRecords).toBeGreaterThan(0);
  receiver.isRefusing = false;
  expect(cluster.runUntil(500, () => cluster.isQuiet())).toBe(true);
});

test("FUA: durable is told when every recipient has synced (G2)", () => {
  const cluster = new MiniCluster({ seed: 10, hostCount: 3 });
  cluster.open();
  writeMany(cluster, 0, 3);
  cluster.run(20);
  expect(cluster.host(0).durableSeq).toBe(0);
  writeMany(cluster, 0, 1, true);
  expect(cluster.runUntil(50, () => cluster.host(0).durableSeq >= 4)).toBe(true);
  for (const host of cluster.hosts) {
    expect(host.loggedSeq(cluster.epoch, 0, true)).toBeGreaterThanOrEqual(4);
  }
});

test("bulk frames arrive whole, in order, among records, and their queue is bounded", () => {
  const cluster = new MiniCluster({ seed: 11, hostCount: 2, faults: { bufferBytes: 30_000 } });
  cluster.open();
  const host = cluster.host(0);
  let pushed = 0;
  const bytes = new Uint8Array(1024 * 1024);
  cluster.act(host, (nowMs) => {
    for (let count = 0; count < 20; count += 1) {
      bytes.fill(count);
      if (host.mirror.sendBulk(nowMs, hostId(1), bytes)) pushed += 1;
    }
    for (let count = 0; count < 20; count += 1) host.write(1);
  });
  expect(pushed).toBe(7);
  expect(cluster.runUntil(5000, () => cluster.isQuiet())).toBe(true);
  // Records did not wait for all of the bulk before them.
  expect(cluster.host(1).bulks.length).toBeLessThan(7);
  cluster.runUntil(5000, () => cluster.host(1).bulks.length === 7);
  cluster.host(1).bulks.forEach((bulk, index) => {
    expect(bulk.bytes.length).toBe(bytes.length);
    expect(bulk.bytes.every((byte) => byte === index)).toBe(true);
  });
  expect(host.drained).toEqual([hostId(1)]);
});

test("bulk to a peer that is not connected is refused", () => {
  const cluster = new MiniCluster({ seed: 12, hostCount: 2 });
  cluster.net.cut(hostId(0), hostId(1));
  cluster.net.reset(hostId(0), hostId(1));
  cluster.run(10);
  const host = cluster.host(0);
  expect(host.mirror.sendBulk(cluster.nowMs, hostId(1), new Uint8Array(10))).toBe(false);
});

test("garbage on the data lane does nothing but reset the link (G9)", () => {
  const cluster = new MiniCluster({ seed: 13, hostCount: 2 });
  cluster.open();
  const host = cluster.host(1);
  for (let round = 0; round < 300; round += 1) {
    const chunk = new Uint8Array(cluster.random.below(500));
    for (let at = 0; at < chunk.length; at += 1) chunk[at] = cluster.random.below(256);
    cluster.act(host, (nowMs) => host.mirror.peerData(nowMs, hostId(0), chunk));
    if (round % 10 === 0) cluster.run(50);
  }
  expect(host.mirror.counters.resets).toBeGreaterThan(5);
  expect(host.log.length).toBe(0);
  cluster.run(50);
  writeMany(cluster, 0, 3);
  expect(cluster.runUntil(500, () => cluster.isQuiet())).toBe(true);
});

test("acks and resumes beyond what was sent are blamed, not believed", () => {
  const cluster = new MiniCluster({ seed: 14, hostCount: 2 });
  cluster.open();
  const host = cluster.host(0);
  const epoch = cluster.epoch;
  cluster.act(host, (nowMs) => {
    host.mirror.control(nowMs, hostId(1), { kind: "ack", epoch, received: 5, durable: 0 });
  });
  cluster.run(100);
  cluster.act(host, (nowMs) => {
    const lie = { kind: "resume", epoch, appended: 9, received: 9, durable: 9 } as const;
    host.mirror.control(nowMs, hostId(1), lie);
  });
  expect(host.mirror.counters.badMessages).toBe(2);
  expect(host.mirror.status().committed).toBe(0);
  cluster.run(100);
  writeMany(cluster, 0, 3);
  expect(cluster.runUntil(500, () => cluster.isQuiet())).toBe(true);
});

test("R16: who owes an acknowledgement is named, joiners first", () => {
  const cluster = new MiniCluster({ seed: 15, hostCount: 4, joining: 1 });
  cluster.open();
  const host = cluster.host(0);
  expect(host.mirror.owing(cluster.nowMs, 100)).toBe(null);
  cluster.host(1).isMute = true;
  writeMany(cluster, 0, 1);
  cluster.run(200);
  expect(host.mirror.owing(cluster.nowMs, 100)).toBe(hostId(1));
  expect(host.mirror.owing(cluster.nowMs, 1000)).toBe(null);
  cluster.host(3).isMute = true;
  writeMany(cluster, 0, 1);
  cluster.run(200);
  expect(host.mirror.owing(cluster.nowMs, 100)).toBe(hostId(3));
});

test("R16: who acknowledged a FUA record and does not sync it is named, too", () => {
  const cluster = new MiniCluster({ seed: 15, hostCount: 3 });
  cluster.open();
  const host = cluster.host(0);
  cluster.host(2).isSyncHung = true;
  writeMany(cluster, 0, 1, true);
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
  expect(host.mirror.owing(cluster.nowMs, 100)).toBe(null);
  cluster.run(200);
  writeMany(cluster, 0, 1);
  expect(host.mirror.owing(cluster.nowMs, 100)).toBe(hostId(2));
});

test("while each record is synced the commit horizon waits for a frame, 1 ms at most", () => {
  const cluster = new MiniCluster({ seed: 21, hostCount: 2 });
  cluster.open();
  const told = (): number =>
    cluster.host(0).sends.filter(({ message }) => message.kind === "committed").length;
  for (let round = 0; round < 20; round += 1) {
    const before = cluster.host(0).mirror.status().committed;
    writeMany(cluster, 0, 1, true);
    cluster.runUntil(100, () => cluster.host(0).mirror.status().committed > before);
  }
  expect(told()).toBe(0);
  const committedMs = cluster.nowMs;
  expect(cluster.runUntil(100, () => cluster.isQuiet())).toBe(true);
  expect(told()).toBe(1);
  expect(cluster.nowMs - committedMs).toBeLessThan(3);
});

test("a frame in progress is finished as it began although the window moved on", () => {
  const cluster = new MiniCluster({ seed: 16, hostCount: 2, faults: { bufferBytes: 2000 } });
  cluster.open();
  const [sender, receiver] = [cluster.host(0), cluster.host(1)];
  sender.committed = () => {};
  cluster.act(sender, () => sender.write(1));
  // As if the record had come by the other path meanwhile.
  const ack = { kind: "ack", epoch: cluster.epoch, received: 1, durable: 0 } as const;
  cluster.act(sender, (nowMs) => {
    sender.mirror.logged(nowMs, sender.appendedLsn);
    sender.mirror.control(nowMs, hostId(1), ack);
  });
  expect(sender.mirror.status().windowRecords).toBe(0);
  writeMany(cluster, 0, 5);
  expect(cluster.runUntil(500, () => receiver.log.length === 6)).toBe(true);
  expect(receiver.mirror.counters.resets).toBe(0);
});

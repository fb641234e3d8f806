/** The policing module as a whole: who may write when, and what it costs in messages. */
import { expect, test } from "bun:test";
import { LIMITS } from "../../../core/base/limits.ts";
import { ALL_RULES } from "../../../core/base/rules.ts";
import { hostId, volumeId } from "../../../core/base/units.ts";
import type { LeaseMessage } from "../../../core/format/lease_wire.ts";
import { CHECK, Policing } from "../../../core/lease/policing.ts";
import { type Op, World } from "./world.ts";

const VOLUME = 1;

function makeWorld(hosts: number, agingMs = 1000): World {
  const world = new World({
    hosts,
    seed: 3,
    rules: ALL_RULES,
    agingMs,
    holdMs: 5,
    delayMs: () => 0.25,
  });
  world.open(Array.from({ length: hosts }, (_, index) => index));
  world.run(10);
  return world;
}

function sum(messages: Record<string, number>): number {
  return Object.values(messages).reduce((total, count) => total + count, 0);
}

test("a lone writer pays no message per write", () => {
  const world = makeWorld(3);
  world.write(1, VOLUME, 5, 6);
  world.run(20);
  const before = sum(world.messages);
  for (let index = 0; index < 1000; index += 1) {
    world.write(1, VOLUME, (index * 7919) % 100_000, ((index * 7919) % 100_000) + 4);
    world.run(world.nowMs + 0.5);
  }
  expect(world.ops.every((op) => op.state === "done")).toBe(true);
  expect(sum(world.messages)).toBe(before);
});

test("the lease of a lone writer costs one round trip", () => {
  const world = makeWorld(2);
  const op = world.write(1, VOLUME, 0, 8);
  world.run(world.nowMs + 5);
  expect(op.grantedMs - op.askedMs).toBeCloseTo(0.5, 5);
});

test("a contended hand-over costs two round trips, after the minimum hold", () => {
  const world = makeWorld(3);
  world.write(1, VOLUME, 0, 8);
  world.run(world.nowMs + 50);
  const op = world.write(2, VOLUME, 0, 8);
  world.run(world.nowMs + 50);
  expect(op.grantedMs - op.askedMs).toBeCloseTo(1, 5);
});

test("two hosts that stream to different places soon trade nothing", () => {
  const world = makeWorld(2);
  const heads = [0, 500_000];
  let left = 4000;
  world.onDone = (op: Op) => {
    left -= 1;
    if (left <= 0) return;
    const start = heads[op.host]!;
    heads[op.host] = start + 4;
    world.write(op.host, VOLUME, start, start + 4);
  };
  for (const host of [0, 1]) {
    const start = heads[host]!;
    heads[host] = start + 4;
    world.write(host, VOLUME, start, start + 4);
  }
  world.run(world.nowMs + 5000);
  expect(world.ops.length).toBe(4001);
  expect(world.ops.filter((op) => op.hasAsked).length).toBeLessThan(10);
});

test("two busy writers of one range do not trade it per write", () => {
  const world = makeWorld(2);
  let left = 2000;
  world.onDone = (op: Op) => {
    left -= 1;
    if (left > 0) world.write(op.host, VOLUME, 0, 1);
  };
  for (let index = 0; index < 8; index += 1) world.write(index % 2, VOLUME, 0, 1);
  world.run(world.nowMs + 20_000);
  expect(world.ops.every((op) => op.state === "done")).toBe(true);
  const frees = world.messages.submit;
  expect(world.ops.length / frees).toBeGreaterThan(3);
});

test("a writer of low priority waits while a higher one is busy, until it has aged", () => {
  const agingMs = 100;
  const world = makeWorld(2, agingMs);
  let isRunning = true;
  world.onDone = (op: Op) => {
    if (isRunning && op.host === 0) world.write(0, VOLUME, 0, 1, 7);
  };
  for (let index = 0; index < 4; index += 1) world.write(0, VOLUME, 0, 1, 7);
  world.run(world.nowMs + 50);
  const low = world.write(1, VOLUME, 0, 1, 2);
  world.run(world.nowMs + 2000);
  isRunning = false;
  world.run(world.nowMs + 100);
  expect(low.state).toBe("done");
  const waitedMs = low.grantedMs - low.askedMs;
  expect(waitedMs).toBeGreaterThan(4 * agingMs);
  expect(waitedMs).toBeLessThan((7 - 2) * agingMs + 5 + world.drainMaxMs + 2);
});

test("of two waiting hosts the higher priority goes first, among equals the earlier", () => {
  const world = makeWorld(4);
  world.write(0, VOLUME, 0, 8);
  world.run(world.nowMs + 0.3);
  const later = [
    world.write(1, VOLUME, 0, 8, 1),
    world.write(2, VOLUME, 0, 8, 5),
    world.write(3, VOLUME, 0, 8, 1),
  ];
  world.run(world.nowMs + 200);
  const order = later.toSorted((one, other) => one.grantedMs - other.grantedMs);
  expect(order.map((op) => op.host)).toEqual([2, 1, 3]);
});

test("disjoint writes of two hosts run at the same time", () => {
  const world = makeWorld(2);
  world.write(0, VOLUME, 0, 8);
  world.write(1, VOLUME, 800, 808);
  world.run(world.nowMs + 50);
  const one = world.write(0, VOLUME, 0, 8);
  const other = world.write(1, VOLUME, 800, 808);
  expect([one.state, other.state]).toEqual(["flight", "flight"]);
  expect([one.hasAsked, other.hasAsked]).toEqual([false, false]);
});

test("a new view with another sequencer: waiting writes go on, the old leases are void", () => {
  const world = makeWorld(3);
  world.write(0, VOLUME, 0, 8);
  world.run(world.nowMs + 2);
  const waiting = world.write(1, VOLUME, 0, 8);
  world.open([1, 2], 2);
  expect(world.nodes[0]!.policing.list()).toEqual([]);
  world.run(world.nowMs + 50);
  expect(waiting.state).toBe("done");
  const rows = world.nodes[2]!.policing.list();
  expect(rows.map((row) => row.holder)).toEqual([hostId(1)]);
});

test("list names holder, priority and who waits", () => {
  const world = makeWorld(3);
  world.write(0, VOLUME, 0, 8, 4);
  world.run(world.nowMs + 0.3);
  world.write(2, VOLUME, 0, 8, 2);
  world.run(world.nowMs + 0.3);
  const row = {
    volume: volumeId(VOLUME),
    start: 0,
    end: 2 ** 40,
    holder: hostId(0),
    priority: 4,
    waiting: [hostId(2)],
  };
  expect(world.nodes[0]!.policing.list()).toEqual([row]);
});

test("a table with very many pieces collapses instead of growing", () => {
  const world = new World({
    hosts: 2,
    seed: 5,
    rules: ALL_RULES,
    delayMs: () => 0.25,
    onlyOrder: true,
  });
  world.open([0, 1]);
  let largest = 0;
  let step = 0;
  let collapses = 0;
  let before = 0;
  // The hosts take turns, each just behind the other, so that each splits what the other holds.
  world.onDone = () => {
    const rows = world.nodes[0]!.policing.list().length;
    largest = Math.max(largest, rows);
    if (before > 1000 && rows < before / 2) collapses += 1;
    before = rows;
    if (step === 4000) return;
    step += 1;
    world.write(step % 2, VOLUME, step * 16, step * 16 + 1);
  };
  world.write(0, VOLUME, 0, 1);
  world.run(60_000);
  expect(world.ops.length).toBe(4001);
  expect(world.ops.every((op) => op.state === "done")).toBe(true);
  expect(collapses).toBeGreaterThan(0);
  expect(largest).toBeLessThan(LIMITS.leaseRangesMax);
});

interface Alone {
  readonly policing: Policing;
  readonly sent: LeaseMessage[];
  readonly granted: number[];
  readonly denied: string[];
}

function makeAlone(self = 0): Alone {
  const sent: LeaseMessage[] = [];
  const granted: number[] = [];
  const denied: string[] = [];
  const policing = new Policing(
    { self: hostId(self), agingMs: 1000, holdMs: 5, retryMs: 250 },
    {
      send: (_to, message) => sent.push(message),
      granted: (token) => granted.push(token),
      denied: (_token, why) => denied.push(why),
      tableMoved: () => {},
      announced: () => {},
    },
    { event: () => {} },
    ALL_RULES,
  );
  return { policing, sent, granted, denied };
}

test("check: behind until the grant's event is applied, then by the table", () => {
  const { policing } = makeAlone(1);
  const volume = volumeId(VOLUME);
  expect(policing.check(hostId(0), volume, 0, 8, 1)).toBe(CHECK.behind);
  policing.open(0, 64, hostId(0), [hostId(0), hostId(1)]);
  policing.settle(0);
  expect(policing.check(hostId(0), volume, 0, 8, 1)).toBe(CHECK.behind);
  const what = {
    kind: "request",
    volume,
    start: 0,
    end: 8,
    wishStart: 0,
    wishEnd: 16,
    priority: 0,
  } as const;
  const items = [{ kind: "host", host: hostId(0), submitted: 1, what }] as const;
  policing.control(1, hostId(0), { kind: "events", epoch: 64, first: 1, items: [...items] });
  expect(policing.check(hostId(0), volume, 0, 16, 1)).toBe(CHECK.ok);
  expect(policing.check(hostId(0), volume, 0, 17, 1)).toBe(CHECK.refuse);
  expect(policing.check(hostId(1), volume, 0, 8, 1)).toBe(CHECK.refuse);
  expect(policing.check(hostId(0), volume, 0, 8, 2)).toBe(CHECK.behind);
});

test("events of another epoch or of a host that is not the sequencer are ignored", () => {
  const { policing } = makeAlone(1);
  policing.open(0, 64, hostId(0), [hostId(0), hostId(1)]);
  const items = [{ kind: "tag" as const, point: 1 }];
  policing.control(1, hostId(0), { kind: "events", epoch: 63, first: 1, items });
  policing.control(1, hostId(1), { kind: "events", epoch: 64, first: 1, items });
  expect(policing.check(hostId(0), volumeId(VOLUME), 0, 1, 1)).toBe(CHECK.behind);
});

test("a missing event is asked for once, and again only after the retry time", () => {
  const { policing, sent } = makeAlone(1);
  policing.open(0, 64, hostId(0), [hostId(0), hostId(1)]);
  policing.settle(0);
  policing.control(1, hostId(0), { kind: "hello", epoch: 64, last: 0 });
  policing.settle(1);
  sent.length = 0;
  const items = [{ kind: "tag" as const, point: 1 }];
  for (let number = 2; number < 9; number += 1) {
    policing.control(2, hostId(0), { kind: "events", epoch: 64, first: number, items });
    policing.settle(2);
  }
  expect(sent).toEqual([{ kind: "want", epoch: 64, from: 1 }]);
  expect(policing.nextDeadlineMs()).toBe(252);
  policing.expire(252);
  policing.settle(252);
  expect(sent.length).toBe(2);
});

test("a cancelled token hears nothing more; its request is withdrawn", () => {
  const { policing, sent, granted } = makeAlone(1);
  policing.open(0, 64, hostId(0), [hostId(0), hostId(1)]);
  policing.request(0, 5, volumeId(VOLUME), 0, 8, 0);
  policing.settle(0);
  policing.cancel(1, 5);
  policing.settle(1);
  const submits = sent.filter((message) => message.kind === "submit");
  expect(submits.map((message) => message.items[0]?.kind)).toEqual(["request", "cancel"]);
  expect(granted).toEqual([]);
});

test("waiting tokens are bounded; one more is denied in a sentence", () => {
  const { policing, denied } = makeAlone();
  for (let token = 0; token <= LIMITS.waitingRequestsMax; token += 1) {
    policing.request(0, token, volumeId(VOLUME), token, token + 1, 0);
  }
  expect(denied).toEqual([]);
  policing.settle(0);
  expect(denied).toEqual(["too many writes wait for a lease at this host"]);
});

test("a recipient that never follows stops the numbering and is named", () => {
  const { policing } = makeAlone();
  policing.open(0, 64, hostId(0), [hostId(0), hostId(1)]);
  const volume = volumeId(VOLUME);
  for (let count = 0; count < 5000; count += 1) {
    policing.request(count, count, volume, 0, 8, 0);
    policing.settle(count);
    policing.cancel(count, count);
    policing.announce(count, "tag", count);
    policing.announce(count, "point", count);
    policing.settle(count);
  }
  expect(policing.owing(5000, 100)).toBe(hostId(1));
  expect(policing.owing(5000, 4999)).toBe(null);
  policing.control(5000, hostId(1), {
    kind: "submit",
    epoch: 64,
    applied: 8000,
    first: 1,
    items: [],
  });
  policing.settle(5000);
  expect(policing.owing(5001, 0)).toBe(null);
});

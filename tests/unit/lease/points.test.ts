/** Sync points (R10) on a group of `Points` machines with an instant, ordered lease sequence. */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import type { LeaseMessage } from "../../../core/format/lease_wire.ts";
import { Points } from "../../../core/lease/points.ts";

const INTERVAL_MS = 100;

/** Hosts 0 to members-1 are members, the rest joining; host 0 is the sequencer. */
class Group {
  nowMs = 0;
  readonly points: Points[] = [];
  readonly log: string[] = [];
  /** Per host: undelivered events of the sequence, marks from each host, syncs, messages. */
  readonly pending: (() => void)[][] = [];
  isLinkUp = true;
  readonly members: number;
  readonly hosts: number;

  constructor(members: number, hosts: number) {
    this.members = members;
    this.hosts = hosts;
    for (let index = 0; index < hosts; index += 1) {
      this.pending.push([], [], [], []);
      const points = new Points(
        { self: hostId(index), intervalMs: INTERVAL_MS },
        {
          send: (_to, message) => this.send(index, message),
          announce: (kind, point) => this.announce(kind, point),
          tagWanted: (point) => this.mark(index, point),
          pointSyncWanted: (ticket) => {
            this.log.push(`sync ${index}`);
            this.queue(index, 2).push(() => this.points[index]!.synced(this.nowMs, ticket, true));
          },
          pointReached: (epoch, point) => this.log.push(`point ${index} ${epoch} ${point}`),
        },
      );
      this.points.push(points);
    }
  }

  open(epoch: number): void {
    const all = this.points.map((_, index) => hostId(index));
    for (const queue of this.pending) queue.length = 0;
    for (const one of this.points) {
      one.open(this.nowMs, epoch, hostId(0), all.slice(0, this.members), all);
    }
  }

  /** Queues of one host: 0 events, 1 marks, 2 syncs, 3 messages. */
  queue(host: number, kind: number): (() => void)[] {
    return this.pending[host * 4 + kind]!;
  }

  /** Runs everything queued, or only some kinds. */
  deliver(kinds = [0, 1, 2, 3]): void {
    for (let round = 0; round < 20; round += 1) {
      for (let at = 0; at < this.pending.length; at += 1) {
        if (kinds.includes(at % 4)) for (const run of this.pending[at]!.splice(0)) run();
      }
      for (const one of this.points) one.settle(this.nowMs);
    }
  }

  private send(from: number, message: LeaseMessage): void {
    if (!this.isLinkUp) return;
    this.queue(0, 3).push(() => this.points[0]!.control(this.nowMs, hostId(from), message));
  }

  private announce(kind: "tag" | "point", point: number): void {
    this.log.push(`${kind} ${point}`);
    for (const [index, one] of this.points.entries()) {
      this.queue(index, 0).push(() => one.announced(this.nowMs, kind, point));
    }
  }

  private mark(from: number, point: number): void {
    this.log.push(`mark ${from} ${point} tag ${this.points[from]!.currentTag}`);
    for (const [index, one] of this.points.entries()) {
      this.queue(index, 1).push(() => one.markApplied(this.nowMs, hostId(from), point));
    }
  }
}

test("a point is reached at every recipient, joining ones included", () => {
  const group = new Group(2, 3);
  group.open(64);
  group.points[0]!.wrote();
  group.nowMs = INTERVAL_MS;
  group.deliver();
  expect(group.log.slice(0, 3)).toEqual(["tag 1", "mark 0 1 tag 1", "mark 1 1 tag 1"]);
  const reached = group.log.filter((line) => line.startsWith("point ") && line.length > 8);
  expect(reached).toEqual(["point 0 64 1", "point 1 64 1", "point 2 64 1"]);
});

test("nothing written, nothing sent", () => {
  const group = new Group(2, 2);
  group.open(64);
  expect(group.points[0]!.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
  group.nowMs = 10 * INTERVAL_MS;
  group.deliver();
  expect(group.log).toEqual([]);
  group.points[1]!.wrote();
  group.deliver();
  expect(group.log).toEqual([]);
});

test("no sync before the marks of all members, no point before the syncs of all recipients", () => {
  const group = new Group(2, 3);
  group.open(64);
  group.points[0]!.wrote();
  group.nowMs = INTERVAL_MS;
  group.deliver([0]);
  group.points[2]!.markApplied(group.nowMs, hostId(0), 1);
  group.deliver([0]);
  expect(group.log.some((line) => line.startsWith("sync"))).toBe(false);
  group.deliver([0, 1]);
  expect(group.log.filter((line) => line.startsWith("sync")).length).toBe(3);
  for (const run of group.queue(0, 2).splice(0)) run();
  for (const run of group.queue(1, 2).splice(0)) run();
  group.deliver([0, 1, 3]);
  expect(group.log.includes("point 1")).toBe(false);
  group.deliver();
  expect(group.log.includes("point 1")).toBe(true);
});

test("an answer lost with the link is given again", () => {
  const group = new Group(2, 2);
  group.open(64);
  group.points[0]!.wrote();
  group.nowMs = INTERVAL_MS;
  group.isLinkUp = false;
  group.deliver();
  expect(group.log.includes("point 1")).toBe(false);
  group.isLinkUp = true;
  group.points[1]!.linkUp(group.nowMs, hostId(0));
  group.deliver();
  expect(group.log.includes("point 1")).toBe(true);
});

test("a sync of an earlier view never counts for a later one", () => {
  const group = new Group(1, 1);
  group.open(64);
  group.points[0]!.wrote();
  group.nowMs = INTERVAL_MS;
  group.deliver([0, 1]);
  const late = group.queue(0, 2).splice(0);
  expect(late.length).toBe(1);
  group.open(128);
  group.points[0]!.wrote();
  group.nowMs = 3 * INTERVAL_MS;
  group.deliver([0, 1]);
  for (const run of late) run();
  group.deliver([0, 1, 3]);
  expect(group.log.includes("point 1")).toBe(false);
  group.deliver();
  expect(group.log.at(-1)).toBe("point 0 128 1");
});

test("random order of deliveries: a point implies every mark and sync before it", () => {
  for (let seed = 1; seed <= 100; seed += 1) {
    const random = new SeededRandom(seed);
    const members = 1 + random.below(3);
    const group = new Group(members, members + random.below(2));
    group.open(64);
    for (let step = 0; step < 400; step += 1) {
      group.nowMs += 3;
      if (random.chance(0.5)) group.points[0]!.wrote();
      const at = random.below(group.pending.length);
      group.pending[at]!.shift()?.();
      for (const one of group.points) one.settle(group.nowMs);
    }
    let point = 0;
    let syncs = 0;
    let marks = 0;
    for (const line of group.log) {
      if (line.startsWith("sync")) syncs += 1;
      if (line.startsWith("mark")) marks += 1;
      if (!/^point \d+$/.test(line)) continue;
      point += 1;
      expect(line).toBe(`point ${point}`);
      expect(syncs).toBe(point * group.hosts);
      expect(marks).toBe(point * group.members);
    }
    expect(point).toBeGreaterThan(0);
  }
});

test("who does not sync a point owes it: joining hosts first, never the sequencer itself", () => {
  const group = new Group(2, 3);
  group.open(64);
  const sequencer = group.points[0]!;
  const owing = (): number | null => sequencer.owing(group.nowMs, 500);
  group.points[1]!.wrote();
  sequencer.wrote();
  group.nowMs += INTERVAL_MS;
  // Everything but the syncs: all three disks hang.
  group.deliver([0, 1, 3]);
  for (const host of [0, 1, 2]) expect(group.log).toContain(`sync ${host}`);
  group.nowMs += 500;
  expect(owing()).toBe(null);
  group.nowMs += 1;
  // Not even the sequencer has synced: somebody's mark may be what is missing.
  expect(owing()).toBe(null);
  for (const run of group.queue(0, 2).splice(0)) run();
  group.deliver([0, 1, 3]);
  expect(owing()).toBe(2);
  expect(group.points[1]!.owing(group.nowMs, 500)).toBe(null);
  for (const run of group.queue(2, 2).splice(0)) run();
  group.deliver([0, 1, 3]);
  expect(owing()).toBe(1);
  for (const run of group.queue(1, 2).splice(0)) run();
  group.deliver([0, 1, 3]);
  expect(owing()).toBe(null);
  group.deliver();
  expect(group.log).toContain("point 0 64 1");
  group.nowMs += 10_000;
  expect(owing()).toBe(null);
});

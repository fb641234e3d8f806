/** The pure table: order of requests, one winner per block, splitting, bounds. */
import { expect, test } from "bun:test";
import { LIMITS } from "../../../core/base/limits.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId, volumeId } from "../../../core/base/units.ts";
import type { LeaseEvent, Submission } from "../../../core/format/lease_wire.ts";
import { HOST_REQUESTS_MAX, LeaseTable } from "../../../core/lease/table.ts";

const VOLUME = volumeId(7);
const END = 2 ** 40;

class Script {
  readonly table = new LeaseTable();
  private readonly submitted = new Map<number, number>();

  submit(host: number, what: Submission): number {
    const submitted = (this.submitted.get(host) ?? 0) + 1;
    this.submitted.set(host, submitted);
    this.table.apply({ kind: "host", host: hostId(host), submitted, what });
    return submitted;
  }

  /** Asks for `[start, end)`, wishing for no more unless told. */
  ask(host: number, start: number, end: number, priority = 0, wish = false): number {
    return this.submit(host, {
      kind: "request",
      volume: VOLUME,
      start,
      end,
      wishStart: wish ? 0 : start,
      wishEnd: wish ? END : end,
      priority,
    });
  }

  free(host: number, start: number, end: number): string[] {
    this.submit(host, { kind: "free", volume: VOLUME, start, end });
    return this.winners();
  }

  winners(): string[] {
    return this.table.granted.map(({ host, start, end }) => `${host}:${start}-${end}`);
  }

  holds(host: number, start: number, end: number): boolean {
    return this.table.grantOf(hostId(host), VOLUME, start, end) > 0;
  }

  rows(): string[] {
    const rows = this.table.find(VOLUME)?.leases.rows ?? [];
    return rows.map(({ holder, start, end }) => `${holder}:${start}-${end === END ? "" : end}`);
  }
}

test("priority decides before time", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  script.ask(1, 0, 10, 3);
  script.ask(2, 0, 10, 5);
  expect(script.free(0, 0, 10)).toEqual(["2:0-10"]);
  expect(script.free(2, 0, 10)).toEqual(["1:0-10"]);
});

test("among equal priorities the earlier request wins, whichever host's it is", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  script.ask(2, 0, 10, 3);
  script.ask(1, 0, 10, 3);
  expect(script.free(0, 0, 10)).toEqual(["2:0-10"]);
  expect(script.free(2, 0, 10)).toEqual(["1:0-10"]);
});

test("a request that overlaps an earlier waiting one waits even if its own blocks are free", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  script.ask(1, 5, 20);
  script.ask(2, 15, 30);
  expect(script.winners()).toEqual([]);
  expect(script.free(0, 0, 10)).toEqual(["1:5-20"]);
  expect(script.holds(2, 20, 30)).toBe(false);
  expect(script.free(1, 5, 20)).toEqual(["2:15-30"]);
});

test("a cancelled request no longer stands before others", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  const request = script.ask(1, 5, 20);
  script.ask(2, 15, 30);
  script.submit(1, { kind: "cancel", request });
  expect(script.winners()).toEqual(["2:15-30"]);
});

test("AGE raises a request past later ones of a higher class, up to class 7", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  script.ask(1, 0, 10, 2);
  const born = script.table.applied;
  script.ask(2, 0, 10, 3);
  script.table.apply({ kind: "age", requests: [born] });
  expect(script.free(0, 0, 10)).toEqual(["1:0-10"]);
  for (let count = 0; count < 20; count += 1) {
    script.table.apply({ kind: "age", requests: [born + 1, born + 99] });
  }
  expect(script.table.waitingBy(born + 1)?.level).toBe(7);
});

test("a lone writer gets the whole volume, and a second one splits it", () => {
  const script = new Script();
  script.ask(0, 100, 110, 0, true);
  expect(script.rows()).toEqual(["0:0-"]);
  script.ask(1, 500, 510, 0, true);
  expect(script.free(0, 400, 600)).toEqual(["1:500-510"]);
  expect(script.rows()).toEqual(["0:0-400", "1:400-600", "0:600-"]);
});

test("a grant takes nothing that another waiting request must have", () => {
  const script = new Script();
  script.ask(0, 0, 1000);
  script.ask(1, 500, 510, 0, true);
  script.ask(2, 700, 710, 0, true);
  script.ask(1, 800, 810, 0, true);
  expect(script.free(0, 0, 1000)).toEqual(["1:500-510", "2:700-710", "1:800-810"]);
  expect(script.holds(1, 510, 700)).toBe(true);
  expect(script.holds(2, 700, 800)).toBe(true);
});

test("pieces already held count: the request is granted when the rest is free", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  script.ask(1, 10, 20);
  script.ask(0, 5, 15);
  expect(script.winners()).toEqual([]);
  expect(script.free(1, 10, 20)).toEqual(["0:5-15"]);
  expect(script.rows()).toEqual(["0:0-15"]);
});

test("only the holder can free, and only what it holds", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  script.ask(1, 10, 20);
  script.free(1, 0, 15);
  expect(script.rows()).toEqual(["0:0-10", "1:15-20"]);
});

test("a submission out of its turn changes nothing but the number of events", () => {
  const table = new LeaseTable();
  const what: Submission = {
    kind: "request",
    volume: VOLUME,
    start: 0,
    end: 1,
    wishStart: 0,
    wishEnd: 1,
    priority: 0,
  };
  table.apply({ kind: "host", host: hostId(0), submitted: 2, what });
  expect(table.grantOf(hostId(0), VOLUME, 0, 1)).toBe(0);
  table.apply({ kind: "host", host: hostId(0), submitted: 1, what });
  table.apply({ kind: "host", host: hostId(0), submitted: 1, what: { ...what, start: 1, end: 2 } });
  expect(table.grantOf(hostId(0), VOLUME, 0, 1)).toBe(2);
  expect(table.grantOf(hostId(0), VOLUME, 1, 2)).toBe(0);
  expect(table.applied).toBe(3);
});

test("one host's waiting requests are bounded", () => {
  const script = new Script();
  script.ask(0, 0, 10);
  for (let count = 0; count < HOST_REQUESTS_MAX + 5; count += 1) script.ask(1, 0, 10);
  expect(script.table.waitingCount).toBe(HOST_REQUESTS_MAX);
});

test("ranges are bounded: grants wait, and come when there is room again", () => {
  const script = new Script();
  for (let count = 0; count < LIMITS.leaseRangesMax; count += 1) {
    script.ask(count % 16, count * 2, count * 2 + 1);
  }
  const table = script.table.find(VOLUME)!;
  const rows = table.leases.rows.length;
  expect(rows).toBeLessThan(LIMITS.leaseRangesMax);
  expect(table.isStarved).toBe(true);
  expect(script.table.waitingCount).toBe(LIMITS.leaseRangesMax - rows);
  script.free(3, 0, END);
  expect(script.table.granted.length).toBeGreaterThan(0);
});

function naiveAhead(table: LeaseTable): void {
  const rows = table.find(VOLUME)?.waiting.rows ?? [];
  for (let index = 0; index < rows.length; index += 1) {
    const one = rows[index]!;
    const before = rows.slice(0, index);
    const ahead = before.filter(
      (other) => other.host !== one.host && other.start < one.end && one.start < other.end,
    );
    expect(one.ahead).toBe(ahead.length);
    const isFree = table.find(VOLUME)!.leases.isFreeFor(one.host, one.start, one.end);
    expect(one.ahead === 0 && isFree).toBe(false);
  }
}

test("random events: tables agree, counts are exact, nobody waits for nothing", () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = new SeededRandom(seed);
    const events: LeaseEvent[] = [];
    const script = new Script();
    const { table } = script;
    const apply = table.apply.bind(table);
    table.apply = (event) => {
      events.push(event);
      apply(event);
    };
    for (let step = 0; step < 150; step += 1) {
      const host = random.below(4);
      const start = random.below(60);
      const end = start + 1 + random.below(12);
      const kind = random.below(10);
      if (kind < 5) script.ask(host, start, end, random.below(8), random.chance(0.5));
      else if (kind < 8) script.free(host, random.below(30), 30 + random.below(90));
      else if (kind < 9) script.submit(host, { kind: "cancel", request: random.below(40) });
      else table.apply({ kind: "age", requests: [random.below(step + 1), random.below(step + 1)] });
      naiveAhead(table);
      for (const winner of table.granted) {
        expect(script.holds(winner.host, winner.start, winner.end)).toBe(true);
      }
    }
    const again = new LeaseTable();
    for (const event of events) again.apply(event);
    expect(again.find(VOLUME)?.leases.rows).toEqual(table.find(VOLUME)?.leases.rows ?? []);
    expect(again.find(VOLUME)?.waiting.rows).toEqual(table.find(VOLUME)?.waiting.rows ?? []);
  }
});

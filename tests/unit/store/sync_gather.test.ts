/** How long a sync is held for the writers that the last one answered. */
import { describe, expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { MIB } from "../../../core/base/units.ts";
import { SyncGather } from "../../../core/store/sync_gather.ts";
import { StoreRig } from "./store_rig.ts";

const NOT_HELD = Number.NEGATIVE_INFINITY;

describe("the hold", () => {
  test("nothing is held before anybody wrote during a sync, nor for a client alone", () => {
    const gather = new SyncGather();
    expect(gather.heldUntilMs(1)).toBe(NOT_HELD);
    for (let turn = 0; turn < 20; turn += 1) {
      gather.wrote(turn);
      expect(gather.heldUntilMs(100)).toBe(NOT_HELD);
      gather.ended(100, 0, turn + 0.5);
    }
  });

  test("it ends when as much was written as before, and after a pause in any case", () => {
    const gather = new SyncGather();
    gather.ended(100, 60, 10);
    expect(gather.heldUntilMs(60)).toBeCloseTo(10.1, 6);
    expect(gather.heldUntilMs(159)).toBeCloseTo(10.1, 6);
    expect(gather.heldUntilMs(160)).toBe(NOT_HELD);
    gather.wrote(10.05);
    expect(gather.heldUntilMs(90)).toBeCloseTo(10.15, 6);
  });

  test("however the writes trickle in, it ends", () => {
    const gather = new SyncGather();
    gather.ended(1000, 1, 10);
    let nowMs = 10;
    while (gather.heldUntilMs(1) > nowMs) {
      nowMs += 0.01;
      gather.wrote(nowMs);
    }
    expect(nowMs).toBeLessThan(10.5);
  });

  test("writers that went are forgotten", () => {
    const gather = new SyncGather();
    gather.ended(100, 50, 1);
    for (let turn = 2; turn < 12; turn += 1) gather.ended(10, 0, turn);
    expect(gather.heldUntilMs(1)).toBe(NOT_HELD);
  });
});

/** Mean number of writers that one sync answers; each writes again as soon as it is answered. */
function writersPerSync(writers: number): number {
  const rig = new StoreRig({
    seed: 2,
    sizeBytes: 64 * MIB,
    segmentBytes: MIB,
    latencyMs: [0.005, 0.02],
    syncMs: [0.2, 0.3],
  });
  rig.format();
  const random = new SeededRandom(2);
  const tokens = new Set<number>();
  let next = 5000;
  let answered = 0;
  const write = (): void => {
    rig.write(random.below(4096), 1 + random.below(1000));
    next += 1;
    tokens.add(next);
    rig.store.sync(next);
  };
  for (let writer = 0; writer < writers; writer += 1) write();
  const before = rig.disk.syncCount;
  while (answered < 50 * writers) {
    rig.step(rig.nowMs + 1);
    for (const token of tokens) {
      if (rig.syncs.get(token) !== true) continue;
      tokens.delete(token);
      answered += 1;
      write();
    }
  }
  return answered / (rig.disk.syncCount - before);
}

test("16 writers share their syncs, not half of them each", () => {
  expect(writersPerSync(16)).toBeGreaterThan(12);
  expect(writersPerSync(1)).toBeGreaterThan(0.9);
});

/** When the loop stays awake. Its clock is given; how long it polls is measured coarsely. */
import { expect, spyOn, test } from "bun:test";
import { IdlePoll } from "../../../transports/idle_poll.ts";

/** Ticks of `setImmediate` that the poll asks for in the next `waitMs`. */
async function ticks(waitMs: number, work: () => void): Promise<number> {
  const spy = spyOn(globalThis, "setImmediate");
  try {
    work();
    await Bun.sleep(waitMs);
    return spy.mock.calls.length;
  } finally {
    spy.mockRestore();
  }
}

/** Turns of no length, each `idleMs` after the one before; the last one ends now. */
function turns(poll: IdlePoll, count: number, idleMs: number): void {
  const endMs = performance.now();
  for (let left = count; left >= 0; left -= 1) {
    poll.turnBegins(endMs - left * idleMs);
    if (left > 0) poll.turnEnds(endMs - left * idleMs);
  }
  poll.turnEnds(performance.now());
}

test("events that follow closely keep it awake, and it sleeps when they end", async () => {
  const poll = new IdlePoll(true, () => false);
  expect(await ticks(20, () => turns(poll, 6, 0.04))).toBeGreaterThan(1);
  expect(await ticks(20, () => {})).toBe(0);
});

test("events far apart do not", async () => {
  const poll = new IdlePoll(true, () => false);
  expect(await ticks(20, () => turns(poll, 6, 5))).toBe(0);
});

test("one long pause ends it at once", async () => {
  const poll = new IdlePoll(true, () => false);
  turns(poll, 6, 0.04);
  await Bun.sleep(20);
  const late = (): void => {
    poll.turnBegins(performance.now());
    poll.turnEnds(performance.now());
  };
  expect(await ticks(20, late)).toBe(0);
});

test("it sleeps while the disk works, and when it is turned off", async () => {
  const busy = new IdlePoll(true, () => true);
  expect(await ticks(20, () => turns(busy, 6, 0.04))).toBeLessThanOrEqual(1);
  const off = new IdlePoll(false, () => false);
  expect(await ticks(20, () => turns(off, 6, 0.04))).toBe(0);
});

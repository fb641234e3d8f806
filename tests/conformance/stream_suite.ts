/**
 * What every StreamLink must do (core/base/ports.ts), run on the real and on the simulated one.
 * A rig gives two connected hosts; the suite never sleeps, it lets the rig run until something
 * holds.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { LANE, type Lane, type StreamLink } from "../../core/base/ports.ts";
import { SeededRandom } from "../../core/base/random.ts";
import type { HostId } from "../../core/base/units.ts";

export type StreamEvent =
  | { readonly kind: "up"; readonly peer: HostId; readonly peerInc: number }
  | { readonly kind: "down"; readonly peer: HostId }
  | {
      readonly kind: "data";
      readonly peer: HostId;
      readonly lane: Lane;
      readonly chunk: Uint8Array;
    }
  | { readonly kind: "drain"; readonly peer: HostId; readonly lane: Lane };

export interface StreamRig {
  /** Two hosts that are to connect to each other. */
  readonly hosts: readonly [HostId, HostId];
  /** The incarnation each host announces. */
  readonly incOf: (host: HostId) => number;
  link(host: HostId): StreamLink;
  /** All events at a host so far, in order; the suite may clear it. */
  events(host: HostId): StreamEvent[];
  /** Runs the world until `isDone` holds; false if it does not within a generous bound. */
  until(isDone: () => boolean): Promise<boolean>;
  close(): Promise<void>;
}

function received(rig: StreamRig, host: HostId, lane: Lane): Uint8Array {
  const chunks = rig.events(host).flatMap((event) => {
    return event.kind === "data" && event.lane === lane ? [event.chunk] : [];
  });
  return new Uint8Array(Buffer.concat(chunks));
}

function has(rig: StreamRig, host: HostId, kind: StreamEvent["kind"], lane?: Lane): boolean {
  return rig.events(host).some((event) => {
    if (event.kind !== kind) return false;
    return lane === undefined || !("lane" in event) || event.lane === lane;
  });
}

/** Bytes that tell their own position. */
function pattern(length: number, seed: number): Uint8Array {
  const random = new SeededRandom(seed);
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 1) bytes[at] = random.below(256);
  return bytes;
}

/** Sends all of `bytes`, waiting for drains. */
async function sendAll(
  rig: StreamRig,
  from: HostId,
  to: HostId,
  lane: Lane,
  bytes: Uint8Array,
): Promise<void> {
  let at = 0;
  while (at < bytes.length) {
    rig
      .events(from)
      .splice(
        0,
        rig.events(from).length,
        ...rig.events(from).filter((event) => event.kind !== "drain" || event.lane !== lane),
      );
    const taken = rig.link(from).send(to, lane, bytes, at, bytes.length - at);
    expect(taken).toBeGreaterThanOrEqual(0);
    at += taken;
    if (at < bytes.length) {
      expect(await rig.until(() => has(rig, from, "drain", lane))).toBe(true);
    }
  }
}

/** Fills the lane without letting the world run; returns all bytes that were taken. */
function fill(rig: StreamRig, from: HostId, to: HostId, lane: Lane): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let round = 0; round < 1024; round += 1) {
    const bytes = pattern(64 * 1024, round);
    const taken = rig.link(from).send(to, lane, bytes, 0, bytes.length);
    expect(taken).toBeGreaterThanOrEqual(0);
    parts.push(bytes.subarray(0, taken));
    if (taken < bytes.length) return new Uint8Array(Buffer.concat(parts));
  }
  throw new Error("a connection takes more than 64 MiB: it has no bound");
}

export function streamSuite(name: string, makeRig: () => Promise<StreamRig>): void {
  describe(`StreamLink: ${name}`, () => {
    let rig: StreamRig;
    let one: HostId;
    let other: HostId;

    beforeEach(async () => {
      rig = await makeRig();
      [one, other] = rig.hosts;
    });
    afterEach(async () => {
      await rig.close();
    });

    const connected = (): Promise<boolean> =>
      rig.until(() => has(rig, one, "up") && has(rig, other, "up"));

    test("before it is up nothing is taken", () => {
      expect(rig.link(one).send(other, LANE.data, new Uint8Array(8), 0, 8)).toBe(-1);
    });

    test("both sides learn that the link is up, and the peer's incarnation", async () => {
      expect(await connected()).toBe(true);
      const up = rig.events(one).find((event) => event.kind === "up");
      expect(up).toEqual({ kind: "up", peer: other, peerInc: rig.incOf(other) });
    });

    test("bytes arrive whole and in order, on both lanes and in both directions", async () => {
      await connected();
      const ways = [
        { from: one, to: other, lane: LANE.data, bytes: pattern(700_000, 1) },
        { from: other, to: one, lane: LANE.data, bytes: pattern(300_000, 2) },
        { from: one, to: other, lane: LANE.control, bytes: pattern(50_000, 3) },
        { from: other, to: one, lane: LANE.control, bytes: pattern(9, 4) },
      ];
      await Promise.all(ways.map((way) => sendAll(rig, way.from, way.to, way.lane, way.bytes)));
      const isDone = (): boolean =>
        ways.every((way) => received(rig, way.to, way.lane).length === way.bytes.length);
      expect(await rig.until(isDone)).toBe(true);
      for (const way of ways) {
        expect(Buffer.compare(received(rig, way.to, way.lane), way.bytes)).toBe(0);
      }
    });

    test("a part of a buffer is sent, and copied at once", async () => {
      await connected();
      const bytes = pattern(1000, 5);
      const taken = rig.link(one).send(other, LANE.data, bytes, 100, 500);
      expect(taken).toBeGreaterThan(0);
      expect(taken).toBeLessThanOrEqual(500);
      const expected = bytes.slice(100, 100 + taken);
      bytes.fill(0);
      await rig.until(() => received(rig, other, LANE.data).length === taken);
      expect(Buffer.compare(received(rig, other, LANE.data), expected)).toBe(0);
    });

    test("a full connection takes less, then drains, and nothing is lost or doubled", async () => {
      await connected();
      const taken = fill(rig, one, other, LANE.data);
      const next = pattern(100_000, 6);
      expect(await rig.until(() => has(rig, one, "drain", LANE.data))).toBe(true);
      await sendAll(rig, one, other, LANE.data, next);
      const length = taken.length + next.length;
      expect(await rig.until(() => received(rig, other, LANE.data).length === length)).toBe(true);
      const expected = Buffer.concat([taken, next]);
      expect(Buffer.compare(received(rig, other, LANE.data), expected)).toBe(0);
    });

    test("a full data lane does not stop the control lane", async () => {
      await connected();
      fill(rig, one, other, LANE.data);
      const urgent = pattern(64, 7);
      await sendAll(rig, one, other, LANE.control, urgent);
      expect(await rig.until(() => received(rig, other, LANE.control).length === 64)).toBe(true);
    });

    test("a reset takes down both lanes on both sides, then the link comes up anew", async () => {
      await connected();
      rig.events(one).length = 0;
      rig.events(other).length = 0;
      rig.link(one).send(other, LANE.data, pattern(5000, 8), 0, 5000);
      rig.link(one).reset(other, "conformance");
      const isDown = (): boolean => has(rig, one, "down") && has(rig, other, "down");
      expect(await rig.until(isDown)).toBe(true);
      expect(await connected()).toBe(true);
      for (const host of rig.hosts) {
        const kinds = rig.events(host).map((event) => event.kind);
        expect(kinds.filter((kind) => kind === "down").length).toBe(1);
        expect(kinds.lastIndexOf("up")).toBeGreaterThan(kinds.indexOf("down"));
        // What was in flight may be lost, but does not arrive by the new connection.
        expect(kinds.slice(kinds.indexOf("down")).includes("data")).toBe(false);
      }
      const bytes = pattern(3000, 9);
      rig.events(other).length = 0;
      await sendAll(rig, one, other, LANE.data, bytes);
      await rig.until(() => received(rig, other, LANE.data).length === 3000);
      expect(Buffer.compare(received(rig, other, LANE.data), bytes)).toBe(0);
    });
  });
}

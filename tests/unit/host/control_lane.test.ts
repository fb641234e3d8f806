/** Control frames out of a byte stream, however it is cut (docs/protocol.md, "Control lane"). */
import { expect, test } from "bun:test";
import { LIMITS } from "../../../core/base/limits.ts";
import type { StreamLink } from "../../../core/base/ports.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import { ControlLane } from "../../../core/host/control_lane.ts";

const LINK = { send: () => 0, reset: () => {} } as unknown as StreamLink;

function frame(channel: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(5 + body.length);
  new DataView(bytes.buffer).setUint32(0, 1 + body.length, true);
  bytes[4] = channel;
  bytes.set(body, 5);
  return bytes;
}

function laneUp(): ControlLane {
  const lane = new ControlLane(hostId(1), LINK);
  lane.linkUp();
  return lane;
}

test("frames of any length arrive whole and in order from chunks of any length", () => {
  const random = new SeededRandom(5);
  const bodies = Array.from({ length: 60 }, (_, index) => {
    const body = new Uint8Array(random.pick([0, 1, 30, 5000, LIMITS.controlFrameBytesMax - 1]));
    return body.fill(index + 1);
  });
  const stream = Buffer.concat(bodies.map((body, index) => frame(index % 4, body)));
  for (const most of [7, 1000, 70_000, 600_000]) {
    const lane = laneUp();
    const got: Uint8Array[] = [];
    const channels: number[] = [];
    for (let at = 0; at < stream.length; ) {
      const chunk = stream.subarray(at, at + 1 + random.below(most));
      const isSound = lane.receive(chunk, (_peer, channel, buffer, from, length) => {
        channels.push(channel);
        got.push(buffer.slice(from, from + length));
        return true;
      });
      expect(isSound).toBe(true);
      at += chunk.length;
    }
    expect(got.map((body) => body.length)).toEqual(bodies.map((body) => body.length));
    expect(got.every((body, index) => Buffer.compare(body, bodies[index]!) === 0)).toBe(true);
    expect(channels).toEqual(bodies.map((_, index) => index % 4));
  }
});

test("a length that no frame has ends the link", () => {
  for (const length of [0, LIMITS.controlFrameBytesMax + 1, 0xffffffff]) {
    const bytes = frame(1, new Uint8Array(3));
    new DataView(bytes.buffer).setUint32(0, length, true);
    expect(laneUp().receive(bytes, () => true)).toBe(false);
  }
});

test("what a lost link left over is not joined to what the next one brings", () => {
  const lane = laneUp();
  const bytes = frame(2, new Uint8Array([1, 2, 3]));
  lane.receive(bytes.subarray(0, 6), () => true);
  lane.linkDown();
  lane.linkUp();
  const channels: number[] = [];
  lane.receive(bytes, (_peer, channel) => channels.push(channel) > 0);
  expect(channels).toEqual([2]);
});

test("a handler that drops the link is the last to be called", () => {
  const lane = laneUp();
  const both = Buffer.concat([frame(1, new Uint8Array(2)), frame(2, new Uint8Array(2))]);
  const channels: number[] = [];
  const isSound = lane.receive(both, (_peer, channel) => {
    channels.push(channel);
    lane.linkDown();
    return true;
  });
  expect(isSound).toBe(true);
  expect(channels).toEqual([1]);
});

/** Lease messages: what is written is read again; any other bytes are refused without a throw. */
import { expect, test } from "bun:test";
import { LIMITS } from "../../../core/base/limits.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { ALL_RULES } from "../../../core/base/rules.ts";
import { hostId, volumeId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import {
  AGE_BATCH_MAX,
  LEASE_BATCH_MAX,
  type LeaseEvent,
  type LeaseMessage,
  leaseMessage,
} from "../../../core/format/lease_wire.ts";
import { Policing } from "../../../core/lease/policing.ts";

const REQUEST = {
  kind: "request",
  volume: volumeId(0xfedcba98),
  start: 2 ** 40 - 8,
  end: 2 ** 40,
  wishStart: 0,
  wishEnd: 2 ** 40,
  priority: 7,
} as const;

const MESSAGES: LeaseMessage[] = [
  {
    kind: "submit",
    epoch: 2 ** 50,
    applied: 17,
    first: 3,
    items: [
      { ...REQUEST },
      { kind: "cancel", request: 2 },
      { kind: "free", volume: volumeId(1), start: 0, end: 1 },
    ],
  },
  {
    kind: "events",
    epoch: 64,
    first: 1,
    items: [
      { kind: "host", host: hostId(15), submitted: 9, what: { ...REQUEST } },
      { kind: "age", requests: [1, 2, 3] },
      { kind: "tag", point: 4 },
      { kind: "point", point: 4 },
    ],
  },
  { kind: "want", epoch: 64, from: 12 },
  { kind: "hello", epoch: 64, last: 0 },
  { kind: "synced", epoch: 64, point: 5 },
];

test("every message survives the wire", () => {
  for (const message of MESSAGES) {
    expect(decode(leaseMessage, encode(leaseMessage, message))).toEqual(message);
  }
});

test("the bytes of a message are fixed", () => {
  expect(encode(leaseMessage, { kind: "want", epoch: 64, from: 258 }).toHex()).toBe(
    "0340000000000000000201000000000000",
  );
});

test("the largest message fits a control frame", () => {
  const requests = Array.from({ length: AGE_BATCH_MAX }, (_, index) => index);
  const age: LeaseEvent = { kind: "age", requests };
  const items = Array.from({ length: LEASE_BATCH_MAX }, () => age);
  const bytes = encode(leaseMessage, { kind: "events", epoch: 64, first: 1, items });
  expect(bytes.length).toBeLessThan(LIMITS.controlFrameBytesMax);
});

test("out of range: host, priority, block, and leftover bytes are refused", () => {
  const good = encode(leaseMessage, MESSAGES[0]!);
  expect(decode(leaseMessage, good.subarray(0, good.length - 1))).toBe(null);
  expect(decode(leaseMessage, new Uint8Array([...good, 0]))).toBe(null);
  const bad = [
    { ...REQUEST, priority: 8 },
    { ...REQUEST, end: 2 ** 40 + 1 },
  ];
  for (const what of bad) {
    const message: LeaseMessage = { kind: "submit", epoch: 1, applied: 0, first: 1, items: [what] };
    expect(decode(leaseMessage, encode(leaseMessage, message))).toBe(null);
  }
});

test("damaged messages end in a refusal or in a state that still works", () => {
  const random = new SeededRandom(11);
  for (let round = 0; round < 300; round += 1) {
    const isSequencer = random.chance(0.5);
    const granted: number[] = [];
    const policing = new Policing(
      { self: hostId(0), agingMs: 1000, holdMs: 5, retryMs: 250 },
      {
        send: (_to, message) => void encode(leaseMessage, message),
        granted: (token) => granted.push(token),
        denied: () => {},
        tableMoved: () => {},
        announced: () => {},
      },
      { event: () => {} },
      ALL_RULES,
    );
    policing.open(0, 64, hostId(isSequencer ? 0 : 1), [hostId(0), hostId(1)]);
    for (let step = 0; step < 60; step += 1) {
      const bytes = encode(leaseMessage, { ...random.pick(MESSAGES), epoch: 64 });
      for (let count = random.below(4); count > 0; count -= 1) {
        bytes[9 + random.below(bytes.length - 9)] = random.below(256);
      }
      const message = decode(leaseMessage, bytes);
      if (message !== null) policing.control(step, hostId(1), message);
      policing.settle(step);
      policing.check(hostId(1), volumeId(1), 0, 8, 1 + random.below(20));
    }
    policing.list();
    expect(policing.nextDeadlineMs()).toBeGreaterThan(0);
  }
});

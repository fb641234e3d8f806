/** The link handshake without sockets: two machines and the bytes between them. */
import { describe, expect, test } from "bun:test";
import { crc32 } from "../../../core/base/checksum.ts";
import type { MacKey } from "../../../core/base/ports.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { type HostId, hostId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import { type HandshakeMessage, handshakeMessage } from "../../../core/format/handshake_wire.ts";
import {
  HANDSHAKE_TIMEOUT_MS,
  Handshake,
  type HandshakeSelf,
  randomBytes,
} from "../../../core/membership/handshake.ts";

/** A keyed checksum in place of HMAC: the handshake's logic does not depend on which. */
function keyOf(secret: number): MacKey {
  const tag = (buffer: Uint8Array, at: number, length: number): Uint8Array => {
    const out = new Uint8Array(16);
    const view = new DataView(out.buffer);
    for (let word = 0; word < 4; word += 1) {
      view.setUint32(word * 4, crc32(buffer, at, length, secret + word));
    }
    return out;
  };
  return {
    sign: (buffer, at, length, out, outAt) => out.set(tag(buffer, at, length), outAt),
    verify: (buffer, at, length, out, outAt) =>
      Buffer.from(tag(buffer, at, length)).equals(out.slice(outAt, outAt + 16)),
  };
}

const HOSTS = [0, 1, 2].map(hostId);
const LINK = new Uint8Array(16).fill(5);

function selfOf(id: HostId, changes: Partial<HandshakeSelf> = {}): HandshakeSelf {
  const versions = { versionMin: 1, versionMax: 1 };
  return {
    self: id,
    incarnation: id + 100,
    clusterName: "lab",
    hosts: HOSTS,
    ...versions,
    ...changes,
  };
}

interface Setup {
  readonly dialer?: Partial<HandshakeSelf>;
  readonly acceptor?: Partial<HandshakeSelf>;
  readonly dialerSecret?: number;
  readonly dialed?: HostId;
  readonly dialerBinding?: Uint8Array;
  readonly seed?: number;
}

function pair(setup: Setup = {}): { dialer: Handshake; acceptor: Handshake } {
  const entropy = new SeededRandom(setup.seed ?? 1);
  const peer = setup.dialed ?? hostId(1);
  const dial = { peer, lane: 1, path: 0, link: LINK } as const;
  const binding = setup.dialerBinding ?? new Uint8Array(0);
  const key = keyOf(setup.dialerSecret ?? 77);
  const dialer = new Handshake(0, selfOf(hostId(0), setup.dialer), dial, { key, entropy, binding });
  const ports = { key: keyOf(77), entropy };
  const acceptor = new Handshake(0, selfOf(hostId(1), setup.acceptor), null, ports);
  return { dialer, acceptor };
}

type Change = (bytes: Uint8Array, step: number) => Uint8Array;

/** Passes bytes to and fro until both are quiet. */
function talk(dialer: Handshake, acceptor: Handshake, change: Change = (bytes) => bytes): void {
  let step = 0;
  for (;;) {
    const there = dialer.takeOutput();
    if (there !== null && acceptor.state === "open") acceptor.receive(change(there, step++));
    const back = acceptor.takeOutput();
    if (back !== null && dialer.state === "open") dialer.receive(change(back, step++));
    if (there === null && back === null) return;
  }
}

describe("handshake", () => {
  test("ends with both sides agreed", () => {
    const { dialer, acceptor } = pair();
    talk(dialer, acceptor);
    const common = { lane: 1, path: 0, version: 1, link: "05".repeat(16) } as const;
    expect(dialer.result).toEqual({ peer: hostId(1), peerInc: 101, ...common });
    expect(acceptor.result).toEqual({ peer: hostId(0), peerInc: 100, ...common });
  });

  test("works byte by byte, and hands over what came behind it", () => {
    const { dialer, acceptor } = pair();
    const drip = (into: Handshake, bytes: Uint8Array | null): void => {
      for (const byte of bytes ?? []) into.receive(Uint8Array.of(byte));
    };
    drip(acceptor, dialer.takeOutput());
    drip(dialer, acceptor.takeOutput());
    const prove = dialer.takeOutput() ?? new Uint8Array(0);
    acceptor.receive(Uint8Array.from([...prove, 1, 2, 3]));
    expect(acceptor.state).toBe("done");
    expect(acceptor.takeRest()).toEqual(Uint8Array.of(1, 2, 3));
    expect(acceptor.takeRest().length).toBe(0);
  });

  const refusals: [string, Setup, string][] = [
    ["another key", { dialerSecret: 78 }, "the other side does not have this cluster's key"],
    ["another cluster", { dialer: { clusterName: "x" } }, "clusters of different names"],
    ["an unknown host", { acceptor: { hosts: [hostId(1), hostId(2)] } }, "not in the roster"],
    ["a newer program", { dialer: { versionMin: 2, versionMax: 3 } }, "2 to 3 there, 1 to 1 here"],
    ["an older program", { acceptor: { versionMin: 2, versionMax: 3 } }, "1 to 1 there, 2 to 3"],
    ["our own id", { dialed: hostId(0), acceptor: { self: hostId(0) } }, "two processes run as"],
    ["another host than dialed", { dialed: hostId(2) }, "address of host 2 is that of host 1"],
    ["the higher id dialing", { dialer: { self: hostId(2) } }, "host 2 must not dial"],
    ["another channel", { dialerBinding: Uint8Array.of(1) }, "does not have this cluster's key"],
  ];
  test.each(refusals)("refuses %s, and both sides know why", (_name, setup, why) => {
    const { dialer, acceptor } = pair(setup);
    talk(dialer, acceptor);
    expect(dialer.state).toBe("failed");
    expect(acceptor.state).toBe("failed");
    expect(dialer.why).toContain(why);
    expect(acceptor.why).toContain(why);
  });

  test("versions: the newest both speak", () => {
    const { dialer, acceptor } = pair({
      dialer: { versionMin: 1, versionMax: 4 },
      acceptor: { versionMin: 2, versionMax: 3 },
    });
    talk(dialer, acceptor);
    expect(dialer.result?.version).toBe(3);
    expect(acceptor.result?.version).toBe(3);
  });

  test("is over at its deadline, not before", () => {
    const { acceptor } = pair();
    acceptor.expire(HANDSHAKE_TIMEOUT_MS - 1);
    expect(acceptor.state).toBe("open");
    acceptor.expire(HANDSHAKE_TIMEOUT_MS);
    expect(acceptor.state).toBe("failed");
  });

  test("a recorded dialer is of no use against a new challenge", () => {
    const recorded: Uint8Array[] = [];
    const first = pair({ seed: 1 });
    talk(first.dialer, first.acceptor, (bytes, step) => {
      if (step % 2 === 0) recorded.push(bytes);
      return bytes;
    });
    const { acceptor } = pair({ seed: 2 });
    for (const bytes of recorded) if (acceptor.state === "open") acceptor.receive(bytes);
    expect(acceptor.state).toBe("failed");
    expect(acceptor.why).toContain("does not have this cluster's key");
  });

  test("a proof thrown back at its maker proves nothing", () => {
    const { dialer, acceptor } = pair();
    acceptor.receive(dialer.takeOutput() ?? new Uint8Array(0));
    const bytes = acceptor.takeOutput() ?? new Uint8Array(0);
    const challenge = decode(handshakeMessage, bytes, 6);
    if (challenge?.kind !== "challenge") throw new Error("no challenge");
    const prove: HandshakeMessage = { kind: "prove", proof: challenge.proof };
    acceptor.receive(framed(encode(handshakeMessage, prove)));
    expect(acceptor.state).toBe("failed");
  });

  test("a refusal's words cannot break the log", () => {
    const { dialer } = pair();
    const why = "a\nb\u001b[31m";
    dialer.receive(framed(encode(handshakeMessage, { kind: "refuse", why })));
    expect(dialer.why).toBe("the other side refused: a?b?[31m");
  });
});

function framed(payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(6 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x4b4c5356, true);
  view.setUint16(4, payload.length, true);
  bytes.set(payload, 6);
  return bytes;
}

describe("any bytes", () => {
  test("one byte changed anywhere: never done on the side that got it", () => {
    const random = new SeededRandom(42);
    for (let run = 0; run < 3000; run += 1) {
      const { dialer, acceptor } = pair({ seed: run });
      const target = random.below(4);
      talk(dialer, acceptor, (bytes, step) => {
        if (step !== target) return bytes;
        const changed = bytes.slice();
        const at = random.below(changed.length);
        changed[at] = changed[at]! ^ (1 << random.below(8));
        return changed;
      });
      // The receiver of the changed message does not finish (a lengthened frame leaves it open).
      const victim = target % 2 === 0 ? acceptor : dialer;
      expect(victim.state).not.toBe("done");
    }
  });

  test("noise: always failed or waiting, never thrown", () => {
    const random = new SeededRandom(43);
    for (let run = 0; run < 3000; run += 1) {
      const { dialer, acceptor } = pair({ seed: run });
      const victim = random.chance(0.5) ? dialer : acceptor;
      for (let piece = 0; piece < 4 && victim.state === "open"; piece += 1) {
        const noise = randomBytes(random, random.below(700));
        victim.receive(random.chance(0.5) ? noise : framed(noise.subarray(0, 600)));
      }
      expect(victim.state).not.toBe("done");
    }
  });
});

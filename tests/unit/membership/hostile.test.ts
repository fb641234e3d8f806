/**
 * G9: any bytes from a peer or in the voter file end in a refusal, never in an exception; two
 * processes of one id are both refused (R14); a voter whose file cannot be written is silent.
 */
import { describe, expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { ALL_RULES } from "../../../core/base/rules.ts";
import { hostId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import {
  type MembershipMessage,
  membershipMessage,
  type MessageOf,
} from "../../../core/format/membership_wire.ts";
import { decodeVotes, encodeVotes, type VoterState } from "../../../core/format/votes.ts";
import type { LocalState, MembershipSink } from "../../../core/membership/contract.ts";
import { Membership } from "../../../core/membership/membership.ts";
import { chaos } from "./chaos.ts";
import { Cluster } from "./cluster.ts";
import { SILENT } from "./sim_host.ts";

const LOCAL: LocalState = {
  hasStore: true,
  diskOk: true,
  complete: false,
  hasLosses: false,
  newestOpen: 0,
  vector: [],
  wantsIn: true,
  boot: "boot",
  history: [],
};

/** A machine of a cluster of three, whose other hosts are played by the test. */
class Alone implements MembershipSink {
  readonly machine: Membership;
  readonly sent: { to: number; message: MembershipMessage }[] = [];
  readonly refusals: string[] = [];
  persisted: { tag: number; state: VoterState }[] = [];
  diskWorks = true;
  nowMs = 1000;

  constructor() {
    const host = (id: number, kind: "data" | "witness") => ({
      id: hostId(id),
      kind,
      name: `host${id}`,
    });
    this.machine = new Membership(
      {
        self: hostId(0),
        clusterId: 1,
        hosts: [host(0, "data"), host(1, "data"), host(2, "witness")],
        timing: { heartbeatMs: 100, silenceMs: 600, peerTimeoutMs: 5000, coldWaitMs: 10_000 },
        coldStart: "flushed",
      },
      this,
      new SeededRandom(1),
      SILENT,
      ALL_RULES,
    );
    this.machine.start(this.nowMs, null, LOCAL);
    this.settle();
  }

  settle(): void {
    for (let round = 0; round < 50 && this.persisted.length > 0; round += 1) {
      const { tag } = this.persisted.shift()!;
      this.machine.voteDone(this.nowMs, tag, this.diskWorks);
    }
  }

  control(from: number, message: MembershipMessage): void {
    this.nowMs += 1;
    this.machine.control(this.nowMs, hostId(from), message);
    this.settle();
    this.expire();
  }

  expire(): void {
    if (this.machine.nextDeadlineMs() <= this.nowMs) this.machine.expire(this.nowMs);
    this.settle();
  }

  hello(from: number, inc: number, nonce: number): void {
    const hello: MessageOf<"hello"> = {
      kind: "hello",
      inc,
      voterInc: inc,
      nonce,
      newestOpen: 0,
      newestId: 0,
      committed: [],
      forced: 0,
    };
    this.control(from, hello);
  }

  send(to: number, message: MembershipMessage): void {
    this.sent.push({ to, message: decode(membershipMessage, encode(membershipMessage, message))! });
  }
  persist(tag: number, state: VoterState): void {
    this.persisted.push({ tag, state: structuredClone(state) });
  }
  sealed(): LocalState {
    return LOCAL;
  }
  decided(): void {}
  reconcile(plan: { epoch: number }): void {
    this.machine.unionHeld(this.nowMs, plan.epoch);
  }
  opened(): void {}
  excluded(): void {}
  refused(_peer: number, why: string): void {
    this.refusals.push(why);
  }
}

/** Real messages of every kind, to be damaged. */
function samples(): MembershipMessage[] {
  const kept: MembershipMessage[] = [];
  const cluster = new Cluster({ seed: 3, kinds: ["data", "data", "witness"] });
  cluster.watch = (_from, _to, message) => {
    if (kept.filter((one) => one.kind === message.kind).length < 12) kept.push(message);
  };
  cluster.startAll();
  cluster.run(800);
  cluster.stop(1);
  cluster.run(1500);
  cluster.hosts[1]!.votes = null;
  cluster.start(1);
  cluster.run(2500);
  return kept;
}

describe("hostile peers", () => {
  test("damaged messages never throw and never pass a bound", () => {
    const random = new SeededRandom(5);
    const real = samples();
    const kinds = new Set(real.map((message) => message.kind));
    for (const kind of ["hello", "beat", "grant", "inquire", "answer", "promise", "active"]) {
      expect(kinds.has(kind as MembershipMessage["kind"])).toBe(true);
    }
    let taken = 0;
    for (let round = 0; round < 40; round += 1) {
      const alone = new Alone();
      for (const peer of [1, 2]) {
        alone.machine.linkUp(alone.nowMs, hostId(peer), 1);
        alone.hello(peer, 1, peer);
      }
      for (let index = 0; index < 150; index += 1) {
        const bytes = encode(membershipMessage, random.pick(real));
        const hits = random.below(3);
        for (let hit = 0; hit < hits; hit += 1) {
          bytes[random.below(bytes.length)] = random.pick([0, 1, 2, 64, 128, 255]);
        }
        const message = decode(membershipMessage, bytes);
        if (message === null) continue;
        taken += 1;
        alone.control(random.chance(0.5) ? 1 : 2, message);
        if (random.chance(0.1)) alone.nowMs += random.below(700);
        alone.machine.status(alone.nowMs);
      }
      expect(alone.sent.length).toBeLessThan(20_000);
    }
    expect(taken).toBeGreaterThan(1000);
  });

  test("cut and random bytes do not decode to a view without members", () => {
    const random = new SeededRandom(6);
    for (const message of samples()) {
      const bytes = encode(membershipMessage, message);
      expect(decode(membershipMessage, bytes)).toEqual(message);
      expect(decode(membershipMessage, bytes, 0, random.below(bytes.length))).toBe(null);
      if (message.kind !== "decided") continue;
      const empty = { ...message.ballot.view, members: [] };
      const forged = { ...message, ballot: { ...message.ballot, view: empty } };
      expect(decode(membershipMessage, encode(membershipMessage, forged))).toBe(null);
    }
  });

  test("R14: two processes of one id are both refused, until it stops", () => {
    const alone = new Alone();
    alone.machine.linkUp(alone.nowMs, hostId(1), 1);
    alone.hello(1, 5, 111);
    alone.hello(1, 6, 222);
    expect(alone.refusals).toEqual([]);
    alone.hello(1, 7, 111);
    expect(alone.refusals).toEqual(["two processes claim to be host1; both are refused"]);
    alone.hello(1, 8, 222);
    expect(alone.refusals.length).toBe(2);
    const told = alone.sent.filter(({ message }) => message.kind === "refuse");
    expect(told.length).toBe(2);
    expect(alone.machine.status(alone.nowMs).peers[0]!.why).toContain("two processes");
    alone.nowMs += 11_000;
    alone.hello(1, 9, 222);
    expect(alone.refusals.length).toBe(2);
  });

  test("R14: what others accepted is no vote of ours below what they promised", () => {
    const ballot = {
      view: {
        epoch: 65,
        id: 1,
        parent: 0,
        voters: [hostId(0), hostId(1), hostId(2)],
        members: [{ host: hostId(1), inc: 5 }],
        joining: [],
        forced: false,
      },
      opening: { from: 0, continuing: [], line: [] },
      promisers: [],
    };
    for (const promised of [65, 130]) {
      const alone = new Alone();
      for (const peer of [1, 2]) alone.machine.linkUp(alone.nowMs, hostId(peer), 1);
      for (const peer of [1, 2]) alone.hello(peer, 5, peer);
      const asked = alone.sent.find(({ message }) => message.kind === "inquire");
      const { voterInc } = asked!.message as MessageOf<"inquire">;
      const answer = { kind: "answer" as const, voterInc, voting: true, newestOpen: 0 };
      alone.control(1, { ...answer, promised: 65, accepted: ballot });
      alone.control(2, { ...answer, promised, accepted: null });
      expect(alone.machine.status(alone.nowMs).epoch).toBe(65);
      alone.control(2, {
        kind: "beat",
        clock: 0,
        asks: 0,
        knows: alone.machine.incarnation,
        promised,
        accepted: 0,
        decided: 0,
        active: 0,
        open: 0,
        hears: 7,
        accused: 0,
        flags: 0,
      });
      const votes = alone.sent.filter(({ message }) => message.kind === "accepted");
      expect(votes.length).toBe(promised === 65 ? 1 : 0);
    }
  });

  test("a life that is not newer than the known one is told so and not heard", () => {
    const alone = new Alone();
    alone.machine.linkUp(alone.nowMs, hostId(1), 1);
    alone.hello(1, 5, 111);
    alone.hello(1, 5, 222);
    const stale = alone.sent.filter(({ message }) => message.kind === "stale");
    expect(stale.map(({ message }) => message)).toEqual([{ kind: "stale", inc: 5 }]);
    expect(alone.machine.status(alone.nowMs).peers[0]!.reachable).toBe(false);
  });

  test("a voter whose file cannot be written says so and votes no more", () => {
    const alone = new Alone();
    alone.diskWorks = false;
    alone.machine.linkUp(alone.nowMs, hostId(1), 1);
    alone.hello(1, 5, 111);
    alone.control(1, { kind: "inquire", voterInc: 5 });
    expect(alone.machine.status(alone.nowMs).why).toBe("the voter file cannot be written");
    alone.control(1, { kind: "prepare", epoch: 65 });
    expect(alone.sent.some(({ message }) => message.kind === "promise")).toBe(false);
  });
});

describe("voter file", () => {
  const expected = { clusterId: 77, self: hostId(0) };
  const real = (): VoterState => chaos(5, {}, 500).cluster.hosts[0]!.votes!;

  test("survives its encoding", () => {
    const state = real();
    expect(state.accepted).not.toBe(null);
    expect(decodeVotes(encodeVotes(state), expected)).toEqual({ ok: true, state });
  });

  test("any damage, another host, cluster or version is refused by name, never thrown", () => {
    const bytes = encodeVotes(real());
    for (let at = 0; at < bytes.length; at += 1) {
      const damaged = bytes.slice();
      damaged[at] = damaged[at]! ^ 0x40;
      expect(decodeVotes(damaged, expected).ok).toBe(false);
      expect(decodeVotes(bytes.subarray(0, at), expected).ok).toBe(false);
    }
    const why = (result: ReturnType<typeof decodeVotes>): string => (result.ok ? "" : result.why);
    const version = bytes.slice();
    version[4] = 2;
    expect(why(decodeVotes(version, expected))).toContain("version 2");
    expect(why(decodeVotes(bytes, { ...expected, clusterId: 1 }))).toContain("another cluster");
    expect(why(decodeVotes(bytes, { ...expected, self: hostId(1) }))).toContain("another host");
    expect(why(decodeVotes(new Uint8Array(100_000), expected))).toContain("length");
  });
});

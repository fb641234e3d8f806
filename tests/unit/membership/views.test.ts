/** Views by script: one behaviour each, named by rule. Times are those of the simulated world. */
import { describe, expect, test } from "bun:test";
import type { MembershipHost } from "../../../core/membership/contract.ts";
import { Cluster, type ClusterOptions } from "./cluster.ts";

type Kinds = readonly MembershipHost["kind"][];

function make(kinds: Kinds, more: Partial<ClusterOptions> = {}): Cluster {
  const cluster = new Cluster({ seed: 7, kinds, ...more });
  cluster.every(5, () => {
    for (const host of cluster.hosts) host.read();
  });
  cluster.every(9, () => {
    for (const host of cluster.hosts) host.write();
  });
  return cluster;
}

function membersAt(cluster: Cluster, id: number): number[] {
  const view = cluster.hosts[id]!.machine?.view;
  return (view?.members ?? []).map((member) => member.host);
}

function isOpen(cluster: Cluster, id: number): boolean {
  return cluster.hosts[id]!.machine?.isOpen === true;
}

/** All data hosts are members of an open view, and may read. */
function whole(cluster: Cluster): boolean {
  const data = cluster.hosts.filter((host) => host.kind === "data");
  return data.every(
    (host) =>
      isOpen(cluster, host.id) &&
      membersAt(cluster, host.id).length === data.length &&
      host.machine!.mayRead(host.nowMs),
  );
}

function started(kinds: Kinds, more: Partial<ClusterOptions> = {}): Cluster {
  const cluster = make(kinds, more);
  cluster.startAll();
  expect(cluster.runUntil(3000, () => whole(cluster))).toBe(true);
  cluster.run(300);
  return cluster;
}

function why(cluster: Cluster, id: number): string {
  const host = cluster.hosts[id]!;
  return host.machine!.status(host.nowMs).why;
}

describe("first views", () => {
  test("R12: a single host opens within milliseconds, at its first start and after a crash", () => {
    const cluster = make(["data"]);
    cluster.startAll();
    expect(cluster.runUntil(50, () => isOpen(cluster, 0))).toBe(true);
    const host = cluster.hosts[0]!;
    expect(host.machine!.mayRead(host.nowMs)).toBe(true);
    cluster.run(200);
    for (const how of ["kill", "power"] as const) {
      cluster.stop(0, how);
      cluster.run(5);
      cluster.start(0);
      expect(cluster.runUntil(50, () => isOpen(cluster, 0))).toBe(true);
    }
  });

  test("a new cluster begins with one base; the others join with nothing to copy", () => {
    const cluster = started(["data", "data", "data", "witness"]);
    const first = cluster.observer.opened[0]!;
    expect(first).toBeGreaterThan(0);
    expect(cluster.nowMs).toBeLessThan(2500);
    expect(membersAt(cluster, 3)).toEqual([0, 1, 2]);
    expect(cluster.hosts[3]!.machine!.role).toBe("none");
  });

  test("a new cluster waits until every voter was there once, and says for whom", () => {
    const cluster = make(["data", "data", "witness"]);
    cluster.start(0);
    cluster.start(1);
    cluster.run(4000);
    expect(cluster.hosts[0]!.machine!.view).toBe(null);
    expect(why(cluster, 0)).toContain("must hear gamma first");
    cluster.start(2);
    expect(cluster.runUntil(2500, () => whole(cluster))).toBe(true);
  });

  test("a client learns views and never votes", () => {
    const cluster = started(["data", "data", "witness", "client"]);
    expect(membersAt(cluster, 3)).toEqual([0, 1]);
    expect(cluster.hosts[0]!.machine!.view!.voters.map(Number)).toEqual([0, 1, 2]);
    expect(cluster.hosts[3]!.votes?.promised).toBe(0);
  });
});

describe("failover", () => {
  for (const how of ["kill", "power"] as const) {
    test(`R4: after ${how} of a member the next view opens within 2 s`, () => {
      for (let seed = 1; seed <= 20; seed += 1) {
        const cluster = started(["data", "data", "witness"], { seed });
        const dead = seed % 2;
        cluster.stop(dead, how);
        const left = 1 - dead;
        const took = cluster.nowMs;
        const open = (): boolean =>
          isOpen(cluster, left) && membersAt(cluster, left).join() === `${left}`;
        expect(cluster.runUntil(2000, open)).toBe(true);
        // Not before the dead host's grants ran out: its reads must have ended.
        expect(cluster.nowMs - took).toBeGreaterThan(800);
      }
    });
  }

  test("R1: a restart faster than any detection is a new member, and waits for its copy", () => {
    const cluster = started(["data", "data", "witness"]);
    const before = cluster.hosts[1]!.inc;
    cluster.stop(1, "power");
    cluster.run(1);
    cluster.start(1);
    expect(cluster.runUntil(3000, () => whole(cluster))).toBe(true);
    const view = cluster.hosts[0]!.machine!.view!;
    expect(view.members.find((member) => member.host === 1)!.inc).toBeGreaterThan(before);
  });

  test("an orderly leave hands over within 200 ms", () => {
    for (const kinds of [
      ["data", "data", "witness"],
      ["data", "data"],
    ] as Kinds[]) {
      const cluster = started(kinds);
      const host = cluster.hosts[0]!;
      expect(host.machine!.leave(host.nowMs)).toBe(true);
      cluster.wake(host);
      const done = (): boolean =>
        host.excludedFrom > 0 && isOpen(cluster, 1) && membersAt(cluster, 1).join() === "1";
      expect(cluster.runUntil(200, done)).toBe(true);
      cluster.stop(0);
      cluster.run(1500);
      const left = cluster.hosts[1]!;
      expect(left.machine!.mayRead(left.nowMs)).toBe(true);
    }
  });

  test("the last host that leaves has nothing to wait for", () => {
    const cluster = started(["data"]);
    const host = cluster.hosts[0]!;
    expect(host.machine!.leave(host.nowMs)).toBe(false);
  });

  test("R16: a suspected host is proposed out, and taken in again later", () => {
    const cluster = started(["data", "data", "data"]);
    const host = cluster.hosts[0]!;
    host.machine!.suspect(host.nowMs, cluster.hosts[2]!.id, "it owes an ack");
    cluster.wake(host);
    expect(cluster.runUntil(500, () => membersAt(cluster, 0).join() === "0,1")).toBe(true);
    expect(cluster.runUntil(200, () => isOpen(cluster, 0) && isOpen(cluster, 1))).toBe(true);
    expect(cluster.runUntil(8000, () => whole(cluster))).toBe(true);
  });

  test("R8, R15: a failed disk leaves the members, its host goes on voting", () => {
    const cluster = started(["data", "data"]);
    const host = cluster.hosts[1]!;
    host.diskOk = false;
    host.machine!.setLocal(host.local());
    cluster.wake(host);
    const out = (): boolean => isOpen(cluster, 0) && membersAt(cluster, 0).join() === "0";
    expect(cluster.runUntil(1500, out)).toBe(true);
    expect(host.machine!.role).toBe("none");
    cluster.run(3000);
    expect(membersAt(cluster, 0)).toEqual([0]);
    const status = cluster.hosts[0]!.machine!.status(cluster.hosts[0]!.nowMs);
    expect(status.votes).toBe(2);
    expect(status.peers[0]!.diskOk).toBe(false);
  });
});

describe("lost majority", () => {
  test("R7, G8: of two data hosts the survivor reads on, writes freeze, and it says why", () => {
    const cluster = started(["data", "data"]);
    cluster.stop(1);
    cluster.run(14_500);
    const host = cluster.hosts[0]!;
    expect(host.machine!.mayRead(host.nowMs)).toBe(true);
    expect(host.machine!.hasMajority).toBe(false);
    expect(why(cluster, 0)).toBe("writes frozen: 1 of 2 votes, beta unreachable for 14 s");
    cluster.start(1);
    expect(cluster.runUntil(4000, () => whole(cluster))).toBe(true);
    expect(why(cluster, 0)).toBe("");
  });

  test("R7: the minority stops reading when its grants run out", () => {
    const cluster = started(["data", "data", "witness"]);
    cluster.isolate(0, [1, 2]);
    const host = cluster.hosts[0]!;
    cluster.run(1100);
    expect(host.machine!.mayRead(host.nowMs)).toBe(false);
    cluster.run(1500);
    expect(membersAt(cluster, 1)).toEqual([1]);
    cluster.heal();
    expect(cluster.runUntil(6000, () => whole(cluster))).toBe(true);
  });
});

describe("cold start (R12a)", () => {
  test("all members back: they start by themselves", () => {
    const cluster = started(["data", "data", "witness"]);
    cluster.flush();
    for (const id of [0, 1, 2]) cluster.stop(id, "power");
    cluster.run(50);
    cluster.startAll();
    expect(cluster.runUntil(3000, () => whole(cluster))).toBe(true);
    expect(cluster.observer.coldStarts).toBeGreaterThan(0);
  });

  test("one is missing: only after cold_wait, and never with cold_start = all", () => {
    for (const coldStart of ["flushed", "all"] as const) {
      const cluster = started(["data", "data", "witness"], { coldStart, coldWaitMs: 3000 });
      for (const id of [0, 1, 2]) cluster.stop(id, "power");
      cluster.run(50);
      cluster.start(0);
      cluster.start(2);
      cluster.run(2800);
      expect(isOpen(cluster, 0)).toBe(false);
      expect(why(cluster, 0)).toContain("beta");
      cluster.run(3500);
      expect(isOpen(cluster, 0)).toBe(coldStart === "flushed");
    }
  });

  test("G6: a host that the last view does not name is never promoted", () => {
    const cluster = started(["data", "data", "witness"]);
    cluster.stop(1, "power");
    expect(cluster.runUntil(3000, () => membersAt(cluster, 0).join() === "0")).toBe(true);
    cluster.run(500);
    cluster.stop(0, "power");
    cluster.start(1);
    cluster.run(25_000);
    expect(isOpen(cluster, 1)).toBe(false);
    expect(membersAt(cluster, 1)).toEqual([0]);
    cluster.start(0);
    expect(cluster.runUntil(5000, () => whole(cluster))).toBe(true);
  });

  test("R12a: the machine that did not reboot is the base", () => {
    for (const kept of [0, 1]) {
      const cluster = started(["data", "data", "witness"]);
      cluster.flush();
      cluster.run(150);
      for (const id of [0, 1, 2]) cluster.stop(id, id === kept ? "kill" : "power");
      cluster.run(20);
      cluster.startAll();
      // The observer (G1) throws if anything acknowledged is lost.
      expect(cluster.runUntil(3000, () => whole(cluster))).toBe(true);
    }
  });
});

describe("voters without memory (R14)", () => {
  test("a lost file: silent until all needed others have spoken", () => {
    const cluster = started(["data", "data", "witness"]);
    cluster.stop(0);
    cluster.stop(2);
    cluster.hosts[2]!.votes = null;
    cluster.start(2);
    cluster.run(5000);
    // Two of three live, but one of them does not know what it promised.
    expect(cluster.hosts[2]!.votes!.voting).toBe(false);
    expect(why(cluster, 2)).toContain("alpha");
    cluster.start(0);
    expect(cluster.runUntil(5000, () => whole(cluster))).toBe(true);
    const { voting, inc, voterInc } = cluster.hosts[2]!.votes!;
    expect(voting).toBe(true);
    expect(voterInc).toBe(inc);
    for (const id of [0, 1]) {
      const known = cluster.hosts[id]!.votes!.known.find((entry) => entry.host === 2)!;
      expect(known.voterInc).toBe(voterInc);
    }
  });

  test("an old copy of the file is found out by its incarnation", () => {
    const cluster = started(["data", "data", "witness"]);
    const old = cluster.hosts[1]!.votes!;
    for (let round = 0; round < 3; round += 1) {
      cluster.stop(1);
      cluster.run(30);
      cluster.start(1);
      expect(cluster.runUntil(5000, () => whole(cluster))).toBe(true);
    }
    const newest = cluster.hosts[1]!.inc;
    cluster.stop(1);
    cluster.hosts[1]!.votes = old;
    cluster.run(30);
    cluster.start(1);
    expect(cluster.runUntil(5000, () => whole(cluster))).toBe(true);
    expect(cluster.hosts[1]!.inc).toBeGreaterThan(newest);
    expect(cluster.hosts[1]!.votes!.voterInc).toBeGreaterThan(newest);
  });
});

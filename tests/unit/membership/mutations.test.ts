/**
 * Each rule is there because its absence loses data: with the rule off the observer must find the
 * failure (docs/guarantees.md). By random search where that is quick, by script where it is rare.
 */
import { describe, expect, test } from "bun:test";
import { ALL_RULES, type Rules } from "../../../core/base/rules.ts";
import { chaos } from "./chaos.ts";
import { Cluster } from "./cluster.ts";
import { Breach } from "./observer.ts";

const SEEDS_MAX = 150;

/** The first safety breach with the rule off; V12 alone would be mere slowness. */
function search(rules: Partial<Rules>): string {
  for (let seed = 1; seed <= SEEDS_MAX; seed += 1) {
    try {
      chaos(seed, rules);
    } catch (error) {
      if (error instanceof Breach && !error.message.startsWith("V12")) return error.message;
      if (!(error instanceof Breach)) throw error;
    }
  }
  return "";
}

const RANDOM: readonly (readonly [keyof Rules, RegExp])[] = [
  ["incarnations", /^(V2|V4|R5|G1|G2)/],
  ["promiseSet", /^(V1|V2|R5)/],
  ["noRenew", /^V3: \d+ grant/],
  ["acceptAfterGrants", /^V4/],
  ["openBarrier", /^(V2|V4|R5)/],
  ["reconcile", /^(V2|R5)/],
  ["joinersCommit", /^(V2|V4|R5)/],
  ["readGrants", /^V4/],
  ["oneBase", /^(V2|R5)/],
];

describe("membership without one rule", () => {
  for (const [rule, expected] of RANDOM) {
    test(`${rule}`, () => {
      expect(ALL_RULES[rule]).toBe(true);
      expect(search({ [rule]: false })).toMatch(expected);
    }, 30_000);
  }

  test("voterWait: a restarted witness forgets its grant and decides under a reader", () => {
    expect(forgetfulWitness({})).toBe("");
    expect(forgetfulWitness({ voterWait: false })).toMatch(/^V4/);
  });

  test("voterAmnesia: a witness without its file elects the copy that was left behind", () => {
    expect(amnesiacWitness({})).toBe("");
    expect(amnesiacWitness({ voterAmnesia: false })).toMatch(/^(V2|V4)/);
  });
});

function settled(rules: Partial<Rules>, seed: number): Cluster {
  const cluster = new Cluster({ seed, kinds: ["data", "data", "witness"], rules });
  cluster.startAll();
  cluster.every(3, () => {
    for (const host of cluster.hosts) host.read();
  });
  cluster.every(11, () => {
    for (const host of cluster.hosts) host.write();
  });
  const ready = (): boolean =>
    cluster.hosts.every(
      (host) => host.kind !== "data" || (host.machine?.view?.members.length === 2 && isOpen(host)),
    );
  if (!cluster.runUntil(5000, ready)) throw new Error("the cluster does not settle");
  cluster.run(400);
  return cluster;
}

function isOpen(host: Cluster["hosts"][number]): boolean {
  return host.machine?.isOpen === true;
}

function breachOf(work: () => void): string {
  try {
    work();
  } catch (error) {
    if (error instanceof Breach) return error.message;
    throw error;
  }
  return "";
}

/**
 * Alpha loses beta, beta proposes itself, the witness promises beta while its last grant to alpha
 * still runs; then it restarts and loses alpha too.
 */
function forgetfulWitness(rules: Partial<Rules>): string {
  for (let seed = 1; seed <= 5; seed += 1) {
    const cluster = settled(rules, seed);
    // It is beta who must notice first: alpha's own proposal would seal alpha.
    cluster.filter = (from, _to, message) =>
      from === 0 && (message?.kind === "canvass" || message?.kind === "prepare");
    const breach = breachOf(() => {
      cluster.isolate(0, [1]);
      cluster.unlink(0, 1);
      cluster.run(700);
      cluster.isolate(0, [2]);
      cluster.stop(2, "power");
      cluster.run(2);
      cluster.start(2);
      cluster.run(800);
    });
    if (breach !== "") return breach;
  }
  return "";
}

/** Beta goes on alone and commits; then beta is cut off and the witness loses its file. */
function amnesiacWitness(rules: Partial<Rules>): string {
  const cluster = settled(rules, 1);
  return breachOf(() => {
    cluster.isolate(0, [1, 2]);
    cluster.unlink(0, 1);
    cluster.unlink(0, 2);
    cluster.run(2500);
    cluster.stop(2, "power");
    cluster.hosts[2]!.votes = null;
    cluster.isolate(1, [0, 2]);
    cluster.unlink(1, 2);
    cluster.isolate(0, [2], false);
    cluster.start(2);
    cluster.run(4000);
    cluster.heal();
    cluster.run(3000);
  });
}

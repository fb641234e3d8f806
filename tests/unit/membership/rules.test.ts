/** The pure parts by table: R3 and R12 (choose), R5 (plan), R13 (line). */
import { describe, expect, test } from "bun:test";
import { ALL_RULES } from "../../../core/base/rules.ts";
import { hostId } from "../../../core/base/units.ts";
import {
  type Ballot,
  FLAG,
  LINE_MAX,
  type Member,
  type Position,
  type View,
  type ViewRecord,
} from "../../../core/format/membership_wire.ts";
import { type Choice, choose, type Promised } from "../../../core/membership/choose.ts";
import { extend, judge } from "../../../core/membership/line.ts";
import { planFor, unionOf } from "../../../core/membership/plan.ts";

const ABLE = FLAG.disk | FLAG.wantsIn | FLAG.voting;

function members(...pairs: (readonly [number, number])[]): Member[] {
  return pairs.map(([host, inc]) => ({ host: hostId(host), inc }));
}

function positions(...pairs: (readonly [number, number])[]): Position[] {
  return pairs.map(([sender, seq]) => ({ sender: hostId(sender), seq }));
}

function view(epoch: number, inside: Member[], joining: Member[] = []): View {
  const voters = [hostId(0), hostId(1), hostId(2)];
  return { epoch, id: epoch, parent: 0, voters, members: inside, joining, forced: false };
}

function ballot(of: View): Ballot {
  return { view: of, opening: { from: 0, continuing: [], line: [] }, promisers: [] };
}

function record(epoch: number, from: number, cut: Position[] = [], forced = false): ViewRecord {
  return { epoch, id: epoch, from, forced, cut };
}

function promised(host: number, inc: number, more: Partial<Promised["promise"]> = {}): Promised {
  const promise: Promised["promise"] = {
    kind: "promise",
    epoch: 640,
    inc,
    voterInc: 1,
    accepted: null,
    newestOpen: 0,
    newestId: 0,
    openView: null,
    vector: [],
    flags: ABLE,
    intact: 0,
    quiet: 0,
    hears: 0b111,
    line: [],
    voters: [],
    ...more,
  };
  return { host: hostId(host), promise };
}

function reach(...pairs: (readonly [number, number])[]): Promised["promise"]["vector"] {
  return pairs.map(([sender, appended]) => ({ sender: hostId(sender), appended, committed: 0 }));
}

function chosen(list: Promised[], more: Partial<Parameters<typeof choose>[0]> = {}): Choice {
  return choose({
    self: hostId(0),
    epoch: 640,
    id: 9,
    promised: list,
    voters: [hostId(0), hostId(1), hostId(2)],
    isData: (host) => host < 3,
    nameOf: (host) => `host ${host}`,
    coldStart: "flushed",
    accused: 0,
    diverged: 0,
    connected: 0b111,
    rules: ALL_RULES,
    ...more,
  });
}

function viewOf(choice: Choice): View {
  if (!choice.ok) throw new Error(choice.why);
  return choice.ballot.view;
}

describe("R3 choose", () => {
  const last = view(128, members([0, 5], [1, 5]), members([2, 5]));
  const sawOpen = { newestOpen: 128, openView: last };

  test("P is the accepted view of the highest epoch, decided or not", () => {
    const older = { accepted: ballot(view(64, members([0, 5], [1, 5]))) };
    const newer = { accepted: ballot(view(130, members([1, 5]))) };
    const next = viewOf(chosen([promised(0, 5, older), promised(1, 5, newer)]));
    expect(next.parent).toBe(130);
    expect(next.members).toEqual(members([1, 5]));
    expect(next.joining).toEqual(members([0, 5]));
  });

  test("a restarted member joins; a complete joiner that saw it open is promoted", () => {
    const accepted = ballot(last);
    const next = viewOf(
      chosen([
        promised(0, 5, { accepted, ...sawOpen }),
        promised(1, 6, { accepted, newestOpen: 128 }),
        promised(2, 5, { accepted, ...sawOpen, flags: ABLE | FLAG.complete }),
      ]),
    );
    expect(next.members).toEqual(members([0, 5], [2, 5]));
    expect(next.joining).toEqual(members([1, 6]));
  });

  test("a joiner is not promoted if it is not complete, restarted, or did not see it open", () => {
    const accepted = ballot(last);
    const complete = ABLE | FLAG.complete;
    for (const joiner of [
      promised(2, 5, { accepted, ...sawOpen }),
      promised(2, 6, { accepted, newestOpen: 128, flags: complete }),
      promised(2, 5, { accepted, newestOpen: 64, flags: complete }),
    ]) {
      const next = viewOf(chosen([promised(0, 5, { accepted, ...sawOpen }), joiner]));
      expect(next.members).toEqual(members([0, 5]));
      expect(next.joining.map((entry) => Number(entry.host))).toEqual([2]);
    }
  });

  test("leaving, accused and diskless members are left out, but never the last copy", () => {
    const accepted = ballot(last);
    const zero = promised(0, 5, { accepted, ...sawOpen });
    const one = (flags: number): Promised => promised(1, 5, { accepted, ...sawOpen, flags });
    expect(viewOf(chosen([zero, one(ABLE | FLAG.leaving)])).members).toEqual(members([0, 5]));
    expect(viewOf(chosen([zero, one(FLAG.voting)])).members).toEqual(members([0, 5]));
    expect(viewOf(chosen([zero, one(ABLE)], { accused: 0b10 })).members).toEqual(members([0, 5]));
    expect(viewOf(chosen([one(ABLE)], { accused: 0b10 })).members).toEqual(members([1, 5]));
  });

  test("hosts that do not hear each other do not get into one view", () => {
    const accepted = ballot(last);
    const next = viewOf(
      chosen([
        promised(0, 5, { accepted, ...sawOpen }),
        promised(1, 5, { accepted, ...sawOpen, hears: 0b011 }),
        promised(2, 7, { accepted, hears: 0b101 }),
      ]),
    );
    expect(next.members).toEqual(members([0, 5], [1, 5]));
    expect(next.joining).toEqual([]);
  });

  test("R5: the highest o counts, a lower one is nothing in it, dead lives do not count", () => {
    const parent = view(130, members([0, 5], [1, 5]), members([2, 6]));
    const accepted = ballot(parent);
    const choice = chosen([
      promised(0, 5, { accepted, ...sawOpen, vector: reach([0, 7]) }),
      promised(1, 5, { accepted, newestOpen: 64, vector: reach([0, 99]) }),
      promised(2, 6, { accepted, newestOpen: 256, vector: reach([0, 500]) }),
    ]);
    if (!choice.ok) throw new Error(choice.why);
    const { opening } = choice.ballot;
    expect(opening.from).toBe(128);
    expect(opening.continuing).toEqual([
      { host: hostId(0), vector: positions([0, 7]) },
      { host: hostId(1), vector: [] },
    ]);
  });

  test("R13: a joiner with more committed than the cut has diverged and is not taken", () => {
    const accepted = ballot(view(128, members([0, 5], [1, 5])));
    const line = [record(128, 64)];
    const base = promised(0, 5, {
      accepted,
      newestOpen: 128,
      openView: view(128, members([0, 5], [1, 5])),
      line,
      vector: reach([0, 7]),
    });
    const ahead = (committed: number): Promised =>
      promised(2, 9, {
        accepted,
        newestOpen: 128,
        line,
        vector: [{ sender: hostId(0), appended: 20, committed }],
      });
    expect(viewOf(chosen([base, ahead(7)])).joining).toEqual(members([2, 9]));
    const refused = chosen([base, ahead(8)]);
    expect(viewOf(refused).joining).toEqual([]);
    expect(refused.ok && refused.diverged).toBe(0b100);
  });
});

describe("R12 cold start", () => {
  const last = view(128, members([0, 5], [1, 5]));
  const accepted = ballot(last);

  test("one base: intact machine, then highest o, greatest sum, lowest id", () => {
    const at = (host: number, more: Partial<Promised["promise"]>): Promised =>
      promised(host, 6, { accepted, newestOpen: 128, ...more });
    const cases: [Partial<Promised["promise"]>, Partial<Promised["promise"]>, number][] = [
      [{ vector: reach([0, 9]) }, { vector: reach([0, 2]), intact: 128 }, 1],
      [{ vector: reach([0, 9]) }, { vector: reach([0, 2]), intact: 64 }, 0],
      [{ vector: reach([0, 9]), newestOpen: 64 }, { vector: reach([0, 2]) }, 1],
      [{ vector: reach([0, 4], [1, 4]) }, { vector: reach([0, 9]) }, 1],
      [{ vector: reach([0, 4], [1, 4]) }, { vector: reach([0, 8]) }, 0],
    ];
    for (const [zero, one, base] of cases) {
      const choice = chosen([at(0, zero), at(1, one)]);
      const next = viewOf(choice);
      expect(next.members).toEqual(members([base, 6]));
      expect(next.joining).toEqual(members([1 - base, 6]));
      expect(choice.ok && choice.ballot.opening.continuing.length).toBe(1);
    }
  });

  test("a store that lost records is the base only if every last member's did", () => {
    const lossy = { accepted, flags: ABLE | FLAG.losses, newestOpen: 128 };
    const best = promised(0, 6, { ...lossy, intact: 128, vector: reach([0, 9]) });
    const whole = promised(1, 6, { accepted, newestOpen: 64 });
    expect(viewOf(chosen([best, whole])).members).toEqual(members([1, 6]));
    const other = promised(1, 6, { ...lossy, vector: reach([0, 8]) });
    const choice = chosen([best, other]);
    expect(viewOf(choice).members).toEqual(members([0, 6]));
    expect(choice).toMatchObject({ cold: true, hasLosses: true });
    expect(chosen([best, whole])).toMatchObject({ cold: true, hasLosses: false });
    // Alone it waits, however long the other is away.
    const witness = promised(2, 1, { accepted, quiet: 0b010, flags: 0 });
    const alone = chosen([promised(0, 6, { ...lossy, quiet: 0b010 }), witness]);
    const why = "durable records of host 0's store are lost: waiting for host 1";
    expect(alone).toEqual({ ok: false, why });
  });

  test("some members: only if no promiser heard the others for cold_wait", () => {
    const zero = promised(0, 6, { accepted, quiet: 0b010 });
    const witness = (quiet: number): Promised => promised(2, 1, { accepted, quiet, flags: 0 });
    expect(chosen([zero, witness(0b010)]).ok).toBe(true);
    const waiting = chosen([zero, witness(0)]);
    expect(waiting).toEqual({ ok: false, why: "cold start: still waiting for host 1" });
    expect(chosen([zero, witness(0b010)], { coldStart: "all" }).ok).toBe(false);
  });

  test("G6: without a member of P there is no view", () => {
    const stranger = promised(2, 6, { accepted, newestOpen: 999, vector: reach([0, 999]) });
    expect(chosen([stranger, promised(3, 1, { accepted, flags: 0 })])).toEqual({
      ok: false,
      why: "waiting for host 0 and host 1, who held the newest writes",
    });
  });
});

describe("R5 plan", () => {
  const opening = {
    from: 64,
    continuing: [
      { host: hostId(0), vector: positions([0, 10], [1, 3]) },
      { host: hostId(1), vector: positions([0, 8], [1, 5]) },
      { host: hostId(2), vector: positions([0, 10]) },
    ],
    line: [],
  };
  const of: Ballot = { view: view(128, members([0, 1], [1, 1])), opening, promisers: [] };

  test("the most advanced, the lowest id among equals, sends what others lack", () => {
    expect(unionOf(opening)).toEqual(positions([0, 10], [1, 5]));
    const [zero, one, two, other] = [0, 1, 2, 3].map((host) => planFor(hostId(host), of));
    expect(zero!.sends).toEqual([{ to: hostId(1), sender: hostId(0), fromSeq: 9, toSeq: 10 }]);
    expect(one!.sends).toEqual([
      { to: hostId(0), sender: hostId(1), fromSeq: 4, toSeq: 5 },
      { to: hostId(2), sender: hostId(1), fromSeq: 1, toSeq: 5 },
    ]);
    expect(two!.sends).toEqual([]);
    expect(two!.mustReach).toEqual(positions([0, 10], [1, 5]));
    expect(other).toEqual({ ...other!, continuing: false, sends: [], mustReach: [] });
  });
});

describe("R13 line", () => {
  const line = [record(64, 0), record(128, 64, positions([0, 10])), record(300, 128)];
  const stand = (newestOpen: number, committed: Position[] = [], more = {}) => ({
    newestOpen,
    newestId: newestOpen,
    committed,
    forced: 0,
    ...more,
  });

  test("behind, same, diverged, unknown", () => {
    expect(judge(stand(0), line)).toBe("behind");
    expect(judge(stand(300), line)).toBe("same");
    expect(judge(stand(64, positions([0, 10])), line)).toBe("behind");
    expect(judge(stand(64, positions([0, 11])), line)).toBe("diverged");
    expect(judge(stand(64, positions([1, 1])), line)).toBe("diverged");
    // A view that opened somewhere else, in which nothing can have been committed.
    expect(judge(stand(200), line)).toBe("behind");
    expect(judge(stand(200, positions([0, 1])), line)).toBe("diverged");
    expect(judge(stand(500), line)).toBe("unknown");
    expect(judge(stand(64), [record(300, 128)])).toBe("unknown");
  });

  test("another view of the same number, and a forced view we never had, are divergence", () => {
    expect(judge(stand(128, [], { newestId: 5 }), line)).toBe("diverged");
    expect(judge(stand(128, [], { newestId: 0 }), line)).toBe("behind");
    expect(judge(stand(128, [], { forced: 70 }), line)).toBe("diverged");
    const forced = [record(64, 0), record(70, 64, [], true), record(128, 70)];
    expect(judge(stand(128, [], { forced: 70 }), forced)).toBe("same");
  });

  test("the line is bounded and stays in order", () => {
    let long: ViewRecord[] = [];
    for (let epoch = 64; epoch < 64 * 40; epoch += 64) long = extend(long, record(epoch, 0));
    expect(long.length).toBe(LINE_MAX);
    expect(long.at(-1)!.epoch).toBe(64 * 39);
    expect(extend(long, record(64 * 38, 0)).at(-1)!.epoch).toBe(64 * 38);
  });
});

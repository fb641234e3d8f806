/** Following a recovery: begun once and only when needed, waited for, refusals passed on. */
import { describe, expect, test } from "bun:test";
import { refusal } from "../../../cmd/exit.ts";
import { Progress } from "../../../cmd/progress.ts";
import { followRecovery, type RecoveryTarget } from "../../../cmd/recovery.ts";
import type { StatusDocument } from "../../../cmd/status_document.ts";

type State = readonly [state: string, disk: string];

function statusOf([state, disk]: State): StatusDocument {
  return {
    cluster: "c",
    host: "alpha",
    version: "1",
    view: { epoch: 1, members: [], joining: [], majority: true, open: true, why: "" },
    hosts: [
      {
        name: "alpha",
        kind: "data",
        connected: true,
        state,
        disk,
        why: "",
        paths: [],
        store: null,
      },
    ],
    volumes: [],
    resync: [],
  };
}

/** A host that goes through `states`, one per question; the last one stays. */
class ScriptedHost implements RecoveryTarget {
  patienceMs = 0;
  begun = 0;
  asked = 0;
  private readonly states: readonly State[];
  private readonly refusal: Error | null;

  constructor(states: readonly State[], refused: Error | null = null) {
    this.states = states;
    this.refusal = refused;
  }

  async status(): Promise<StatusDocument> {
    const state = this.states[Math.min(this.asked, this.states.length - 1)] as State;
    this.asked += 1;
    return statusOf(state);
  }

  async isReady(): Promise<boolean> {
    return true;
  }

  async begin(): Promise<void> {
    this.begun += 1;
    if (this.refusal !== null) throw this.refusal;
  }
}

const quiet = (): Progress => new Progress({ write: () => {} });

describe("following", () => {
  test("a host that is well needs nothing", async () => {
    const host = new ScriptedHost([["in-sync", "ok"]]);
    const status = await followRecovery(host, false, quiet());
    expect(status.hosts[0]?.state).toBe("in-sync");
    expect(host.begun).toBe(0);
  });

  test("a resync that goes on is only waited for", async () => {
    const host = new ScriptedHost([
      ["behind", "ok"],
      ["syncing", "ok"],
      ["in-sync", "ok"],
    ]);
    await followRecovery(host, false, quiet());
    expect(host.begun).toBe(0);
    expect(host.asked).toBe(3);
  });

  test("a failed disk is begun once", async () => {
    const host = new ScriptedHost([
      ["diskless", "failed"],
      ["diskless", "none"],
      ["syncing", "ok"],
      ["in-sync", "ok"],
    ]);
    await followRecovery(host, false, quiet());
    expect(host.begun).toBe(1);
  });

  test("another disk that is asked for is begun even on a host that is well", async () => {
    const host = new ScriptedHost([["in-sync", "ok"]]);
    await followRecovery(host, true, quiet());
    expect(host.begun).toBe(1);
  });

  test("a refusal of a host that has just started may not be its last word", async () => {
    const host = new ScriptedHost(
      [
        ["diskless", "failed"],
        ["diskless", "failed"],
        ["in-sync", "ok"],
      ],
      refusal("no host in sync is connected"),
    );
    host.patienceMs = 60_000;
    await followRecovery(host, false, quiet());
    expect(host.begun).toBe(2);
  });

  test("a refusal ends it", async () => {
    const host = new ScriptedHost([["diskless", "failed"]], refusal("it holds the only good copy"));
    await expect(followRecovery(host, false, quiet())).rejects.toThrow("only good copy");
    expect(host.begun).toBe(1);
  });
});

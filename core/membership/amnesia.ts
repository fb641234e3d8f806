/**
 * R14: a voter that lost its memory, or finds it older than what its peers know, votes again only
 * after n - m + 1 other voters (all others, if there are fewer) gave it their (promised, accepted)
 * and recorded its new voterInc durably. It takes the maxima.
 *
 * A brand-new cluster has nobody to ask. It is told from amnesia like this: all other voters have
 * answered, none of them has ever accepted a view, and no store of theirs or ours has seen one.
 * So the very first start needs every voter once; a single host is a cluster of its own.
 */
import type { Epoch, HostId } from "../base/units.ts";
import type { Ballot, MessageOf } from "../format/membership_wire.ts";
import type { Grants } from "./grants.ts";
import type { Ground } from "./ground.ts";
import type { Keeper } from "./keeper.ts";
import type { Peers } from "./peers.ts";

export class Amnesia {
  private readonly ground: Ground;
  private readonly keeper: Keeper;
  private readonly peers: Peers;
  private readonly grants: Grants;
  private readonly answers = new Map<HostId, MessageOf<"answer">>();

  constructor(ground: Ground, keeper: Keeper, peers: Peers, grants: Grants) {
    this.ground = ground;
    this.keeper = keeper;
    this.peers = peers;
    this.grants = grants;
  }

  /** This voter may not vote yet. */
  get isBlank(): boolean {
    return this.ground.votes && !this.keeper.state.voting;
  }

  /** Why this host does not vote; "" if it does. */
  why(): string {
    if (!this.isBlank) return "";
    const missing = this.others().filter((host) => !this.answers.has(host));
    const names = missing.map((host) => this.ground.nameOf(host)).join(" and ");
    if (names !== "")
      return `this host has no memory of earlier votes and must hear ${names} first`;
    return "too many hosts lost the memory of their votes; an operator must say which copy counts";
  }

  /** A peer knows a life of ours that is not older than this one: our memory is an old copy. */
  foundStale(inc: number): void {
    if (!this.ground.rules.voterAmnesia) return;
    const next = Math.min(Math.max(inc, this.keeper.state.inc) + 1, 0xffffffff);
    // A random distance keeps us clear of lives that only an absent host knows.
    const raised = Math.min(next + Math.floor(this.ground.random(1000)), 0xffffffff);
    this.answers.clear();
    const text = "The voter file is older than what the other hosts know; asking them.";
    this.ground.trace.event("warn", "votes.stale", text, { inc: raised });
    this.keeper.write({ inc: raised, voterInc: raised, voting: false }, null);
    this.grants.restarted(true);
  }

  ask(): void {
    if (!this.isBlank || this.keeper.durable.voterInc !== this.keeper.state.voterInc) return;
    const { voterInc } = this.keeper.state;
    for (const host of this.others()) {
      const known = this.answers.get(host);
      if (known?.voting) continue;
      if (this.peers.isReady(host)) this.ground.send(host, { kind: "inquire", voterInc });
    }
    this.evaluate();
  }

  onInquire(from: HostId, { voterInc }: MessageOf<"inquire">): void {
    const { keeper, ground } = this;
    const old = keeper.knownOf(from);
    if (old === null || voterInc < old.voterInc) return;
    keeper.know({ ...old, voterInc }, () => {
      ground.send(from, {
        kind: "answer",
        voterInc,
        voting: keeper.canVote,
        promised: keeper.state.promised,
        accepted: keeper.state.accepted,
        newestOpen: ground.local.newestOpen,
      });
    });
  }

  onAnswer(from: HostId, message: MessageOf<"answer">): void {
    if (!this.isBlank || message.voterInc !== this.keeper.state.voterInc) return;
    if (!this.ground.voters.includes(from)) return;
    this.answers.set(from, message);
    this.evaluate();
  }

  private evaluate(): void {
    const { ground, keeper } = this;
    if (!this.isBlank) return;
    const others = this.others();
    const informed = [...this.answers.values()].filter((answer) => answer.voting).length;
    if (others.length === 0) {
      this.adopt(ground.local.newestOpen, null);
      return;
    }
    if (!ground.rules.voterAmnesia) {
      this.adopt(0, null);
      return;
    }
    const isNew =
      this.answers.size === others.length &&
      keeper.state.accepted === null &&
      ground.local.newestOpen === 0 &&
      [...this.answers.values()].every((one) => one.accepted === null && one.newestOpen === 0);
    if (informed < Math.min(ground.blocking, others.length) && !isNew) return;
    let promised = 0;
    let accepted: Ballot | null = null;
    for (const answer of this.answers.values()) {
      promised = Math.max(promised, answer.promised, answer.accepted?.view.epoch ?? 0);
      const epoch = answer.accepted?.view.epoch ?? 0;
      if (epoch > (accepted?.view.epoch ?? 0)) accepted = answer.accepted;
    }
    if (isNew) this.grants.none();
    this.adopt(promised, accepted);
  }

  private adopt(promised: Epoch, accepted: Ballot | null): void {
    const { keeper } = this;
    const own = keeper.state.accepted;
    const newer = (accepted?.view.epoch ?? 0) > (own?.view.epoch ?? 0) ? accepted : own;
    this.answers.clear();
    keeper.write(
      { voting: true, promised: Math.max(promised, keeper.state.promised), accepted: newer },
      null,
    );
    this.ground.trace.event("info", "votes.ready", "This host votes now.", {
      promised: keeper.state.promised,
    });
  }

  private others(): HostId[] {
    return this.ground.voters.filter((host) => host !== this.ground.self);
  }
}

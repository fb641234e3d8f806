/**
 * What the parts of the membership machine share: identity, roster, ports, the time of the
 * current turn, and the host's state. Messages to ourselves go the same way as all others, so
 * that a proposer's own vote needs no special case.
 */
import type { Entropy, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { HostId } from "../base/units.ts";
import { FLAG, majorityOf, type MembershipMessage, type View } from "../format/membership_wire.ts";
import type { LocalState, MembershipHost, MembershipOptions, MembershipSink } from "./contract.ts";

const NO_STATE: LocalState = {
  hasStore: false,
  diskOk: false,
  complete: false,
  hasLosses: false,
  newestOpen: 0,
  vector: [],
  wantsIn: false,
  boot: "",
  history: [],
};

export class Ground {
  readonly self: HostId;
  readonly options: MembershipOptions;
  readonly sink: MembershipSink;
  readonly entropy: Entropy;
  readonly trace: Trace;
  readonly rules: Rules;
  /** Hosts that vote: data and witness, in id order. */
  readonly voters: readonly HostId[];
  readonly votes: boolean;
  readonly isData: boolean;
  /** Time of the current turn, never going back. */
  nowMs = 0;
  startMs = 0;
  local: LocalState = NO_STATE;
  leaving = false;
  /** Messages to ourselves, handled before the turn ends. */
  readonly inbox: MembershipMessage[] = [];
  private strangeEpoch = 0;
  private readonly names = new Map<HostId, MembershipHost>();

  constructor(
    options: MembershipOptions,
    ports: { sink: MembershipSink; entropy: Entropy; trace: Trace; rules: Rules },
  ) {
    this.options = options;
    this.self = options.self;
    this.sink = ports.sink;
    this.entropy = ports.entropy;
    this.trace = ports.trace;
    this.rules = ports.rules;
    for (const host of options.hosts) this.names.set(host.id, host);
    this.voters = options.hosts
      .filter((host) => host.kind !== "client")
      .map((host) => host.id)
      .sort((one, other) => one - other);
    const kind = this.names.get(options.self)?.kind;
    this.votes = kind !== "client";
    this.isData = kind === "data";
  }

  get majority(): number {
    return majorityOf(this.voters.length);
  }

  /** Voters that every majority meets: n - m + 1 (R7, R14). */
  get blocking(): number {
    return this.voters.length - this.majority + 1;
  }

  nameOf(host: HostId): string {
    // Short enough for every sentence that goes over the wire.
    return (this.names.get(host)?.name ?? "a host outside the roster").slice(0, 60);
  }

  namesOf(hosts: readonly { readonly host: HostId }[]): string {
    return hosts.map((entry) => this.nameOf(entry.host)).join(" and ");
  }

  isDataHost(host: HostId): boolean {
    return this.names.get(host)?.kind === "data";
  }

  /** A view of other voters than ours is not ours to accept: the configs differ. */
  agreesOnVoters(view: View): boolean {
    const { voters } = this;
    const same =
      view.voters.length === voters.length && view.voters.every((one) => voters.includes(one));
    if (!same && this.strangeEpoch < view.epoch) {
      this.strangeEpoch = view.epoch;
      const text = "A view names other voters than this host's config; it was not accepted.";
      this.trace.event("error", "view.voters", text, { epoch: view.epoch });
    }
    return same;
  }

  send(to: HostId, message: MembershipMessage): void {
    if (to === this.self) this.inbox.push(message);
    else this.sink.send(to, message);
  }

  /** Uniform in [0, boundMs). */
  random(boundMs: number): number {
    return (this.entropy.u32() / 4294967296) * boundMs;
  }

  flags(voting: boolean): number {
    const { hasStore, diskOk, wantsIn, complete, hasLosses } = this.local;
    let flags = 0;
    if (this.isData && hasStore && diskOk) flags |= FLAG.disk;
    if (this.isData && wantsIn) flags |= FLAG.wantsIn;
    if (complete) flags |= FLAG.complete;
    if (hasLosses) flags |= FLAG.losses;
    if (this.leaving) flags |= FLAG.leaving;
    if (voting) flags |= FLAG.voting;
    return flags;
  }
}

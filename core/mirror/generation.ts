/**
 * One epoch's streams. The mirror has two: that of its view, and the one before it, which is
 * needed until the new view is open on this host (R5 sends what others lack from there).
 */
import { LIMITS } from "../base/limits.ts";
import type { Rules } from "../base/rules.ts";
import { type Epoch, type HostId, hostId } from "../base/units.ts";
import { InStream } from "./in_stream.ts";
import type { MirrorCounters, MirrorOptions, MirrorSink, StreamPosition } from "./mirror_sink.ts";
import { OutStream } from "./out_stream.ts";

export class Generation {
  readonly epoch: Epoch;
  readonly self: HostId;
  /** R2: nothing is sent, appended or acknowledged any more. */
  sealed = false;
  /** OPEN: this host may send. */
  opened = false;
  /** Null if this host is no member: it only receives. */
  readonly out: OutStream | null;
  /** By sender; null for hosts that are no members, and for this host. */
  readonly ins: readonly (InStream | null)[];
  readonly recipients: readonly HostId[];
  readonly members: readonly HostId[];
  private readonly recipientMask = new Uint8Array(LIMITS.hostCountMax);

  constructor(
    identity: { epoch: Epoch; self: HostId },
    sets: { recipients: readonly HostId[]; members: readonly HostId[] },
    streams: { out: OutStream | null; ins: readonly (InStream | null)[] },
  ) {
    this.epoch = identity.epoch;
    this.self = identity.self;
    this.recipients = sets.recipients;
    this.members = sets.members;
    this.out = streams.out;
    this.ins = streams.ins;
    for (const host of sets.recipients) this.recipientMask[host] = 1;
  }

  isRecipient(host: HostId): boolean {
    return this.recipientMask[host] === 1;
  }

  /** True if this epoch counts as seen: it was OPEN here, or there is a record of it. */
  get isSeen(): boolean {
    if (this.opened || (this.out !== null && this.out.appended > 0)) return true;
    return this.ins.some((stream) => stream !== null && stream.next > 1);
  }

  vector(): StreamPosition[] {
    return this.members.map((sender) => this.positionOf(sender));
  }

  positionOf(sender: HostId): StreamPosition {
    if (sender === this.self && this.out !== null) {
      return { sender, appended: this.out.appended, committed: this.out.committed };
    }
    const stream = this.ins[sender] ?? null;
    if (stream === null) return { sender, appended: 0, committed: 0 };
    return { sender, appended: stream.next - 1, committed: stream.committed };
  }
}

/** What all generations of a mirror share. */
export interface GenerationParts {
  readonly options: MirrorOptions;
  readonly sink: MirrorSink;
  readonly rules: Rules;
  readonly counters: MirrorCounters;
}

/** Empty streams for a view; this host sends only if it is a member (R6). */
export function makeGeneration(
  epoch: Epoch,
  sets: { recipients: readonly HostId[]; members: readonly HostId[] },
  parts: GenerationParts,
): Generation {
  const { self } = parts.options;
  const { members } = sets;
  const peers = sets.recipients.filter((host) => host !== self);
  const windowBytes = Math.min(parts.options.windowBytes ?? Infinity, LIMITS.windowBytes);
  const windowRecords = Math.min(parts.options.windowRecords ?? Infinity, LIMITS.windowRecordsMax);
  const out = members.includes(self)
    ? new OutStream({ self, epoch, peers, members, windowBytes, windowRecords }, parts.rules)
    : null;
  const ins: (InStream | null)[] = [];
  for (let index = 0; index < LIMITS.hostCountMax; index += 1) {
    const sender = hostId(index);
    const isSender = sender !== self && members.includes(sender);
    // R5 can only be asked by a third host: the sender has its own stream, this one its part.
    const retains = peers.some((host) => host !== sender);
    ins.push(isSender ? new InStream(sender, retains, parts.sink, parts.counters) : null);
  }
  return new Generation({ epoch, self }, sets, { out, ins });
}

/**
 * Control messages of the other hosts, decoded and handed to the machine whose channel they came
 * on. Bytes that do not decode end the link they came by (G9).
 */
import { must } from "../base/assert.ts";
import type { HostId } from "../base/units.ts";
import { decode } from "../format/codec.ts";
import { CHANNEL, HOST_MESSAGE, type HostMessage } from "../format/host_wire.ts";
import { leaseMessage } from "../format/lease_wire.ts";
import { membershipMessage } from "../format/membership_wire.ts";
import { MIRROR_MESSAGE } from "../format/mirror_wire.ts";
import type { Composition } from "./compose.ts";

export class ControlIn {
  private readonly made: Composition;

  constructor(made: Composition) {
    this.made = made;
  }

  /** One control message; false when it does not decode. */
  readonly take = (
    peer: HostId,
    channel: number,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): boolean => {
    const { parts, points } = this.made;
    const { nowMs } = parts;
    switch (channel) {
      case CHANNEL.membership: {
        const message = decode(membershipMessage, buffer, at, length);
        if (message === null) return false;
        parts.membership.control(nowMs, peer, message);
        return true;
      }
      case CHANNEL.lease: {
        const message = decode(leaseMessage, buffer, at, length);
        if (message === null) return false;
        if (message.kind === "synced") points.control(nowMs, peer, message);
        else parts.policing.control(nowMs, peer, message);
        return true;
      }
      case CHANNEL.mirror: {
        const message = decode(MIRROR_MESSAGE, buffer, at, length);
        if (message === null) return false;
        parts.mirror.control(nowMs, peer, message);
        return true;
      }
      case CHANNEL.host: {
        const message = decode(HOST_MESSAGE, buffer, at, length);
        if (message === null) return false;
        this.takeMessage(peer, message);
        return true;
      }
      default:
        return false;
    }
  };

  private takeMessage(from: HostId, message: HostMessage): void {
    const { peers, source, target, parts } = this.made;
    switch (message.kind) {
      case "state": {
        const peer = must(peers.get(from), "host: message from nobody");
        const { kind: _, ...state } = message;
        peer.state = state;
        this.made.noteRoom();
        return;
      }
      case "copyStart":
        if (source.begin(from, message)) this.made.tellCopyTotal(from, message.session);
        return;
      case "copyCredit":
        source.credit(from, message.session, message.credits);
        return;
      case "copyStop":
        source.end(from);
        return;
      case "copyTotal":
        if (!target.isSession(from, message.session)) return;
        target.totalBytes = message.totalBytes;
        this.made.tooSmall(message.totalBytes);
        return;
      case "recentRequests":
        for (const each of message.origins) {
          parts.recent.learn(each.origin, each.originInc, each.requests);
        }
    }
  }
}

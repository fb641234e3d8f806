/**
 * Requests of a host without a complete store (joining, diskless, excluded, client kind) are
 * executed by a member, its proxy (R15). Both ends are here.
 *
 * The origin sends piece by piece (pieces.ts for writes, 512 KiB for the rest), one in flight per
 * request. When a proxy dies or says "again", the piece goes to another member, marked as a retry;
 * the new proxy finds by its request number whether its record exists already. A slot's
 * generation grows with every piece sent, so an answer that comes too late finds nobody.
 */
import { hostId, type HostId, type VolumeId, volumeId } from "../base/units.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { COMMAND } from "../format/nbd.ts";
import { BULK, FORWARD, FORWARD_AGAIN, FORWARD_REPLY } from "../format/host_wire.ts";
import { viewOf } from "../format/layout.ts";
import { type Op, OP_STATE } from "./op.ts";
import type { Parts } from "./parts.ts";
import { nextPiece, Piece } from "./pieces.ts";

const STEP_BYTES = 128 * BLOCK_BYTES;

interface Reply {
  readonly to: HostId;
  readonly frame: Uint8Array;
}

export class Forwarding {
  private readonly parts: Parts;
  private readonly piece = new Piece();
  /** Ops out at a proxy (away) or being repaired. */
  private readonly away = new Set<Op>();
  /** Replies that found the data lane full; bounded by the ops in flight. */
  private replies: Reply[] = [];
  private readonly repaired: (op: Op, outcome: Outcome) => void;
  private readonly replyExtents: (op: Op, pairs: number[]) => void;

  constructor(
    parts: Parts,
    repaired: (op: Op, outcome: Outcome) => void,
    replyExtents: (op: Op, pairs: number[]) => void,
  ) {
    this.parts = parts;
    this.repaired = repaired;
    this.replyExtents = replyExtents;
  }

  /** Sends the op's next piece to `proxy`. False if the data lane is full: park the op. */
  send(op: Op, proxy: HostId): boolean {
    const range = this.pieceRange(op);
    if (!this.sendPiece(op, proxy, range.offset, range.lengthBytes, false)) return false;
    op.state = OP_STATE.away;
    return true;
  }

  /** Asks `member` for a good copy of `blockCount` blocks from `op.cursorLba`. */
  askRepair(op: Op, member: HostId, blockCount: number): boolean {
    const offset = op.cursorLba * BLOCK_BYTES;
    if (!this.sendPiece(op, member, offset, blockCount * BLOCK_BYTES, true)) return false;
    op.state = OP_STATE.repair;
    return true;
  }

  /** The connection to a proxy broke, or it left the view: its pieces go elsewhere. */
  lost(proxy: HostId): void {
    for (const op of [...this.away]) {
      if (op.proxy === proxy) this.again(op);
    }
    this.replies = this.replies.filter((reply) => reply.to !== proxy);
  }

  /** Takes back every op, e.g. because this host serves by itself now. */
  recall(): void {
    for (const op of [...this.away]) this.again(op);
  }

  /** Proxy: a request to execute, as an op. False if the frame is malformed. */
  request(from: HostId, buffer: Uint8Array, at: number, length: number): boolean {
    if (length < FORWARD.sizeBytes) return false;
    const view = viewOf(buffer);
    const lengthBytes = FORWARD.lengthBytes.get(view, at);
    const command = FORWARD.command.get(view, at);
    const hasData = command === COMMAND.write;
    if (length !== FORWARD.sizeBytes + (hasData ? lengthBytes : 0)) return false;
    const op = this.parts.ops.take();
    if (op === null) {
      this.answer(from, FORWARD.slot.get(view, at), FORWARD.generation.get(view, at), -1, null);
      return true;
    }
    op.remoteHost = from;
    op.remoteSlot = FORWARD.slot.get(view, at);
    op.remoteGeneration = FORWARD.generation.get(view, at);
    const flags = FORWARD.flags.get(view, at);
    op.command = command;
    op.fua = (flags & 1) !== 0;
    op.noHole = (flags & 2) !== 0;
    op.priority = FORWARD.priority.get(view, at) & 7;
    op.volume = volumeId(FORWARD.volume.get(view, at));
    op.offset = FORWARD.offset.get(view, at);
    op.lengthBytes = lengthBytes;
    op.origin = hostId(FORWARD.origin.get(view, at));
    op.originInc = FORWARD.originInc.get(view, at);
    op.requestBase = FORWARD.request.get(view, at);
    op.retry = FORWARD.retry.get(view, at) === 1;
    // A first try is of now, whatever view its origin has heard of.
    op.firstEpoch = op.retry ? FORWARD.firstEpoch.get(view, at) : 0;
    op.localOnly = FORWARD.localOnly.get(view, at) === 1;
    // Bulk frames are lent to us until we return; a write outlives that.
    if (hasData) {
      const dataAt = at + FORWARD.sizeBytes;
      op.data = buffer.slice(dataAt, dataAt + lengthBytes);
      op.dataAt = 0;
    }
    if (!this.isSound(op)) {
      this.parts.ops.free(op);
      return false;
    }
    op.shared = this.parts.volumes.get(op.volume)?.mirror === "shared";
    op.span();
    this.parts.dispatch(op);
    return true;
  }

  /** Proxy: the answer to the origin. `again` = it must ask another member. */
  reply(op: Op, outcome: Outcome, again: boolean): void {
    const isRead = op.command === COMMAND.read && outcome === OUTCOME.ok && !again;
    const skip = op.offset - op.startLba * BLOCK_BYTES;
    const data = isRead
      ? op.buffer.subarray(op.bufferAt + skip, op.bufferAt + skip + op.lengthBytes)
      : null;
    this.answer(op.remoteHost, op.remoteSlot, op.remoteGeneration, again ? -1 : outcome, data);
  }

  /** Proxy: the answer to a BLOCK_STATUS. */
  replyPairs(op: Op, pairs: readonly number[]): void {
    const bytes = new Uint8Array(pairs.length * 4);
    const view = viewOf(bytes);
    for (const [index, value] of pairs.entries()) view.setUint32(index * 4, value, true);
    this.answer(op.remoteHost, op.remoteSlot, op.remoteGeneration, OUTCOME.ok, bytes);
  }

  /** Origin: a proxy's answer. False if the frame is malformed. */
  replied(from: HostId, buffer: Uint8Array, at: number, length: number): boolean {
    if (length < FORWARD_REPLY.sizeBytes) return false;
    const view = viewOf(buffer);
    const dataBytes = FORWARD_REPLY.lengthBytes.get(view, at);
    if (length !== FORWARD_REPLY.sizeBytes + dataBytes) return false;
    const slot = FORWARD_REPLY.slot.get(view, at);
    const op = slot < this.parts.ops.slots.length ? this.parts.ops.at(slot) : null;
    if (op === null || !this.away.has(op) || op.proxy !== from) return true;
    if (op.generation !== FORWARD_REPLY.generation.get(view, at)) return true;
    const outcome = FORWARD_REPLY.outcome.get(view, at);
    const data = buffer.subarray(at + FORWARD_REPLY.sizeBytes, at + length);
    if (op.state === OP_STATE.repair) this.tookRepair(op, outcome, data);
    else if (outcome === FORWARD_AGAIN) this.again(op);
    else this.tookPiece(op, outcome as Outcome, data);
    return true;
  }

  /** The data lane to `peer` has room again. */
  drained(peer: HostId): void {
    const waiting = this.replies;
    this.replies = [];
    for (const reply of waiting) {
      if (reply.to !== peer || !this.parts.mirror.sendBulk(this.parts.nowMs, peer, reply.frame)) {
        this.replies.push(reply);
      }
    }
  }

  private tookPiece(op: Op, outcome: Outcome, data: Uint8Array): void {
    this.away.delete(op);
    if (outcome !== OUTCOME.ok) {
      this.parts.finish(op, outcome);
      return;
    }
    const range = this.pieceRange(op);
    if (op.command === COMMAND.read) {
      if (data.length !== range.lengthBytes) {
        this.parts.finish(op, OUTCOME.io);
        return;
      }
      op.useReadBuffer();
      op.buffer.set(data, op.bufferAt + range.offset - op.startLba * BLOCK_BYTES);
    } else if (op.command === COMMAND.blockStatus) {
      this.tookPairs(op, data);
      return;
    }
    op.sentBytes = range.offset + range.lengthBytes - op.offset;
    op.cursorLba = Math.ceil((op.offset + op.sentBytes) / BLOCK_BYTES);
    op.pieces += 1;
    // The next piece is a first try, wherever the former went, unless it was executed before.
    op.retry = op.wasRewound;
    if (op.sentBytes >= op.lengthBytes) this.parts.finish(op, OUTCOME.ok);
    else this.parts.dispatch(op);
  }

  private tookPairs(op: Op, data: Uint8Array): void {
    const pairs: number[] = [];
    const view = viewOf(data);
    for (let at = 0; at + 8 <= data.length; at += 8) {
      pairs.push(view.getUint32(at, true), view.getUint32(at + 4, true));
    }
    if (pairs.length === 0) this.parts.finish(op, OUTCOME.io);
    else this.replyExtents(op, pairs);
  }

  private tookRepair(op: Op, outcome: number, data: Uint8Array): void {
    this.away.delete(op);
    const skip = op.command === COMMAND.read ? (op.cursorLba - op.startLba) * BLOCK_BYTES : 0;
    const ok = outcome === OUTCOME.ok && data.length % BLOCK_BYTES === 0 && data.length > 0;
    const fits = op.bufferAt + skip + data.length <= op.buffer.length;
    if (ok && fits) op.buffer.set(data, op.bufferAt + skip);
    if (outcome === FORWARD_AGAIN) this.repaired(op, OUTCOME.shutdown);
    else this.repaired(op, ok && fits ? OUTCOME.ok : OUTCOME.io);
  }

  private again(op: Op): void {
    this.away.delete(op);
    if (op.state === OP_STATE.repair) {
      this.repaired(op, OUTCOME.shutdown);
      return;
    }
    op.retry = true;
    this.parts.dispatch(op);
  }

  /** Bytes of the op's next piece. */
  private pieceRange(op: Op): { offset: number; lengthBytes: number } {
    const begun = op.offset + op.sentBytes;
    const left = op.lengthBytes - op.sentBytes;
    if (isWrite(op.command)) {
      op.cursorLba = Math.floor(begun / BLOCK_BYTES);
      const piece = nextPiece(op, this.piece);
      const end = Math.min(
        op.offset + op.lengthBytes,
        (piece.lba + piece.blockCount) * BLOCK_BYTES,
      );
      return { offset: begun, lengthBytes: end - begun };
    }
    if (op.command !== COMMAND.read) return { offset: begun, lengthBytes: left };
    return { offset: begun, lengthBytes: Math.min(left, STEP_BYTES - (begun % BLOCK_BYTES)) };
  }

  private sendPiece(
    op: Op,
    to: HostId,
    offset: number,
    lengthBytes: number,
    isRepair: boolean,
  ): boolean {
    const command = isRepair ? COMMAND.read : op.command;
    const dataBytes = command === COMMAND.write ? lengthBytes : 0;
    const frame = new Uint8Array(FORWARD.sizeBytes + dataBytes);
    const view = viewOf(frame);
    op.generation = (op.generation + 1) & 0xffff;
    if (op.firstEpoch === 0) op.firstEpoch = this.parts.membership.view?.epoch ?? 0;
    FORWARD.firstEpoch.set(view, 0, op.firstEpoch);
    FORWARD.kind.set(view, 0, BULK.forward);
    FORWARD.command.set(view, 0, command);
    FORWARD.flags.set(view, 0, (op.fua ? 1 : 0) | (op.noHole ? 2 : 0));
    FORWARD.priority.set(view, 0, op.priority);
    FORWARD.volume.set(view, 0, op.volume);
    FORWARD.offset.set(view, 0, offset);
    FORWARD.lengthBytes.set(view, 0, lengthBytes);
    FORWARD.slot.set(view, 0, op.index);
    FORWARD.request.set(view, 0, isWrite(command) ? op.requestBase + op.pieces : 0);
    FORWARD.originInc.set(view, 0, op.originInc);
    FORWARD.retry.set(view, 0, op.retry ? 1 : 0);
    FORWARD.origin.set(view, 0, op.origin);
    FORWARD.generation.set(view, 0, op.generation);
    FORWARD.localOnly.set(view, 0, isRepair ? 1 : 0);
    if (dataBytes > 0) {
      const dataAt = op.dataAt + offset - op.offset;
      frame.set(op.data.subarray(dataAt, dataAt + dataBytes), FORWARD.sizeBytes);
    }
    if (!this.parts.mirror.sendBulk(this.parts.nowMs, to, frame)) return false;
    op.proxy = to;
    this.away.add(op);
    return true;
  }

  private answer(
    to: HostId,
    slot: number,
    generation: number,
    outcome: number,
    data: Uint8Array | null,
  ): void {
    const dataBytes = data === null ? 0 : data.length;
    const frame = new Uint8Array(FORWARD_REPLY.sizeBytes + dataBytes);
    const view = viewOf(frame);
    FORWARD_REPLY.kind.set(view, 0, BULK.forwardReply);
    FORWARD_REPLY.outcome.set(view, 0, outcome < 0 ? FORWARD_AGAIN : outcome);
    FORWARD_REPLY.generation.set(view, 0, generation);
    FORWARD_REPLY.slot.set(view, 0, slot);
    FORWARD_REPLY.lengthBytes.set(view, 0, dataBytes);
    if (data !== null) frame.set(data, FORWARD_REPLY.sizeBytes);
    if (!this.parts.mirror.sendBulk(this.parts.nowMs, to, frame)) this.replies.push({ to, frame });
  }

  private isSound(op: Op): boolean {
    const volume = this.parts.volumes.get(op.volume as VolumeId);
    if (op.command === COMMAND.flush) return true;
    if (volume === undefined || op.lengthBytes === 0 || op.offset < 0) return false;
    if (op.offset + op.lengthBytes > volume.sizeBytes) return false;
    if (op.command === COMMAND.read) return op.lengthBytes <= STEP_BYTES;
    return isWrite(op.command) || op.command === COMMAND.blockStatus;
  }
}

function isWrite(command: number): boolean {
  return command === COMMAND.write || command === COMMAND.trim || command === COMMAND.writeZeroes;
}

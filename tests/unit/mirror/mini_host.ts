/**
 * One mirror with the smallest possible host around it: a store that is a list, a control lane,
 * and checks of everything the mirror must never do.
 */
import { crc32 } from "../../../core/base/checksum.ts";
import { LANE, type Mac, type MacKey, type StreamLink } from "../../../core/base/ports.ts";
import type { SeededRandom } from "../../../core/base/random.ts";
import { ALL_RULES, type Rules } from "../../../core/base/rules.ts";
import { BLOCK_BYTES, type HostId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import { viewOf } from "../../../core/format/layout.ts";
import { MIRROR_MESSAGE, type MirrorMessage } from "../../../core/format/mirror_wire.ts";
import {
  encodeEntry,
  encodeRecordHeader,
  RECORD_HEADER_BYTES,
  RECORD_TYPE,
  RecordHeader,
  STORED_BLOCK_BYTES,
  writeRecordBytes,
} from "../../../core/format/record.ts";
import { Mirror } from "../../../core/mirror/mirror.ts";
import {
  type MirrorOptions,
  type MirrorSink,
  RECEIVE,
  type Receive,
} from "../../../core/mirror/mirror_sink.ts";
import type { SimNet } from "../../sim/sim_net.ts";
import type { MiniCluster } from "./mini_cluster.ts";

/** A keyed checksum in place of HMAC: enough to tell the right key and untouched bytes. */
export class SimMac implements Mac {
  derive(label: Uint8Array): MacKey {
    const seed = crc32(label, 0, label.length);
    const tag = (buffer: Uint8Array, at: number, length: number): number =>
      crc32(buffer, at, length, seed);
    return {
      sign(buffer, at, length, out, outAt) {
        out.fill(0, outAt, outAt + 16);
        viewOf(out).setUint32(outAt, tag(buffer, at, length));
      },
      verify(buffer, at, length, out, outAt) {
        const rest = out.subarray(outAt + 4, outAt + 16);
        if (!rest.every((byte) => byte === 0)) return false;
        return viewOf(out).getUint32(outAt) === tag(buffer, at, length);
      },
    };
  }
}

export interface LogEntry {
  readonly epoch: number;
  readonly sender: number;
  readonly seq: number;
  readonly check: number;
  readonly lsn: number;
}

export class MiniHost implements MirrorSink {
  readonly id: HostId;
  readonly mirror: Mirror;
  readonly log: LogEntry[] = [];
  appendedLsn = 0;
  loggedLsn = 0;
  durableLsn = 0;
  isAppending = true;
  epoch = 0;
  /** What the store and the lease table answer to records; changed by tests. */
  holdChance = 0;
  fullChance = 0;
  isHolding = false;
  isRefusing = false;
  isMute = false;
  /** Its disk does not answer syncs. */
  isSyncHung = false;
  logDelayMs = 0.05;
  committedSeq = new Map<number, number>();
  durableSeq = 0;
  readonly barriersDone: number[] = [];
  readonly bulks: { from: number; bytes: Uint8Array }[] = [];
  readonly drained: number[] = [];
  readonly paths: string[] = [];
  readonly sends: { to: number; message: MirrorMessage }[] = [];
  windowOpens = 0;
  reconciledCount = 0;
  private readonly cluster: MiniCluster;
  private readonly link: StreamLink;
  private readonly outputs = new Map<number, Uint8Array[]>();
  private readonly inputs = new Map<number, Uint8Array>();
  private readonly scratch = new Uint8Array(writeRecordBytes(4));
  private readonly scratchView = viewOf(this.scratch);
  private readonly header = new RecordHeader();
  private readonly random: SeededRandom;
  private isLogScheduled = false;

  constructor(
    id: HostId,
    cluster: MiniCluster,
    net: SimNet,
    options: Partial<MirrorOptions>,
    rules: Rules = ALL_RULES,
  ) {
    this.id = id;
    this.cluster = cluster;
    this.random = cluster.random;
    this.link = net.linkOf(id);
    const ports = {
      link: this.link,
      packets: net.packetsOf(id),
      mac: new SimMac(),
      entropy: this.random,
    };
    const trace = { event: () => {} };
    this.mirror = new Mirror({ multicast: true, ...options, self: id }, ports, this, trace, rules);
  }

  // Workload

  /** Writes one record if the window has room; true if it did. */
  write(blockCount: number, options: { shared?: boolean; fua?: boolean } = {}): boolean {
    const length = blockCount === 0 ? RECORD_HEADER_BYTES : writeRecordBytes(blockCount);
    if (!this.mirror.windowFree(length)) return false;
    const header = this.header;
    header.type = blockCount === 0 ? RECORD_TYPE.zero : RECORD_TYPE.write;
    header.flags = options.fua === true ? 1 : 0;
    header.sender = this.id;
    header.volume = 7;
    header.blockCount = Math.max(1, blockCount);
    header.bodyBytes = blockCount * STORED_BLOCK_BYTES;
    header.lba = this.random.below(1000);
    header.epoch = this.epoch;
    header.seq = this.mirror.nextSeq();
    header.grant = 1;
    header.request = this.random.below(1e6);
    for (let index = 0; index < blockCount; index += 1) {
      const at = RECORD_HEADER_BYTES + index * STORED_BLOCK_BYTES;
      const block = this.scratch.subarray(at + 16, at + 16 + BLOCK_BYTES);
      block.fill(this.random.below(256));
      encodeEntry(this.scratch, this.scratchView, at, 7, header.lba + index);
    }
    encodeRecordHeader(this.scratch, this.scratchView, 0, header);
    this.append(header, this.scratch, 0, length);
    this.cluster.wrote(this.id, header, crc32(this.scratch, 0, length));
    const isShared = options.shared === true;
    this.mirror.sent(header, this.scratch, 0, length, this.appendedLsn, isShared);
    return true;
  }

  /** Last seq of `sender` in `epoch` that lies in the log (as the store defines it). */
  loggedSeq(epoch: number, sender: number, isDurable = false): number {
    const limit = isDurable ? this.durableLsn : this.loggedLsn;
    let last = 0;
    for (const entry of this.log) {
      if (entry.lsn > limit) break;
      if (entry.epoch === epoch && entry.sender === sender) last = entry.seq;
    }
    return last;
  }

  stream(epoch: number, sender: number): LogEntry[] {
    return this.log.filter((entry) => entry.epoch === epoch && entry.sender === sender);
  }

  // Sink

  send(to: HostId, message: MirrorMessage): void {
    this.sends.push({ to, message });
    if (this.isMute) return;
    const bytes = encode(MIRROR_MESSAGE, message);
    const framed = new Uint8Array(4 + bytes.length);
    viewOf(framed).setUint32(0, bytes.length);
    framed.set(bytes, 4);
    const queue = this.outputs.get(to) ?? [];
    queue.push(framed);
    this.outputs.set(to, queue);
    this.flush(to);
  }

  record(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): Receive {
    if (this.isRefusing) return RECEIVE.refuse;
    if (this.isHolding || this.random.chance(this.holdChance)) {
      this.cluster.retryLater(this);
      return RECEIVE.hold;
    }
    if (this.random.chance(this.fullChance)) {
      this.cluster.settleLater(this);
      return RECEIVE.full;
    }
    this.cluster.check(this.isAppending, "a record was appended after the seal");
    this.cluster.check(header.epoch === this.epoch, "a record of another epoch was appended");
    this.checkNext(sender, header, buffer, at, length);
    this.append(header, buffer, at, length);
    return RECEIVE.appended;
  }

  reconciled(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): boolean {
    if (this.random.chance(this.fullChance)) {
      this.cluster.settleLater(this);
      return false;
    }
    this.checkNext(sender, header, buffer, at, length);
    this.append(header, buffer, at, length);
    this.reconciledCount += 1;
    return true;
  }

  committed(sender: HostId, seq: number): void {
    const before = this.committedSeq.get(sender) ?? 0;
    this.cluster.check(seq > before, "committed did not grow");
    this.committedSeq.set(sender, seq);
    this.cluster.committed(this, sender, seq);
  }

  durable(seq: number): void {
    this.durableSeq = seq;
    this.cluster.durable(this, seq);
  }

  syncWanted(token: number): void {
    const target = this.appendedLsn;
    if (this.isSyncHung) return;
    this.cluster.after(0.3 + this.random.fraction(), () => {
      this.cluster.act(this, (nowMs) => {
        this.loggedLsn = Math.max(this.loggedLsn, target);
        this.durableLsn = Math.max(this.durableLsn, target);
        this.mirror.logged(nowMs, this.loggedLsn);
        this.mirror.durable(nowMs, this.durableLsn);
        this.mirror.syncDone(nowMs, token, true);
      });
    });
  }

  barrierDone(token: number, ok: boolean): void {
    this.cluster.check(ok, "a barrier failed");
    this.barriersDone.push(token);
    this.cluster.barrierDone(this, token);
  }

  windowOpen(): void {
    this.windowOpens += 1;
  }

  bulk(from: HostId, buffer: Uint8Array, at: number, length: number): void {
    this.bulks.push({ from, bytes: buffer.slice(at, at + length) });
  }

  bulkDrained(peer: HostId): void {
    this.drained.push(peer);
  }

  pathChanged(_peer: HostId, text: string): void {
    this.paths.push(text);
  }

  // Links

  linkUp(nowMs: number, peer: HostId): void {
    this.outputs.delete(peer);
    this.inputs.delete(peer);
    this.mirror.peerUp(nowMs, peer);
  }

  linkDown(nowMs: number, peer: HostId): void {
    this.outputs.delete(peer);
    this.inputs.delete(peer);
    this.mirror.peerDown(nowMs, peer);
  }

  controlBytes(nowMs: number, peer: HostId, chunk: Uint8Array): void {
    const before = this.inputs.get(peer) ?? new Uint8Array(0);
    let bytes = new Uint8Array(before.length + chunk.length);
    bytes.set(before, 0);
    bytes.set(chunk, before.length);
    while (bytes.length >= 4) {
      const length = viewOf(bytes).getUint32(0);
      if (bytes.length < 4 + length) break;
      const message = decode(MIRROR_MESSAGE, bytes, 4, length);
      this.cluster.check(message !== null, "a control message does not decode");
      if (message !== null) this.mirror.control(nowMs, peer, message);
      bytes = bytes.slice(4 + length);
    }
    this.inputs.set(peer, bytes);
  }

  flush(peer: HostId): void {
    const queue = this.outputs.get(peer) ?? [];
    while (queue.length > 0) {
      const first = queue[0] as Uint8Array;
      const taken = this.link.send(peer, LANE.control, first, 0, first.length);
      if (taken < 0) {
        this.outputs.delete(peer);
        return;
      }
      if (taken < first.length) {
        queue[0] = first.slice(taken);
        return;
      }
      queue.shift();
    }
  }

  private append(header: RecordHeader, buffer: Uint8Array, at: number, length: number): void {
    this.appendedLsn += length;
    const check = crc32(buffer, at, length);
    const { epoch, sender, seq } = header;
    this.log.push({ epoch, sender, seq, check, lsn: this.appendedLsn });
    if (this.isLogScheduled) return;
    this.isLogScheduled = true;
    this.cluster.after(this.random.fraction() * 2 * this.logDelayMs, () => {
      this.cluster.act(this, (nowMs) => {
        this.isLogScheduled = false;
        this.loggedLsn = this.appendedLsn;
        this.mirror.logged(nowMs, this.loggedLsn);
      });
    });
  }

  private checkNext(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): void {
    const stream = this.stream(header.epoch, sender);
    const last = stream.length === 0 ? 0 : (stream[stream.length - 1] as LogEntry).seq;
    this.cluster.check(header.seq === last + 1, "a record was appended out of order or twice");
    const check = crc32(buffer, at, length);
    this.cluster.check(
      this.cluster.truth(header.epoch, sender, header.seq) === check,
      "a record was appended that was not written so",
    );
  }
}

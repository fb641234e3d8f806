/**
 * The mirror's share of a 4 KiB write: JavaScript time per record at the sender (windowFree,
 * sent, settle, logged, ack) and at the receiver (peerData with verification, logged, settle),
 * without sockets and store. Run: `bun bench/mirror_path.ts`.
 */
import { LIMITS } from "../core/base/limits.ts";
import type { Mac, StreamLink } from "../core/base/ports.ts";
import { ALL_RULES } from "../core/base/rules.ts";
import { type HostId, hostId } from "../core/base/units.ts";
import { viewOf } from "../core/format/layout.ts";
import type { MirrorMessage } from "../core/format/mirror_wire.ts";
import {
  encodeEntry,
  encodeRecordHeader,
  RECORD_TYPE,
  RecordHeader,
  STORED_BLOCK_BYTES,
  writeRecordBytes,
} from "../core/format/record.ts";
import { Mirror } from "../core/mirror/mirror.ts";
import { type MirrorSink, RECEIVE } from "../core/mirror/mirror_sink.ts";

const SENDER = hostId(0);
const RECEIVER = hostId(1);
const EPOCH = 64;
const LENGTH = writeRecordBytes(1);
const RECORDS = 200_000;

class BenchSink implements MirrorSink {
  appendedLsn = 0;
  acked = 0;
  send(_to: HostId, message: MirrorMessage): void {
    if (message.kind === "ack") this.acked = message.received;
  }
  record(): typeof RECEIVE.appended {
    this.appendedLsn += LENGTH;
    return RECEIVE.appended;
  }
  reconciled(): boolean {
    return true;
  }
  committed(): void {}
  durable(): void {}
  syncWanted(): void {}
  barrierDone(): void {}
  windowOpen(): void {}
  bulk(): void {}
  bulkDrained(): void {}
  pathChanged(): void {}
}

const noMac: Mac = { derive: () => ({ sign: () => {}, verify: () => false }) };

function makeMirror(self: HostId, peer: HostId, link: StreamLink, sink: MirrorSink): Mirror {
  const packets = { multicast: () => {}, unicast: () => {} };
  const ports = { link, packets, mac: noMac, entropy: { u32: () => 1 } };
  const mirror = new Mirror(
    { self, multicast: false },
    ports,
    sink,
    { event: () => {} },
    ALL_RULES,
  );
  mirror.peerUp(0, peer);
  mirror.begin(0, EPOCH, [SENDER, RECEIVER], [SENDER, RECEIVER], []);
  const resume = { kind: "resume", epoch: EPOCH, appended: 0, received: 0, durable: 0 } as const;
  mirror.control(0, peer, resume);
  mirror.opened(0);
  return mirror;
}

function run(batch: number): { senderUs: number; receiverUs: number } {
  const wire = new Uint8Array(LIMITS.windowBytes);
  let filled = 0;
  const sendLink: StreamLink = {
    send(_peer, _lane, buffer, at, length) {
      wire.set(buffer.subarray(at, at + length), filled);
      filled += length;
      return length;
    },
    reset: () => {},
  };
  const receiverSink = new BenchSink();
  const sender = makeMirror(SENDER, RECEIVER, sendLink, new BenchSink());
  const idle: StreamLink = { send: () => 0, reset: () => {} };
  const receiver = makeMirror(RECEIVER, SENDER, idle, receiverSink);
  const record = new Uint8Array(LENGTH);
  const view = viewOf(record);
  const header = new RecordHeader();
  header.type = RECORD_TYPE.write;
  header.volume = 1;
  header.blockCount = 1;
  header.bodyBytes = STORED_BLOCK_BYTES;
  header.epoch = EPOCH;
  encodeEntry(record, view, LENGTH - STORED_BLOCK_BYTES, 1, 0);
  let senderNs = 0;
  let receiverNs = 0;
  let lsn = 0;
  for (let sent = 0; sent < RECORDS; sent += batch) {
    filled = 0;
    for (let index = 0; index < batch; index += 1) {
      header.seq = sent + index + 1;
      encodeRecordHeader(record, view, 0, header);
      lsn += LENGTH;
      const start = Bun.nanoseconds();
      if (!sender.windowFree(LENGTH)) throw new Error("the window is full");
      sender.sent(header, record, 0, LENGTH, lsn, false);
      senderNs += Bun.nanoseconds() - start;
    }
    let start = Bun.nanoseconds();
    sender.settle(1);
    sender.logged(1, lsn);
    senderNs += Bun.nanoseconds() - start;
    const chunk = wire.slice(0, filled);
    start = Bun.nanoseconds();
    receiver.peerData(1, SENDER, chunk);
    receiver.settle(1);
    receiver.logged(1, receiverSink.appendedLsn);
    receiver.settle(1);
    receiverNs += Bun.nanoseconds() - start;
    start = Bun.nanoseconds();
    const ack = { kind: "ack", epoch: EPOCH, received: receiverSink.acked, durable: 0 } as const;
    sender.control(1, RECEIVER, ack);
    senderNs += Bun.nanoseconds() - start;
  }
  if (sender.status().committed < RECORDS) throw new Error("not all records committed");
  return { senderUs: senderNs / RECORDS / 1000, receiverUs: receiverNs / RECORDS / 1000 };
}

for (const batch of [1, 8, 32]) {
  run(batch);
  const { senderUs, receiverUs } = run(batch);
  const times = `sender ${senderUs.toFixed(2)} us, receiver ${receiverUs.toFixed(2)} us a record`;
  console.log(`batch ${batch}: ${times}`);
}

/**
 * Cost of the NBD session per request, without transport, store or mirror: a turn receives
 * `DEPTH` requests in one chunk, a host that answers at once (or all in a batch, in reverse)
 * replies, and the output leaves in one send. Run: bun bench/nbd_session.ts
 */
import { OUTCOME } from "../core/base/outcome.ts";
import type { ClientLink } from "../core/base/ports.ts";
import { volumeId } from "../core/base/units.ts";
import { BufferPool } from "../core/nbd/buffer_pool.ts";
import { ExportTable } from "../core/nbd/export_table.ts";
import type { Request } from "../core/nbd/request.ts";
import { Session, type SessionSink } from "../core/nbd/session.ts";

const DEPTH = 32;
const VOLUME_BYTES = 1024 * 1024 * 1024;
const SECONDS_PER_CASE = 1;

class NullLink implements ClientLink {
  sentBytes = 0;
  send(_client: number, _buffer: Uint8Array, _at: number, length: number): number {
    this.sentBytes += length;
    return length;
  }
  receiveNow(): number {
    return 0;
  }
  pause(): void {}
  close(): void {}
}

class BatchHost implements SessionSink {
  readonly late: boolean;
  private readonly open: Request[] = [];

  constructor(late: boolean) {
    this.late = late;
  }
  request(_session: Session, request: Request): void {
    if (this.late) this.open.push(request);
    else this.answer(request);
  }
  ended(): void {}
  answerAll(): void {
    for (let request = this.open.pop(); request !== undefined; request = this.open.pop()) {
      this.answer(request);
    }
  }
  private answer(request: Request): void {
    if (request.command !== 0) {
      request.session.replyDone(request, OUTCOME.ok);
      return;
    }
    request.session.reserveRead(request);
    const at = request.readAt + (request.offset % 4096);
    request.session.replyRead(request, OUTCOME.ok, request.readBuffer, at);
  }
}

function handshake(structured: boolean): Uint8Array {
  const parts = [0, 0, 0, 3];
  const option = (code: number, data: number[]): void => {
    parts.push(...new TextEncoder().encode("IHAVEOPT"), 0, 0, 0, code, 0, 0, 0, data.length);
    parts.push(...data);
  };
  if (structured) option(8, []);
  option(7, [0, 0, 0, 0, 0, 0]);
  return Uint8Array.from(parts);
}

/** `DEPTH` requests of one kind in one chunk. */
function requests(command: number, lengthBytes: number): Uint8Array {
  const payloadBytes = command === 1 ? lengthBytes : 0;
  const chunk = new Uint8Array(DEPTH * (28 + payloadBytes));
  const view = new DataView(chunk.buffer);
  for (let index = 0; index < DEPTH; index += 1) {
    const at = index * (28 + payloadBytes);
    view.setUint32(at, 0x25609513);
    view.setUint16(at + 6, command);
    view.setUint32(at + 12, index);
    view.setUint32(at + 20, (index * 7919 * lengthBytes) % (VOLUME_BYTES / 2));
    view.setUint32(at + 24, lengthBytes);
  }
  return chunk;
}

interface Case {
  readonly name: string;
  readonly command: number;
  readonly lengthBytes: number;
  readonly structured: boolean;
  readonly late: boolean;
}

function run(one: Case): void {
  const link = new NullLink();
  const host = new BatchHost(one.late);
  const exports = new ExportTable([
    { name: "v", volume: volumeId(1), sizeBytes: VOLUME_BYTES, readOnly: false, description: "" },
  ]);
  const session = new Session({ client: 1, exports, link, pool: new BufferPool() }, host);
  session.open(0);
  session.receive(0, handshake(one.structured));
  session.settle(0);
  const chunk = requests(one.command, one.lengthBytes);
  const turn = (): void => {
    session.receive(0, chunk);
    if (one.late) host.answerAll();
    session.settle(0);
  };
  for (let count = 0; count < 3000; count += 1) turn();
  let turns = 0;
  const begin = performance.now();
  let now = begin;
  while (now - begin < SECONDS_PER_CASE * 1000) {
    for (let count = 0; count < 200; count += 1) turn();
    turns += 200;
    now = performance.now();
  }
  const nanoseconds = ((now - begin) * 1e6) / (turns * DEPTH);
  console.log(`${one.name.padEnd(34)} ${nanoseconds.toFixed(0).padStart(7)} ns/request`);
}

const cases: Case[] = [
  { name: "flush", command: 3, lengthBytes: 0, structured: false, late: false },
  { name: "write 4 KiB", command: 1, lengthBytes: 4096, structured: false, late: false },
  {
    name: "write 4 KiB, answered late",
    command: 1,
    lengthBytes: 4096,
    structured: true,
    late: true,
  },
  { name: "write 64 KiB", command: 1, lengthBytes: 65536, structured: true, late: false },
  { name: "read 4 KiB", command: 0, lengthBytes: 4096, structured: false, late: false },
  { name: "read 4 KiB, structured", command: 0, lengthBytes: 4096, structured: true, late: false },
  {
    name: "read 4 KiB, answered late",
    command: 0,
    lengthBytes: 4096,
    structured: true,
    late: true,
  },
  { name: "read 32 KiB (copied)", command: 0, lengthBytes: 32768, structured: true, late: false },
  {
    name: "read 64 KiB (own buffer)",
    command: 0,
    lengthBytes: 65536,
    structured: true,
    late: false,
  },
];
for (const one of cases) run(one);

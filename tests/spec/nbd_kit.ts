/**
 * A scripted NBD client, a simulated link and a RAM disk host, for the tests of core/nbd. The
 * numbers are written out from proto.md and not taken from core/format/nbd.ts, so that a wrong
 * constant there fails here.
 */
import { OUTCOME, type Outcome } from "../../core/base/outcome.ts";
import type { ClientLink } from "../../core/base/ports.ts";
import { volumeId } from "../../core/base/units.ts";
import { BufferPool } from "../../core/nbd/buffer_pool.ts";
import { ExportTable } from "../../core/nbd/export_table.ts";
import type { Request } from "../../core/nbd/request.ts";
import { Session, type SessionLimits, type SessionSink } from "../../core/nbd/session.ts";

/** Big-endian bytes, one call after another. */
export class Wire {
  private readonly parts: number[] = [];

  u8(value: number): this {
    this.parts.push(value & 0xff);
    return this;
  }
  u16(value: number): this {
    return this.u8(value >>> 8).u8(value);
  }
  u32(value: number): this {
    return this.u16(value >>> 16).u16(value & 0xffff);
  }
  u64(value: bigint | number): this {
    const big = BigInt(value);
    return this.u32(Number(big >> 32n)).u32(Number(big & 0xffffffffn));
  }
  text(value: string): this {
    return this.bytes(new TextEncoder().encode(value));
  }
  bytes(value: Uint8Array): this {
    for (const byte of value) this.parts.push(byte);
    return this;
  }
  done(): Uint8Array {
    return Uint8Array.from(this.parts);
  }
}

export function wire(): Wire {
  return new Wire();
}

export function join(...parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export const GREETING = wire().text("NBDMAGIC").text("IHAVEOPT").u16(3).done();

export function clientFlags(flags: number): Uint8Array {
  return wire().u32(flags).done();
}

export function option(code: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return wire().text("IHAVEOPT").u32(code).u32(data.length).bytes(data).done();
}

/** INFO (6) or GO (7). */
export function goOption(code: number, name: string, infos: number[] = []): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  const data = wire().u32(bytes.length).bytes(bytes).u16(infos.length);
  for (const info of infos) data.u16(info);
  return option(code, data.done());
}

/** LIST_META_CONTEXT (9) or SET_META_CONTEXT (10). */
export function contextOption(code: number, name: string, queries: string[]): Uint8Array {
  const data = wire().u32(name.length).text(name).u32(queries.length);
  for (const query of queries) data.u32(query.length).text(query);
  return option(code, data.done());
}

export function request(
  command: number,
  cookie: bigint | number,
  offset: bigint | number,
  length: number,
  flags = 0,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const head = wire().u32(0x25609513).u16(flags).u16(command).u64(cookie).u64(offset).u32(length);
  return join(head.done(), payload);
}

export function optionReply(
  code: number,
  type: number,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  return wire().u64(0x3e889045565a9n).u32(code).u32(type).u32(data.length).bytes(data).done();
}

export function simpleReply(cookie: bigint | number, error: number): Uint8Array {
  return wire().u32(0x67446698).u32(error).u64(cookie).done();
}

export function chunk(type: number, cookie: bigint | number, payload: Uint8Array): Uint8Array {
  const head = wire().u32(0x668e33ef).u16(1).u16(type).u64(cookie).u32(payload.length);
  return join(head.done(), payload);
}

export interface ParsedOptionReply {
  option: number;
  type: number;
  data: Uint8Array;
}

/** Cuts a run of option replies apart; throws if it is not one. */
export function parseOptionReplies(bytes: Uint8Array): ParsedOptionReply[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const replies: ParsedOptionReply[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (view.getBigUint64(at) !== 0x3e889045565a9n) throw new Error("option reply magic");
    const length = view.getUint32(at + 16);
    const data = bytes.slice(at + 20, at + 20 + length);
    if (data.length !== length) throw new Error("option reply cut short");
    replies.push({ option: view.getUint32(at + 8), type: view.getUint32(at + 12), data });
    at += 20 + length;
  }
  return replies;
}

export interface ParsedReply {
  simple: boolean;
  cookie: number;
  error: number;
  type: number;
  flags: number;
  payload: Uint8Array;
  message: string;
}

/** Cuts a run of transmission replies apart. `readLengths`: cookie -> bytes of simple reads. */
export function parseReplies(
  bytes: Uint8Array,
  readLengths: ReadonlyMap<number, number> = new Map(),
): ParsedReply[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const replies: ParsedReply[] = [];
  let at = 0;
  while (at < bytes.length) {
    const magic = view.getUint32(at);
    if (magic === 0x67446698) {
      const error = view.getUint32(at + 4);
      const cookie = Number(view.getBigUint64(at + 8));
      const length = error === 0 ? (readLengths.get(cookie) ?? 0) : 0;
      const payload = bytes.slice(at + 16, at + 16 + length);
      replies.push({ simple: true, cookie, error, type: 0, flags: 1, payload, message: "" });
      at += 16 + length;
    } else if (magic === 0x668e33ef) {
      const type = view.getUint16(at + 6);
      const length = view.getUint32(at + 16);
      const payload = bytes.slice(at + 20, at + 20 + length);
      const isError = (type & 0x8000) !== 0;
      replies.push({
        simple: false,
        cookie: Number(view.getBigUint64(at + 8)),
        error: isError ? view.getUint32(at + 20) : 0,
        type,
        flags: view.getUint16(at + 4),
        payload,
        message: isError ? new TextDecoder().decode(payload.subarray(6)) : "",
      });
      at += 20 + length;
    } else {
      throw new Error(`reply magic at ${at}`);
    }
  }
  return replies;
}

/** Takes what its capacity allows; `drain` gives more. */
export class SimLink implements ClientLink {
  capacity = Number.POSITIVE_INFINITY;
  isClosed = false;
  isPaused = false;
  sendCount = 0;
  sentBytes = 0;
  /** What the client sent and the link has not delivered; `receiveNow` takes from it. */
  undelivered: Uint8Array = new Uint8Array(0);
  /** Bytes that `receiveNow` still gives. */
  receiveMax = Number.POSITIVE_INFINITY;
  private sent: Uint8Array[] = [];

  send(_client: number, buffer: Uint8Array, at: number, length: number): number {
    if (this.isClosed) return -1;
    this.sendCount += 1;
    const taken = Math.min(length, this.capacity);
    this.capacity -= taken;
    this.sentBytes += taken;
    if (taken > 0) this.sent.push(buffer.slice(at, at + taken));
    return taken;
  }
  receiveNow(_client: number, buffer: Uint8Array, at: number, length: number): number {
    const count = Math.min(length, this.undelivered.length, this.receiveMax);
    this.receiveMax -= count;
    buffer.set(this.undelivered.subarray(0, count), at);
    this.undelivered = this.undelivered.subarray(count);
    return count;
  }
  pause(_client: number, paused: boolean): void {
    this.isPaused = paused;
  }
  close(): void {
    this.isClosed = true;
  }
  /** All that was sent since the last call. */
  take(): Uint8Array {
    const all = join(...this.sent);
    this.sent = [];
    return all;
  }
}

/** Counts what is out, so that a test sees a leak. */
export class CountingPool extends BufferPool {
  outstanding = 0;
  override take(lengthBytes: number): Uint8Array {
    this.outstanding += 1;
    return super.take(lengthBytes);
  }
  override give(buffer: Uint8Array): void {
    this.outstanding -= 1;
    super.give(buffer);
  }
}

/** What the host does with a request: answer at once, or keep it for `answer`. */
export class RamHost implements SessionSink {
  readonly disk: Uint8Array;
  readonly requests: string[] = [];
  readonly open: Request[] = [];
  deferred = false;
  endedCount = 0;
  outcome: Outcome = OUTCOME.ok;
  /** Pairs for BLOCK_STATUS; null: one hole of 4096, then data. */
  extents: number[] | null = null;

  constructor(sizeBytes: number) {
    this.disk = new Uint8Array(sizeBytes);
    for (let at = 0; at < sizeBytes; at += 1) this.disk[at] = (at * 7 + (at >>> 8)) & 0xff;
  }

  request(_session: Session, request: Request): void {
    const flags = [
      request.fua ? " fua" : "",
      request.noHole ? " noHole" : "",
      request.df ? " df" : "",
      request.reqOne ? " reqOne" : "",
      request.fastZero ? " fastZero" : "",
    ].join("");
    this.requests.push(`${request.command} ${request.offset} ${request.length}${flags}`);
    if (this.deferred) this.open.push(request);
    else this.answer(request);
  }

  ended(): void {
    this.endedCount += 1;
  }

  answerAll(): void {
    for (const request of this.open.splice(0)) this.answer(request);
  }

  answer(request: Request): void {
    const { session, offset, length } = request;
    if (this.outcome !== OUTCOME.ok) {
      session.replyDone(request, this.outcome);
      return;
    }
    switch (request.command) {
      case 0:
        this.read(request);
        return;
      case 1:
        this.disk.set(request.data.subarray(request.dataAt, request.dataAt + length), offset);
        break;
      case 6:
        this.disk.fill(0, offset, offset + length);
        break;
      case 7: {
        const hole = Math.min(4096, length);
        session.replyExtents(request, OUTCOME.ok, this.extents ?? [hole, 3, length - hole, 0]);
        return;
      }
      default:
        break;
    }
    session.replyDone(request, OUTCOME.ok);
  }

  /** As a store does: whole blocks into the reserved buffer. */
  private read(request: Request): void {
    const { session, offset, length } = request;
    session.reserveRead(request);
    const first = offset - (offset % 4096);
    const end = Math.ceil((offset + length) / 4096) * 4096;
    request.readBuffer.fill(0, request.readAt, request.readAt + end - first);
    request.readBuffer.set(this.disk.subarray(first, end), request.readAt);
    const at = request.readAt + (offset % 4096);
    session.replyRead(request, OUTCOME.ok, request.readBuffer, at);
  }
}

export const ALPHA_BYTES = 1024 * 1024;
export const ODD_BYTES = 100_003;

export function makeExports(alphaBytes = ALPHA_BYTES): ExportTable {
  return new ExportTable([
    {
      name: "alpha",
      volume: volumeId(1),
      sizeBytes: alphaBytes,
      readOnly: false,
      description: "first",
    },
    { name: "beta", volume: volumeId(2), sizeBytes: 65536, readOnly: true, description: "" },
    { name: "odd", volume: volumeId(3), sizeBytes: ODD_BYTES, readOnly: false, description: "ü" },
  ]);
}

export interface ClientOptions {
  limits?: Partial<SessionLimits>;
  diskBytes?: number;
  exports?: ExportTable;
}

/** A session with its link and host, and the client's side of the wire. */
export class Client {
  readonly link = new SimLink();
  readonly pool = new CountingPool();
  readonly host: RamHost;
  readonly session: Session;
  nowMs = 1000;

  constructor(options: ClientOptions = {}) {
    this.host = new RamHost(options.diskBytes ?? ALPHA_BYTES);
    this.session = new Session(
      {
        client: 1,
        exports: options.exports ?? makeExports(options.diskBytes ?? ALPHA_BYTES),
        link: this.link,
        pool: this.pool,
        limits: options.limits ?? {},
      },
      this.host,
    );
    this.session.open(this.nowMs);
    this.session.settle(this.nowMs);
  }

  /** Sends, settles, and returns what came back. */
  send(...parts: Uint8Array[]): Uint8Array {
    this.session.receive(this.nowMs, join(...parts));
    return this.settle();
  }

  settle(): Uint8Array {
    this.session.settle(this.nowMs);
    return this.link.take();
  }

  /** Sends and parses option replies. */
  haggle(...parts: Uint8Array[]): ParsedOptionReply[] {
    return parseOptionReplies(this.send(...parts));
  }

  /** Through the handshake by EXPORT_NAME or, structured, by GO; drops the output of it. */
  transmit(agreed: { structured?: boolean; context?: boolean; name?: string } = {}): this {
    const name = agreed.name ?? "alpha";
    const parts = [clientFlags(3)];
    if (agreed.structured || agreed.context) parts.push(option(8));
    if (agreed.context) parts.push(contextOption(10, name, ["base:allocation"]));
    parts.push(goOption(7, name));
    this.send(...parts);
    if (this.session.chosen === null) throw new Error("the handshake failed");
    return this;
  }
}

/** A client that has already sent its flags; the greeting is dropped. */
export function haggling(options: ClientOptions = {}): Client {
  const client = new Client(options);
  client.send(clientFlags(3));
  return client;
}

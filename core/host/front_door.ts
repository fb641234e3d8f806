/**
 * The NBD clients of this host: sessions, and their requests turned into ops.
 */
import { must } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import { BufferPool } from "../nbd/buffer_pool.ts";
import { ExportTable } from "../nbd/export_table.ts";
import type { Request } from "../nbd/request.ts";
import { Session, type SessionSink } from "../nbd/session.ts";
import type { VolumeOptions } from "./machine.ts";
import { type Op, OP_STATE } from "./op.ts";
import type { Parts } from "./parts.ts";
import { makesHole } from "./pieces.ts";

/** Request numbers a request may use: one per piece (pieces.ts). */
const NUMBERS_PER_REQUEST = LIMITS.requestBytesMax / (128 * BLOCK_BYTES) + 4;

export class FrontDoor implements SessionSink {
  private readonly parts: Parts;
  private readonly exports: ExportTable;
  private readonly pool = new BufferPool();
  private readonly sessions = new Map<number, Session>();
  /** Sessions with something to do in the next settle. */
  private readonly touched = new Set<Session>();
  private nextRequest = 1;
  private isClosing = false;

  constructor(parts: Parts) {
    this.parts = parts;
    this.exports = new ExportTable(
      parts.options.volumes.map((volume) => ({
        name: volume.name,
        volume: volume.id,
        sizeBytes: volume.sizeBytes,
        readOnly: volume.readOnly,
        description: `vsan volume ${volume.name}`,
      })),
    );
  }

  get clientCount(): number {
    return this.sessions.size;
  }

  open(client: number): void {
    if (this.isClosing || this.sessions.size >= LIMITS.clientCountMax) {
      this.parts.ports.clients.close(client);
      return;
    }
    const link = this.parts.ports.clients;
    const session = new Session({ client, exports: this.exports, link, pool: this.pool }, this);
    this.sessions.set(client, session);
    session.open(this.parts.nowMs);
    this.touched.add(session);
  }

  data(client: number, chunk: Uint8Array): void {
    const session = this.sessions.get(client);
    if (session === undefined) return;
    session.receive(this.parts.nowMs, chunk);
    this.touched.add(session);
  }

  drained(client: number): void {
    const session = this.sessions.get(client);
    if (session === undefined) return;
    session.drained(this.parts.nowMs);
    this.touched.add(session);
  }

  closed(client: number): void {
    const session = this.sessions.get(client);
    if (session === undefined) return;
    session.closed(this.parts.nowMs);
    this.touched.add(session);
  }

  /** No new clients; those there finish what is in flight and end. */
  shutdown(): void {
    this.isClosing = true;
    for (const session of this.sessions.values()) {
      session.shutdown(this.parts.nowMs);
      this.touched.add(session);
    }
  }

  /** A client's request (SessionSink). */
  request(session: Session, request: Request): void {
    this.touched.add(session);
    const op = this.parts.ops.take();
    if (op === null) {
      session.replyDone(request, OUTCOME.io);
      return;
    }
    const { parts } = this;
    op.request = request;
    op.command = request.command;
    op.fua = request.fua;
    op.noHole = request.noHole;
    op.origin = parts.self;
    op.originInc = parts.membership.incarnation;
    op.priority = must(parts.options.roster[parts.self], "front door: not in the roster").priority;
    op.volume = request.volume;
    op.offset = request.offset;
    op.lengthBytes = request.length;
    op.data = request.data;
    op.dataAt = request.dataAt;
    if (op.command === COMMAND.flush) {
      parts.dispatch(op);
      return;
    }
    const volume = must(parts.volumes.get(op.volume), "front door: unknown volume");
    this.prepare(op, volume);
    if (op.command === COMMAND.cache || op.lengthBytes === 0) parts.finish(op, OUTCOME.ok);
    else parts.dispatch(op);
  }

  /** A session has ended and has nothing in flight (SessionSink). */
  ended(session: Session): void {
    this.sessions.delete(session.client);
    this.touched.delete(session);
  }

  /** The answer of a client's op; marks its session for the next settle. */
  reply(op: Op, outcome: Outcome): void {
    const request = must(op.request, "front door: op without a request");
    const { session } = request;
    if (op.command === COMMAND.read) {
      const skip = op.offset - op.startLba * BLOCK_BYTES;
      session.replyRead(request, outcome, op.buffer, op.bufferAt + skip);
    } else if (op.command === COMMAND.blockStatus) {
      session.replyExtents(request, outcome, [], 0);
    } else {
      session.replyDone(request, outcome);
    }
    this.touched.add(session);
  }

  replyExtents(op: Op, pairs: number[]): void {
    const request = must(op.request, "front door: op without a request");
    request.session.replyExtents(request, OUTCOME.ok, pairs, pairs.length / 2);
    this.touched.add(request.session);
  }

  /** First in a settle: sessions go on with input they held back or left, or end. */
  settle(): void {
    for (const session of this.touched) {
      if (session.needsSettle || session.mayPull) session.settle(this.parts.nowMs);
    }
  }

  /** Last in a settle: replies leave. True if a session has more to do in this turn. */
  flush(): boolean {
    let mustSettle = false;
    for (const session of this.touched) {
      session.flush();
      if (session.needsSettle) mustSettle = true;
      else if (!session.mayPull) this.touched.delete(session);
    }
    return mustSettle;
  }

  expire(): void {
    for (const session of this.sessions.values()) {
      if (session.nextDeadlineMs() > this.parts.nowMs) continue;
      session.expire(this.parts.nowMs);
      this.touched.add(session);
    }
  }

  nextDeadlineMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const session of this.sessions.values()) next = Math.min(next, session.nextDeadlineMs());
    return next;
  }

  /** Volume of every attached client, for status. */
  clientsOf(volume: VolumeOptions): number {
    let count = 0;
    for (const session of this.sessions.values()) {
      if (session.chosen?.volume === volume.id) count += 1;
    }
    return count;
  }

  private prepare(op: Op, volume: VolumeOptions): void {
    op.shared = volume.mirror === "shared";
    if (op.command === COMMAND.trim) {
      // A hint: only whole blocks are given back.
      const start = Math.ceil(op.offset / BLOCK_BYTES) * BLOCK_BYTES;
      const end = Math.floor((op.offset + op.lengthBytes) / BLOCK_BYTES) * BLOCK_BYTES;
      op.offset = start;
      op.lengthBytes = Math.max(0, end - start);
    }
    if (op.command !== COMMAND.read && op.command !== COMMAND.blockStatus) {
      op.fua ||= volume.ack === "durable";
      op.requestBase = this.nextRequest;
      this.nextRequest += makesHole(op) ? 4 : NUMBERS_PER_REQUEST;
    }
    op.span();
    op.state = OP_STATE.parked;
  }
}

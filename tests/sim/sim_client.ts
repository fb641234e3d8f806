/**
 * A simulated NBD client: speaks real NBD bytes to the host's real session (EXPORT_NAME, simple
 * replies), keeps several requests in flight, fills every block with one unique value, and writes
 * what it saw into the histories.
 */
import { BLOCK_BYTES } from "../../core/base/units.ts";
import type { SeededRandom } from "../../core/base/random.ts";
import type { Flush, Operation } from "./history.ts";

const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;

export interface ClientWorld {
  readonly random: SeededRandom;
  now(): number;
  later(delayMs: number, run: () => void): void;
  /** Bytes to the host, delayed by the world. */
  toHost(client: SimClient, bytes: Uint8Array): void;
  uniqueValue(): number;
  record(volume: number, lba: number, operation: Operation): void;
  recordFlush(flush: Flush): void;
  place(index: number): number;
  writeAnswered(value: number): void;
  flushAnswered(flush: Flush): void;
}

interface Pending {
  readonly kind: "read" | "write" | "zero" | "flush";
  readonly lba: number;
  readonly blocks: number;
  readonly operations: Operation[];
  readonly flush: Flush | null;
  readonly startedMs: number;
}

export interface ClientLoad {
  readonly depth: number;
  readonly blocks: number;
  readonly writeShare: number;
  readonly flushShare: number;
  readonly zeroShare: number;
  readonly fuaShare: number;
  /** Mean pause between an answer and the next request. */
  readonly thinkMs: number;
  /** Longest request, blocks. */
  readonly lengthMax: number;
  /**
   * Clients of the first host send one request at a time and a FLUSH after each write; those of the
   * others write seldom, so that a FLUSH may be answered by what is known (R8), or may not.
   */
  readonly flushesEach: boolean;
}

function sharedOut(load: ClientLoad, hostIndex: number): ClientLoad {
  if (hostIndex === 0) return { ...load, depth: 1, thinkMs: load.thinkMs / 8, writeShare: 0.8 };
  return { ...load, writeShare: load.writeShare / 20, flushesEach: false };
}

export class SimClient {
  readonly id: number;
  readonly hostIndex: number;
  readonly volume: number;
  readonly exportName: string;
  isConnected = false;
  isStopped = false;
  completed = 0;
  errors = 0;
  private readonly world: ClientWorld;
  private readonly load: ClientLoad;
  private input = new Uint8Array(0);
  private phase: "greeting" | "export" | "transmission" = "greeting";
  private nextCookie = 1;
  private readonly pending = new Map<number, Pending>();

  constructor(
    ids: { id: number; hostIndex: number; volume: number; exportName: string },
    load: ClientLoad,
    world: ClientWorld,
  ) {
    this.id = ids.id;
    this.hostIndex = ids.hostIndex;
    this.volume = ids.volume;
    this.exportName = ids.exportName;
    this.load = load.flushesEach ? sharedOut(load, ids.hostIndex) : load;
    this.world = world;
    this.isConnected = true;
  }

  get inFlight(): number {
    return this.pending.size;
  }

  /** Age of the oldest request in flight. */
  oldestMs(): number {
    let oldest = this.world.now();
    for (const each of this.pending.values()) oldest = Math.min(oldest, each.startedMs);
    return this.world.now() - oldest;
  }

  /** The host closed the connection, or died: what is in flight may or may not have happened. */
  disconnected(): void {
    this.isConnected = false;
    this.pending.clear();
  }

  receive(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.input.length + bytes.length);
    joined.set(this.input);
    joined.set(bytes, this.input.length);
    this.input = joined;
    while (this.isConnected && this.consume()) {}
  }

  /** Sends so many requests. */
  private work(count: number): void {
    if (this.phase !== "transmission" || this.isStopped || !this.isConnected) return;
    for (let index = 0; index < count; index += 1) this.issue();
  }

  private flush(): void {
    if (!this.isStopped && this.isConnected) this.send("flush", 0, 0);
  }

  private consume(): boolean {
    const view = new DataView(this.input.buffer, this.input.byteOffset, this.input.length);
    if (this.phase === "greeting") {
      if (this.input.length < 18) return false;
      this.take(18);
      const name = new TextEncoder().encode(this.exportName);
      const bytes = new Uint8Array(4 + 16 + name.length);
      const out = new DataView(bytes.buffer);
      out.setUint32(0, 3); // fixed newstyle, no zeroes
      out.setUint32(4, 0x49484156);
      out.setUint32(8, 0x454f5054);
      out.setUint32(12, 1); // NBD_OPT_EXPORT_NAME
      out.setUint32(16, name.length);
      bytes.set(name, 20);
      this.world.toHost(this, bytes);
      this.phase = "export";
      return true;
    }
    if (this.phase === "export") {
      if (this.input.length < 10) return false;
      this.take(10);
      this.phase = "transmission";
      this.work(this.load.depth);
      return true;
    }
    if (this.input.length < 16) return false;
    if (view.getUint32(0) !== REPLY_MAGIC) throw new Error("sim client: bad reply magic");
    const error = view.getUint32(4);
    const cookie = view.getUint32(12);
    const pending = this.pending.get(cookie);
    if (pending === undefined) throw new Error("sim client: answer to nothing");
    const data = pending.kind === "read" && error === 0 ? pending.blocks * BLOCK_BYTES : 0;
    if (this.input.length < 16 + data) return false;
    this.pending.delete(cookie);
    this.finish(pending, error, this.input.subarray(16, 16 + data));
    this.take(16 + data);
    this.world.later(this.world.random.fraction() * 2 * this.load.thinkMs, () => {
      if (pending.kind === "write" && this.load.flushesEach) this.flush();
      else this.work(1);
    });
    return true;
  }

  private finish(pending: Pending, error: number, data: Uint8Array): void {
    this.completed += 1;
    if (error !== 0) {
      this.errors += 1;
      return;
    }
    const now = this.world.now();
    if (pending.flush !== null) pending.flush.answeredMs = now;
    if (pending.kind === "flush" && pending.flush !== null) {
      this.world.flushAnswered(pending.flush);
    }
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    for (const [index, operation] of pending.operations.entries()) {
      if (pending.kind === "read") {
        const at = index * BLOCK_BYTES;
        const value = view.getUint32(at);
        for (let word = at + 4; word < at + BLOCK_BYTES; word += 508) {
          if (view.getUint32(word) !== value) throw new Error("sim client: a torn block was read");
        }
        operation.value = value;
      }
      operation.answeredMs = now;
      if (pending.kind === "write") this.world.writeAnswered(operation.value);
    }
  }

  private issue(): void {
    const { random } = this.world;
    const roll = random.fraction();
    const { load } = this;
    const blocks = 1 + random.below(Math.min(load.lengthMax, load.blocks));
    // A longer request stays where it is put: neighbours may be any blocks.
    const lba = this.world.place(random.below(load.blocks - blocks + 1));
    if (roll < load.flushShare) this.send("flush", 0, 0);
    else if (roll < load.flushShare + load.zeroShare) this.send("zero", lba, blocks);
    else if (roll < load.flushShare + load.zeroShare + load.writeShare) {
      this.send("write", lba, blocks);
    } else this.send("read", lba, blocks);
  }

  private send(kind: Pending["kind"], lba: number, blocks: number): void {
    const now = this.world.now();
    const cookie = this.nextCookie;
    this.nextCookie += 1;
    const dataBytes = kind === "write" ? blocks * BLOCK_BYTES : 0;
    const bytes = new Uint8Array(28 + dataBytes);
    const view = new DataView(bytes.buffer);
    const fua = kind === "write" && this.world.random.chance(this.load.fuaShare);
    view.setUint32(0, REQUEST_MAGIC);
    view.setUint16(4, fua ? 1 : 0);
    view.setUint16(6, { read: 0, write: 1, flush: 3, zero: 6 }[kind]);
    view.setUint32(12, cookie);
    view.setUint32(20, lba * BLOCK_BYTES);
    view.setUint32(24, blocks * BLOCK_BYTES);
    const operations: Operation[] = [];
    for (let index = 0; index < blocks; index += 1) {
      const value = kind === "write" ? this.world.uniqueValue() : 0;
      if (kind === "write") {
        const at = 28 + index * BLOCK_BYTES;
        for (let word = at; word < at + BLOCK_BYTES; word += 4) view.setUint32(word, value);
      }
      const operation = {
        isWrite: kind !== "read",
        value,
        invokedMs: now,
        answeredMs: Number.POSITIVE_INFINITY,
      };
      operations.push(operation);
      this.world.record(this.volume, lba + index, operation);
    }
    const flush = kind === "flush" || fua ? { invokedMs: now, answeredMs: Infinity } : null;
    if (kind === "flush" && flush !== null) this.world.recordFlush(flush);
    this.pending.set(cookie, { kind, lba, blocks, operations, flush, startedMs: now });
    this.world.toHost(this, bytes);
  }

  private take(bytes: number): void {
    this.input = this.input.slice(bytes);
  }
}

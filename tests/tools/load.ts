/**
 * A client that never stops writing: several requests in flight, each chunk with bytes of its
 * own, and a memory of what the volume must hold. For tests in which something breaks meanwhile.
 */
import { pattern } from "./lab.ts";
import type { NbdClient } from "./nbd_client.ts";

const CHUNK_BYTES = 64 * 1024;
const IN_FLIGHT = 4;

export interface LoadResult {
  readonly writes: number;
  /** Longest time that one write took. */
  readonly slowestMs: number;
  /** What the range holds: the newest write of each chunk. */
  readonly expected: Uint8Array;
}

export class Load {
  writes = 0;
  private readonly client: NbdClient;
  private readonly offset: number;
  private readonly seed: number;
  private readonly expected: Uint8Array;
  private readonly workers: Promise<void>[] = [];
  private slowestMs = 0;
  private isStopped = false;
  private failure: unknown = null;

  /** Writes into `[offset, offset + bytes)` through `client` until `stop`. */
  constructor(client: NbdClient, options: { offset: number; bytes: number; seed: number }) {
    this.client = client;
    this.offset = options.offset;
    this.seed = options.seed * 100_000;
    this.expected = new Uint8Array(options.bytes);
    for (let worker = 0; worker < IN_FLIGHT; worker++) this.workers.push(this.work(worker));
  }

  /** Resolves after `count` further writes were answered; rejects if one fails. */
  async progress(count: number, timeoutMs = 20_000): Promise<void> {
    const target = this.writes + count;
    const deadline = performance.now() + timeoutMs;
    while (this.writes < target) {
      if (this.failure !== null) throw this.failure;
      if (performance.now() > deadline) {
        const done = this.writes - target + count;
        throw new Error(`only ${done} of ${count} writes within ${timeoutMs} ms`);
      }
      await Bun.sleep(5);
    }
  }

  /** Lets what is in flight finish; rejects if any write has failed. */
  async stop(): Promise<LoadResult> {
    this.isStopped = true;
    await Promise.all(this.workers);
    if (this.failure !== null) throw this.failure;
    const { writes, slowestMs, expected } = this;
    return { writes, slowestMs, expected };
  }

  private async work(worker: number): Promise<void> {
    const chunks = this.expected.length / CHUNK_BYTES;
    try {
      for (let turn = worker; !this.isStopped; turn += IN_FLIGHT) {
        const at = ((turn * 7) % chunks) * CHUNK_BYTES;
        // Workers never meet: each has the chunks that are its number modulo IN_FLIGHT.
        const own = at - ((at / CHUNK_BYTES) % IN_FLIGHT) * CHUNK_BYTES + worker * CHUNK_BYTES;
        const data = pattern(this.seed + turn, CHUNK_BYTES);
        const begun = performance.now();
        await this.client.write(this.offset + own, data);
        this.slowestMs = Math.max(this.slowestMs, performance.now() - begun);
        this.expected.set(data, own);
        this.writes += 1;
      }
    } catch (thrown) {
      this.failure ??= thrown;
      this.isStopped = true;
    }
  }
}

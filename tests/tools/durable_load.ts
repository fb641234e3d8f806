/**
 * A writer that knows what must survive what: acknowledged writes a killed process, those that a
 * FLUSH or FUA covers a power cut as well. Writes are of 4 to 256 KiB, so that a small store soon
 * comes to new segments, checkpoints and cleaning.
 */
import { SeededRandom } from "../../core/base/random.ts";
import { FLAG, type NbdClient } from "./nbd_client.ts";

const BLOCK = 4096;
const BLOCKS_MOST = 64;

export class DurableLoad {
  acked = 0;
  flushes = 0;
  /** Per block: newest version sent, acknowledged, and covered by a flush. */
  private readonly sent: Uint32Array;
  private readonly done: Uint32Array;
  private readonly durable: Uint32Array;
  private readonly busy: Uint8Array;
  private readonly random: SeededRandom;
  private version = 0;
  private isStopping = false;

  constructor(blockCount: number, seed: number) {
    this.sent = new Uint32Array(blockCount);
    this.done = new Uint32Array(blockCount);
    this.durable = new Uint32Array(blockCount);
    this.busy = new Uint8Array(blockCount);
    this.random = new SeededRandom(seed);
  }

  /** Writes until `stop`, or until the client or its host has ended or refuses. */
  async run(client: NbdClient, depth: number): Promise<void> {
    this.isStopping = false;
    await Promise.allSettled(Array.from({ length: depth }, () => this.lane(client)));
    this.busy.fill(0);
  }

  stop(): void {
    this.isStopping = true;
  }

  /** Reads everything; a line per block that is not as it must be. What is found is kept so. */
  async check(client: NbdClient, after: "kill" | "power cut"): Promise<string[]> {
    const wrong: string[] = [];
    const least = after === "kill" ? this.done : this.durable;
    for (let first = 0; first < this.sent.length; first += 256) {
      const count = Math.min(256, this.sent.length - first);
      const bytes = await client.read(first * BLOCK, count * BLOCK);
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
      for (let index = 0; index < count; index += 1) {
        const block = first + index;
        const found = words[index * 1024]!;
        const isWhole = words
          .subarray(index * 1024, (index + 1) * 1024)
          .every((word, at) => word === (found === 0 ? 0 : at === 0 ? found : found ^ block ^ at));
        if (!isWhole || found < least[block]! || found > this.sent[block]!) {
          wrong.push(`block ${block}: ${found}, must be ${least[block]} to ${this.sent[block]}`);
        }
        this.done[block] = found;
        this.durable[block] = found;
        this.sent[block] = found;
      }
    }
    return wrong;
  }

  private async lane(client: NbdClient): Promise<void> {
    while (!this.isStopping) {
      if (this.random.chance(0.05)) await this.flush(client);
      else await this.write(client);
    }
  }

  private async flush(client: NbdClient): Promise<void> {
    const covered = this.done.slice();
    await client.flush();
    this.flushes += 1;
    for (const [block, version] of covered.entries()) this.cover(block, version);
  }

  private async write(client: NbdClient): Promise<void> {
    const count = 1 + this.random.below(this.random.chance(0.5) ? 2 : BLOCKS_MOST);
    const first = this.random.below(this.sent.length - count + 1);
    const blocks = Array.from({ length: count }, (_, index) => first + index);
    if (blocks.some((block) => this.busy[block] === 1)) {
      await Bun.sleep(0);
      return;
    }
    this.version += 1;
    const { version } = this;
    const words = new Uint32Array(count * 1024);
    for (const [index, block] of blocks.entries()) {
      this.busy[block] = 1;
      this.sent[block] = version;
      for (let at = 0; at < 1024; at += 1) words[index * 1024 + at] = version ^ block ^ at;
      words[index * 1024] = version;
    }
    const isFua = this.random.chance(0.05);
    await client.write(first * BLOCK, new Uint8Array(words.buffer), isFua ? FLAG.fua : 0);
    this.acked += 1;
    for (const block of blocks) {
      this.busy[block] = 0;
      this.done[block] = version;
      if (isFua) this.cover(block, version);
    }
  }

  private cover(block: number, version: number): void {
    if (version > this.durable[block]!) this.durable[block] = version;
  }
}

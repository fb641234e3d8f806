/**
 * Writers on real hosts whose every acknowledged block is known, for tests that kill and stop.
 *
 * Each writer owns its blocks, so that there is one order of writes per block. A write that was
 * not answered may be there or not; one that was answered must be, and so must everything a later
 * read shows. Connections that end are made again: to the same host when it is back.
 */
import { SeededRandom } from "../../core/base/random.ts";
import type { HostProcess } from "./host_process.ts";
import { NbdClient, NbdError } from "./nbd_client.ts";

export const BLOCK = 4096;
const DEPTH = 4;
/** Pause before a host that is away is tried again. */
const AWAY_MS = 20;

interface Slot {
  readonly block: number;
  version: number;
  /** Newest acknowledged version; 0 = none. */
  acked: number;
  isBusy: boolean;
}

export interface LoadCounts {
  acked: number;
  /** Requests answered with an error. */
  errors: number;
  /** Connections that ended under a writer. */
  breaks: number;
}

export class BlockLoad {
  readonly counts: LoadCounts = { acked: 0, errors: 0, breaks: 0 };
  readonly errorTexts: string[] = [];
  /** Longest time between two acknowledgements of one writer, ms, since `resetStall`. */
  longestStallMs = 0;
  private readonly slots: Slot[][] = [];
  private readonly hosts: readonly HostProcess[];
  private readonly random: SeededRandom;
  private running: Promise<void>[] = [];
  private isStopping = false;
  private readonly open = new Set<NbdClient>();

  /** One writer per entry of `hosts`, each with `blocksEach` blocks of its own. */
  constructor(hosts: readonly HostProcess[], blocksEach: number, seed: number) {
    this.hosts = hosts;
    this.random = new SeededRandom(seed);
    for (const index of hosts.keys()) {
      const slots: Slot[] = [];
      for (let at = 0; at < blocksEach; at += 1) {
        const block = at * hosts.length + index;
        slots.push({ block, version: 0, acked: 0, isBusy: false });
      }
      this.slots.push(slots);
    }
  }

  get blockCount(): number {
    return this.slots.reduce((sum, slots) => sum + slots.length, 0);
  }

  start(): void {
    this.isStopping = false;
    this.running = this.hosts.map((host, index) => this.write(host, this.slots[index] ?? []));
  }

  /** Ends the writers after what is in flight. */
  async stop(): Promise<void> {
    this.isStopping = true;
    const late = setTimeout(() => {
      for (const client of this.open) client.abort();
    }, 15_000);
    await Promise.all(this.running);
    clearTimeout(late);
  }

  /** Waits until `count` more writes were acknowledged. */
  async more(count: number, timeoutMs = 15_000): Promise<void> {
    const wanted = this.counts.acked + count;
    const deadline = performance.now() + timeoutMs;
    while (this.counts.acked < wanted) {
      if (performance.now() > deadline) {
        throw new Error(`${this.counts.acked} writes acknowledged, ${wanted} wanted in time`);
      }
      await Bun.sleep(10);
    }
  }

  resetStall(): void {
    this.longestStallMs = 0;
  }

  /** Reads everything through `client`; one line per block that is wrong. */
  async check(client: NbdClient): Promise<string[]> {
    const wrong: string[] = [];
    const total = this.blockCount;
    const bytes = await client.read(0, total * BLOCK);
    for (const slots of this.slots) {
      for (const slot of slots) {
        const found = versionIn(bytes.subarray(slot.block * BLOCK, (slot.block + 1) * BLOCK), slot);
        if (found < slot.acked || found > slot.version) {
          wrong.push(`block ${slot.block}: version ${found}, acknowledged ${slot.acked}`);
        }
      }
    }
    return wrong;
  }

  private async write(host: HostProcess, slots: Slot[]): Promise<void> {
    const own = new SeededRandom(this.random.below(2 ** 31));
    while (!this.isStopping) {
      let client: NbdClient;
      try {
        client = await NbdClient.connect({ uri: host.nbd });
      } catch {
        await Bun.sleep(AWAY_MS);
        continue;
      }
      this.open.add(client);
      const lanes = Array.from({ length: DEPTH }, () => this.lane(client, slots, own));
      await Promise.all(lanes);
      this.open.delete(client);
      client.close();
    }
  }

  /** One request at a time, until the connection or the load ends. */
  private async lane(client: NbdClient, slots: Slot[], own: SeededRandom): Promise<void> {
    let lastMs = performance.now();
    while (!this.isStopping) {
      const slot = slots[own.below(slots.length)];
      if (slot === undefined || slot.isBusy) {
        await Bun.sleep(0);
        continue;
      }
      slot.isBusy = true;
      slot.version += 1;
      const { version } = slot;
      try {
        await client.write(slot.block * BLOCK, blockOf(slot.block, version));
        slot.acked = version;
        this.counts.acked += 1;
        const nowMs = performance.now();
        this.longestStallMs = Math.max(this.longestStallMs, nowMs - lastMs);
        lastMs = nowMs;
      } catch (thrown) {
        if (!(thrown instanceof NbdError)) {
          this.counts.breaks += 1;
          return;
        }
        this.counts.errors += 1;
        this.errorTexts.push(thrown.message);
        await Bun.sleep(AWAY_MS);
      } finally {
        slot.isBusy = false;
      }
    }
  }
}

/** A block full of its number and version, so that a torn or misplaced one is seen. */
function blockOf(block: number, version: number): Uint8Array {
  const words = new Uint32Array(BLOCK / 4);
  for (let at = 0; at < words.length; at += 2) {
    words[at] = block;
    words[at + 1] = version;
  }
  return new Uint8Array(words.buffer);
}

/** The version a block holds; 0 for zeros, -1 for anything that was never written there. */
function versionIn(bytes: Uint8Array, slot: { readonly block: number }): number {
  const words = new Uint32Array(bytes.slice().buffer);
  const version = words[1] ?? 0;
  for (let at = 0; at < words.length; at += 2) {
    const isBlank = version === 0 && words[at] === 0;
    if ((words[at] !== slot.block && !isBlank) || words[at + 1] !== version) return -1;
  }
  return version;
}

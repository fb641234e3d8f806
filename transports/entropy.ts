/** Randomness of the operating system, fit for nonces: a pool refilled 4 KiB at a time. */
import { randomFillSync } from "node:crypto";
import type { Entropy } from "../core/base/ports.ts";

const POOL_WORDS = 1024;

export class SystemEntropy implements Entropy {
  private readonly pool = new Uint32Array(POOL_WORDS);
  private next = POOL_WORDS;

  u32(): number {
    if (this.next === POOL_WORDS) {
      randomFillSync(this.pool);
      this.next = 0;
    }
    const value = this.pool[this.next]!;
    this.pool[this.next] = 0; // Never given out twice, nor left in memory.
    this.next += 1;
    return value;
  }
}

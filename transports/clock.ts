/**
 * Time and the identity of this boot. CLOCK_BOOTTIME: monotonic, goes on during suspend, so that
 * a host that slept knows that its read grants ran out (R7).
 */
import { readFileSync } from "node:fs";
import { assert } from "../core/base/assert.ts";
import { libc, mapMemory } from "./libc.ts";

const CLOCK_BOOTTIME = 7;

export interface Clock {
  /** Milliseconds since boot, fractional. Never goes back. */
  nowMs(): number;
}

export class BootClock implements Clock {
  private readonly symbols = libc();
  private readonly address: number;
  private readonly words: Uint32Array;

  constructor() {
    const memory = mapMemory(4096);
    this.address = memory.address;
    this.words = new Uint32Array(memory.bytes.buffer, 0, 4);
  }

  nowMs(): number {
    const result = this.symbols.clock_gettime(CLOCK_BOOTTIME, this.address);
    assert(result === 0, "clock: CLOCK_BOOTTIME is not there");
    // struct timespec {i64 seconds, i64 nanoseconds}; both fit their low words for 136 years.
    return this.words[0]! * 1000 + this.words[2]! / 1e6;
  }
}

/** A string that differs between boots of the machine (containers share their machine's). */
export function readBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

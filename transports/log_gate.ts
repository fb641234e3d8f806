/** Keeps a noisy sentence out of the log: each key passes once per interval. */
const KEYS_MAX = 128;

export class LogGate {
  private readonly intervalMs: number;
  private readonly lastMs = new Map<string, number>();

  constructor(intervalMs: number) {
    this.intervalMs = intervalMs;
  }

  /** True if `key` may be logged now. The oldest of too many keys is forgotten. */
  pass(nowMs: number, key: string): boolean {
    const last = this.lastMs.get(key);
    if (last !== undefined && nowMs - last < this.intervalMs) return false;
    this.lastMs.delete(key);
    this.lastMs.set(key, nowMs);
    if (this.lastMs.size > KEYS_MAX) {
      for (const oldest of this.lastMs.keys()) {
        this.lastMs.delete(oldest);
        break;
      }
    }
    return true;
  }
}

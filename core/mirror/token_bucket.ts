/** Paces multicast: bytes per second with bursts no larger than a receiver's socket buffer. */

export class TokenBucket {
  private tokens: number;
  private lastMs = -1;
  private readonly bytesPerMs: number;
  private readonly burstBytes: number;

  constructor(bytesPerSecond: number, burstBytes: number) {
    this.bytesPerMs = bytesPerSecond / 1000;
    this.burstBytes = burstBytes;
    this.tokens = burstBytes;
  }

  /** Takes `bytes` if they are there now. */
  take(nowMs: number, bytes: number): boolean {
    if (this.lastMs >= 0 && nowMs > this.lastMs) {
      const earned = (nowMs - this.lastMs) * this.bytesPerMs;
      this.tokens = Math.min(this.burstBytes, this.tokens + earned);
    }
    if (nowMs > this.lastMs) this.lastMs = nowMs;
    if (this.tokens < bytes) return false;
    this.tokens -= bytes;
    return true;
  }

  /** Milliseconds until `bytes` will be there, at least `leastMs` (timers are no finer). */
  waitMs(bytes: number, leastMs: number): number {
    return Math.max(leastMs, (bytes - this.tokens) / this.bytesPerMs);
  }
}

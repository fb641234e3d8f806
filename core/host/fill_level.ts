/**
 * How full a store is, in steps that people are told of: 80, 90 and 95 %, and full, which is when
 * writes are refused for want of room. A step is left only 2 % below it, and full only below 95 %
 * and 10 s after the last refusal, so that a store at a threshold does not chatter.
 */
const STEPS = [0.8, 0.9, 0.95] as const;
const HYSTERESIS = 0.02;
const REFUSED_MS = 10_000;

export class FillLevel {
  private step = 0;
  private refused = false;

  /**
   * Takes note of the store; `sinceRefusedMs` is the time since a write was refused. True if
   * there is something new to tell.
   */
  note(usedBytes: number, sizeBytes: number, sinceRefusedMs: number): boolean {
    const share = sizeBytes === 0 ? 0 : usedBytes / sizeBytes;
    let step = 0;
    for (let index = 0; index < STEPS.length; index += 1) {
      const least = STEPS[index]! - (index < this.step ? HYSTERESIS : 0);
      if (share >= least) step = index + 1;
    }
    const isRefused = sinceRefusedMs < REFUSED_MS || (this.refused && share >= 0.95);
    if (step === this.step && isRefused === this.refused) return false;
    this.step = step;
    this.refused = isRefused;
    return true;
  }

  get isFull(): boolean {
    return this.refused;
  }

  /** The highest threshold passed, per cent; 0 below all. */
  get percent(): number {
    return this.step === 0 ? 0 : Math.round(STEPS[this.step - 1]! * 100);
  }
}

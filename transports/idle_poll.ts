/**
 * Keeps the event loop awake for a moment after a turn that left nothing to do (`busy_poll`).
 *
 * A thread that sleeps in epoll is woken by an interrupt to an idle processor: on a virtual machine
 * 20 to 30 us on each side, as much as all the work of a request. Whoever has one request in flight
 * pays that at every hop. So the loop polls (turns of `setImmediate` with nothing in them; each
 * asks epoll without waiting) as long as events keep coming within `WINDOW_MS_MAX`, and sleeps at
 * once otherwise. 4 KiB at depth 1 with and without (bench/RESULTS.md): reads 21.8 and 11.9
 * thousand a second, writes 12.6 and 9.3, with two hosts 6.1 and 3.6.
 *
 * The window adapts as KVM's halt polling does (Linux, Documentation/virt/kvm/halt-polling.rst): an
 * event that came after the window, but within the longest one, doubles it; one that came later
 * closes it. An idle host polls nothing. Nor does one that waits for its disk: the kernel's workers
 * need a processor more than it does.
 */
import { availableParallelism } from "node:os";

const WINDOW_MS_FIRST = 0.01;
/** Twice what a client on the same machine takes for its half of the round trip. */
const WINDOW_MS_MAX = 0.1;

export class IdlePoll {
  private windowMs = 0;
  private idleSinceMs = 0;
  private isPolling = false;
  private readonly isOn: boolean;
  private readonly diskIsBusy: () => boolean;

  constructor(isWanted: boolean, diskIsBusy: () => boolean) {
    // On a single processor it would only keep others from answering.
    this.isOn = isWanted && availableParallelism() > 1;
    this.diskIsBusy = diskIsBusy;
  }

  /** A turn begins: there are events. `nowMs`: any clock that does not go back, fractional. */
  turnBegins(nowMs: number): void {
    const idleMs = nowMs - this.idleSinceMs;
    if (idleMs > WINDOW_MS_MAX) this.windowMs = 0;
    else if (idleMs > this.windowMs) {
      this.windowMs = Math.min(Math.max(2 * this.windowMs, WINDOW_MS_FIRST), WINDOW_MS_MAX);
    }
  }

  /** A turn ended; nothing is left to do before the next event. */
  turnEnds(nowMs: number): void {
    this.idleSinceMs = nowMs;
    if (!this.isOn || this.windowMs === 0 || this.isPolling) return;
    this.isPolling = true;
    setImmediate(this.poll);
  }

  private readonly poll = (): void => {
    const idleMs = performance.now() - this.idleSinceMs;
    this.isPolling = idleMs < this.windowMs && !this.diskIsBusy();
    if (this.isPolling) setImmediate(this.poll);
  };
}

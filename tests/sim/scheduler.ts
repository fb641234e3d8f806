/** Simulated time: a heap of events ordered by (time, order of scheduling). */
export class Scheduler {
  nowMs = 0;
  /** Events run so far. */
  count = 0;
  private readonly times: number[] = [];
  private readonly orders: number[] = [];
  private readonly actions: (() => void)[] = [];
  private order = 0;

  /** Runs `action` after `delayMs` (0 or more). */
  after(delayMs: number, action: () => void): void {
    this.push(this.nowMs + Math.max(0, delayMs), action);
  }

  /** Runs the next event; false when there is none before `untilMs`. */
  step(untilMs: number): boolean {
    if (this.times.length === 0 || this.times[0]! > untilMs) {
      this.nowMs = Math.max(this.nowMs, untilMs);
      return false;
    }
    this.nowMs = this.times[0]!;
    const action = this.pop();
    this.count += 1;
    action();
    return true;
  }

  private push(time: number, action: () => void): void {
    this.order += 1;
    this.times.push(time);
    this.orders.push(this.order);
    this.actions.push(action);
    let at = this.times.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.isBefore(parent, at)) break;
      this.swap(parent, at);
      at = parent;
    }
  }

  private pop(): () => void {
    const action = this.actions[0]!;
    const last = this.times.length - 1;
    this.swap(0, last);
    this.times.pop();
    this.orders.pop();
    this.actions.pop();
    let at = 0;
    for (;;) {
      const left = at * 2 + 1;
      const right = left + 1;
      let least = at;
      if (left < last && this.isBefore(left, least)) least = left;
      if (right < last && this.isBefore(right, least)) least = right;
      if (least === at) return action;
      this.swap(at, least);
      at = least;
    }
  }

  private isBefore(a: number, b: number): boolean {
    if (this.times[a] !== this.times[b]) return this.times[a]! < this.times[b]!;
    return this.orders[a]! < this.orders[b]!;
  }

  private swap(a: number, b: number): void {
    const { times, orders, actions } = this;
    [times[a], times[b]] = [times[b]!, times[a]!];
    [orders[a], orders[b]] = [orders[b]!, orders[a]!];
    [actions[a], actions[b]] = [actions[b]!, actions[a]!];
  }
}

/**
 * The history of one block: writes of unique values and reads, each with the times of its
 * invocation and answer, and the check that it is linearizable.
 *
 * With unique values the check is exact and linear: P. B. Gibbons and E. Korach, "Testing Shared
 * Memories", SIAM J. Comput. 26(4), 1997, section 4: each value's operations form a cluster with
 * a zone between the earliest answer and the latest invocation; the history is atomic iff no read
 * answers before its write began, no two forward zones overlap, and no backward zone lies inside
 * a forward one.
 *
 * Value 0 is a hole and is not unique, so it is checked by itself, less strictly: a read of 0
 * needs a zero-write (or the initial state) that no write surely lies behind.
 */
export interface Operation {
  readonly isWrite: boolean;
  value: number;
  readonly invokedMs: number;
  /** Infinity while unanswered, or when the answer was an error: it may have happened, or not. */
  answeredMs: number;
}

export interface Flush {
  readonly invokedMs: number;
  answeredMs: number;
}

interface Zone {
  value: number;
  /** Earliest answer. */
  first: number;
  /** Latest invocation. */
  last: number;
  written: number;
}

export class BlockHistory {
  operations: Operation[] = [];
  /** What the block may hold at the start: 0 alone, or more after a blackout. */
  initial = new Set<number>([0]);

  add(operation: Operation): void {
    this.operations.push(operation);
  }

  /** A sentence when the history cannot be explained, null when it can. */
  check(): string | null {
    const zones = new Map<number, Zone>();
    const start = this.startValue();
    if (typeof start === "string") return start;
    if (start !== 0) zones.set(start, { value: start, first: -1, last: -1, written: -1 });
    for (const each of this.operations) {
      if (!each.isWrite || each.value === 0) continue;
      zones.set(each.value, {
        value: each.value,
        first: each.answeredMs,
        last: each.invokedMs,
        written: each.invokedMs,
      });
    }
    for (const each of this.operations) {
      if (each.isWrite || each.answeredMs === Infinity || each.value === 0) continue;
      const zone = zones.get(each.value);
      if (zone === undefined) return `a read returned ${each.value}, which nobody wrote`;
      if (each.answeredMs < zone.written) return `${each.value} was read before it was written`;
      zone.first = Math.min(zone.first, each.answeredMs);
      zone.last = Math.max(zone.last, each.invokedMs);
    }
    return this.checkZones([...zones.values()]) ?? this.checkZeros();
  }

  /**
   * All members lost their memory: values that a flush covers stay (with `ack = "durable"` all
   * that was answered), later ones may be gone. The history begins anew with what the block may
   * hold now.
   */
  blackout(flushes: readonly Flush[], areAcksDurable: boolean): void {
    const covered = (write: Operation): boolean =>
      (areAcksDurable && write.answeredMs < Number.POSITIVE_INFINITY) ||
      flushes.some((flush) => write.answeredMs < flush.invokedMs && flush.answeredMs < Infinity);
    const writes = this.operations.filter((each) => each.isWrite);
    const candidates = new Set<number>();
    const isGone = (answeredMs: number): boolean =>
      writes.some((later) => answeredMs < later.invokedMs && covered(later));
    for (const write of writes) if (!isGone(write.answeredMs)) candidates.add(write.value);
    if (!isGone(-1)) for (const value of this.initial) candidates.add(value);
    this.initial = candidates;
    // Unanswered writes may yet happen: their clients may be on hosts that did not die.
    this.operations = writes.filter((write) => write.answeredMs === Number.POSITIVE_INFINITY);
  }

  /** With several possible initial values the first value read that nobody wrote is the one. */
  private startValue(): number | string {
    if (this.initial.size === 1) return [...this.initial][0]!;
    const written = new Set(this.operations.filter((each) => each.isWrite).map((e) => e.value));
    for (const each of this.operations) {
      if (each.isWrite || each.answeredMs === Infinity || written.has(each.value)) continue;
      if (!this.initial.has(each.value))
        return `a read returned ${each.value}, lost or never there`;
      return each.value;
    }
    return [...this.initial][0]!;
  }

  private checkZones(zones: Zone[]): string | null {
    const forward = zones.filter((zone) => zone.first < zone.last);
    const backward = zones.filter((zone) => zone.first >= zone.last && zone.first < Infinity);
    forward.sort((a, b) => a.first - b.first);
    for (let index = 1; index < forward.length; index += 1) {
      const before = forward[index - 1]!;
      const after = forward[index]!;
      if (after.first < before.last) {
        return `${before.value} and ${after.value} were each seen both before and after the other`;
      }
    }
    for (const zone of backward) {
      for (const around of forward) {
        if (around.first < zone.last && zone.first < around.last) {
          return `${around.value} was seen again after ${zone.value} had replaced it`;
        }
      }
    }
    return null;
  }

  private checkZeros(): string | null {
    const zeros = this.operations.filter((each) => each.isWrite && each.value === 0);
    if (this.initial.has(0)) {
      zeros.push({ isWrite: true, value: 0, invokedMs: -2, answeredMs: -2 });
    }
    const writes = this.operations.filter((each) => each.isWrite && each.value !== 0);
    for (const read of this.operations) {
      if (read.isWrite || read.value !== 0 || read.answeredMs === Infinity) continue;
      const explained = zeros.some(
        (zero) =>
          zero.invokedMs <= read.answeredMs &&
          !writes.some(
            (write) => zero.answeredMs < write.invokedMs && write.answeredMs < read.invokedMs,
          ),
      );
      if (!explained) return "a read returned zeros where data had been written";
    }
    return null;
  }
}

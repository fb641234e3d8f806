/** Work by time, ties in the order of arrival: a binary heap. */
interface Entry {
  readonly atMs: number;
  readonly order: number;
  readonly work: () => void;
}

export class EventQueue {
  private readonly heap: Entry[] = [];
  private order = 0;

  nextAtMs(): number {
    return this.heap[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  push(atMs: number, work: () => void): void {
    this.order += 1;
    const { heap } = this;
    heap.push({ atMs, order: this.order, work });
    let at = heap.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(heap[at]!, heap[parent]!)) break;
      this.swap(at, parent);
      at = parent;
    }
  }

  /** Takes the first; the queue must not be empty. */
  pop(): () => void {
    const { heap } = this;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length > 0) {
      heap[0] = last;
      this.sink();
    }
    return first.work;
  }

  private sink(): void {
    const { heap } = this;
    let at = 0;
    for (;;) {
      const left = at * 2 + 1;
      if (left >= heap.length) return;
      const right = left + 1;
      const child = right < heap.length && before(heap[right]!, heap[left]!) ? right : left;
      if (!before(heap[child]!, heap[at]!)) return;
      this.swap(at, child);
      at = child;
    }
  }

  private swap(one: number, other: number): void {
    const kept = this.heap[one]!;
    this.heap[one] = this.heap[other]!;
    this.heap[other] = kept;
  }
}

function before(one: Entry, other: Entry): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

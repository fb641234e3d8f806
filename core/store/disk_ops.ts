/**
 * The store's operations in flight: numbers for their completions, and how long the oldest has
 * taken. An operation that exceeds the bound fails the disk: a disk that hangs is not
 * waited for, the mirrors have the data.
 */
import { assert } from "../base/assert.ts";

/** What to do with a completion. */
export const OP = {
  none: 0,
  write: 1,
  sync: 2,
  read: 3,
  task: 4,
  discard: 5,
  reserve: 6,
  scrub: 7,
  page: 8,
} as const;

const CAPACITY_SHIFT = 8;
const CAPACITY = 1 << CAPACITY_SHIFT;

export class DiskOps {
  /** Current time of the owner; set at every event. */
  nowMs = 0;
  /** Of the operation that `finish` returned. */
  kind: number = OP.none;
  subject = 0;
  private readonly kinds = new Uint8Array(CAPACITY);
  private readonly subjects = new Float64Array(CAPACITY);
  private readonly generations = new Uint32Array(CAPACITY);
  private readonly startedMs = new Float64Array(CAPACITY).fill(Number.POSITIVE_INFINITY);
  private readonly free: number[] = [];

  constructor() {
    for (let slot = CAPACITY - 1; slot >= 0; slot -= 1) this.free.push(slot);
  }

  get inFlight(): number {
    return CAPACITY - this.free.length;
  }

  /** A tag for one operation of this kind about this subject. */
  begin(kind: number, subject: number): number {
    const slot = this.free.pop();
    assert(slot !== undefined, "disk ops: more operations in flight than the store can start");
    this.kinds[slot] = kind;
    this.subjects[slot] = subject;
    this.startedMs[slot] = this.nowMs;
    const generation = (this.generations[slot]! + 1) & 0xffffff;
    this.generations[slot] = generation;
    return (generation << CAPACITY_SHIFT) | slot;
  }

  /** Ends the operation; `kind` and `subject` say which. False for a tag that is not in flight. */
  finish(tag: number): boolean {
    const slot = tag & (CAPACITY - 1);
    if (this.kinds[slot] === OP.none) return false;
    if (((this.generations[slot]! << CAPACITY_SHIFT) | slot) !== tag) return false;
    this.kind = this.kinds[slot]!;
    this.subject = this.subjects[slot]!;
    this.kinds[slot] = OP.none;
    this.startedMs[slot] = Number.POSITIVE_INFINITY;
    this.free.push(slot);
    return true;
  }

  /** When the oldest operation in flight was started; Infinity if none is. */
  oldestMs(): number {
    if (this.free.length === CAPACITY) return Number.POSITIVE_INFINITY;
    let oldest = Number.POSITIVE_INFINITY;
    for (let slot = 0; slot < CAPACITY; slot += 1) {
      if (this.startedMs[slot]! < oldest) oldest = this.startedMs[slot]!;
    }
    return oldest;
  }
}

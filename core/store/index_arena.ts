/**
 * Memory for index pages: 1024 words of 32 bits each, in slabs of 256 pages, so that the garbage
 * collector sees a few large arrays however large the index is (measured in BUN facts, section
 * 9: a full collection takes 0.2 ms with slabs, 40 to 80 ms with a Map).
 *
 * Word 2i is the low 32 bits of block i's place, word 2i+1 its high 16 bits and, above them, 16
 * bits of its checksum. Which page lies in which slot is the page table's affair.
 */
import { assert } from "../base/assert.ts";
import { PAGE_WORDS } from "../format/checkpoint.ts";

const SLAB_PAGES_SHIFT = 8;
const SLAB_PAGES = 1 << SLAB_PAGES_SHIFT;

export class IndexArena {
  private readonly slabs: Uint32Array[] = [];
  private free: number[] = [];
  private next = 0;

  /** A slot whose words are anything; the caller fills it. */
  allocate(): number {
    const recycled = this.free.pop();
    if (recycled !== undefined) return recycled;
    if (this.next >> SLAB_PAGES_SHIFT === this.slabs.length) {
      this.slabs.push(new Uint32Array(SLAB_PAGES * PAGE_WORDS));
    }
    this.next += 1;
    return this.next - 1;
  }

  release(slot: number): void {
    assert(slot >= 0 && slot < this.next, "index: released a slot that is not there");
    this.free.push(slot);
  }

  /** Forgets slots from `count` on, rounded up to whole slabs; returns the first forgotten. */
  truncate(count: number): number {
    const slabs = Math.ceil(count / SLAB_PAGES);
    if (slabs >= this.slabs.length) return this.next;
    this.slabs.length = slabs;
    this.next = Math.min(this.next, slabs * SLAB_PAGES);
    this.free = this.free.filter((slot) => slot < this.next);
    return this.next;
  }

  clear(slot: number): void {
    const base = this.base(slot);
    this.slab(slot).fill(0, base, base + PAGE_WORDS);
  }

  copy(from: number, to: number): void {
    const base = this.base(from);
    this.slab(to).set(this.slab(from).subarray(base, base + PAGE_WORDS), this.base(to));
  }

  /** The array that holds the slot; its words begin at `base(slot)`. */
  slab(slot: number): Uint32Array {
    return this.slabs[slot >> SLAB_PAGES_SHIFT] as Uint32Array;
  }

  base(slot: number): number {
    return (slot & (SLAB_PAGES - 1)) * PAGE_WORDS;
  }

  /** All slots there ever were have numbers below this one. */
  get slotEnd(): number {
    return this.next;
  }

  /** Slots in use. */
  get slotCount(): number {
    return this.next - this.free.length;
  }
}

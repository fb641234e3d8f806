/**
 * Memory for index pages: 1024 words of 32 bits each, in slabs of 256 pages, so that the garbage
 * collector sees a few large arrays however large the index is (measured in BUN facts, section
 * 9: a full collection takes 0.2 ms with slabs, 40 to 80 ms with a Map).
 *
 * Word 2i is the low 32 bits of block i's place, word 2i+1 its high 16 bits and, above them, 16
 * bits of its checksum. Pages are referred to by number, so that versions of a volume's page
 * table can share them later (snapshots).
 */
import { assert } from "../base/assert.ts";
import { PAGE_WORDS } from "../format/checkpoint.ts";

const SLAB_PAGES_SHIFT = 8;
const SLAB_PAGES = 1 << SLAB_PAGES_SHIFT;

export class IndexArena {
  private readonly slabs: Uint32Array[] = [];
  private readonly free: number[] = [];
  private next = 0;

  /** A page of holes. */
  allocate(): number {
    const recycled = this.free.pop();
    const page = recycled ?? this.next;
    if (recycled === undefined) {
      if (page >> SLAB_PAGES_SHIFT === this.slabs.length) {
        this.slabs.push(new Uint32Array(SLAB_PAGES * PAGE_WORDS));
      }
      this.next += 1;
    } else {
      const base = this.base(page);
      this.slab(page).fill(0, base, base + PAGE_WORDS);
    }
    return page;
  }

  release(page: number): void {
    assert(page >= 0 && page < this.next, "index: released a page that is not there");
    this.free.push(page);
  }

  /** The array that holds the page; its words begin at `base(page)`. */
  slab(page: number): Uint32Array {
    return this.slabs[page >> SLAB_PAGES_SHIFT] as Uint32Array;
  }

  base(page: number): number {
    return (page & (SLAB_PAGES - 1)) * PAGE_WORDS;
  }

  get pageCount(): number {
    return this.next - this.free.length;
  }
}

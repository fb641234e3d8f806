/**
 * What is known of each page of the index: its slot in memory, its newest version in the log,
 * what is in it. In typed arrays by page number, so that a million pages are a few objects.
 *
 * A page belongs to one region of one volume and may be shared by several nodes (versions of the
 * volume); `refs` counts them. Numbers of freed pages are used again.
 */
import { assert } from "../base/assert.ts";

/** `slots` of a page that is not in memory. */
export const NO_SLOT = -1;

const PAGES_MIN = 1024;
/** The sum of one element of each array. */
const BYTES_PER_PAGE = 4 + 8 + 2 + 2 + 2 + 4 + 1 + 1;

export class PageTable {
  /** Slot of the arena, or NO_SLOT. */
  slots = new Int32Array(PAGES_MIN).fill(NO_SLOT);
  /** Where the newest stored version's item lies in the log; 0 = never stored. */
  places = new Float64Array(PAGES_MIN);
  /** Length of that item in units of 16 bytes. */
  units = new Uint16Array(PAGES_MIN);
  /** Entries that are not holes, and how many of those are lost. */
  counts = new Uint16Array(PAGES_MIN);
  losts = new Uint16Array(PAGES_MIN);
  /** Nodes that hold the page. */
  refs = new Uint32Array(PAGES_MIN);
  /** 1: differs from its stored version. */
  dirty = new Uint8Array(PAGES_MIN);
  /** 1: used since the clock's hand came by last. */
  used = new Uint8Array(PAGES_MIN);
  /** Pages that are dirty. */
  dirtyCount = 0;
  private readonly free: number[] = [];
  private next = 0;

  /** A page that one node holds; nothing in it, not in memory, never stored. */
  create(): number {
    const page = this.free.pop() ?? this.next;
    if (page === this.next) {
      if (page === this.slots.length) this.grow();
      this.next += 1;
    }
    this.refs[page] = 1;
    return page;
  }

  /** Nobody holds it, it has no slot and is not dirty. */
  forget(page: number): void {
    assert(this.refs[page] === 0 && this.slots[page] === NO_SLOT, "pages: forgot a page in use");
    assert(this.dirty[page] === 0, "pages: forgot a dirty page");
    this.places[page] = 0;
    this.units[page] = 0;
    this.counts[page] = 0;
    this.losts[page] = 0;
    this.free.push(page);
  }

  markDirty(page: number): void {
    if (this.dirty[page] === 1) return;
    this.dirty[page] = 1;
    this.dirtyCount += 1;
  }

  markClean(page: number): void {
    if (this.dirty[page] === 0) return;
    this.dirty[page] = 0;
    this.dirtyCount -= 1;
  }

  /** Memory that all this takes, bytes. */
  get memoryBytes(): number {
    return this.slots.length * BYTES_PER_PAGE;
  }

  private grow(): void {
    const length = this.slots.length * 2;
    const slots = new Int32Array(length).fill(NO_SLOT);
    slots.set(this.slots);
    this.slots = slots;
    this.places = copyInto(new Float64Array(length), this.places);
    this.units = copyInto(new Uint16Array(length), this.units);
    this.counts = copyInto(new Uint16Array(length), this.counts);
    this.losts = copyInto(new Uint16Array(length), this.losts);
    this.refs = copyInto(new Uint32Array(length), this.refs);
    this.dirty = copyInto(new Uint8Array(length), this.dirty);
    this.used = copyInto(new Uint8Array(length), this.used);
  }
}

function copyInto<T extends Float64Array | Uint32Array | Uint16Array | Uint8Array>(
  to: T,
  from: T,
): T {
  to.set(from);
  return to;
}

/**
 * Which pages of the index are in memory: slots are handed out up to a limit, then taken from pages
 * that are clean and were not used lately (second chance, CLOCK: Corbato, "A Paging Experiment with
 * the Multics System", 1968).
 *
 * A dirty page cannot be taken; when too many are, writers wait for a checkpoint (`isTight`). What
 * must go on all the same (roll-forward, damage) goes past the limit.
 */
import type { IndexArena } from "./index_arena.ts";
import { NO_SLOT, type PageTable } from "./page_table.ts";

/** Slots that every store has: enough for one write, one move and one read at a time. */
export const SLOTS_MIN = 32;
/** Pages that were asked for last and are not taken. */
const GUARDS = 8;
/** A writer needs so many slots at most. */
const WRITE_SLOTS = 6;

export class SlotClock {
  /** Slots to be in use at most. */
  limit = SLOTS_MIN;
  /** Pages taken from memory. */
  evictions = 0;
  private readonly pages: PageTable;
  private readonly arena: IndexArena;
  /** Page in each slot, or -1. */
  private slotPages = new Int32Array(SLOTS_MIN).fill(-1);
  private hand = 0;
  private readonly guards = new Int32Array(GUARDS).fill(-1);
  private guardAt = 0;

  constructor(pages: PageTable, arena: IndexArena) {
    this.pages = pages;
    this.arena = arena;
  }

  /** So many pages are dirty that a writer might find no slot. */
  get isTight(): boolean {
    return this.pages.dirtyCount + GUARDS + WRITE_SLOTS > this.limit;
  }

  /** Time for a checkpoint, before it is tight. */
  get wantsCheckpoint(): boolean {
    return this.pages.dirtyCount * 2 + GUARDS + WRITE_SLOTS > this.limit;
  }

  /** The page is needed in memory for what comes next. */
  guard(page: number): void {
    this.guards[this.guardAt] = page;
    this.guardAt = (this.guardAt + 1) % GUARDS;
  }

  /** Gives the page a slot, whose words are anything. */
  take(page: number): number {
    const slot = this.arena.slotCount < this.limit ? this.arena.allocate() : this.steal();
    if (slot >= this.slotPages.length) this.grow();
    this.slotPages[slot] = page;
    this.pages.slots[page] = slot;
    this.pages.used[page] = 1;
    return slot;
  }

  /** Gives back what went past the limit, once nothing is dirty. */
  shrink(): void {
    const { pages, slotPages } = this;
    if (this.arena.slotCount <= this.limit || pages.dirtyCount > 0) return;
    const end = this.arena.truncate(this.limit);
    for (let slot = end; slot < slotPages.length; slot += 1) {
      const page = slotPages[slot]!;
      if (page < 0) continue;
      pages.slots[page] = NO_SLOT;
      slotPages[slot] = -1;
    }
    this.hand = 0;
  }

  /** The page needs its slot no more. */
  release(page: number): void {
    const slot = this.pages.slots[page]!;
    if (slot === NO_SLOT) return;
    this.pages.slots[page] = NO_SLOT;
    this.slotPages[slot] = -1;
    this.arena.release(slot);
  }

  /** A slot of a page that nobody will miss; a new one if all are needed. */
  private steal(): number {
    const { pages, slotPages } = this;
    const count = this.arena.slotEnd;
    // Nothing to be had, as in a roll-forward that touched more than fits.
    if (this.arena.slotCount - pages.dirtyCount <= GUARDS) return this.arena.allocate();
    // Twice around: the first time may do no more than take everybody's second chance.
    for (let step = 0; step < 2 * count; step += 1) {
      const slot = this.hand;
      this.hand = slot + 1 < count ? slot + 1 : 0;
      const page = slotPages[slot]!;
      if (page < 0 || pages.dirty[page] === 1) continue;
      if (pages.used[page] === 1) {
        pages.used[page] = 0;
        continue;
      }
      if (this.guards.includes(page)) continue;
      pages.slots[page] = NO_SLOT;
      slotPages[slot] = -1;
      this.evictions += 1;
      return slot;
    }
    return this.arena.allocate();
  }

  private grow(): void {
    const slotPages = new Int32Array(this.slotPages.length * 2).fill(-1);
    slotPages.set(this.slotPages);
    this.slotPages = slotPages;
  }
}

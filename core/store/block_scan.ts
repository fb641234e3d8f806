/**
 * Reads blocks of data straight from the disk and verifies each: checksum, address, and the bits
 * of the checksum that the index remembers. Several large reads are in flight at once.
 */
import { type Disk, ERRNO } from "../base/ports.ts";
import { viewOf } from "../format/layout.ts";
import { ENTRY, STORED_BLOCK_BYTES, verifyEntry } from "../format/record.ts";
import { PLACE_UNIT } from "../format/segment.ts";
import { type DiskOps, OP } from "./disk_ops.ts";
import { PlaceWindow } from "./place_window.ts";
import { type Task, WAIT } from "./task.ts";

/** Bytes of one read, and reads in flight. */
const READ_BYTES = 1024 * 1024;
const SLOTS = 8;
/** Unused bytes between two blocks that are read along rather than skipped. */
const GAP_BYTES = 64 * 1024;

interface Slot {
  readonly buffer: Uint8Array;
  readonly view: DataView;
  /** Blocks `[next, end)` of the window's order are still to be judged. */
  next: number;
  end: number;
  /** Block by block, since the read as a whole failed. */
  isSplit: boolean;
  offset: number;
  length: number;
}

export class BlockScan {
  readonly window = new PlaceWindow();
  blocksChecked = 0;
  private readonly disk: Disk;
  private readonly ops: DiskOps;
  private readonly slots: Slot[] = [];
  private readonly free: number[] = [];
  private readonly bad: (volume: number, lba: number, place: number, why: string) => void;

  constructor(
    disk: Disk,
    ops: DiskOps,
    bad: (volume: number, lba: number, place: number, why: string) => void,
  ) {
    this.disk = disk;
    this.ops = ops;
    this.bad = bad;
  }

  /** Reads and judges all blocks of the window, and empties it. */
  *run(): Task<void> {
    const { window } = this;
    if (window.count === 0) return;
    if (this.slots.length === 0) this.allocate();
    window.sort();
    for (let next = 0; next < window.count; ) {
      while (this.free.length === 0) yield WAIT.room;
      next = this.begin(this.free.pop() as number, next);
    }
    while (this.free.length < SLOTS) yield WAIT.room;
    window.clear();
  }

  private allocate(): void {
    for (let number = 0; number < SLOTS; number += 1) {
      const buffer = this.disk.allocate(READ_BYTES);
      const view = viewOf(buffer);
      this.slots.push({ buffer, view, next: 0, end: 0, isSplit: false, offset: 0, length: 0 });
      this.free.push(number);
    }
  }

  /** Starts a read of as many blocks as lie close together from `first` on; the next one. */
  private begin(slotNumber: number, first: number): number {
    const slot = this.slots[slotNumber] as Slot;
    let end = first + 1;
    const limit = READ_BYTES - 2 * this.disk.sectorBytes - STORED_BLOCK_BYTES;
    while (end < this.window.count) {
      const offset = this.offsetOf(end);
      if (offset - this.offsetOf(first) > limit) break;
      if (offset - this.offsetOf(end - 1) > STORED_BLOCK_BYTES + GAP_BYTES) break;
      end += 1;
    }
    slot.next = first;
    slot.end = end;
    slot.isSplit = false;
    this.submit(slotNumber, first, end - 1);
    return end;
  }

  private offsetOf(index: number): number {
    return this.window.places[this.window.order[index]!]! * PLACE_UNIT;
  }

  /** Reads what blocks `first` to `last` of the order span, in whole sectors. */
  private submit(slotNumber: number, first: number, last: number): void {
    const slot = this.slots[slotNumber] as Slot;
    const { sectorBytes } = this.disk;
    const from = this.offsetOf(first);
    slot.offset = from - (from % sectorBytes);
    const end = this.offsetOf(last) + STORED_BLOCK_BYTES;
    slot.length = Math.ceil((end - slot.offset) / sectorBytes) * sectorBytes;
    this.disk.read(this.ops.begin(OP.read, slotNumber), slot.offset, slot.buffer, 0, slot.length);
  }

  /** A read completed. */
  finished(slotNumber: number, result: number): void {
    const slot = this.slots[slotNumber] as Slot;
    if (result !== slot.length && !slot.isSplit && slot.end - slot.next > 1) {
      // One bad sector must not take its neighbours with it.
      slot.isSplit = true;
      this.submit(slotNumber, slot.next, slot.next);
      return;
    }
    const stop = slot.isSplit ? slot.next + 1 : slot.end;
    for (; slot.next < stop; slot.next += 1) this.judge(slot, slot.next, result);
    if (slot.next < slot.end) this.submit(slotNumber, slot.next, slot.next);
    else this.free.push(slotNumber);
  }

  private judge(slot: Slot, index: number, result: number): void {
    const { window } = this;
    const block = window.order[index]!;
    const volume = window.volumes[block]!;
    const lba = window.lbas[block]!;
    this.blocksChecked += 1;
    const why = this.whyBad(slot, block, this.offsetOf(index) - slot.offset, result);
    if (why !== "") this.bad(volume, lba, window.places[block]!, why);
  }

  private whyBad(slot: Slot, block: number, at: number, result: number): string {
    const { buffer, view } = slot;
    if (result === -ERRNO.EIO) return "the disk does not read it";
    if (result !== slot.length) return "the disk reads it short";
    const volume = ENTRY.volume.get(view, at);
    const lba = ENTRY.lba.get(view, at);
    if (!verifyEntry(buffer, view, at, volume, lba)) return "its checksum does not match";
    if (volume !== this.window.volumes[block] || lba !== this.window.lbas[block]) {
      return "another block lies there (misdirected or lost write)";
    }
    const check = ENTRY.check.get(view, at) & 0xffff;
    return check === this.window.checks[block] ? "" : "an older version lies there (lost write)";
  }
}

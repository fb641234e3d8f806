/** Reads items of the store's own (pages, nodes, chunks of roots) and checks them; for tasks. */
import { viewOf } from "../format/layout.ts";
import {
  decodeItemHeader,
  ITEM_HEADER_BYTES,
  ItemHeader,
  itemBodyIsWhole,
  PLACE_UNIT,
} from "../format/segment.ts";
import { roundUp } from "../base/units.ts";
import type { Geometry } from "./geometry.ts";
import type { Task, TaskIo } from "./task.ts";

export const LOAD_BUFFER_BYTES = 1024 * 1024;

export class ItemReader {
  /** Of the item read last. */
  readonly header = new ItemHeader();
  readonly buffer: Uint8Array;
  readonly view: DataView;
  private readonly io: TaskIo;
  private readonly geometry: Geometry;
  /** Where the buffer's first byte lies on disk, and how much of it is valid. */
  private bufferOffset = 0;
  private bufferLength = 0;

  /** `buffer`: LOAD_BUFFER_BYTES for I/O. */
  constructor(io: TaskIo, geometry: Geometry, buffer: Uint8Array) {
    this.io = io;
    this.geometry = geometry;
    this.buffer = buffer;
    this.view = viewOf(buffer);
  }

  /** What was read ahead may be stale from now on. */
  forget(): void {
    this.bufferLength = 0;
  }

  /**
   * Reads an item of this kind and length; its position in the buffer, or -1 if it is not there
   * whole. Reads on to the place `ahead` if that is in reach: what will be asked for next.
   */
  *read(place: number, length: number, kind: number, ahead: number): Task<number> {
    const { geometry } = this;
    if (length < ITEM_HEADER_BYTES || length > LOAD_BUFFER_BYTES / 2) return -1;
    if (!geometry.holdsItem(place, length)) return -1;
    const offset = place * PLACE_UNIT;
    const segmentEnd = geometry.offsetOf(geometry.segmentOf(place)) + geometry.segmentBytes;
    const isThere =
      offset >= this.bufferOffset && offset + length <= this.bufferOffset + this.bufferLength;
    if (!isThere) {
      const from = offset - (offset % 4096);
      const need = roundUp(offset + length - from, 4096);
      const end = Math.min(from + LOAD_BUFFER_BYTES, segmentEnd);
      const want = Math.max(need, Math.min(end, roundUp(ahead * PLACE_UNIT, 4096)) - from);
      yield* this.fill(from, want, need);
      if (offset + length > this.bufferOffset + this.bufferLength) return -1;
    }
    const at = offset - this.bufferOffset;
    const { header } = this;
    if (!decodeItemHeader(this.buffer, this.view, at, header)) return -1;
    if (header.kind !== kind || header.bodyBytes !== length - ITEM_HEADER_BYTES) return -1;
    return itemBodyIsWhole(this.buffer, at, header) ? at : -1;
  }

  /** Reads ahead; if the disk cannot, only what is needed. */
  private *fill(from: number, want: number, need: number): Task<void> {
    this.bufferOffset = from;
    this.bufferLength = 0;
    let got = yield* this.io.read(from, this.buffer, 0, want);
    if (got !== want && need < want) got = yield* this.io.read(from, this.buffer, 0, need);
    if (got > 0) this.bufferLength = got;
  }
}

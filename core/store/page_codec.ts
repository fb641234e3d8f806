/** Pages as they lie in the log (format.md, "Checkpoint"): dense or sparse. */
import { assert } from "../base/assert.ts";
import { REGION_BLOCKS, roundUp } from "../base/units.ts";
import {
  PAGE_BYTES,
  PAGE_ENTRY,
  PAGE_WORDS,
  SPARSE_ENTRY,
  SPARSE_MAX,
} from "../format/checkpoint.ts";
import { ITEM_KIND, type ItemHeader } from "../format/segment.ts";
import type { Geometry } from "./geometry.ts";
import { HOLE_PLACE, LOST_PLACE } from "./index_pool.ts";

/** Puts the body at `at` and what it is into `header`: kind, form, count and length. */
export function encodePage(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  words: Uint32Array,
  entryCount: number,
  header: ItemHeader,
): void {
  const isSparse = entryCount <= SPARSE_MAX;
  header.kind = ITEM_KIND.page;
  header.form = isSparse ? 1 : 0;
  header.count = isSparse ? entryCount : 0;
  header.bodyBytes = isSparse ? sparsePage(buffer, view, at, words) : densePage(buffer, at, words);
}

/** Stores a page whole; returns its bytes. Words are little-endian on every machine Bun runs on. */
function densePage(buffer: Uint8Array, at: number, words: Uint32Array): number {
  buffer.set(new Uint8Array(words.buffer, words.byteOffset, PAGE_BYTES), at);
  return PAGE_BYTES;
}

/** Stores the blocks of a page that are there; returns the bytes, padded. */
function sparsePage(buffer: Uint8Array, view: DataView, at: number, words: Uint32Array): number {
  let position = at;
  for (let word = 0; word < PAGE_WORDS; word += 2) {
    const low = words[word]!;
    const high = words[word + 1]!;
    if (low === 0 && (high & 0xffff) === 0) continue;
    SPARSE_ENTRY.placeLow.set(view, position, low);
    SPARSE_ENTRY.placeHigh.set(view, position, high & 0xffff);
    SPARSE_ENTRY.check.set(view, position, high >>> 16);
    SPARSE_ENTRY.block.set(view, position, word / 2);
    SPARSE_ENTRY.reserved.set(view, position, 0);
    position += SPARSE_ENTRY.sizeBytes;
  }
  assert(position - at <= PAGE_BYTES, "checkpoint: sparse page longer than a dense one");
  const end = at + roundUp(position - at, 16);
  buffer.fill(0, position, end);
  return end - at;
}

/** What `decodePage` found. */
export interface PageCounts {
  entries: number;
  losts: number;
}

/**
 * Fills `words` (all zero) from the body at `at` of a page's item whose checksum holds. False if
 * it says what cannot be; `words` may then be anything.
 */
export function decodePage(
  view: DataView,
  at: number,
  header: ItemHeader,
  geometry: Geometry,
  words: Uint32Array,
  out: PageCounts,
): boolean {
  out.entries = 0;
  out.losts = 0;
  const isSparse = header.form === 1;
  const step = isSparse ? SPARSE_ENTRY.sizeBytes : PAGE_ENTRY.sizeBytes;
  const count = isSparse ? header.count : REGION_BLOCKS;
  if (count * step > header.bodyBytes || header.bodyBytes > PAGE_BYTES) return false;
  let before = -1;
  for (let index = 0; index < count; index += 1) {
    const entryAt = at + index * step;
    const block = isSparse ? SPARSE_ENTRY.block.get(view, entryAt) : index;
    const low = PAGE_ENTRY.placeLow.get(view, entryAt);
    const high = PAGE_ENTRY.placeHigh.get(view, entryAt);
    const place = low + high * 4294967296;
    if (place === HOLE_PLACE) continue;
    if (block <= before || block >= REGION_BLOCKS) return false;
    before = block;
    if (place === LOST_PLACE) out.losts += 1;
    else if (!geometry.isBlockPlace(place)) return false;
    out.entries += 1;
    words[block * 2] = low;
    words[block * 2 + 1] = (high | (PAGE_ENTRY.check.get(view, entryAt) << 16)) >>> 0;
  }
  return true;
}

/** Pages as they lie in the log (format.md, "Checkpoint"): dense or sparse. */
import { assert } from "../base/assert.ts";
import { REGION_BLOCKS, roundUp } from "../base/units.ts";
import { PAGE_BYTES, PAGE_WORDS, SPARSE_ENTRY, SPARSE_MAX } from "../format/checkpoint.ts";
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
 * Fills `words` from the body at `at` of a page's item whose checksum holds. False if it says what
 * cannot be; `words` may then be anything. A dense page lies in the log as it does in memory.
 */
export function decodePage(
  buffer: Uint8Array,
  view: DataView,
  at: number,
  header: ItemHeader,
  geometry: Geometry,
  words: Uint32Array,
  out: PageCounts,
): boolean {
  if (header.form === 1) {
    if (!unpackSparse(view, at, header, words)) return false;
  } else {
    if (header.bodyBytes !== PAGE_BYTES) return false;
    const bytes = new Uint8Array(words.buffer, words.byteOffset, PAGE_BYTES);
    bytes.set(buffer.subarray(at, at + PAGE_BYTES));
  }
  return countPage(words, geometry, out);
}

function unpackSparse(view: DataView, at: number, header: ItemHeader, words: Uint32Array): boolean {
  words.fill(0);
  const { count, bodyBytes } = header;
  if (count * SPARSE_ENTRY.sizeBytes > bodyBytes) return false;
  for (let index = 0; index < count; index += 1) {
    const entryAt = at + index * SPARSE_ENTRY.sizeBytes;
    const block = SPARSE_ENTRY.block.get(view, entryAt);
    if (block >= REGION_BLOCKS) return false;
    words[block * 2] = SPARSE_ENTRY.placeLow.get(view, entryAt);
    const high = SPARSE_ENTRY.placeHigh.get(view, entryAt);
    words[block * 2 + 1] = (high | (SPARSE_ENTRY.check.get(view, entryAt) << 16)) >>> 0;
  }
  return true;
}

/** Counts the entries; false if one points where no block can lie. */
function countPage(words: Uint32Array, geometry: Geometry, out: PageCounts): boolean {
  out.entries = 0;
  out.losts = 0;
  for (let word = 0; word < PAGE_WORDS; word += 2) {
    const place = words[word]! + (words[word + 1]! & 0xffff) * 4294967296;
    if (place === HOLE_PLACE) continue;
    out.entries += 1;
    if (place === LOST_PLACE) out.losts += 1;
    else if (!geometry.isBlockPlace(place)) return false;
  }
  return true;
}

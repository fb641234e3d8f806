/**
 * What lies where in the image of a store: found by the layouts of `core/format/` alone, without
 * any code of the store, as a stranger would with docs/format.md. For tests that damage an image in
 * a chosen place, or change a field and make every checksum above it right again.
 */
import { crc32 } from "../../core/base/checksum.ts";
import { NODE_REGION, PAGE_ENTRY, SPARSE_ENTRY } from "../../core/format/checkpoint.ts";
import { type FieldKind, type Layout, viewOf } from "../../core/format/layout.ts";
import {
  ENTRY,
  hasBlocks,
  RECORD,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  RECORD_TYPE,
  STORED_BLOCK_BYTES,
} from "../../core/format/record.ts";
import {
  BATCH,
  BATCH_HEADER_BYTES,
  BATCH_MAGIC,
  BatchHeader,
  DIRECTORY,
  DIRECTORY_ENTRY_BYTES,
  decodeBatchHeader,
  ITEM,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
  ITEM_MAGIC,
  MOVE_SOURCE,
  movedBytes,
} from "../../core/format/segment.ts";
import {
  AREA_OFFSET,
  SUPERBLOCK,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_COPIES,
  superblockOffset,
} from "../../core/format/superblock.ts";

export type AnyLayout = Layout<Record<string, FieldKind>>;

/** A batch as it was found. */
export interface FoundBatch {
  readonly at: number;
  readonly session: number;
  readonly lane: number;
  readonly seq: number;
  readonly lengthBytes: number;
  readonly itemCount: number;
  readonly items: FoundItem[];
}

/** A record, or an item of the store's own. */
export interface FoundItem {
  readonly at: number;
  /** With its header. */
  readonly lengthBytes: number;
  /** RECORD_TYPE, or 128 + ITEM_KIND. */
  readonly type: number;
  /** Volume of a record; ITEM.subject. */
  readonly subject: number;
  /** Block of a record; ITEM.number. */
  readonly number: number;
  readonly count: number;
  readonly form: number;
}

/** One structure with fields, and what encloses it. */
export interface Structure {
  readonly layout: AnyLayout;
  readonly at: number;
  readonly batch: FoundBatch | null;
  readonly item: FoundItem | null;
}

/** All batches whose header is whole and lies where it says; also those of former lives. */
export function batchesOf(image: Uint8Array): FoundBatch[] {
  const view = viewOf(image);
  const header = new BatchHeader();
  const found: FoundBatch[] = [];
  for (let at = AREA_OFFSET; at + BATCH_HEADER_BYTES <= image.length; at += 16) {
    if (view.getUint32(at, true) !== BATCH_MAGIC) continue;
    if (!decodeBatchHeader(image, view, at, header) || header.place * 16 !== at) continue;
    const { session, lane, seq, lengthBytes, itemCount } = header;
    if (at + lengthBytes > image.length) continue;
    const items = itemsOf(image, view, at, lengthBytes, itemCount);
    found.push({ at, session, lane, seq, lengthBytes, itemCount, items });
  }
  return found;
}

function itemsOf(
  image: Uint8Array,
  view: DataView,
  batchAt: number,
  lengthBytes: number,
  itemCount: number,
): FoundItem[] {
  const items: FoundItem[] = [];
  const end = batchAt + lengthBytes - itemCount * DIRECTORY_ENTRY_BYTES;
  for (let at = batchAt + BATCH_HEADER_BYTES; at + ITEM_HEADER_BYTES <= end; ) {
    const item = itemAt(image, view, at);
    if (item === null || at + item.lengthBytes > end) break;
    items.push(item);
    at += item.lengthBytes;
  }
  return items;
}

function itemAt(image: Uint8Array, view: DataView, at: number): FoundItem | null {
  const magic = view.getUint32(at, true);
  if (magic === ITEM_MAGIC) {
    return {
      at,
      lengthBytes: ITEM_HEADER_BYTES + ITEM.bodyBytes.get(view, at),
      type: 128 + ITEM.kind.get(view, at),
      subject: ITEM.subject.get(view, at),
      number: ITEM.number.get(view, at),
      count: ITEM.count.get(view, at),
      form: ITEM.form.get(view, at),
    };
  }
  if (magic !== RECORD_MAGIC || at + RECORD_HEADER_BYTES > image.length) return null;
  return {
    at,
    lengthBytes: RECORD_HEADER_BYTES + RECORD.bodyBytes.get(view, at),
    type: RECORD.type.get(view, at),
    subject: RECORD.volume.get(view, at),
    number: RECORD.lba.get(view, at),
    count: RECORD.blockCount.get(view, at),
    form: 0,
  };
}

/** The copy of the superblock with the highest generation; its offset. */
export function newestSuperblock(image: Uint8Array): number {
  const view = viewOf(image);
  let newest = 0;
  for (let copy = 1; copy < SUPERBLOCK_COPIES; copy += 1) {
    const at = superblockOffset(copy);
    if (SUPERBLOCK.generation.get(view, at) > SUPERBLOCK.generation.get(view, newest)) newest = at;
  }
  return newest;
}

/** Every structure of the image: superblocks, and what the batches consist of. */
export function structuresOf(image: Uint8Array): Structure[] {
  const found: Structure[] = [];
  const add = (layout: unknown, at: number, batch: FoundBatch | null, item: FoundItem | null) =>
    found.push({ layout: layout as AnyLayout, at, batch, item });
  for (let copy = 0; copy < SUPERBLOCK_COPIES; copy += 1) {
    add(SUPERBLOCK, superblockOffset(copy), null, null);
  }
  for (const batch of batchesOf(image)) {
    add(BATCH, batch.at, batch, null);
    const directoryAt = batch.at + batch.lengthBytes - batch.itemCount * DIRECTORY_ENTRY_BYTES;
    for (let index = 0; index < batch.itemCount; index += 1) {
      add(DIRECTORY, directoryAt + index * DIRECTORY_ENTRY_BYTES, batch, null);
    }
    for (const item of batch.items) {
      add(item.type >= 128 ? ITEM : RECORD, item.at, batch, item);
      for (const [layout, at] of partsOf(item)) add(layout, at, batch, item);
    }
  }
  return found;
}

/** The structures inside an item's body. */
function partsOf(item: FoundItem): [unknown, number][] {
  const parts: [unknown, number][] = [];
  const itemEnd = item.at + item.lengthBytes;
  const each = (
    layout: { readonly sizeBytes: number },
    from: number,
    stride: number,
    end = itemEnd,
  ): void => {
    for (let at = from; at + layout.sizeBytes <= end; at += stride) parts.push([layout, at]);
  };
  const body = item.at + ITEM_HEADER_BYTES;
  if (hasBlocks(item.type)) each(ENTRY, item.at + RECORD_HEADER_BYTES, STORED_BLOCK_BYTES);
  if (item.type === 128 + ITEM_KIND.move) {
    const sources = body + movedBytes(item.number);
    each(ENTRY, body, STORED_BLOCK_BYTES, sources);
    each(MOVE_SOURCE, sources, MOVE_SOURCE.sizeBytes, sources + item.number * 8);
  }
  if (item.type === 128 + ITEM_KIND.page) {
    const entry = item.form === 1 ? SPARSE_ENTRY : PAGE_ENTRY;
    each(entry, body, entry.sizeBytes);
  }
  if (item.type === 128 + ITEM_KIND.node) each(NODE_REGION, body, NODE_REGION.sizeBytes);
  return parts;
}

/** Makes the checksums of a changed superblock right. */
export function sealSuperblock(image: Uint8Array, at: number): void {
  SUPERBLOCK.check.set(viewOf(image), at, crc32(image, at + 8, SUPERBLOCK_BYTES - 8));
}

/** Makes the checksum of a changed block and its entry right. */
export function sealEntry(image: Uint8Array, at: number): void {
  ENTRY.check.set(viewOf(image), at, crc32(image, at + 4, STORED_BLOCK_BYTES - 4));
}

/** Makes the checksums of an item right, over the length that it was found with. */
export function sealItem(image: Uint8Array, item: FoundItem): void {
  const view = viewOf(image);
  const { at, lengthBytes, type, number } = item;
  if (type >= 128) {
    // Of a move only the places are covered; its blocks carry their own checksums.
    const skipped = type === 128 + ITEM_KIND.move ? movedBytes(number) : 0;
    const length = Math.max(0, lengthBytes - ITEM_HEADER_BYTES - skipped);
    const from = at + lengthBytes - length;
    ITEM.bodyCheck.set(view, at, crc32(image, from, length));
    ITEM.headerCheck.set(view, at, crc32(image, at + 8, ITEM_HEADER_BYTES - 8));
    return;
  }
  if (type === RECORD_TYPE.meta) {
    const length = lengthBytes - RECORD_HEADER_BYTES;
    RECORD.bodyCheck.set(view, at, crc32(image, at + RECORD_HEADER_BYTES, length));
  }
  RECORD.headerCheck.set(view, at, crc32(image, at + 8, RECORD_HEADER_BYTES - 8));
}

/** Makes the checksums of a batch right, over the length that it was found with. */
export function sealBatch(image: Uint8Array, batch: FoundBatch): void {
  const view = viewOf(image);
  const { at, lengthBytes, itemCount } = batch;
  const directoryBytes = itemCount * DIRECTORY_ENTRY_BYTES;
  const directoryCheck = crc32(image, at + lengthBytes - directoryBytes, directoryBytes);
  BATCH.directoryCheck.set(view, at, directoryCheck);
  const bodyCheck = crc32(image, at + BATCH_HEADER_BYTES, lengthBytes - BATCH_HEADER_BYTES);
  BATCH.bodyCheck.set(view, at, bodyCheck);
  BATCH.headerCheck.set(view, at, crc32(image, at + 8, BATCH_HEADER_BYTES - 8));
}

/** Makes every checksum over a changed structure right, from the inside out. */
export function seal(image: Uint8Array, { layout, at, batch, item }: Structure): void {
  if (layout.layoutName === SUPERBLOCK.layoutName) sealSuperblock(image, at);
  if (layout.layoutName === ENTRY.layoutName) sealEntry(image, at);
  if (item !== null) sealItem(image, item);
  if (batch !== null) sealBatch(image, batch);
}

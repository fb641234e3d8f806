/** Finding a page, a block, a batch of the log or the root in the image of a store. */
import { REGION_BLOCKS } from "../../core/base/units.ts";
import { PAGE_ENTRY, ROOT, SPARSE_ENTRY } from "../../core/format/checkpoint.ts";
import { type Decoded, decode, encode } from "../../core/format/codec.ts";
import { viewOf } from "../../core/format/layout.ts";
import { ITEM_HEADER_BYTES, ITEM_KIND, PLACE_UNIT } from "../../core/format/segment.ts";
import { SUPERBLOCK } from "../../core/format/superblock.ts";
import { VOLUME } from "../unit/store/store_rig.ts";
import {
  batchesOf,
  type FoundBatch,
  type FoundItem,
  newestSuperblock,
  sealBatch,
  sealItem,
} from "./image_map.ts";

/** The newest item of a kind about a subject, with its batch. */
export function newestItem(
  image: Uint8Array,
  kind: number,
  subject: number,
  number: number,
): { batch: FoundBatch; item: FoundItem } {
  const batches = batchesOf(image).sort((left, right) => right.seq - left.seq);
  for (const batch of batches) {
    const item = batch.items.find(
      (each) => each.type === 128 + kind && each.subject === subject && each.number === number,
    );
    if (item !== undefined) return { batch, item };
  }
  throw new Error("the image has no such item");
}

/** Where the page's entry of a block lies. */
export function pageEntryOf(image: Uint8Array, lba: number, page: FoundItem): number {
  const block = lba % REGION_BLOCKS;
  const body = page.at + ITEM_HEADER_BYTES;
  if (page.form === 0) return body + block * PAGE_ENTRY.sizeBytes;
  for (let index = 0; index < page.count; index += 1) {
    const at = body + index * SPARSE_ENTRY.sizeBytes;
    if (SPARSE_ENTRY.block.get(viewOf(image), at) === block) return at;
  }
  throw new Error("the page has no such block");
}

/** Where a block of the first volume lies according to the newest page; its entry's offset. */
export function blockOffset(image: Uint8Array, lba: number): number {
  const { item } = newestItem(image, ITEM_KIND.page, VOLUME, Math.floor(lba / REGION_BLOCKS));
  return PAGE_ENTRY.placeLow.get(viewOf(image), pageEntryOf(image, lba, item)) * 16;
}

/** The batches of one lane after the checkpoint, in order. */
export function logOf(image: Uint8Array, lane: number): FoundBatch[] {
  const view = viewOf(image);
  const at = newestSuperblock(image);
  const session = SUPERBLOCK.session.get(view, at);
  const cutSeq = SUPERBLOCK.cutSeq.get(view, at);
  return batchesOf(image)
    .filter((batch) => batch.session === session && batch.lane === lane && batch.seq > cutSeq)
    .sort((left, right) => left.seq - right.seq);
}

/** The third batch of the hot lane after the checkpoint: durable, and proven so by later ones. */
export function middleBatch(image: Uint8Array): FoundBatch {
  return logOf(image, 0)[2] as FoundBatch;
}

type Root = Decoded<typeof ROOT>;

/** Changes what both copies of the root say, without changing their length. */
export function changeRoot(image: Uint8Array, change: (root: Root) => void): void {
  const view = viewOf(image);
  const at = newestSuperblock(image);
  const length = SUPERBLOCK.rootBytes.get(view, at);
  const places = [SUPERBLOCK.rootPlaceA.get(view, at), SUPERBLOCK.rootPlaceB.get(view, at)];
  for (const batch of batchesOf(image)) {
    for (const item of batch.items) {
      if (!places.includes(item.at / PLACE_UNIT)) continue;
      const body = item.at + ITEM_HEADER_BYTES;
      const root = decode(ROOT, image.slice(body, body + length));
      if (root === null) throw new Error("the root has more than one chunk");
      change(root);
      image.set(encode(ROOT, root), body);
      sealItem(image, item);
      sealBatch(image, batch);
    }
  }
}

/**
 * What can be wrong with the image of a store, one thing at a time, and what must come of it.
 * `tests/fixtures/manifest.json` is made of these; the expectations here are written by hand.
 */
import { BLOCK_BYTES, REGION_BLOCKS } from "../../core/base/units.ts";
import { PAGE_ENTRY, SPARSE_ENTRY } from "../../core/format/checkpoint.ts";
import { viewOf } from "../../core/format/layout.ts";
import { ENTRY, RECORD_HEADER_BYTES, STORED_BLOCK_BYTES } from "../../core/format/record.ts";
import {
  BATCH_HEADER_BYTES,
  DIRECTORY_ENTRY_BYTES,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
} from "../../core/format/segment.ts";
import { SUPERBLOCK } from "../../core/format/superblock.ts";
import { OTHER, VOLUME } from "../unit/store/store_rig.ts";
import {
  batchesOf,
  type FoundBatch,
  type FoundItem,
  newestSuperblock,
  sealBatch,
  sealEntry,
  sealItem,
} from "./image_map.ts";
import {
  blockOffset,
  changeRoot,
  logOf,
  middleBatch,
  newestItem,
  pageEntryOf,
} from "./image_places.ts";
import { SUPERBLOCK_DAMAGES } from "./image_damage_super.ts";
import { flip, type ImageDamage, rot } from "./image_rot.ts";

/** Segments of the clean image with live blocks. */
const COUNTED_SEGMENTS = 33;

function directoryAt(batch: FoundBatch): number {
  return batch.at + batch.lengthBytes - batch.itemCount * DIRECTORY_ENTRY_BYTES;
}

function changePage(lba: number, change: (view: DataView, at: number, image: Uint8Array) => void) {
  return (image: Uint8Array): undefined => {
    const region = Math.floor(lba / REGION_BLOCKS);
    const { batch, item } = newestItem(image, ITEM_KIND.page, VOLUME, region);
    change(viewOf(image), pageEntryOf(image, lba, item), image);
    sealItem(image, item);
    sealBatch(image, batch);
  };
}

function rootBody(image: Uint8Array, copy: "rootPlaceA" | "rootPlaceB"): number {
  return SUPERBLOCK[copy].get(viewOf(image), newestSuperblock(image)) * 16 + ITEM_HEADER_BYTES;
}

/** The first volume's items of a kind, newest first. */
function itemsOfKind(image: Uint8Array, kind: number): FoundItem[] {
  return batchesOf(image)
    .sort((left, right) => right.seq - left.seq)
    .flatMap(({ items }) => items)
    .filter(({ type, subject }) => type === 128 + kind && subject === VOLUME);
}

const CHECKPOINTS: readonly ImageDamage[] = [
  {
    name: "one root rotten",
    of: "clean",
    damage: (image) => void flip(image, rootBody(image, "rootPlaceA") + 40),
    wanted: { open: "ok", kinds: { root: 1 } },
  },
  {
    name: "both roots rotten",
    of: "clean",
    damage: (image) => {
      flip(image, rootBody(image, "rootPlaceA") + 40);
      flip(image, rootBody(image, "rootPlaceB") + 41);
      return undefined;
    },
    wanted: { open: "damaged" },
  },
  {
    name: "node rotten",
    of: "clean",
    damage: (image) => {
      const { item } = newestItem(image, ITEM_KIND.node, VOLUME, 0);
      flip(image, item.at + ITEM_HEADER_BYTES + 5);
      return undefined;
    },
    wanted: { open: "ok", kinds: { node: 1 }, unreadable: 131_072 },
  },
  {
    name: "dense page rotten",
    of: "clean",
    damage: (image) => {
      const { item } = newestItem(image, ITEM_KIND.page, VOLUME, 0);
      flip(image, item.at + ITEM_HEADER_BYTES + 4095);
      return undefined;
    },
    wanted: { open: "ok", kinds: { page: 1 }, unreadable: 512 },
  },
  {
    name: "header of a sparse page rotten",
    of: "clean",
    damage: (image) => {
      const { item } = newestItem(image, ITEM_KIND.page, OTHER, 0);
      flip(image, item.at + 9);
      return undefined;
    },
    wanted: { open: "ok", kinds: { page: 1 }, unreadable: 512 },
  },
  {
    name: "page points at another block",
    of: "clean",
    damage: changePage(30, (view, at, image) =>
      PAGE_ENTRY.placeLow.set(view, at, blockOffset(image, 31) / 16),
    ),
    wanted: { open: "ok", unreadable: 1 },
  },
  {
    name: "page points outside the store",
    of: "clean",
    damage: changePage(30, (view, at) => PAGE_ENTRY.placeHigh.set(view, at, 0x7fff)),
    wanted: { open: "ok", kinds: { page: 1 }, unreadable: 512 },
  },
  {
    name: "page points at the last bytes of the store",
    of: "clean",
    damage: changePage(30, (view, at, image) =>
      PAGE_ENTRY.placeLow.set(view, at, image.length / 16 - 1),
    ),
    wanted: { open: "ok", kinds: { page: 1 }, unreadable: 512 },
  },
];

const COUNTS: readonly ImageDamage[] = [
  {
    name: "sparse page with a block twice",
    of: "clean",
    damage: changePage(697, (view, at) =>
      SPARSE_ENTRY.block.set(view, at, SPARSE_ENTRY.block.get(view, at - SPARSE_ENTRY.sizeBytes)),
    ),
    wanted: { open: "ok", kinds: { page: 1 }, unreadable: 512 },
  },
  {
    name: "root names a node twice",
    of: "clean",
    damage: (image) => {
      changeRoot(image, ({ volumes }) => {
        const [first, , last] = volumes[0]?.nodes ?? [];
        if (first !== undefined && last !== undefined) last.number = first.number;
      });
      return undefined;
    },
    wanted: { open: "damaged" },
  },
  {
    name: "root counts more live blocks than there are",
    of: "clean",
    damage: (image) => {
      changeRoot(image, (root) => {
        for (const segment of root.segments.slice(0, 3)) segment.liveBlocks += 5;
      });
      return undefined;
    },
    wanted: { open: "ok", kinds: { segment: 3 } },
  },
  {
    name: "root counts no live blocks",
    of: "clean",
    damage: (image) => {
      changeRoot(image, (root) => {
        for (const segment of root.segments) segment.liveBlocks = 0;
      });
      return undefined;
    },
    wanted: { open: "ok", kinds: { segment: COUNTED_SEGMENTS } },
  },
];

const BLOCKS: readonly ImageDamage[] = [
  {
    name: "bit rot in a block",
    of: "clean",
    damage: (image) => void flip(image, blockOffset(image, 40) + 2000),
    wanted: { open: "ok", unreadable: 1 },
  },
  {
    name: "bit rot in a block's entry",
    of: "cleaned",
    damage: (image) => void flip(image, blockOffset(image, 40) + 9),
    wanted: { open: "ok", unreadable: 1 },
  },
  {
    name: "misdirected write over two blocks",
    of: "clean",
    damage: (image) => {
      const source = blockOffset(image, 40);
      const target = blockOffset(image, 97 * 20 + 600);
      image.copyWithin(target, source, source + STORED_BLOCK_BYTES);
      image.copyWithin(blockOffset(image, 8), source, source + STORED_BLOCK_BYTES);
      return undefined;
    },
    wanted: { open: "ok", unreadable: 2 },
  },
  {
    name: "lost write: an older version of the block",
    of: "clean",
    damage: (image) => {
      const at = blockOffset(image, 50);
      image.fill(0x33, at + ENTRY.sizeBytes, at + ENTRY.sizeBytes + BLOCK_BYTES);
      sealEntry(image, at);
      return undefined;
    },
    wanted: { open: "ok", unreadable: 1 },
  },
];

const SNAPSHOTS: readonly ImageDamage[] = [
  {
    name: "page that only a snapshot holds rotten",
    of: "snapshots",
    damage: (image) => {
      const pages = itemsOfKind(image, ITEM_KIND.page).filter(({ number }) => number === 0);
      flip(image, (pages[0] as FoundItem).at + ITEM_HEADER_BYTES + 40);
      return undefined;
    },
    wanted: { open: "ok", kinds: { page: 1 }, unreadable: 512 },
  },
  {
    name: "a snapshot's beginning rotten in the log: the directory has it, too",
    of: "snapshots",
    damage: (image) => {
      const [newest] = itemsOfKind(image, ITEM_KIND.snapshot);
      flip(image, (newest as FoundItem).at + 8);
      return undefined;
    },
    wanted: { open: "ok", kinds: { batch: 1 } },
  },
];

const LOGS: readonly ImageDamage[] = [
  {
    name: "record's header rotten in the log",
    of: "crashed",
    damage: (image) => void rot(image, (middleBatch(image).items[0] as FoundItem).at, 40),
    wanted: { open: "ok", kinds: { batch: 1, record: 1 } },
  },
  {
    name: "directory rotten in the log",
    of: "crashed",
    damage: (image) => void rot(image, directoryAt(middleBatch(image)), DIRECTORY_ENTRY_BYTES),
    wanted: { open: "ok", kinds: { batch: 1 } },
  },
  {
    name: "record's header and directory rotten in the log",
    of: "crashed",
    damage: (image) => {
      rot(image, (middleBatch(image).items[0] as FoundItem).at, 40);
      rot(image, directoryAt(middleBatch(image)), DIRECTORY_ENTRY_BYTES);
      return undefined;
    },
    wanted: { open: "ok", kinds: { batch: 1 }, lostRecords: 2 },
  },
  {
    name: "batch's header rotten in the log",
    of: "crashed",
    damage: (image) => void rot(image, middleBatch(image).at, BATCH_HEADER_BYTES),
    wanted: { open: "ok", kinds: { batch: 1 } },
  },
  {
    name: "batch rotten as a whole in the log",
    of: "crashed",
    damage: (image) => void rot(image, middleBatch(image).at, middleBatch(image).lengthBytes),
    wanted: { open: "ok", kinds: { batch: 1 }, lostRecords: 1 },
  },
  {
    name: "block rotten in the log",
    of: "crashed",
    damage: (image) => {
      const record = middleBatch(image).items[0] as FoundItem;
      flip(image, record.at + RECORD_HEADER_BYTES + 500);
      return undefined;
    },
    wanted: { open: "ok", kinds: { batch: 1 }, unreadable: 1 },
  },
  {
    name: "last batch of the log rotten",
    of: "crashed",
    damage: (image) => void rot(image, (logOf(image, 0).at(-1) as FoundBatch).at, 200),
    wanted: { open: "ok", isShorter: true },
  },
  {
    name: "garbage behind the log's end",
    of: "crashed",
    damage: (image) => {
      const last = logOf(image, 0).at(-1) as FoundBatch;
      rot(image, last.at + last.lengthBytes, 4096);
      return undefined;
    },
    wanted: { open: "ok" },
  },
  {
    name: "an older batch behind the log's end",
    of: "crashed",
    damage: (image) => {
      const log = logOf(image, 0);
      const last = log.at(-1) as FoundBatch;
      const older = log[0] as FoundBatch;
      image.copyWithin(last.at + last.lengthBytes, older.at, older.at + older.lengthBytes);
      return undefined;
    },
    wanted: { open: "ok" },
  },
  {
    name: "moved block rotten in the cold lane's log",
    of: "moving",
    damage: (image) => {
      const batch = logOf(image, 1).find(({ items }) => items.some(({ type }) => type === 129));
      const move = batch?.items.find(({ type }) => type === 129) as FoundItem;
      flip(image, move.at + move.lengthBytes - 100);
      return undefined;
    },
    wanted: { open: "ok", kinds: { batch: 1 } },
  },
];

export const DAMAGES: readonly ImageDamage[] = [
  ...SUPERBLOCK_DAMAGES,
  ...CHECKPOINTS,
  ...COUNTS,
  ...BLOCKS,
  ...SNAPSHOTS,
  ...LOGS,
];

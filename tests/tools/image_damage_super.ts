/** What can be wrong with superblocks, and with the file as a whole. */
import { viewOf } from "../../core/format/layout.ts";
import { SUPERBLOCK, SUPERBLOCK_BYTES, superblockOffset } from "../../core/format/superblock.ts";
import { sealSuperblock } from "./image_map.ts";
import { flip, type ImageDamage } from "./image_rot.ts";

const COPIES = [0, 1, 2, 3];

function eachSuperblock(change: (view: DataView, at: number) => void) {
  return (image: Uint8Array): undefined => {
    for (const copy of COPIES) {
      change(viewOf(image), superblockOffset(copy));
      sealSuperblock(image, superblockOffset(copy));
    }
  };
}

export const SUPERBLOCK_DAMAGES: readonly ImageDamage[] = [
  {
    name: "one superblock rotten",
    of: "clean",
    damage: (image) => void flip(image, superblockOffset(1) + 30),
    wanted: { open: "ok", kinds: { superblock: 1 } },
  },
  {
    name: "three superblocks rotten",
    of: "crashed",
    damage: (image) => {
      for (const copy of [0, 1, 3]) flip(image, superblockOffset(copy) + 3000);
      return undefined;
    },
    wanted: { open: "ok", kinds: { superblock: 3 } },
  },
  {
    name: "all superblocks rotten",
    of: "clean",
    damage: (image) => {
      for (const copy of COPIES) flip(image, superblockOffset(copy) + 90);
      return undefined;
    },
    wanted: { open: "damaged" },
  },
  {
    name: "superblock misdirected",
    of: "clean",
    damage: (image) => {
      const first = superblockOffset(0);
      image.copyWithin(superblockOffset(2), first, first + SUPERBLOCK_BYTES);
      return undefined;
    },
    wanted: { open: "ok", kinds: { superblock: 1 } },
  },
  {
    name: "superblock of the generation before",
    of: "clean",
    damage: (image) => {
      const at = superblockOffset(3);
      const generation = SUPERBLOCK.generation.get(viewOf(image), at);
      SUPERBLOCK.generation.set(viewOf(image), at, generation - 1);
      sealSuperblock(image, at);
      return undefined;
    },
    wanted: { open: "ok", kinds: { superblock: 1 } },
  },
  {
    name: "format version 2",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.version.set(view, at, 2)),
    wanted: { open: "version" },
  },
  {
    name: "unknown incompatible feature",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.incompat.set(view, at, 32)),
    wanted: { open: "feature" },
  },
  {
    name: "unknown compatible feature",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.compat.set(view, at, 1)),
    wanted: { open: "ok" },
  },
  {
    name: "another cluster's",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.clusterId.set(view, at, 78)),
    wanted: { open: "cluster" },
  },
  {
    name: "another host's",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.hostId.set(view, at, 2)),
    wanted: { open: "host" },
  },
  {
    name: "segments of 3 bytes",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.segmentBytes.set(view, at, 3)),
    wanted: { open: "damaged" },
  },
  {
    name: "cut to half",
    of: "clean",
    damage: (image) => image.slice(0, image.length / 2),
    wanted: { open: "truncated" },
  },
  {
    name: "cut to nothing",
    of: "clean",
    damage: (image) => image.slice(0, 512),
    wanted: { open: "small" },
  },
  {
    name: "zeros where the superblocks were",
    of: "clean",
    damage: (image) => void image.fill(0, 0, superblockOffset(4)),
    wanted: { open: "blank" },
  },
  {
    name: "something else where the superblocks were",
    of: "clean",
    damage: (image) => void image.fill(0x5a, 0, superblockOffset(4)),
    wanted: { open: "foreign" },
  },
  {
    name: "records were lost before",
    of: "clean",
    damage: eachSuperblock((view, at) => SUPERBLOCK.lostRecords.set(view, at, 3)),
    wanted: { open: "ok", lostRecords: 3 },
  },
];

/**
 * Whose store lies at a path, before anybody opens it for writing: a host that was given the disk
 * of another host or cluster must not start at all, since that is a mistake of the operator and
 * not a fault of the disk. Reads the superblocks only; whatever is damaged, blank or unreadable
 * is for the store itself to judge.
 */
import { closeSync, constants, openSync, readSync } from "node:fs";
import { crc32Text } from "../core/base/checksum.ts";
import type { HostId } from "../core/base/units.ts";
import {
  decodeSuperblock,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_COPIES,
  type Superblock,
  superblockOffset,
} from "../core/format/superblock.ts";

export interface StoreOwner {
  readonly clusterName: string;
  readonly self: HostId;
  /** The roster's name of a host, for the sentence. */
  nameOf(host: number): string;
}

/** One sentence if a whole store of somebody else lies at `path`, else null. Never throws. */
export function foreignStore(path: string, owner: StoreOwner): string | null {
  const found = newestSuperblock(path);
  if (found === null) return null;
  if (found.clusterId !== crc32Text(owner.clusterName)) {
    return `${path} is a store of another cluster than ${owner.clusterName}`;
  }
  if (found.hostId === owner.self) return null;
  const other = owner.nameOf(found.hostId);
  return `${path} is the store of ${other}, this is ${owner.nameOf(owner.self)}`;
}

function newestSuperblock(path: string): Superblock | null {
  const buffer = new Uint8Array(SUPERBLOCK_BYTES);
  let newest: Superblock | null = null;
  let fd = -1;
  try {
    fd = openSync(path, constants.O_RDONLY);
    for (let copy = 0; copy < SUPERBLOCK_COPIES; copy += 1) {
      const count = readSync(fd, buffer, 0, SUPERBLOCK_BYTES, superblockOffset(copy));
      if (count !== SUPERBLOCK_BYTES) continue;
      const block = decodeSuperblock(buffer, 0, copy);
      if (block.kind !== "good") continue;
      if (newest === null || block.value.generation > newest.generation) newest = block.value;
    }
  } catch {
    // Missing or unreadable: nothing is known of an owner.
  } finally {
    if (fd >= 0) closeSync(fd);
  }
  return newest;
}

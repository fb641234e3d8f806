/** Reading and writing the four superblock copies, and judging what was found. */
import { hostId } from "../base/units.ts";
import {
  decodeSuperblock,
  encodeSuperblock,
  FORMAT_VERSION,
  INCOMPAT_KNOWN,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_COPIES,
  type Superblock,
  superblockIsSound,
  superblockOffset,
} from "../format/superblock.ts";
import type { StoreRefusal } from "./contract.ts";
import type { Task, TaskIo } from "./task.ts";

export interface Refusal {
  readonly ok: false;
  readonly code: StoreRefusal;
  readonly why: string;
}

export function refuse(code: StoreRefusal, why: string): Refusal {
  return { ok: false, code, why };
}

export interface FoundSuperblock {
  readonly ok: true;
  readonly value: Superblock;
  /** Copies that are not whole or not of this generation. */
  readonly staleCopies: readonly number[];
}

/** Reads all copies and takes the newest whole one. `buffer`: at least 4096 bytes for I/O. */
export function* readSuperblock(io: TaskIo, buffer: Uint8Array): Task<FoundSuperblock | Refusal> {
  let newest: Superblock | null = null;
  const generations: number[] = [];
  let blankCount = 0;
  let damagedCount = 0;
  let errorCount = 0;
  for (let copy = 0; copy < SUPERBLOCK_COPIES; copy += 1) {
    generations.push(-1);
    const offset = superblockOffset(copy);
    if (offset + SUPERBLOCK_BYTES > io.disk.sizeBytes) continue;
    const got = yield* io.read(offset, buffer, 0, SUPERBLOCK_BYTES);
    if (got !== SUPERBLOCK_BYTES) {
      errorCount += 1;
      continue;
    }
    const found = decodeSuperblock(buffer, 0, copy);
    if (found.kind === "blank") blankCount += 1;
    if (found.kind === "damaged") damagedCount += 1;
    if (found.kind !== "good") continue;
    generations[copy] = found.value.generation;
    if (newest === null || found.value.generation > newest.generation) newest = found.value;
  }
  if (newest !== null) {
    const { generation } = newest;
    const staleCopies = [...generations.keys()].filter((copy) => generations[copy] !== generation);
    return { ok: true, value: newest, staleCopies };
  }
  if (damagedCount > 0) return refuse("damaged", "all superblock copies are damaged");
  if (errorCount > 0) return refuse("io", "the disk cannot read the superblocks");
  if (blankCount === SUPERBLOCK_COPIES) return refuse("blank", "there is no store on this disk");
  if (io.disk.sizeBytes < superblockOffset(SUPERBLOCK_COPIES)) {
    return refuse(io.disk.sizeBytes === 0 ? "blank" : "small", "the disk is too small for a store");
  }
  return refuse("foreign", "something other than a store lies on this disk");
}

/** Why a store must not be opened here; null if it may be. */
export function judgeSuperblock(
  value: Superblock,
  diskBytes: number,
  expected: { readonly clusterId: number; readonly hostId: number } | null,
): Refusal | null {
  if (value.version !== FORMAT_VERSION) {
    return refuse(
      "version",
      `the store has format version ${value.version}, this program knows ${FORMAT_VERSION}`,
    );
  }
  const unknown = (value.incompat & ~INCOMPAT_KNOWN) >>> 0;
  if (unknown !== 0) {
    return refuse("feature", `the store needs features unknown here (0x${unknown.toString(16)})`);
  }
  if (!superblockIsSound(value)) {
    return refuse("damaged", "the superblock is whole but makes no sense");
  }
  if (value.sizeBytes > diskBytes) {
    return refuse(
      "truncated",
      `the store is ${value.sizeBytes} bytes long, only ${diskBytes} are there`,
    );
  }
  if (expected === null) return null;
  if (value.clusterId !== expected.clusterId) {
    return refuse("cluster", "the store belongs to another cluster");
  }
  if (value.hostId !== expected.hostId) {
    return refuse(
      "host",
      `the store belongs to host ${value.hostId} of the roster, this is ${hostId(expected.hostId)}`,
    );
  }
  return null;
}

/**
 * Writes a new generation to all copies: two, sync, two, sync. So two whole copies of one durable
 * generation exist at every moment. False if the disk failed. `buffer`: 4096 bytes for I/O.
 */
export function* writeSuperblock(io: TaskIo, buffer: Uint8Array, value: Superblock): Task<boolean> {
  for (let half = 0; half < SUPERBLOCK_COPIES; half += 2) {
    for (let copy = half; copy < half + 2; copy += 1) {
      encodeSuperblock(buffer, 0, copy, value);
      const put = yield* io.write(superblockOffset(copy), buffer, 0, SUPERBLOCK_BYTES);
      if (put !== SUPERBLOCK_BYTES) return false;
    }
    if ((yield* io.sync()) !== 0) return false;
  }
  return true;
}

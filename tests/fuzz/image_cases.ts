/**
 * Ways to change the image of a store: each field of each layout to values at its edges, with every
 * checksum above it made right again so that the value reaches the code behind; bytes of the root
 * likewise; and, without such help, bits, pages, exchanges and cuts.
 */
import type { SeededRandom } from "../../core/base/random.ts";
import { BLOCK_BYTES } from "../../core/base/units.ts";
import { type FieldKind, viewOf } from "../../core/format/layout.ts";
import { ENTRY, RECORD, RECORD_HEADER_BYTES } from "../../core/format/record.ts";
import { BATCH, ITEM, ITEM_HEADER_BYTES, ITEM_KIND } from "../../core/format/segment.ts";
import { SUPERBLOCK, superblockOffset } from "../../core/format/superblock.ts";
import {
  type AnyLayout,
  newestSuperblock,
  seal,
  sealSuperblock,
  type Structure,
  structuresOf,
} from "../tools/image_map.ts";

/** An image, and where in it the store will look. */
export interface Targets {
  readonly image: Uint8Array;
  /** By layout. */
  readonly structures: ReadonlyMap<string, readonly Structure[]>;
  /** Both copies of the root: their last chunks. */
  readonly roots: readonly [Structure, Structure];
}

/** One edge of one field. */
export interface FieldChoice {
  readonly layout: AnyLayout;
  readonly field: number;
  readonly edge: number;
}

/** What the store will look at: the newest of everything, and the log. */
export function targetsOf(image: Uint8Array): Targets {
  const view = viewOf(image);
  const at = newestSuperblock(image);
  const cutSeq = SUPERBLOCK.cutSeq.get(view, at);
  const newest = new Map<string, number>();
  const all = structuresOf(image);
  const keyOf = ({ item }: Structure): string => `${item?.type} ${item?.subject} ${item?.number}`;
  for (const each of all) {
    const key = keyOf(each);
    newest.set(key, Math.max(newest.get(key) ?? 0, each.batch?.seq ?? 0));
  }
  const structures = new Map<string, Structure[]>();
  for (const each of all) {
    const isIndex = (each.item?.type ?? 0) > 128 + ITEM_KIND.move;
    const seq = each.batch?.seq ?? 0;
    const isSeen = isIndex ? newest.get(keyOf(each)) === seq : seq > cutSeq;
    if (each.batch !== null && !isSeen) continue;
    const { layoutName } = each.layout;
    structures.set(layoutName, [...(structures.get(layoutName) ?? []), each]);
  }
  const rootAt = (place: number): Structure =>
    all.find((each) => each.at === place * 16 && each.batch !== null) as Structure;
  const roots = [
    rootAt(SUPERBLOCK.rootPlaceA.get(view, at)),
    rootAt(SUPERBLOCK.rootPlaceB.get(view, at)),
  ] as const;
  return { image, structures, roots };
}

export type Change = "sealed" | "forged" | "plain";

/** One case: a changed image, and what may be asked of it. */
export interface Case {
  readonly image: Uint8Array;
  readonly what: string;
  /**
   * `plain`: checksums tell. `sealed`: they were made right again, so that the store may be led to
   * older versions and holes. `forged`: a block was made to say that it is another.
   */
  readonly change: Change;
}

const BITS: Record<FieldKind, number> = { u8: 8, u16: 16, u32: 32, u64: 64 };

/** Values at the edges of a field, and next to what is there. */
function edgeValues(kind: FieldKind, now: bigint, random: SeededRandom): bigint[] {
  const max = 2n ** BigInt(BITS[kind]) - 1n;
  const wild = (BigInt(random.u32()) * 4294967296n + BigInt(random.u32())) & max;
  return [0n, 1n, max, max - 1n, (max + 1n) / 2n, (now + 1n) & max, (now - 1n) & max, wild];
}

function getRaw(image: Uint8Array, at: number, kind: FieldKind): bigint {
  let value = 0n;
  for (let byte = BITS[kind] / 8 - 1; byte >= 0; byte -= 1) {
    value = value * 256n + BigInt(image[at + byte]!);
  }
  return value;
}

function setRaw(image: Uint8Array, at: number, kind: FieldKind, value: bigint): void {
  for (let byte = 0; byte < BITS[kind] / 8; byte += 1) {
    image[at + byte] = Number((value >> BigInt(byte * 8)) & 255n);
  }
}

export const EDGES = 8;

/** All fields of all layouts that the image has, each at one of its edges; others each `pass`. */
export function fieldChoices(base: Targets, pass: number): FieldChoice[] {
  const choices: FieldChoice[] = [];
  for (const structures of base.structures.values()) {
    const { layout } = structures[0] as Structure;
    for (let field = 0; field < layout.table.length; field += 1) {
      choices.push({ layout, field, edge: (pass + choices.length) % EDGES });
    }
  }
  return choices;
}

export function fieldCase(base: Targets, chosen: FieldChoice, random: SeededRandom): Case {
  const { layout } = chosen;
  const image = base.image.slice();
  const field = layout.table[chosen.field] as AnyLayout["table"][number];
  const structure = random.pick(base.structures.get(layout.layoutName) as Structure[]);
  const now = getRaw(image, structure.at + field.at, field.kind);
  const value = edgeValues(field.kind, now, random)[chosen.edge] as bigint;
  const isSuperblock = layout.layoutName === SUPERBLOCK.layoutName;
  // One copy of four would not be believed.
  const places = isSuperblock ? [0, 1, 2, 3].map(superblockOffset) : [structure.at];
  for (const at of places) {
    setRaw(image, at + field.at, field.kind, value);
    // A wrong checksum must stay wrong, and a copy's number its own.
    if (isSuperblock && field.name !== "check") sealSuperblock(image, at);
  }
  const isCheck = /check/i.test(field.name);
  if (!isSuperblock) sealChanged(image, structure, isCheck, random);
  const isForged = layout.layoutName === ENTRY.layoutName && !isCheck;
  const what = `${layout.layoutName}.${field.name} at ${structure.at} from ${now} to ${value}`;
  return { image, what, change: isForged ? "forged" : "sealed" };
}

/** Makes the checksums right over the old lengths, or over the new ones if those fit. */
function sealChanged(
  image: Uint8Array,
  structure: Structure,
  isCheck: boolean,
  random: SeededRandom,
): void {
  const { batch, item, at, layout } = structure;
  // A checksum that was set is left as it is; what lies above is made right.
  const inner = isCheck ? { ...structure, layout: BATCH as unknown as AnyLayout } : structure;
  const view = viewOf(image);
  let changedItem = item;
  let changedBatch = batch;
  if (random.chance(0.5) && item !== null && item.at === at) {
    const isOwn = layout.layoutName === ITEM.layoutName;
    const header = isOwn ? ITEM_HEADER_BYTES : RECORD_HEADER_BYTES;
    const lengthBytes = header + (isOwn ? ITEM : RECORD).bodyBytes.get(view, at);
    if (at + lengthBytes <= image.length) changedItem = { ...item, lengthBytes };
  }
  if (random.chance(0.5) && batch !== null && batch.at === at) {
    const lengthBytes = BATCH.lengthBytes.get(view, at);
    const itemCount = BATCH.itemCount.get(view, at);
    const isInside = at + lengthBytes <= image.length && itemCount * 16 + 80 <= lengthBytes;
    if (isInside) changedBatch = { ...batch, lengthBytes, itemCount };
  }
  const isOwnCheck = isCheck && (item === null || item.at === at);
  seal(image, { ...inner, batch: changedBatch, item: isOwnCheck ? null : changedItem });
}

/** A few bytes of the root, the same in both copies. */
export function rootCase(base: Targets, random: SeededRandom): Case {
  const image = base.image.slice();
  const [first, second] = base.roots;
  const length = (first.item?.lengthBytes ?? 0) - ITEM_HEADER_BYTES;
  const kind = random.pick(["u8", "u16", "u32", "u64"] as const);
  // The head has the counts; the rest is a long table of segments.
  const reach = random.chance(0.7) ? Math.min(length, 160) : length;
  const at = random.below(Math.max(1, reach - 8));
  const now = getRaw(image, first.at + ITEM_HEADER_BYTES + at, kind);
  const value = random.pick(edgeValues(kind, now, random));
  for (const root of [first, second]) {
    setRaw(image, root.at + ITEM_HEADER_BYTES + at, kind, value);
    seal(image, root);
  }
  return { image, what: `root byte ${at} (${kind}) to ${value}`, change: "sealed" };
}

/** Damage without any help: what disks do. */
export function plainCase(base: Targets, random: SeededRandom): Case {
  const image = base.image.slice();
  const pageCount = image.length / BLOCK_BYTES;
  const pageAt = (): number => random.below(pageCount) * BLOCK_BYTES;
  const done = (what: string): Case => ({ image, what, change: "plain" });
  switch (random.below(5)) {
    case 0: {
      const count = 1 + random.below(40);
      for (let index = 0; index < count; index += 1) {
        const at = random.below(image.length);
        image[at] = image[at]! ^ (1 << random.below(8));
      }
      return done(`${count} bits`);
    }
    case 1: {
      const at = pageAt();
      for (let index = 0; index < BLOCK_BYTES; index += 1) image[at + index] = random.below(256);
      return done(`garbage in the page at ${at}`);
    }
    case 2: {
      const [from, to] = [pageAt(), pageAt()];
      image.copyWithin(to, from, from + BLOCK_BYTES);
      return done(`page at ${from} over that at ${to}`);
    }
    case 3: {
      const [from, to] = [pageAt(), pageAt()];
      const page = image.slice(from, from + BLOCK_BYTES);
      image.copyWithin(from, to, to + BLOCK_BYTES);
      image.set(page, to);
      return done(`pages at ${from} and ${to} exchanged`);
    }
    default: {
      const at = BLOCK_BYTES * (1 + random.below(pageCount - 1));
      return { image: image.slice(0, at), what: `cut to ${at}`, change: "plain" };
    }
  }
}

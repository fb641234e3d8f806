/**
 * The golden images of the on-disk format and what must come of each, as they lie in
 * `tests/fixtures/`; and the judging of an image: opened, checked, repaired, read.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StoreOpened } from "../../core/store/contract.ts";
import type { CheckReport } from "../../core/store/check_report.ts";
import type { Refusal } from "../../core/store/superblocks.ts";
import { SimMedia } from "../sim/sim_media.ts";
import { check, repair } from "../unit/store/check_rig.ts";
import { StoreRig } from "../unit/store/store_rig.ts";
import { contentLines, LIFE_BLOCKS } from "./image_lives.ts";

export const FIXTURES = join(import.meta.dir, "../fixtures");
const MANIFEST = join(FIXTURES, "manifest.json");

/** One check, in short. */
export type CheckSummary =
  | { readonly refused: string }
  | {
      /** Exit code of `vsan recover check`. */
      readonly exit: number;
      /** Rows of damage by kind. */
      readonly kinds: Record<string, number>;
      /** Blocks that cannot be read: "volume 7 blocks 30-31: why". */
      readonly unreadable: readonly string[];
      readonly lostRecords: number;
    };

/** What comes of an image. */
export interface Judgement {
  readonly open: StoreOpened;
  readonly check: CheckSummary;
  /** After the repair. */
  readonly repaired: CheckSummary;
  /** SHA-256 of all that can be read after it; "" if nothing. */
  readonly content: string;
}

export interface GoldenEntry extends Judgement {
  readonly name: string;
  readonly shows: string;
  readonly imageBytes: number;
  /** Of the image before compression. */
  readonly sha256: string;
}

export interface DamagedEntry extends Judgement {
  readonly name: string;
  readonly of: string;
  readonly imageBytes: number;
  /** What differs from the golden image: offset, and bytes in hexadecimal (or `*count` of one). */
  readonly edits: readonly (readonly [number, string])[];
}

export interface Manifest {
  readonly formatVersion: number;
  readonly golden: readonly GoldenEntry[];
  readonly damaged: readonly DamagedEntry[];
}

export function readManifest(): Manifest {
  if (!existsSync(MANIFEST)) return { formatVersion: 0, golden: [], damaged: [] };
  return JSON.parse(readFileSync(MANIFEST, "utf8"));
}

export function readGolden(name: string): Uint8Array {
  const path = join(FIXTURES, `${name}.img.zst`);
  return new Uint8Array(Bun.zstdDecompressSync(readFileSync(path)));
}

/** Replaces everything in `tests/fixtures/`. */
export function writeFixtures(manifest: Manifest, images: Map<string, Uint8Array>): void {
  rmSync(FIXTURES, { recursive: true, force: true });
  mkdirSync(FIXTURES);
  for (const [name, image] of images) {
    writeFileSync(join(FIXTURES, `${name}.img.zst`), Bun.zstdCompressSync(image, { level: 19 }));
  }
  writeFileSync(MANIFEST, `${JSON.stringify(manifest, null, 1)}\n`);
}

export function sha256(bytes: Uint8Array | string): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

export function mediaOf(image: Uint8Array): SimMedia {
  const media = new SimMedia(image.length);
  media.poke(0, image);
  return media;
}

/** What differs between two images, in stretches; short equal gaps are part of a stretch. */
export function editsBetween(from: Uint8Array, to: Uint8Array): [number, string][] {
  const edits: [number, string][] = [];
  for (let at = 0; at < to.length; at += 1) {
    if (from[at] === to[at]) continue;
    let end = at + 1;
    for (let look = end; look < Math.min(to.length, end + 16); look += 1) {
      if (from[look] !== to[look]) end = look + 1;
    }
    edits.push([at, hexOf(to.subarray(at, end))]);
    at = end;
  }
  return edits;
}

function hexOf(bytes: Uint8Array): string {
  const isOne = bytes.length > 16 && bytes.every((byte) => byte === bytes[0]);
  const shown = isOne ? bytes.subarray(0, 1) : bytes;
  return `${Buffer.from(shown).toString("hex")}${isOne ? `*${bytes.length}` : ""}`;
}

export function applyEdits(from: Uint8Array, entry: DamagedEntry): Uint8Array {
  const image = from.slice(0, entry.imageBytes);
  for (const [at, text] of entry.edits) {
    const [hex, count] = text.split("*");
    const bytes = Buffer.from(hex as string, "hex");
    if (count === undefined) image.set(bytes, at);
    else image.fill(bytes[0] as number, at, at + Number(count));
  }
  return image;
}

function summaryOf(report: CheckReport | Refusal): CheckSummary {
  if (!report.ok) return { refused: report.code };
  const kinds: Record<string, number> = {};
  for (const { kind } of report.damage) kinds[kind] = (kinds[kind] ?? 0) + 1;
  const unreadable = report.ranges.map(
    ({ volume, lba, count, why }) => `volume ${volume} blocks ${lba}-${lba + count - 1}: ${why}`,
  );
  const { lostRecords } = report;
  return { exit: report.isSound ? 0 : 4, kinds, unreadable, lostRecords };
}

/** Everything that can be read out of an image. */
export function linesOf(media: SimMedia): string[] {
  const rig = new StoreRig({ media: media.clone(), blocks: LIFE_BLOCKS, cacheHits: 1 });
  return rig.open().ok ? contentLines(rig) : [];
}

/** Opens, checks and repairs copies of the image. `lines`: all that can be read afterwards. */
export function judge(image: Uint8Array): { judgement: Judgement; lines: string[] } {
  const media = mediaOf(image);
  const rig = new StoreRig({ media: media.clone(), blocks: LIFE_BLOCKS, cacheHits: 1 });
  const open = rig.open();
  const checked = summaryOf(check(media.clone()));
  const { result } = repair(media);
  if (result === null) throw new Error("the repair has no result");
  const lines = linesOf(media);
  return {
    judgement: {
      open,
      check: checked,
      repaired: summaryOf(result.ok ? result.after : result),
      content: lines.length === 0 ? "" : sha256(lines.join("\n")),
    },
    lines,
  };
}

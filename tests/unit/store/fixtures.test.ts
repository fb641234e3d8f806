/**
 * The on-disk format, held fast: images of version 1 that every later program must read, damaged
 * ones with what must come of each. To make them anew after a change:
 * VSAN_WRITE_FIXTURES=1 bun test tests/unit/store/fixtures.test.ts
 */
import { describe, expect, test } from "bun:test";
import { FORMAT_VERSION } from "../../../core/format/superblock.ts";
import { DAMAGES } from "../../tools/image_damage.ts";
import type { ImageDamage } from "../../tools/image_rot.ts";
import {
  applyEdits,
  type DamagedEntry,
  editsBetween,
  FIXTURES,
  type GoldenEntry,
  judge,
  type Judgement,
  linesOf,
  mediaOf,
  readGolden,
  readManifest,
  sha256,
  writeFixtures,
} from "../../tools/image_fixtures.ts";
import { imageOf, LIFE_BLOCKS, LIVES } from "../../tools/image_lives.ts";
import { structuresOf } from "../../tools/image_map.ts";
import { StoreRig } from "./store_rig.ts";

const HOW = `If the format was changed on purpose, decide about FORMAT_VERSION (a released version
is never changed), then docs/format.md, CHANGELOG.md and the images:
VSAN_WRITE_FIXTURES=1 bun test tests/unit/store/fixtures.test.ts`;

function makeAll(): void {
  const images = new Map(LIVES.map(({ name, live }) => [name, imageOf(live())]));
  const golden: GoldenEntry[] = LIVES.map(({ name, shows }) => {
    const image = images.get(name) as Uint8Array;
    const { judgement } = judge(image);
    return { name, shows, imageBytes: image.length, sha256: sha256(image), ...judgement };
  });
  const damaged: DamagedEntry[] = DAMAGES.map(({ name, of, damage }) => {
    const base = images.get(of) as Uint8Array;
    const copy = base.slice();
    const image = damage(copy) ?? copy;
    const edits = editsBetween(base, image);
    return { name, of, imageBytes: image.length, edits, ...judge(image).judgement };
  });
  writeFixtures({ formatVersion: FORMAT_VERSION, golden, damaged }, images);
}

if (process.env.VSAN_WRITE_FIXTURES === "1") makeAll();
const manifest = readManifest();

test("the images are of this format version, and small", () => {
  expect(manifest.formatVersion).toBe(FORMAT_VERSION);
  expect(manifest.golden.map(({ name }) => name)).toEqual(LIVES.map(({ name }) => name));
  expect(manifest.damaged.map(({ name }) => name)).toEqual(DAMAGES.map(({ name }) => name));
  let bytes = 0;
  for (const path of new Bun.Glob("*").scanSync({ cwd: FIXTURES })) {
    bytes += Bun.file(`${FIXTURES}/${path}`).size;
  }
  expect(bytes).toBeLessThan(1024 * 1024);
});

describe.each(manifest.golden)("golden image: $name", (entry) => {
  const image = readGolden(entry.name);

  test("is what it was", () => {
    expect(image.length).toBe(entry.imageBytes);
    expect(sha256(image)).toBe(entry.sha256);
  });

  test("opens, is sound, and has everything in it", () => {
    const { judgement } = judge(image);
    expect(judgement).toEqual(judgementOf(entry));
    expect(judgement.open.ok).toBe(true);
    expect(judgement.check).toMatchObject({ exit: 0 });
  });

  test("reads the same after an orderly and a disorderly end", () => {
    const media = mediaOf(image);
    const rig = new StoreRig({ media, blocks: LIFE_BLOCKS, cacheHits: 1 });
    rig.open();
    rig.close();
    expect(sha256(linesOf(media).join("\n"))).toBe(entry.content);
    rig.open();
    rig.powerCut();
    expect(sha256(linesOf(media).join("\n"))).toBe(entry.content);
  });
});

const exact = LIVES.filter(({ isExact }) => isExact);
test.each(exact)("the same bytes are written today: $name", ({ name, live }) => {
  const made = imageOf(live());
  const golden = readGolden(name);
  if (Buffer.compare(made, golden) === 0) return;
  const at = golden.findIndex((byte, index) => byte !== made[index]);
  const near = structuresOf(golden).filter((each) => each.at <= at);
  const inside = near.sort((left, right) => right.at - left.at)[0];
  throw new Error(
    `the store writes other bytes than the golden image ${name}, from byte ${at} on ` +
      `(${inside?.layout.layoutName ?? "before any structure"} at ${inside?.at ?? 0}). ${HOW}`,
  );
});

function judgementOf(entry: Judgement): Judgement {
  const { open, check, repaired, content } = entry;
  return { open, check, repaired, content };
}

describe.each(manifest.damaged)("damaged image: $name", (entry) => {
  const { damage, wanted } = DAMAGES.find(({ name }) => name === entry.name) as ImageDamage;
  const golden = readGolden(entry.of);
  const { judgement, lines } = judge(applyEdits(golden, entry));

  test("comes to what the manifest says", () => {
    expect(judgement).toEqual(judgementOf(entry));
  });

  test("comes to what it must", () => {
    const { open, check, repaired } = judgement;
    expect(open.ok ? "ok" : open.code).toBe(wanted.open);
    if (!open.ok) {
      expect(check).toEqual({ refused: wanted.open });
      expect(repaired).toEqual({ refused: wanted.open });
      return;
    }
    const { lostRecords = 0, unreadable = 0, kinds = {} } = wanted;
    expect(open.lostRecords).toBe(lostRecords);
    const isSound = unreadable === 0 && lostRecords === 0 && Object.keys(kinds).length === 0;
    expect(check).toMatchObject({ exit: isSound ? 0 : 4, lostRecords });
    expect("kinds" in check ? check.kinds : null).toEqual(kinds);
    // What was lost stays lost and is said again, nothing else is left of the damage.
    expect(repaired).toMatchObject({
      exit: unreadable + lostRecords > 0 ? 4 : 0,
      lostRecords,
    });
    expect("kinds" in repaired ? repaired.kinds : null).toEqual({});
    for (const each of [check, repaired]) {
      expect("unreadable" in each ? blocksIn(each.unreadable) : -1).toBe(unreadable);
    }
  });

  test("no block reads as anything but itself, or as an error", () => {
    if (!judgement.open.ok) return;
    const before = blocksOf(linesOf(mediaOf(golden)));
    const after = blocksOf(lines);
    const isExcused = judgement.open.lostRecords > 0 || wanted.isShorter === true;
    let wrong = 0;
    for (const [block, value] of before) {
      const found = after.get(block);
      if (found !== value && found !== "io") wrong += 1;
    }
    if (isExcused) return;
    expect(wrong).toBe(0);
  });

  test("the damage is still the one it is named after", () => {
    const copy = golden.slice();
    const image = damage(copy) ?? copy;
    expect(Buffer.compare(image, applyEdits(golden, entry))).toBe(0);
  });
});

/** Blocks in lines such as "volume 7 blocks 30-31: why". */
function blocksIn(lines: readonly string[]): number {
  let count = 0;
  for (const line of lines) {
    const [, first, last] = /blocks (\d+)-(\d+)/.exec(line) as RegExpExecArray;
    count += Number(last) - Number(first) + 1;
  }
  return count;
}

/** Block by block: its checksum or "io". */
function blocksOf(lines: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of lines) {
    const [, block, value] = /^(volume \d+ (?:snapshot \d+ )?block \d+) (.*)$/.exec(line) ?? [];
    if (block !== undefined && value !== undefined) found.set(block, value);
  }
  return found;
}

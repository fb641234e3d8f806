/**
 * Bytes that rot, anywhere (G9): a store opens with right data, or says what is
 * wrong; it never throws, and never returns a wrong block.
 */
import { describe, expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { KIB, MIB } from "../../../core/base/units.ts";
import type { SimMedia } from "../../sim/sim_media.ts";
import { checkMedia, StoreRig, valueIn, VOLUME } from "./store_rig.ts";

const BLOCKS = 700;

interface Sample {
  readonly media: SimMedia;
  readonly values: Int32Array;
  /** Operations that a later durable batch proves. */
  readonly proven: number;
}

/** Some lives of a store: checkpoints, moves, a log to roll forward. */
function sample(how: "close" | "cut"): Sample {
  const rig = new StoreRig({ seed: 3, sizeBytes: 6 * MIB, blocks: BLOCKS, cacheHits: 1 });
  rig.format();
  const random = new SeededRandom(8);
  const values = new Int32Array(BLOCKS);
  let seq = 0;
  const act = (count: number): void => {
    for (let index = 0; index < count; index += 1) {
      seq += 1;
      const lba = random.below(BLOCKS - 3);
      const header = { epoch: 65, sender: 1, seq };
      if (random.chance(0.1)) {
        rig.zero(lba, 2, header);
        values.fill(0, lba, lba + 2);
      } else {
        const blocks = 1 + random.below(3);
        expect(rig.write(lba, seq, blocks, header)).toBe(true);
        values.fill(seq, lba, lba + blocks);
      }
      if (index % 5 === 0) rig.run(1);
    }
    rig.sync();
  };
  act(700);
  rig.close();
  rig.open();
  rig.store.putMeta(2, new Uint8Array(100).fill(7));
  act(60);
  const proven = seq;
  // The last sync's own batch is proven durable by what follows it.
  act(1);
  act(1);
  if (how === "close") rig.close();
  else rig.powerCut();
  return { media: rig.disk.media, values, proven };
}

/** Opens the damaged store and judges every block; what it found, in one word. */
function judge(media: SimMedia, { values, proven }: Sample, how: "close" | "cut"): string {
  const rig = new StoreRig({ media, blocks: BLOCKS, cacheHits: 1 });
  const opened = rig.open();
  if (!opened.ok) {
    expect(opened.why.length).toBeGreaterThan(10);
    return `refused: ${opened.code}`;
  }
  const kept = rig.store.streamSeq(1 as never);
  let wrong = 0;
  let reported = 0;
  for (let lba = 0; lba < BLOCKS; lba += 1) {
    const found = rig.read(lba);
    if (typeof found === "number") {
      reported += 1;
      expect(rig.bad.some((bad) => bad.volume === VOLUME && bad.lba === lba)).toBe(true);
      continue;
    }
    if (valueIn(lba, found, 0) !== values[lba]) wrong += 1;
  }
  if (how === "cut" && kept >= proven && kept < proven + 2) return "shorter";
  if (wrong > 0) {
    // Stale blocks only if the store says that it lost records.
    if (opened.lostRecords > 0) return "lost records";
    throw new Error(`${wrong} blocks are wrong and nothing says so (kept ${kept} of ${proven})`);
  }
  if (reported > 0) return "bad blocks";
  return opened.lostRecords > 0 ? "lost records" : "whole";
}

/** Offsets of bytes that were ever written. */
function writtenOffsets(media: SimMedia): number[] {
  const bytes = media.peek(0, media.sizeBytes);
  const offsets: number[] = [];
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] !== 0) offsets.push(at);
  return offsets;
}

describe.each(["close", "cut"] as const)("after a %s", (how) => {
  const made = sample(how);

  test("undamaged: whole, and the offline check agrees", () => {
    expect(judge(made.media.clone(), made, how)).toBe("whole");
    const report = checkMedia(made.media.clone());
    expect(report).toMatchObject({ ok: true, isSound: true, lostRecords: 0 });
    if (report.ok) {
      const there = made.values.filter((value) => value !== 0).length;
      expect(report.blocksChecked).toBe(there);
      expect(report.batchesChecked > 0).toBe(how === "cut" || report.batchesChecked > 0);
    }
  });

  test("one bit anywhere", () => {
    const random = new SeededRandom(how === "cut" ? 21 : 22);
    const offsets = writtenOffsets(made.media);
    const seen = new Map<string, number>();
    for (let round = 0; round < 90; round += 1) {
      const media = made.media.clone();
      const at = random.pick(offsets);
      media.flip(at, 1 << random.below(8));
      let verdict = "";
      try {
        verdict = judge(media, made, how);
      } catch (error) {
        throw new Error(`byte ${at}: ${error}`, { cause: error });
      }
      seen.set(verdict, (seen.get(verdict) ?? 0) + 1);
      // One bit never costs the whole store.
      expect(verdict).not.toContain("refused");
    }
    expect(seen.get("bad blocks") ?? 0).toBeGreaterThan(5);
    expect(seen.get("whole") ?? 0).toBeGreaterThan(5);
  }, 30_000);

  test("one whole page of 4 KiB anywhere", () => {
    const random = new SeededRandom(how === "cut" ? 31 : 32);
    const offsets = writtenOffsets(made.media);
    for (let round = 0; round < 40; round += 1) {
      const media = made.media.clone();
      const at = random.pick(offsets);
      const junk = new Uint8Array(4096);
      for (let index = 0; index < 4096; index += 1) junk[index] = random.below(256);
      media.poke(at - (at % 4096), junk);
      try {
        expect(judge(media, made, how)).not.toContain("refused");
      } catch (error) {
        throw new Error(`page of byte ${at}: ${error}`, { cause: error });
      }
    }
  }, 30_000);

  test("every bit of the superblocks' headers and around them", () => {
    for (let at = 0; at < 176; at += 7) {
      const media = made.media.clone();
      media.flip(at, 1 << (at % 8));
      const all = media.clone();
      expect(judge(media, made, how)).toBe("whole");
      for (let copy = 1; copy < 4; copy += 1) all.flip(copy * 64 * KIB + at, 1 << (at % 8));
      const verdict = judge(all, made, how);
      expect(verdict).toMatch(/^refused: (damaged|foreign)$/);
    }
  });

  test("the offline check finds what reading finds", () => {
    const random = new SeededRandom(how === "cut" ? 41 : 42);
    const offsets = writtenOffsets(made.media);
    for (let round = 0; round < 20; round += 1) {
      const media = made.media.clone();
      media.flip(random.pick(offsets), 16);
      const report = checkMedia(media.clone());
      const verdict = judge(media, made, how);
      if (verdict === "whole") continue;
      if (report.ok && verdict !== "shorter") expect(report.isSound).toBe(false);
    }
  });

  test("noise everywhere", () => {
    const random = new SeededRandom(5);
    for (let round = 0; round < 25; round += 1) {
      const media = made.media.clone();
      for (let count = 1 + random.below(200); count > 0; count -= 1) {
        media.flip(random.below(media.sizeBytes), 1 + random.below(255));
      }
      const rig = new StoreRig({ media, blocks: BLOCKS, cacheHits: 1 });
      const opened = rig.open();
      if (!opened.ok) continue;
      for (let lba = 0; lba < BLOCKS; lba += 5) rig.read(lba);
      rig.write(3, 5);
      rig.run(50);
    }
  });
});

test("two volumes' worth of garbage where the store should be", () => {
  const random = new SeededRandom(77);
  for (let round = 0; round < 30; round += 1) {
    const rig = new StoreRig({ sizeBytes: 2 * MIB });
    const junk = new Uint8Array(300 * KIB);
    for (let index = 0; index < junk.length; index += 1) junk[index] = random.below(256);
    rig.disk.media.poke(0, junk);
    expect(rig.open()).toMatchObject({ ok: false });
  }
});

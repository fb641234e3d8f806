/**
 * What the newest durable checkpoint says of the disk is not written over, however long the next
 * one takes (docs/store.md, invariants): its superblock is held back while the log goes on.
 */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { KIB } from "../../../core/base/units.ts";
import { AREA_OFFSET } from "../../../core/format/superblock.ts";
import { StoreRig } from "./store_rig.ts";

const BLOCKS = 2048;
const PART = BLOCKS / 8;
const VOLUME_BLOCKS = BLOCKS * 32;

/** Sixteen blocks in each region of 512, so that there are many pages of the index. */
function lbaOf(block: number): number {
  return Math.floor(block / 16) * 512 + (block % 16);
}

/** Overwrites one part of the volume after the other, so that each checkpoint has few pages. */
class Writer {
  readonly values = new Int32Array(BLOCKS);
  private value = 0;
  private readonly rig: StoreRig;

  constructor(rig: StoreRig) {
    this.rig = rig;
  }

  write(block: number): void {
    this.value += 1;
    expect(this.rig.write(lbaOf(block), this.value)).toBe(true);
    this.values[block] = this.value;
  }

  /** Every block is what it was written with last. */
  check(): void {
    for (let block = 0; block < BLOCKS; block += 1) {
      expect(this.rig.valueAt(lbaOf(block))).toBe(this.values[block]!);
    }
  }

  /** Writes the part until `isDone`, at most `most` times eight blocks; all of it is durable. */
  part(part: number, isDone: () => boolean, most = 20_000): void {
    for (let count = 0; count < most && !isDone(); count += 1) {
      for (let each = 0; each < 8; each += 1) {
        this.write(part * PART + (((8 * count + each) * 37) % PART));
      }
      expect(this.rig.sync()).toBe(true);
    }
  }
}

test("segments that only an older checkpoint needs stay until the next one is durable", () => {
  for (let seed = 1; seed <= 6; seed += 1) {
    const rig = new StoreRig({
      seed,
      sizeBytes: 24_576 * KIB,
      segmentBytes: 64 * KIB,
      blocks: VOLUME_BLOCKS,
      checkpointBytes: 512 * KIB,
    });
    expect(rig.format()).toMatchObject({ ok: true });
    const writer = new Writer(rig);
    for (let block = 0; block < BLOCKS; block += 1) writer.write(block);
    // Pages of one part live until its turn comes again, so that whole segments of checkpoints
    // older than the last one die at once.
    const rounds = 16 + seed;
    for (let round = 0; round < rounds; round += 1) {
      const before = rig.store.stats().checkpoints;
      writer.part(round % 8, () => rig.store.stats().checkpoints > before);
    }
    const held: (() => void)[] = [];
    const write = rig.disk.write.bind(rig.disk);
    rig.disk.write = (tag, offset, ...rest) => {
      if (offset < AREA_OFFSET) held.push(() => write(tag, offset, ...rest));
      else write(tag, offset, ...rest);
    };
    writer.part(rounds % 8, () => held.length > 0);
    expect(held.length).toBe(1);
    // The log goes on through several segments while the superblock is on its way.
    writer.part((rounds + 1) % 8, () => false, 40);
    rig.disk.write = write;
    rig.powerCut();
    expect(rig.open()).toMatchObject({ ok: true });
    writer.check();
  }
}, 60_000);

test("segments whose pages of the index were moved stay until a checkpoint says where to", () => {
  const rig = new StoreRig({
    sizeBytes: 13_312 * KIB,
    segmentBytes: 64 * KIB,
    blocks: VOLUME_BLOCKS,
    checkpointBytes: 4096 * KIB,
  });
  expect(rig.format()).toMatchObject({ ok: true });
  const writer = new Writer(rig);
  for (let block = 0; block < BLOCKS; block += 1) writer.write(block);
  const random = new SeededRandom(1);
  let cleaned = 0;
  for (let life = 0; life < 24; life += 1) {
    // The other half's pages are clean meanwhile: the cleaner moves them as they lie.
    const base = (life % 2) * (BLOCKS / 2);
    for (let round = 0; round < 60 + 10 * life; round += 1) {
      for (let each = 0; each < 8; each += 1) writer.write(base + random.below(BLOCKS / 2));
      expect(rig.sync()).toBe(true);
    }
    cleaned += rig.store.stats().segmentsCleaned;
    rig.powerCut();
    expect(rig.open()).toMatchObject({ ok: true });
    writer.check();
  }
  expect(cleaned).toBeGreaterThan(50);
}, 60_000);

/**
 * What cleaning costs: bytes written to the disk per byte of records, against how full the store
 * is, on the simulated disk (the amplification does not depend on a disk's speed). Prints the
 * table of docs/store.md. About two minutes:
 *
 *   bun bench/cleaning_curve.ts
 */
import { SeededRandom } from "../core/base/random.ts";
import { KIB, MIB } from "../core/base/units.ts";
import { StoreRig } from "../tests/unit/store/store_rig.ts";

const FILLS = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95] as const;
const SEGMENT_BYTES = 256 * KIB;

/** Draws the first block of the next write. */
type Draw = (random: SeededRandom, blocks: number) => number;

const uniform: Draw = (random, blocks) => random.below(blocks);
/** 90 % of the writes go to the first 10 % of the blocks. */
const skewed: Draw = (random, blocks) => {
  const hot = Math.floor(blocks / 10);
  return random.chance(0.9) ? random.below(hot) : hot + random.below(blocks - hot);
};

function newRig(): StoreRig {
  const rig = new StoreRig({
    sizeBytes: 65 * MIB,
    segmentBytes: SEGMENT_BYTES,
    logBufferBytes: SEGMENT_BYTES,
    blocks: 16384,
    cacheHits: 1,
  });
  rig.format();
  return rig;
}

/** Steady state: the store is overwritten three times, then measured over two more. */
function amplification(fill: number, next: Draw, blocksEach = 1): number {
  const rig = newRig();
  const blocks = Math.floor((rig.store.stats().sizeBytes * fill) / 4096);
  const random = new SeededRandom(4);
  let value = 1;
  const write = (lba: number, count: number): void => {
    value += 1;
    if (!rig.write(lba, value, count)) throw new Error(`full at ${fill}`);
    if (random.chance(0.1)) rig.step(rig.nowMs + 1);
  };
  for (let lba = 0; lba + blocksEach <= blocks; lba += blocksEach) write(lba, blocksEach);
  const overwrite = (passes: number): void => {
    for (let done = 0; done < passes * blocks; done += blocksEach) {
      write(next(random, blocks - blocksEach + 1), blocksEach);
    }
  };
  overwrite(3);
  const before = rig.store.stats();
  overwrite(2);
  const after = rig.store.stats();
  return (after.bytesWritten - before.bytesWritten) / (after.recordBytes - before.recordBytes);
}

/** In order, over and over. */
function sequential(fill: number): number {
  let at = 0;
  return amplification(
    fill,
    (_, span) => {
      const lba = at;
      at = at + 16 >= span ? 0 : at + 16;
      return lba;
    },
    16,
  );
}

/** Each write alone on the disk, with or without a sync: pages of 4 KiB that are not full. */
function alone(isSynced: boolean): number {
  const rig = newRig();
  const random = new SeededRandom(4);
  for (let count = 0; count < 2000; count += 1) {
    rig.write(random.below(8192), count + 1);
    if (isSynced) rig.sync();
    else rig.until(() => rig.store.loggedLsn === rig.store.lastLsn);
  }
  return rig.store.stats().writeAmplification;
}

function main(): void {
  const shown = (value: number): string => value.toFixed(2);
  process.stdout.write("| full | uniform | 90/10 | sequential |\n| ---: | ---: | ---: | ---: |\n");
  for (const fill of FILLS) {
    const cells = [amplification(fill, uniform), amplification(fill, skewed), sequential(fill)];
    process.stdout.write(`| ${Math.round(fill * 100)} % | ${cells.map(shown).join(" | ")} |\n`);
  }
  process.stdout.write(`\none write at a time: ${shown(alone(false))}, each with a sync: `);
  process.stdout.write(`${shown(alone(true))}\n`);
}

main();

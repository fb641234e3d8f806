/**
 * Fuzzes the store with images changed in every way (`image_cases.ts`). Whatever lies on the disk,
 * open, check and repair end, within bounds, and a block reads as itself or as an error.
 *
 * `bun tests/fuzz/image_fuzz.ts --seconds 600 [--seed 7]`; without arguments 60 s from seed 1.
 */
import { SeededRandom } from "../../core/base/random.ts";
import { KIB, REGION_BLOCKS } from "../../core/base/units.ts";
import type { SimMedia } from "../sim/sim_media.ts";
import { mediaOf } from "../tools/image_fixtures.ts";
import { imageOf, LIFE_BLOCKS, LIVES } from "../tools/image_lives.ts";
import { check, repair } from "../unit/store/check_rig.ts";
import { OTHER, StoreRig, valueIn, VOLUME } from "../unit/store/store_rig.ts";
import {
  type Case,
  EDGES,
  fieldCase,
  fieldChoices,
  plainCase,
  rootCase,
  type Targets,
  targetsOf,
} from "./image_cases.ts";

const SMALL_BLOCKS = 1500;
/** Bytes the process may grow by in one case. */
const GROWTH_BYTES_MAX = 600 * 1024 * 1024;
const CASE_MS_MAX = 10_000;

/** An image to start from. */
interface Base extends Targets {
  readonly blocks: number;
  readonly values: ReadonlyMap<string, number>;
  readonly seqs: readonly number[];
}

export interface FuzzResult {
  cases: number;
  /** "layout.field" that were set to something at least once. */
  readonly fields: Set<string>;
  /** How many ended how. */
  readonly outcomes: Map<string, number>;
}

/** A small store with everything in its log: both lanes, moves, trims, documents. */
function smallImage(): Uint8Array {
  const rig = new StoreRig({
    seed: 31,
    sizeBytes: 256 * KIB + 24 * 64 * KIB,
    blocks: SMALL_BLOCKS,
    cacheHits: 1,
  });
  rig.format();
  const random = new SeededRandom(311);
  let seq = 0;
  const header = (): object => {
    seq += 1;
    return { epoch: 65, sender: 1 + (seq % 2), seq: Math.ceil(seq / 2), tagPoint: 1 };
  };
  rig.store.putMeta(3, new Uint8Array(40).fill(9));
  rig.write(100, 7, 2, { volume: OTHER, ...header() });
  for (let value = 1; rig.store.stats().segmentsCleaned < 4; value += 1) {
    rig.write(random.below(30), value, 1, header());
    if (value % 6 === 0) rig.run(2);
  }
  rig.close();
  rig.open();
  const cleaned = rig.store.stats().segmentsCleaned;
  for (let value = 1000; value < 1400; value += 1) {
    rig.write(600 + random.below(25), value, 1, header());
    if (value % 20 === 0) rig.zero(random.below(1400), 9, header());
    if (value % 4 === 0) rig.run(1);
    if (value % 7 === 0) rig.sync();
    if (rig.store.stats().segmentsCleaned > cleaned) break;
  }
  rig.store.putMeta(4, new Uint8Array(70).fill(1));
  rig.write(5, 2000, 3, header());
  rig.sync();
  rig.write(6, 2001, 1, header());
  rig.sync();
  rig.crash();
  return imageOf(rig.disk.media);
}

function baseOf(image: Uint8Array, blocks: number): Base {
  const rig = new StoreRig({ media: mediaOf(image), blocks, cacheHits: 1 });
  if (!rig.open().ok) throw new Error("the image does not open");
  const values = new Map<string, number>();
  readAll(rig, blocks, (volume, lba, value) => values.set(`${volume} ${lba}`, value));
  return { ...targetsOf(image), blocks, values, seqs: seqsOf(rig) };
}

function seqsOf(rig: StoreRig): number[] {
  return [0, 1, 2].map((sender) => rig.store.streamSeq(sender as never));
}

/** Reads every block that is not a hole; -1 for an error. Throws at another block's bytes. */
function readAll(
  rig: StoreRig,
  blocks: number,
  visit: (volume: number, lba: number, value: number) => void,
): void {
  for (const [volume, count] of [
    [VOLUME, blocks],
    [OTHER, 2048],
  ] as const) {
    let region = rig.store.nextRegion(volume, 0);
    while (region >= 0 && region * REGION_BLOCKS < count) {
      const end = Math.min((region + 1) * REGION_BLOCKS, count);
      for (let lba = region * REGION_BLOCKS; lba < end; lba += 1) {
        const place = rig.store.placeOf(volume, lba);
        if (place === 0) continue;
        const found = place === 1 ? 1 : rig.read(lba, 1, volume);
        visit(volume, lba, typeof found === "number" ? -1 : valueIn(lba, found, 0));
      }
      region = rig.store.nextRegion(volume, region + 1);
    }
  }
}

/** Opens, checks, repairs, reads and uses the image. Throws what is wrong; one word otherwise. */
function tryCase(base: Base, tried: Case): string {
  const media = mediaOf(tried.image);
  const report = check(media.clone());
  const lived = live(base, tried, media.clone());
  const { result } = repair(media);
  if (result === null) throw new Error("the repair has no result");
  if (!result.ok) {
    // A root that says that every segment is in use leaves no room for another checkpoint.
    const isFull = result.code === "small" || result.why.includes("no free segment");
    if (report.ok && (tried.change === "plain" || !isFull)) {
      throw new Error(`the check has a report, the repair says ${result.code}: ${result.why}`);
    }
    return `refused: ${report.ok ? "full" : result.code}`;
  }
  if (!report.ok) throw new Error(`the repair has a report, the check says ${report.code}`);
  const { after } = result;
  if (after.damageCount > 0 || after.badCount > 0) throw new Error("damage is left after a repair");
  live(base, tried, media);
  return lived;
}

/** Opens the store, reads everything, then writes, cleans, closes and opens again. */
function live(base: Base, tried: Case, media: SimMedia): string {
  const { change } = tried;
  const rig = new StoreRig({ media, blocks: base.blocks, cacheHits: 1 });
  const opened = rig.open();
  if (!opened.ok) return `refused: ${opened.code}`;
  let stale = 0;
  let errors = 0;
  const found = new Map<string, number>();
  try {
    readAll(rig, base.blocks, (volume, lba, value) => found.set(`${volume} ${lba}`, value));
  } catch (error) {
    if (change !== "forged") throw error;
  }
  for (const [block, value] of base.values) {
    const now = found.get(block) ?? 0;
    if (now === -1) errors += 1;
    else if (now !== value) stale += 1;
  }
  const isShorter = seqsOf(rig).some((seq, sender) => seq < (base.seqs[sender] as number));
  if (stale > 0 && change === "plain" && opened.lostRecords === 0 && !isShorter) {
    throw new Error(`${stale} blocks are old and nothing says so`);
  }
  try {
    writeMore(rig);
  } catch (error) {
    // Wrong counts stop a store, and only somebody's intent makes them wrong.
    if (rig.failed === "" || change === "plain") throw error;
    return "failed";
  }
  return errors > 0 ? "errors" : "whole";
}

/** The store goes on living: what it takes it must keep. A change may have filled it. */
function writeMore(rig: StoreRig): void {
  const written: number[] = [];
  for (let lba = 20; lba < 40; lba += 1) if (rig.write(lba, 9000 + lba)) written.push(lba);
  rig.run(30);
  rig.zero(0, 20);
  rig.close();
  if (rig.failed !== "") throw new Error(rig.failed);
  if (!rig.open().ok) throw new Error("closed in order, and refused");
  for (const lba of written) {
    if (rig.valueAt(lba) !== 9000 + lba) throw new Error(`block ${lba} is not what was written`);
  }
}

/** Runs until the time is over. Throws with the seed and the case of the first failure. */
export function fuzzImages(options: { seed: number; seconds: number }): FuzzResult {
  const small = baseOf(smallImage(), SMALL_BLOCKS);
  const [large, kept] = ["clean", "snapshots"].map((wanted) => {
    const life = LIVES.find(({ name }) => name === wanted) as (typeof LIVES)[0];
    return baseOf(imageOf(life.live()), LIFE_BLOCKS);
  }) as [Base, Base];
  const result: FuzzResult = { cases: 0, fields: new Set(), outcomes: new Map() };
  const endsAt = performance.now() + options.seconds * 1000;
  for (let seed = options.seed; performance.now() < endsAt; seed += 1) {
    for (let pass = 0; pass < EDGES && performance.now() < endsAt; pass += 1) {
      const random = new SeededRandom(seed * EDGES + pass);
      // The others have what the small one has not: dense pages, many regions; snapshots.
      const others = pass % 4 === 0 ? [large] : pass % 4 === 2 ? [kept] : [];
      runPass([small, ...others], pass + seed, random, result, seed);
    }
  }
  return result;
}

/** Every field once, in random order, and something else after every second one. */
function runPass(
  bases: readonly Base[],
  pass: number,
  random: SeededRandom,
  result: FuzzResult,
  seed: number,
): void {
  const queue = bases.flatMap((base) =>
    fieldChoices(base, pass).map((choice) => ({ base, choice })),
  );
  for (let left = queue.length; left > 0; left -= 1) {
    const index = random.below(left);
    const { base, choice } = queue[index] as (typeof queue)[0];
    queue[index] = queue[left - 1] as (typeof queue)[0];
    const { layout, field } = choice;
    result.fields.add(`${layout.layoutName}.${layout.table[field]?.name}`);
    runCase(base, fieldCase(base, choice, random), seed, result);
    const other = random.pick(bases);
    if (left % 4 === 0) runCase(other, rootCase(other, random), seed, result);
    if (left % 4 === 2) runCase(other, plainCase(other, random), seed, result);
  }
}

function runCase(base: Base, tried: Case, seed: number, result: FuzzResult): void {
  const before = process.memoryUsage.rss();
  const beganMs = performance.now();
  let outcome: string;
  try {
    outcome = tryCase(base, tried);
    if (process.memoryUsage.rss() - before > GROWTH_BYTES_MAX) throw new Error("it takes memory");
    if (performance.now() - beganMs > CASE_MS_MAX) throw new Error("it takes too long");
  } catch (error) {
    const where = `seed ${seed}, case ${result.cases}, ${tried.what}`;
    throw new Error(`${where}: ${error}`, { cause: error });
  }
  result.cases += 1;
  result.outcomes.set(outcome, (result.outcomes.get(outcome) ?? 0) + 1);
}

function argument(name: string, otherwise: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

if (import.meta.main) {
  const seed = argument("--seed", 1);
  const { cases, outcomes, fields } = fuzzImages({ seed, seconds: argument("--seconds", 60) });
  const shown = [...outcomes].map(([outcome, count]) => `${outcome}: ${count}`).join(", ");
  process.stdout.write(`${cases} cases, ${fields.size} fields; ${shown}\n`);
}

/**
 * The lives of small stores, for images: the same seed gives the same bytes. Each shows some of
 * what a store can hold; together all of it.
 */
import { SeededRandom } from "../../core/base/random.ts";
import { OUTCOME, type Outcome } from "../../core/base/outcome.ts";
import { BLOCK_BYTES, KIB, MIB, REGION_BLOCKS, type VolumeId } from "../../core/base/units.ts";
import { crc32 } from "../../core/base/checksum.ts";
import { META_SLOTS } from "../../core/format/checkpoint.ts";
import { RECORD_TYPE, RecordHeader } from "../../core/format/record.ts";
import type { SimMedia } from "../sim/sim_media.ts";
import { OTHER, StoreRig, VOLUME } from "../unit/store/store_rig.ts";

/** Blocks of the first volume: three nodes of the index, the last one not whole. */
export const LIFE_BLOCKS = 300_000;
const NODE_BLOCKS = 256 * REGION_BLOCKS;
const EPOCH = 65;

export interface Life {
  readonly name: string;
  /** What it shows, for the manifest. */
  readonly shows: string;
  /**
   * The store of today must write the same bytes. False where the background work's choices, which
   * are no part of the format, decide about them.
   */
  readonly isExact: boolean;
  readonly live: () => SimMedia;
}

function newRig(seed: number): StoreRig {
  const rig = new StoreRig({
    seed,
    sizeBytes: 4 * MIB,
    segmentBytes: 64 * KIB,
    blocks: LIFE_BLOCKS,
    cacheHits: 1,
  });
  rig.format();
  return rig;
}

/** Numbers the records of two senders' streams. */
class Streams {
  private readonly seqs = [0, 0];

  next(sender: number, tagPoint: number): Partial<RecordHeader> {
    this.seqs[sender] = this.seqs[sender]! + 1;
    return { epoch: EPOCH, sender, seq: this.seqs[sender]!, tagPoint };
  }
}

/** Data in dense and sparse pages, trims of every size, two volumes, documents, tags, a mark. */
function fill(rig: StoreRig, streams: Streams): void {
  for (let lba = 0; lba < 360; lba += 6) rig.write(lba, 1 + lba, 6, streams.next(1, 1));
  for (let lba = 600; lba < 4000; lba += 97) rig.write(lba, lba, 1, streams.next(0, 1));
  rig.write(2 * NODE_BLOCKS + 100, 5, 2, streams.next(1, 2));
  rig.zero(100, 3, streams.next(0, 2));
  rig.zero(1024, 1500, streams.next(0, 2));
  // A whole node: its tag is kept in the root.
  rig.zero(NODE_BLOCKS, NODE_BLOCKS, streams.next(1, 3));
  rig.write(7, 77, 1, streams.next(1, 3));
  rig.write(20, 21, 3, { volume: OTHER, ...streams.next(1, 3) });
  rig.write(1999, 22, 1, { volume: OTHER, type: RECORD_TYPE.copy, epoch: EPOCH, tagPoint: 2 });
  rig.zero(1500, 10, { volume: OTHER, type: RECORD_TYPE.copyZero, epoch: EPOCH, tagPoint: 2 });
  const mark = Object.assign(new RecordHeader(), streams.next(0, 4), { type: RECORD_TYPE.mark });
  rig.admit(80, "reserve");
  rig.request(() => rig.store.appendEmpty(mark));
  rig.store.putMeta(0, new Uint8Array(300).fill(0xa0));
  rig.store.putMeta(14, new Uint8Array([1, 2, 3]));
  rig.store.setRegionTag(OTHER, 1, EPOCH, 9);
  rig.sync();
}

/** A log to roll forward after the checkpoint, in small durable steps. */
function goOn(rig: StoreRig, streams: Streams): void {
  for (let step = 0; step < 24; step += 1) {
    rig.write(8 + step * 3, 2000 + step, 1 + (step % 3), streams.next(step % 2, 5));
    if (step % 4 === 3) rig.zero(300 + step, 2, streams.next(0, 5));
    if (step === 10) rig.store.putMeta(2, new Uint8Array(64).fill(0x2a));
    if (step % 2 === 1) rig.sync();
  }
  // The last syncs' own batches are proven durable by what follows them.
  rig.write(4, 4000, 1, streams.next(1, 5));
  rig.sync();
  rig.write(5, 4001, 1, streams.next(1, 5));
  rig.sync();
}

function clean(): SimMedia {
  const rig = newRig(11);
  fill(rig, new Streams());
  rig.close();
  return rig.disk.media;
}

/** Killed with everything written: `how` says what the machine around it did. */
function crashed(how: "kill" | "cut"): SimMedia {
  const rig = newRig(12);
  const streams = new Streams();
  fill(rig, streams);
  rig.close();
  rig.open();
  goOn(rig, streams);
  if (how === "cut") {
    for (let lba = 50; lba < 62; lba += 3) {
      rig.write(lba, 5000 + lba, 3, streams.next(1, 6));
      rig.run(1);
    }
    rig.powerCut();
  } else {
    rig.crash();
  }
  return rig.disk.media;
}

function keep(rig: StoreRig, volume: VolumeId, id: number): void {
  expectOk(rig.request(() => rig.store.snapshots.create(volume, id)));
}

function drop(rig: StoreRig, volume: VolumeId, id: number): void {
  expectOk(rig.request(() => rig.store.snapshots.drop(volume, id)));
}

function expectOk(outcome: Outcome): void {
  if (outcome !== OUTCOME.ok) throw new Error(`a snapshot: outcome ${outcome}`);
}

/**
 * Snapshots of two volumes under the checkpoint, one of them given up there; others kept and given
 * up in the log behind it.
 */
function snapshots(): SimMedia {
  const rig = newRig(14);
  const streams = new Streams();
  fill(rig, streams);
  keep(rig, VOLUME, 5);
  for (let lba = 0; lba < 60; lba += 2) rig.write(lba, 6000 + lba, 1, streams.next(1, 4));
  keep(rig, VOLUME, 6);
  keep(rig, OTHER, 6);
  rig.zero(600, 1500, streams.next(0, 4));
  rig.zero(NODE_BLOCKS * 2, 4096, streams.next(0, 4));
  keep(rig, VOLUME, 70_000);
  rig.write(21, 8, 1, { volume: OTHER, ...streams.next(1, 4) });
  drop(rig, VOLUME, 6);
  rig.close();
  rig.open();
  keep(rig, OTHER, 7);
  goOn(rig, streams);
  keep(rig, VOLUME, 8);
  drop(rig, VOLUME, 70_000);
  rig.write(9, 4002, 2, streams.next(1, 5));
  rig.sync();
  rig.write(5, 4003, 1, streams.next(1, 5));
  rig.sync();
  rig.crash();
  return rig.disk.media;
}

/** Overwritten until the cleaner has worked; the moves since the last checkpoint are still log. */
function cleaned(how: "close" | "kill"): SimMedia {
  const rig = newRig(13);
  const streams = new Streams();
  const random = new SeededRandom(131);
  const before = (): number => rig.store.stats().segmentsCleaned;
  for (let value = 1; before() < 12 && value < 20_000; value += 1) {
    rig.write(random.below(random.chance(0.8) ? 90 : 360), value, 1, streams.next(1, 1));
    if (value % 8 === 0) rig.run(2);
  }
  const { checkpoints } = rig.store.stats();
  const goal = before() + 2;
  for (let value = 20_000; value < 20_400; value += 1) {
    rig.write(random.below(360), value, 1, streams.next(1, 2));
    rig.run(1);
    if (before() >= goal && rig.store.stats().checkpoints === checkpoints) break;
  }
  rig.sync();
  if (how === "close") rig.close();
  else rig.crash();
  return rig.disk.media;
}

export const LIVES: readonly Life[] = [
  {
    name: "fresh",
    shows: "made and closed",
    isExact: true,
    live: () => {
      const rig = newRig(10);
      rig.close();
      return rig.disk.media;
    },
  },
  {
    name: "clean",
    shows: "data in two volumes, dense and sparse pages, trims, documents, tags; closed",
    isExact: true,
    live: clean,
  },
  {
    name: "crashed",
    shows: "a log to roll forward over a checkpoint; the process was killed",
    isExact: true,
    live: () => crashed("kill"),
  },
  {
    name: "snapshots",
    shows: "snapshots under the checkpoint and in the log behind it, some given up; killed",
    isExact: true,
    live: snapshots,
  },
  {
    name: "torn",
    shows: "the same with an unsynced end, torn by a power cut",
    isExact: false,
    live: () => crashed("cut"),
  },
  {
    name: "cleaned",
    shows: "blocks moved by the cleaner, segments used again; closed",
    isExact: false,
    live: () => cleaned("close"),
  },
  {
    name: "moving",
    shows: "both lanes to roll forward: moves of the cleaner since the checkpoint; killed",
    isExact: false,
    live: () => cleaned("kill"),
  },
];

/** The whole image, as a process that reads the file now would see it. */
export function imageOf(media: SimMedia): Uint8Array {
  return media.peek(0, media.sizeBytes);
}

/** Everything that can be read out of a store, as lines: blocks, tags, documents, streams. */
export function contentLines(rig: StoreRig): string[] {
  const lines: string[] = [];
  for (const [volume, blocks] of [
    [VOLUME, LIFE_BLOCKS],
    [OTHER, 2048],
  ] as const) {
    for (let region = rig.store.nextRegion(volume, 0); region >= 0; ) {
      const tag = { epoch: 0, point: 0 };
      rig.store.regionTag(volume, region, tag);
      lines.push(`volume ${volume} region ${region} tag ${tag.epoch}.${tag.point}`);
      const end = Math.min((region + 1) * REGION_BLOCKS, blocks);
      for (let lba = region * REGION_BLOCKS; lba < end; lba += 1) {
        const line = blockLine(rig, volume, lba);
        if (line !== "") lines.push(`volume ${volume} block ${lba} ${line}`);
      }
      region = rig.store.nextRegion(volume, region + 1);
    }
    for (const id of rig.store.snapshots.list(volume))
      lines.push(...snapshotLines(rig, volume, id));
  }
  for (let slot = 0; slot < META_SLOTS; slot += 1) {
    const bytes = rig.store.getMeta(slot);
    if (bytes !== null) lines.push(`meta ${slot} ${bytes.length} ${crc32(bytes, 0, bytes.length)}`);
  }
  const { store } = rig;
  const seqs = [0, 1, 2].map((sender) => store.streamSeq(sender as never));
  lines.push(`epoch ${store.streamEpoch} seqs ${seqs.join(" ")}`);
  return lines;
}

/** The blocks of a snapshot that are no holes. */
function snapshotLines(rig: StoreRig, volume: VolumeId, id: number): string[] {
  const lines = [`volume ${volume} snapshot ${id}`];
  const blocks = volume === VOLUME ? LIFE_BLOCKS : 2048;
  const written: number[] = [];
  let lba = 0;
  while (lba < blocks) {
    const before = lba;
    rig.store.snapshots.extents(volume, id, lba, blocks - lba, (count, isData) => {
      for (let each = lba; isData && each < lba + count; each += 1) written.push(each);
      lba += count;
    });
    // Pages that are not in memory come before it is asked again.
    if (lba === before) rig.run(1);
  }
  const out = new Uint8Array(BLOCK_BYTES);
  for (const lba of written) {
    const found = rig.answered(out, (token) =>
      rig.store.snapshots.read(token, volume, id, lba, 1, out, 0),
    );
    const value = typeof found === "number" ? "io" : String(crc32(found, 0, BLOCK_BYTES));
    lines.push(`volume ${volume} snapshot ${id} block ${lba} ${value}`);
  }
  return lines;
}

/** A block's checksum, "io", or "" for a hole. */
function blockLine(rig: StoreRig, volume: typeof VOLUME, lba: number): string {
  const place = rig.store.placeOf(volume, lba);
  if (place === 0) return "";
  if (place === 1) return "io";
  const found = rig.read(lba, 1, volume);
  return typeof found === "number" ? "io" : String(crc32(found, 0, BLOCK_BYTES));
}

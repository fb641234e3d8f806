/**
 * A store's busy life in which the power could go at any moment: at each write and each barrier of
 * it an image of the medium is handed to the caller, with what must be in it. The life itself goes
 * on, so one run shows all its moments.
 *
 * Every operation is a record of one stream, numbered from 1, so the store says of itself which
 * prefix an image holds (`streamSeq`), and each block's content follows.
 */
import { expect } from "bun:test";
import { OUTCOME, type Outcome } from "../../../core/base/outcome.ts";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import { AREA_OFFSET } from "../../../core/format/superblock.ts";
import { CUTS, type Cut, type SimMedia } from "../../sim/sim_media.ts";
import { checkMedia, type RigOptions, StoreRig, VOLUME } from "./store_rig.ts";

export const SENDER = hostId(1);
const EPOCH = 65;
/** Blocks of one group follow each other. */
export const GROUP = 4;
/** Blocks that a page and a node cover. */
const REGION = 512;
const NODE = 256 * REGION;
const SLOT = 3;

interface Op {
  readonly lba: number;
  readonly count: number;
  /** 0 = a hole. */
  readonly value: number;
}

/** A snapshot kept or dropped after the first `after` operations and before the next. */
interface Mark {
  readonly kind: "keep" | "drop";
  readonly id: number;
  readonly after: number;
}

/** An image after a power cut, and what must be found in it. */
export interface CutImage {
  readonly media: SimMedia;
  readonly cut: Cut;
  readonly label: string;
  /** Operations that are there at least and at most. */
  readonly least: number;
  readonly most: number;
  /** The same of the document that is put down now and then. */
  readonly documentLeast: number;
  readonly documentMost: number;
  /** Marks that are there at least. */
  readonly marksLeast: number;
}

export interface CutPlan {
  readonly seed: number;
  readonly segments: number;
  readonly segmentBytes: number;
  /** Groups of blocks, each in a region of its own. */
  readonly groups: number;
  /** Operations after the volume was filled. */
  readonly operations: number;
  readonly trims: number;
  readonly syncs: number;
  /** Snapshots that are there at the same time, at most. */
  readonly snapshots?: number;
  readonly rig: RigOptions;
  /** Images taken at each write; the kinds take turns. */
  readonly draws: number;
  /** Only of every so many moments, in lives that have too many. */
  readonly every?: number;
}

export class CutScenario {
  readonly rig: StoreRig;
  readonly plan: CutPlan;
  /** First block of each group. */
  readonly groups: number[] = [];
  readonly count = { rolls: 0, regionTrims: 0, nodeTrims: 0, restarts: 0, moments: 0, marks: 0 };
  checkpoints = 0;
  segmentsCleaned = 0;
  indexMisses = 0;
  private readonly random: SeededRandom;
  private readonly cutRandom: SeededRandom;
  private readonly take: (image: CutImage) => void;
  private readonly ops: Op[] = [];
  /** Operations that a sync covers for certain. */
  private durable = 0;
  private documentDurable = 0;
  private document = 0;
  private readonly marks: Mark[] = [];
  private marksDurable = 0;
  private readonly waiting: { token: number; ops: number; document: number; marks: number }[] = [];
  private nextValue = 1;
  private nextToken = 1_000_000;
  private nextCut = 0;
  private readonly images: CutImage[] = [];
  private lastSegment = -1;
  /** All kinds of cuts at each write: a recovery has few. */
  private isRestarting = false;

  /** `take` gets every image; it may throw. */
  constructor(plan: CutPlan, take: (image: CutImage) => void) {
    this.plan = plan;
    this.take = take;
    this.random = new SeededRandom(plan.seed);
    this.cutRandom = new SeededRandom(plan.seed + 1000);
    for (let group = 0; group < plan.groups; group += 1) {
      // Three nodes: half of the groups in the first, the rest in the others.
      const node = group % 2 === 0 ? 0 : 1 + (group % 4 === 1 ? 0 : 1);
      this.groups.push(node * NODE + group * REGION + ((group * 37) % (REGION - GROUP)));
    }
    this.rig = new StoreRig(rigOptions(plan));
    this.rig.disk.onWrite = (offset) => this.noteWrite(offset);
    this.rig.onStep = () => this.flushImages();
  }

  /** The whole life. */
  run(): void {
    this.rig.format();
    this.rig.disk.onMoment = (what) => this.moment(what);
    this.fill();
    for (let done = 0; done < this.plan.operations; done += 1) {
      this.act();
      // What must be in every life comes at fixed moments, the rest by chance.
      if (done % 10 === 8) this.trimRegions();
      if (done % 40 === 20) this.trimNode();
      if (done % 40 === 5) this.syncEach();
      if (done % 40 === 30) this.overwriteAgainAndAgain();
      if (done % 20 === 15) this.sweep();
      if (done % 3 === 1) this.changeSnapshots();
      const third = Math.floor(this.plan.operations / 3);
      if (done === third) this.closeAndOpen();
      if (done === 2 * third) this.killAndOpen();
    }
    this.noteStats();
    this.rig.close();
    this.rig.disk.onMoment = null;
    this.flushImages();
  }

  private fill(): void {
    for (const lba of this.groups) this.write(lba, GROUP);
    this.sync();
  }

  /** A group: mostly of the hot half, never of the last quarter, which lives long. */
  private pick(): number {
    const { random, groups } = this;
    const share = random.chance(0.85) ? 0.5 : 0.75;
    return groups[random.below(Math.ceil(groups.length * share))]!;
  }

  private act(): void {
    const { random, plan } = this;
    const group = this.pick();
    if (random.chance(plan.trims)) this.trim(group);
    else {
      const at = random.below(GROUP);
      this.write(group + at, 1 + random.below(GROUP - at));
    }
    if (random.chance(0.5)) for (let step = random.below(9); step >= 0; step -= 1) this.step();
    if (random.chance(0.05)) this.putDocument();
    if (random.chance(plan.syncs)) this.askSync();
    if (random.chance(0.03)) this.sync();
  }

  /** Blocks, whole regions, or a whole node, which is written anew at once. */
  private trim(group: number): void {
    const { random } = this;
    const kind = random.fraction();
    if (kind < 0.6) {
      const at = random.below(GROUP);
      this.zero(group + at, 1 + random.below(GROUP - at));
    } else if (kind < 0.9) {
      this.trimRegions();
    } else {
      this.trimNode();
    }
  }

  /** Those between the first and the last may have pages that are not in memory. */
  private trimRegions(): void {
    const group = this.groups[this.random.below(this.groups.length)]!;
    this.count.regionTrims += 1;
    const from = group - (group % REGION);
    const nodeEnd = (Math.floor(group / NODE) + 1) * NODE;
    this.zero(from, Math.min(REGION * (1 + this.random.below(9)), nodeEnd - from));
  }

  /** Whole segments that are dead before a checkpoint is past them; with syncs or at full speed. */
  private overwriteAgainAndAgain(): void {
    const group = this.pick();
    for (let count = 0; count < 80; count += 1) {
      this.write(group, GROUP);
      if (count < 40 && count % 4 === 3) this.sync();
    }
  }

  /** One or two small writes before each sync, so that the store foresees the next. */
  private syncEach(): void {
    const { random } = this;
    for (let count = 0; count < 20; count += 1) {
      this.write(this.pick(), 1);
      for (let step = random.below(3); step > 0; step -= 1) this.step();
      if (count > 8 && random.chance(0.7)) this.write(this.pick(), 1);
      for (let step = random.below(4); step > 0; step -= 1) this.step();
      this.sync();
    }
  }

  /** Many blocks, one at a time and without pause: what the cleaner moves is overwritten. */
  private sweep(): void {
    const { random, groups } = this;
    for (let count = 2 * groups.length; count > 0; count -= 1) {
      this.write(this.pick() + random.below(GROUP), 1);
      if (random.chance(0.2)) this.askSync();
      for (let step = random.below(4); step > 0; step -= 1) this.step();
    }
  }

  private trimNode(): void {
    this.count.nodeTrims += 1;
    const node = 1 + this.random.below(2);
    this.zero(node * NODE, NODE);
    for (const lba of this.groups) if (Math.floor(lba / NODE) === node) this.write(lba, GROUP);
  }

  private write(lba: number, count: number): void {
    const value = this.nextValue;
    this.nextValue += 1;
    const header = { epoch: EPOCH, sender: SENDER, seq: this.ops.length + 1, tagPoint: 1 };
    expect(this.rig.write(lba, value, count, header)).toBe(true);
    this.ops.push({ lba, count, value });
  }

  private zero(lba: number, count: number): void {
    const header = { epoch: EPOCH, sender: SENDER, seq: this.ops.length + 1, tagPoint: 1 };
    expect(this.rig.zero(lba, count, header)).toBe(true);
    this.ops.push({ lba, count, value: 0 });
  }

  /** Keeps one, or drops one when there are as many as there may be; nothing waits for it. */
  private changeSnapshots(): void {
    const most = this.plan.snapshots ?? 0;
    if (most === 0) return;
    const { snapshots } = this.rig.store;
    const ids = [...this.snapshotsAfter(this.marks.length).keys()];
    if (ids.length < most) {
      const id = this.marks.length + 1;
      this.ask(() => snapshots.create(VOLUME, id));
      this.marks.push({ kind: "keep", id, after: this.ops.length });
    } else {
      const id = this.random.pick(ids);
      this.ask(() => snapshots.drop(VOLUME, id));
      this.marks.push({ kind: "drop", id, after: this.ops.length });
    }
    this.count.marks += 1;
  }

  /** Until the log has room. */
  private ask(request: () => Outcome): void {
    while (this.rig.request(request) === OUTCOME.pending) {
      const before = this.rig.writable;
      this.rig.until(() => this.rig.writable > before);
    }
  }

  private step(): void {
    this.rig.step(this.rig.nowMs + 5);
  }

  private putDocument(): void {
    this.document += 1;
    const bytes = new Uint8Array(new Uint32Array([this.document]).buffer);
    this.rig.request(() => this.rig.store.putMeta(SLOT, bytes));
  }

  /** Asks for a sync; the life goes on before it is answered. */
  private askSync(): number {
    this.nextToken += 1;
    const token = this.nextToken;
    const { ops, document, marks } = this;
    this.waiting.push({ token, ops: ops.length, document, marks: marks.length });
    this.rig.request(() => this.rig.store.sync(token));
    return token;
  }

  private sync(): void {
    const token = this.askSync();
    this.rig.until(() => this.rig.syncs.has(token));
    this.noteSyncs();
  }

  private noteSyncs(): void {
    for (let first = this.waiting[0]; first !== undefined; first = this.waiting[0]) {
      const isDone = this.rig.syncs.get(first.token);
      if (isDone === undefined) return;
      expect(isDone).toBe(true);
      this.durable = Math.max(this.durable, first.ops);
      this.documentDurable = Math.max(this.documentDurable, first.document);
      this.marksDurable = Math.max(this.marksDurable, first.marks);
      this.waiting.shift();
    }
  }

  private noteStats(): void {
    const stats = this.rig.store.stats();
    this.checkpoints += stats.checkpoints - 1;
    this.segmentsCleaned += stats.segmentsCleaned;
    this.indexMisses += stats.indexMisses;
  }

  /** An orderly end just after trims, of which all space may not have been given up yet. */
  private closeAndOpen(): void {
    this.trimNode();
    for (let count = 0; count < 3; count += 1) this.trimRegions();
    for (let count = 0; count < 3; count += 1) this.changeSnapshots();
    this.noteEnd();
    this.rig.close();
    expect(checkMedia(this.rig.disk.media.clone())).toMatchObject({ isSound: true });
    this.reopen(this.ops.length);
  }

  /** A kill after trims that no sync covers: recovery finds segments that nothing needs. */
  private killAndOpen(): void {
    this.sync();
    for (const lba of this.groups) this.zero(lba, GROUP);
    for (let count = 0; count < 3; count += 1) this.changeSnapshots();
    const end = this.rig.store.lastLsn;
    this.rig.until(() => this.rig.loggedLsn >= end);
    this.noteEnd();
    this.rig.crash();
    this.reopen(this.ops.length);
    this.fill();
  }

  /** The process ends; what comes until it is open again can be cut, too. */
  private noteEnd(): void {
    this.noteStats();
    this.noteSyncs();
    this.waiting.length = 0;
    this.count.restarts += 1;
  }

  /** What is there then, recovery made durable. */
  private reopen(kept: number): void {
    this.isRestarting = true;
    this.rig.open();
    this.isRestarting = false;
    expect(this.rig.store.streamSeq(SENDER)).toBe(kept);
    this.durable = kept;
    this.document = documentOf(this.rig);
    this.documentDurable = this.document;
    this.marksDurable = this.marks.length;
  }

  private noteWrite(offset: number): void {
    const segment = Math.floor((offset - AREA_OFFSET) / this.plan.segmentBytes);
    if (segment > this.lastSegment) this.count.rolls += 1;
    this.lastSegment = segment;
  }

  private moment(what: "write" | "sync" | "synced"): void {
    this.noteSyncs();
    this.count.moments += 1;
    if (this.count.moments % (this.plan.every ?? 1) !== 0) return;
    const kinds = this.isRestarting ? CUTS.length : this.plan.draws;
    const draws = what === "write" ? kinds : 1;
    for (let draw = 0; draw < draws; draw += 1) {
      const cut = what === "write" ? CUTS[this.nextCut % CUTS.length]! : "none";
      if (what === "write") this.nextCut += 1;
      this.images.push({
        media: this.rig.disk.imageAfterCut(this.cutRandom, cut),
        cut,
        label: `moment ${this.count.moments} (${what}), ${cut}`,
        least: this.durable,
        most: this.ops.length,
        documentLeast: this.documentDurable,
        documentMost: this.document,
        marksLeast: this.marksDurable,
      });
    }
  }

  /** Not from inside the store, whose event goes on meanwhile. */
  private flushImages(): void {
    for (const image of this.images.splice(0)) this.take(image);
  }

  /** Snapshots there after the first `count` marks: for each, operations before it was kept. */
  snapshotsAfter(count: number): Map<number, number> {
    const found = new Map<number, number>();
    for (const { kind, id, after } of this.marks.slice(0, count)) {
      if (kind === "keep") found.set(id, after);
      else found.delete(id);
    }
    return found;
  }

  /**
   * Marks that are in the log with the first `kept` operations, if `ids` are the snapshots there.
   * Those between the last operation kept and the next may be there or not, in their order.
   */
  marksKept(kept: number, ids: readonly number[]): number {
    const least = this.marks.filter(({ after }) => after < kept).length;
    let count = this.marks.filter(({ after }) => after <= kept).length;
    const list = JSON.stringify(ids);
    while (JSON.stringify([...this.snapshotsAfter(count).keys()]) !== list) {
      count -= 1;
      if (count < least) throw new Error(`snapshots ${list} after ${kept} operations`);
    }
    return count;
  }

  /** Values of all groups' blocks after the first `count` operations. */
  valuesAfter(count: number): Int32Array {
    const values = new Int32Array(this.groups.length * GROUP);
    for (let index = 0; index < count; index += 1) {
      const op = this.ops[index] as Op;
      for (let group = 0; group < this.groups.length; group += 1) {
        const first = this.groups[group]!;
        const from = Math.max(op.lba, first);
        const to = Math.min(op.lba + op.count, first + GROUP);
        if (from < to)
          values.fill(op.value, group * GROUP + from - first, group * GROUP + to - first);
      }
    }
    return values;
  }
}

export function rigOptions(plan: CutPlan): RigOptions {
  return {
    seed: plan.seed,
    sizeBytes: AREA_OFFSET + plan.segmentBytes * plan.segments,
    segmentBytes: plan.segmentBytes,
    blocks: 3 * NODE,
    cacheHits: 0.9,
    ...plan.rig,
  };
}

/** The document that a store has; 0 if none. */
export function documentOf(rig: StoreRig): number {
  const bytes = rig.store.getMeta(SLOT);
  return bytes === null ? 0 : (new Uint32Array(bytes.slice().buffer)[0] ?? 0);
}

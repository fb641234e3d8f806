/**
 * Offline check of a store (`vsan recover check`): walks everything that can be reached from the
 * superblock and verifies every checksum. Reads only. A machine over the Disk port like the store
 * itself: construct it, carry completions to `diskDone`, call `settle` after each batch of events.
 *
 *   superblocks -> root, nodes, pages -> log since the checkpoint -> blocks of data
 *
 * The index comes first and is kept; blocks follow window by window in the order in which they lie
 * (`place_window.ts`). What nothing points at is not looked at: old versions, and the headers of
 * batches below the checkpoint, which nobody will ever read again.
 */
import type { Disk } from "../base/ports.ts";
import { REGION_BLOCKS } from "../base/units.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import { SUPERBLOCK_BYTES, type Superblock } from "../format/superblock.ts";
import { BlockScan } from "./block_scan.ts";
import { BadBlocks, type CheckReport } from "./check_report.ts";
import { CheckpointLoader } from "./checkpoint_loader.ts";
import { Damage } from "./damage.ts";
import { DiskOps, OP } from "./disk_ops.ts";
import { Geometry } from "./geometry.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import { HOLE_PLACE, LOST_PLACE } from "./index_pool.ts";
import { ItemReader, LOAD_BUFFER_BYTES } from "./item_reader.ts";
import { windowBytes } from "./log_cursor.ts";
import { PageLoader } from "./page_loader.ts";
import type { Expected } from "./recovery.ts";
import { RollForward } from "./roll_forward.ts";
import { SEGMENT } from "./segment_table.ts";
import { StoreState } from "./state.ts";
import { judgeSuperblock, type Refusal, readSuperblock, refuse } from "./superblocks.ts";
import { type Task, TaskIo, WAIT } from "./task.ts";
import type { VolumeIndex } from "./volume_index.ts";

export class StoreCheck {
  /** The report, or why the store cannot be checked; null while it runs. */
  result: CheckReport | Refusal | null = null;
  /** Blocks to verify in all; 0 until the index is read. */
  blocksTotal = 0;
  private readonly disk: Disk;
  private readonly expected: Expected | null;
  private readonly ops = new DiskOps();
  private readonly io: TaskIo;
  private readonly damage = new Damage();
  private readonly found = new BadBlocks();
  private readonly scan: BlockScan;
  private readonly task: Task<CheckReport | Refusal>;
  private isWaiting = false;

  /** `expected`: whose store it must be; null for anybody's. */
  constructor(disk: Disk, expected: Expected | null) {
    this.disk = disk;
    this.expected = expected;
    this.io = new TaskIo(disk, this.ops);
    this.scan = new BlockScan(disk, this.ops, (volume, lba, place, why) =>
      this.found.bad(volume, lba, place, why),
    );
    this.task = this.run();
  }

  get blocksChecked(): number {
    return this.scan.blocksChecked;
  }

  /** Goes on as far as possible; call after construction and after each batch of events. */
  settle(): void {
    while (this.result === null && !this.isWaiting) {
      const step = this.task.next();
      if (step.done === true) this.result = step.value;
      else this.isWaiting = step.value === WAIT.io || step.value === WAIT.room;
    }
  }

  diskDone(tag: number, result: number): void {
    if (!this.ops.finish(tag)) return;
    if (this.ops.kind === OP.read) this.scan.finished(this.ops.subject, result);
    else this.io.result = result;
    this.isWaiting = false;
  }

  private *run(): Task<CheckReport | Refusal> {
    const found = yield* readSuperblock(this.io, this.disk.allocate(SUPERBLOCK_BYTES));
    if (!found.ok) return found;
    const superblock = found.value;
    const refused = judgeSuperblock(superblock, this.disk.sizeBytes, this.expected);
    if (refused !== null) return refused;
    for (const copy of found.staleCopies) {
      this.damage.add("superblock", 0, 0, 0, copy, "a copy is stale or damaged");
    }
    const geometry = new Geometry(superblock.segmentBytes, superblock.segmentCount);
    const state = new StoreState(geometry, Number.POSITIVE_INFINITY);
    const buffer = this.disk.allocate(LOAD_BUFFER_BYTES);
    const reader = new ItemReader(this.io, state.geometry, buffer);
    const loader = new CheckpointLoader(state, this.damage, reader);
    if (!(yield* loader.load(superblock))) {
      return refuse("damaged", "both copies of the checkpoint's root are damaged");
    }
    const pages = new PageLoader(state, reader, (volume, lba, count, segment) =>
      this.damage.add("page", volume, lba, count, segment, "does not verify"),
    );
    yield* pages.loadAll();
    if (state.pool.isInexact) yield* pages.recount();
    const forward = yield* this.rollForward(state, superblock, pages);
    yield* this.checkCounts(state, pages);
    this.blocksTotal = state.segments.liveBlockCount;
    for (const volume of state.volumes.keys()) {
      let newer: VolumeIndex | null = null;
      for (const version of state.versionsOf(volume)) {
        // What a dropped snapshot had may have been written over: the log names it again.
        if (version.isDying) continue;
        yield* this.checkVersion(version, newer);
        newer = version;
      }
    }
    yield* this.scan.run();
    return this.report(state, superblock, forward);
  }

  private *rollForward(
    state: StoreState,
    superblock: Superblock,
    pages: PageLoader,
  ): Task<RollForward> {
    const bytes = windowBytes(superblock.segmentBytes);
    const windows = [this.disk.allocate(bytes), this.disk.allocate(bytes)] as const;
    const forward = new RollForward(this.io, state, superblock, this.damage, pages, windows);
    yield* forward.run();
    return forward;
  }

  /** What checkpoint and log say is live must be what all pages together say. */
  private *checkCounts(state: StoreState, pages: PageLoader): Task<void> {
    const { segments, pool } = state;
    if (pool.isInexact) return;
    const stored = segments.liveBlocks.slice();
    yield* pages.recount();
    for (let segment = 0; segment < stored.length; segment += 1) {
      if (stored[segment] === segments.liveBlocks[segment]) continue;
      this.damage.add("segment", 0, 0, 0, segment, "its count of live blocks is wrong");
    }
  }

  private report(state: StoreState, superblock: Superblock, forward: RollForward): CheckReport {
    const { damage, found } = this;
    // Blocks are the scan's: roll-forward also names those that were overwritten later.
    const rows = damage.rows.filter((row) => row.kind !== "block");
    const damageCount = damage.count - damage.blockCount;
    const lostRecords = superblock.lostRecords + damage.lostRecords;
    const { segments } = state;
    let segmentsFree = 0;
    let segmentsDead = 0;
    for (let segment = 0; segment < segments.state.length; segment += 1) {
      const isLog = forward.visited.has(segment);
      const isLive = segments.liveBlocks[segment]! > 0 || segments.liveMeta[segment]! > 0;
      if (isLog || isLive) continue;
      if (segments.state[segment] === SEGMENT.free) segmentsFree += 1;
      else segmentsDead += 1;
    }
    return {
      ok: true,
      isSound: damageCount + found.badCount + found.lostCount + lostRecords === 0,
      blocksChecked: this.blocksChecked,
      batchesChecked: forward.batchCount,
      damageCount,
      damage: rows,
      badCount: found.badCount,
      badBlocks: found.blocks,
      lostCount: found.lostCount,
      ...found.ranges(),
      lostRecords,
      segmentsTotal: segments.state.length,
      segmentsFree,
      segmentsDead,
    };
  }

  /** Checks what a version has and the one after it, checked before, has not. */
  private *checkVersion(version: VolumeIndex, newer: VolumeIndex | null): Task<void> {
    for (const node of version.nodes) {
      if (node === null || newer?.nodes[node.number] === node) continue;
      yield* this.checkNode(version, node, newer);
    }
  }

  private *checkNode(volume: VolumeIndex, node: IndexNode, newer: VolumeIndex | null): Task<void> {
    const { window } = this.scan;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      if (node.pages[region] === NO_PAGE) continue;
      const first = (node.number * NODE_REGIONS + region) * REGION_BLOCKS;
      const end = Math.min(first + REGION_BLOCKS, volume.blocks);
      for (let lba = first; lba < end; lba += 1) {
        const place = volume.placeAt(lba);
        if (place === HOLE_PLACE || newer?.placeAt(lba) === place) continue;
        if (place === LOST_PLACE) {
          this.found.addLost(volume.id, lba, 1);
          continue;
        }
        if (window.isFull) yield* this.scan.run();
        window.add(volume.id, lba, place, volume.checkAt(lba));
      }
    }
  }
}

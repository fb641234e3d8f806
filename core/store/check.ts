/**
 * Offline check of a store (`vsan recover check`): walks everything that can be reached and
 * verifies every checksum. Read-only. A machine over the Disk port like the store itself: start
 * it, carry completions to `diskDone`, call `settle` after each batch of events.
 */
import { type Disk, ERRNO } from "../base/ports.ts";
import { REGION_BLOCKS } from "../base/units.ts";
import { NODE_REGIONS } from "../format/checkpoint.ts";
import { viewOf } from "../format/layout.ts";
import { ENTRY, STORED_BLOCK_BYTES, verifyEntry } from "../format/record.ts";
import { PLACE_UNIT } from "../format/segment.ts";
import { SUPERBLOCK_BYTES } from "../format/superblock.ts";
import { STORED_BLOCK_PLACES } from "./apply.ts";
import { CheckpointLoader, LOAD_BUFFER_BYTES } from "./checkpoint_loader.ts";
import { Damage, type DamageRow } from "./damage.ts";
import { DiskOps } from "./disk_ops.ts";
import { Geometry } from "./geometry.ts";
import type { IndexNode } from "./index_node.ts";
import { windowBytes } from "./log_cursor.ts";
import { RollForward } from "./roll_forward.ts";
import { StoreState } from "./state.ts";
import { judgeSuperblock, type Refusal, readSuperblock } from "./superblocks.ts";
import { type Task, TaskIo, WAIT } from "./task.ts";
import { LOST_PLACE, type VolumeIndex } from "./volume_index.ts";

/** Blocks read at once, at most. */
const RUN_BLOCKS = 200;

export interface CheckReport {
  readonly ok: true;
  /** Nothing at all is damaged. */
  readonly isSound: boolean;
  readonly blocksChecked: number;
  readonly batchesChecked: number;
  readonly damageCount: number;
  /** The first 10 000. */
  readonly damage: readonly DamageRow[];
  /** Records that were durable and cannot be told any more. */
  readonly lostRecords: number;
}

export class StoreCheck {
  /** The report, or why the store cannot be checked; null while it runs. */
  result: CheckReport | Refusal | null = null;
  blocksChecked = 0;
  private readonly disk: Disk;
  private readonly ops = new DiskOps();
  private readonly io: TaskIo;
  private readonly damage = new Damage();
  private readonly buffer: Uint8Array;
  private readonly view: DataView;
  private readonly task: Task<CheckReport | Refusal>;
  private state: StoreState | null = null;
  private isWaiting = false;

  constructor(disk: Disk) {
    this.disk = disk;
    this.io = new TaskIo(disk, this.ops);
    this.buffer = disk.allocate(LOAD_BUFFER_BYTES);
    this.view = viewOf(this.buffer);
    this.task = this.run();
  }

  /** Goes on as far as possible; call after construction and after each batch of events. */
  settle(): void {
    while (this.result === null && !this.isWaiting) {
      const step = this.task.next();
      if (step.done === true) this.result = step.value;
      else this.isWaiting = step.value === WAIT.io;
    }
  }

  diskDone(tag: number, result: number): void {
    if (!this.ops.finish(tag)) return;
    this.io.result = result;
    this.isWaiting = false;
  }

  private *run(): Task<CheckReport | Refusal> {
    const found = yield* readSuperblock(this.io, this.disk.allocate(SUPERBLOCK_BYTES));
    if (!found.ok) return found;
    const superblock = found.value;
    const refused = judgeSuperblock(superblock, this.disk.sizeBytes, null);
    if (refused !== null) return refused;
    for (const copy of found.staleCopies) {
      this.damage.add("superblock", 0, 0, 0, copy, "a copy is stale or damaged");
    }
    const state = new StoreState(new Geometry(superblock.segmentBytes, superblock.segmentCount));
    this.state = state;
    const loader = new CheckpointLoader(this.io, state, this.damage, this.buffer);
    if (!(yield* loader.load(superblock))) {
      return {
        ok: false,
        code: "damaged",
        why: "both copies of the checkpoint's root are damaged",
      };
    }
    const bytes = windowBytes(superblock.segmentBytes);
    const windows = [this.disk.allocate(bytes), this.disk.allocate(bytes)] as const;
    const forward = new RollForward(this.io, state, superblock, this.damage, windows);
    yield* forward.run();
    for (const volume of state.volumes.values()) {
      for (const node of volume.nodes) if (node !== null) yield* this.checkNode(volume, node);
    }
    return this.report(forward.batchCount);
  }

  private report(batchesChecked: number): CheckReport {
    const { damage } = this;
    return {
      ok: true,
      isSound: damage.count === 0 && damage.lostRecords === 0,
      blocksChecked: this.blocksChecked,
      batchesChecked,
      damageCount: damage.count,
      damage: damage.rows,
      lostRecords: damage.lostRecords,
    };
  }

  private *checkNode(volume: VolumeIndex, node: IndexNode): Task<void> {
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      if (node.counts[region] === 0) continue;
      const first = (node.number * NODE_REGIONS + region) * REGION_BLOCKS;
      const end = Math.min(first + REGION_BLOCKS, volume.blocks);
      let lba = first;
      while (lba < end) {
        const place = volume.placeAt(lba);
        if (place <= LOST_PLACE) {
          // A lost page is one row of damage already.
          lba += 1;
          continue;
        }
        let count = 1;
        while (count < RUN_BLOCKS && lba + count < end) {
          if (volume.placeAt(lba + count) !== place + count * STORED_BLOCK_PLACES) break;
          count += 1;
        }
        yield* this.checkRun(volume, lba, count, place);
        lba += count;
      }
    }
  }

  private *checkRun(volume: VolumeIndex, lba: number, count: number, place: number): Task<void> {
    const { sectorBytes } = this.disk;
    const from = place * PLACE_UNIT;
    const at = from % sectorBytes;
    const needed = at + count * STORED_BLOCK_BYTES;
    const rest = needed % sectorBytes;
    const length = rest === 0 ? needed : needed + sectorBytes - rest;
    const got = yield* this.io.read(from - at, this.buffer, 0, length);
    if (got !== length && count > 1) {
      for (let index = 0; index < count; index += 1) {
        yield* this.checkRun(volume, lba + index, 1, place + index * STORED_BLOCK_PLACES);
      }
      return;
    }
    for (let index = 0; index < count; index += 1) {
      this.blocksChecked += 1;
      const why = this.whyBad(volume, lba + index, at + index * STORED_BLOCK_BYTES, got, length);
      if (why === "") continue;
      const segment = this.segmentOf(place);
      this.damage.add("block", volume.id, lba + index, 1, segment, why);
    }
  }

  private segmentOf(place: number): number {
    return this.state?.geometry.segmentOf(place) ?? 0;
  }

  private whyBad(
    volume: VolumeIndex,
    lba: number,
    at: number,
    got: number,
    length: number,
  ): string {
    if (got === -ERRNO.EIO) return "the disk does not read it";
    if (got !== length) return "the disk reads it short";
    if (!verifyEntry(this.buffer, this.view, at, volume.id, lba)) return "does not verify";
    const check = ENTRY.check.get(this.view, at) & 0xffff;
    return check === volume.checkAt(lba) ? "" : "is an older version (lost write)";
  }
}

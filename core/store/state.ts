/**
 * What the store knows about its content: everything that a checkpoint saves and that roll-forward
 * rebuilds. Shared by recovery, the running store and the offline check.
 */
import { LIMITS } from "../base/limits.ts";
import type { Epoch, VolumeId } from "../base/units.ts";
import { META_SLOTS } from "../format/checkpoint.ts";
import type { StoreVolume } from "./contract.ts";
import type { Geometry } from "./geometry.ts";
import { IndexArena } from "./index_arena.ts";
import { SegmentTable } from "./segment_table.ts";
import { RetiredPlaces, VolumeIndex } from "./volume_index.ts";

export class StoreState {
  readonly geometry: Geometry;
  readonly segments: SegmentTable;
  readonly arena = new IndexArena();
  readonly volumes = new Map<number, VolumeIndex>();
  readonly metas: (Uint8Array | null)[] = new Array<Uint8Array | null>(META_SLOTS).fill(null);
  /** Newest epoch of which the log holds a record, and the last one per sender in it. */
  streamEpoch: Epoch = 0;
  readonly streamSeqs = new Float64Array(LIMITS.hostCountMax);
  /** Durable records lost to damage and not made good since; see `Superblock.lostRecords`. */
  lostRecords = 0;
  /** See VolumeIndex.retired. */
  readonly retired = { now: new RetiredPlaces() };

  constructor(geometry: Geometry) {
    this.geometry = geometry;
    this.segments = new SegmentTable(geometry);
  }

  addVolume(volume: StoreVolume): VolumeIndex {
    const index = new VolumeIndex(
      volume.id,
      volume.blocks,
      this.arena,
      this.segments,
      this.retired,
    );
    this.volumes.set(volume.id, index);
    return index;
  }

  volume(id: VolumeId | number): VolumeIndex | undefined {
    return this.volumes.get(id);
  }

  noteStream(epoch: Epoch, sender: number, seq: number): void {
    if (epoch < this.streamEpoch) return;
    if (epoch > this.streamEpoch) {
      this.streamEpoch = epoch;
      this.streamSeqs.fill(0);
    }
    if (seq > this.streamSeqs[sender]!) this.streamSeqs[sender] = seq;
  }

  /** Bytes in use: blocks with their entries, and the newest checkpoint. */
  get liveBytes(): number {
    return this.segments.liveBlockCount * 4112 + this.segments.liveMetaBytes;
  }
}

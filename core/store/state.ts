/**
 * What the store knows about its content: everything that a checkpoint saves and that roll-forward
 * rebuilds. Shared by recovery, the running store and the offline check.
 */
import { LIMITS } from "../base/limits.ts";
import { type Epoch, REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { META_SLOTS } from "../format/checkpoint.ts";
import type { StoreVolume } from "./contract.ts";
import type { Geometry } from "./geometry.ts";
import type { IndexNode } from "./index_node.ts";
import { IndexPool } from "./index_pool.ts";
import { SegmentTable } from "./segment_table.ts";
import { HEAD, VolumeIndex } from "./volume_index.ts";

export class StoreState {
  readonly geometry: Geometry;
  readonly segments: SegmentTable;
  readonly pool: IndexPool;
  /** Heads: what clients write. */
  readonly volumes = new Map<number, VolumeIndex>();
  readonly metas: (Uint8Array | null)[] = new Array<Uint8Array | null>(META_SLOTS).fill(null);
  /** Newest epoch of which the log holds a record, and the last one per sender in it. */
  streamEpoch: Epoch = 0;
  readonly streamSeqs = new Float64Array(LIMITS.hostCountMax);
  /** Durable records lost to damage and not made good since; see `Superblock.lostRecords`. */
  lostRecords = 0;
  /** The head and the snapshots of each volume, in the order of their making. */
  private readonly versions = new Map<number, VolumeIndex[]>();

  /** `indexBytes`: memory for the index. */
  constructor(geometry: Geometry, indexBytes: number) {
    this.geometry = geometry;
    this.segments = new SegmentTable(geometry);
    this.pool = new IndexPool(this.segments, indexBytes);
  }

  addVolume(volume: StoreVolume): VolumeIndex {
    const index = new VolumeIndex(volume.id, HEAD, volume.blocks, this.pool);
    this.volumes.set(volume.id, index);
    this.versions.set(volume.id, [index]);
    return index;
  }

  /** The head and all snapshots of a volume; none if it is not known. */
  versionsOf(id: VolumeId | number): readonly VolumeIndex[] {
    return this.versions.get(id) ?? [];
  }

  volume(id: VolumeId | number): VolumeIndex | undefined {
    return this.volumes.get(id);
  }

  /** Every node of every version and of the graveyard; shared ones more than once. */
  *allNodes(): Generator<IndexNode> {
    for (const versions of this.versions.values()) {
      for (const version of versions) {
        for (const node of version.nodes) if (node !== null) yield node;
      }
    }
    yield* this.pool.graveyard.nodes;
  }

  /** A page does not verify: its blocks are lost in every version that holds it. Their number. */
  losePage(page: number, volume: VolumeId, region: number): number {
    const { pool } = this;
    const used = pool.pages.counts[page]! - pool.pages.losts[page]!;
    const first = region * REGION_BLOCKS;
    let blocks = 0;
    for (const version of this.versionsOf(volume)) {
      if (version.pageOf(first) !== page) continue;
      blocks = Math.max(blocks, Math.min(REGION_BLOCKS, version.blocks - first));
      version.usedBlocks -= used;
      version.touchNodeOf(first);
    }
    pool.losePage(page, blocks);
    return blocks;
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

/**
 * What the store knows about its content: everything that a checkpoint saves and that roll-forward
 * rebuilds. Shared by recovery, the running store and the offline check.
 */
import { LIMITS } from "../base/limits.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import { type Epoch, REGION_BLOCKS, type VolumeId } from "../base/units.ts";
import { META_SLOTS } from "../format/checkpoint.ts";
import type { StoreVolume } from "./contract.ts";
import type { Geometry } from "./geometry.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import { IndexPool, LOST_PLACE } from "./index_pool.ts";
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
  /** `order` of the snapshot made last. */
  lastOrder = 0;
  /** The head of each volume and its snapshots, newest first. */
  private readonly versions = new Map<number, VolumeIndex[]>();

  /** `indexBytes`: memory for the index. */
  constructor(geometry: Geometry, indexBytes: number) {
    this.geometry = geometry;
    this.segments = new SegmentTable(geometry);
    this.pool = new IndexPool(this.segments, indexBytes);
  }

  addVolume(volume: StoreVolume): VolumeIndex {
    const index = new VolumeIndex(volume.id, HEAD, 0, volume.blocks, this.pool);
    this.volumes.set(volume.id, index);
    this.versions.set(volume.id, [index]);
    return index;
  }

  /** The head and all snapshots of a volume, newest first; none if it is not known. */
  versionsOf(id: VolumeId | number): readonly VolumeIndex[] {
    return this.versions.get(id) ?? [];
  }

  /** A snapshot is being given up. */
  get hasDying(): boolean {
    for (const versions of this.versions.values()) {
      if (versions.length > 1 && versions.some((version) => version.isDying)) return true;
    }
    return false;
  }

  /** All snapshots, oldest first within a volume, those being given up included. */
  get snapshots(): VolumeIndex[] {
    return [...this.versions.values()].flatMap((versions) => versions.slice(1).reverse());
  }

  /** A snapshot that can be read. */
  snapshot(volume: VolumeId | number, id: number): VolumeIndex | undefined {
    return this.versionsOf(volume).find((each) => each.snapshot === id && !each.isDying);
  }

  /** Keeps the volume as it is now. False if there is such a snapshot, or no such volume. */
  addSnapshot(volume: VolumeId | number, id: number): boolean {
    const head = this.volumes.get(volume);
    if (head === undefined || id === HEAD || this.snapshot(volume, id) !== undefined) return false;
    this.lastOrder += 1;
    this.insert(head.fork(id, this.lastOrder));
    return true;
  }

  /** A snapshot of a checkpoint, newer than those adopted before. */
  adoptSnapshot(volume: VolumeIndex, id: number, order: number, blocks: number): VolumeIndex {
    const snapshot = new VolumeIndex(volume.id, id, order, blocks, this.pool);
    snapshot.older = volume.older;
    volume.older = snapshot;
    this.insert(snapshot);
    return snapshot;
  }

  private insert(newest: VolumeIndex): void {
    const versions = this.versions.get(newest.id) as VolumeIndex[];
    versions.splice(1, 0, newest);
    this.pool.noteVersions(versions.length);
  }

  /** Begins to give up a snapshot. False if there is none. */
  dropSnapshot(volume: VolumeId | number, id: number): boolean {
    const found = this.snapshot(volume, id);
    if (found === undefined) return false;
    found.isDying = true;
    return true;
  }

  /** A dying snapshot has given up everything. */
  forgetSnapshot(snapshot: VolumeIndex): void {
    const versions = this.versions.get(snapshot.id) ?? [];
    const at = versions.indexOf(snapshot);
    versions.splice(at, 1);
    for (const version of versions) if (version.older === snapshot) version.older = snapshot.older;
  }

  /** The page of a region in the nearest version after this snapshot that has not given it up. */
  newerPage(snapshot: VolumeIndex, lba: number): number {
    const versions = this.versionsOf(snapshot.id);
    for (let at = versions.indexOf(snapshot) - 1; at >= 0; at -= 1) {
      const version = versions[at] as VolumeIndex;
      const page = version.pageOf(lba);
      if (page !== NO_PAGE || !version.isDying) return page;
    }
    return NO_PAGE;
  }

  /** The page of a region in the newest snapshot up to `order`, for what was given up then. */
  pageUpTo(volume: VolumeId, order: number, lba: number): number {
    for (const version of this.versionsOf(volume).slice(1)) {
      if (version.order > order) continue;
      const page = version.pageOf(lba);
      if (page !== NO_PAGE || !version.isDying) return page;
    }
    return NO_PAGE;
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
    for (const { node } of this.pool.graveyard.nodes) yield node;
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

  /** See `Store.lose`. The pages of all versions must be in memory. */
  loseBlock(volume: VolumeId, lba: number, place: number): Outcome {
    const { pool } = this;
    // What is being given up counts with the versions; a checkpoint holds pages as they are.
    if (!pool.graveyard.isEmpty || pool.isFrozen) return OUTCOME.pending;
    const holders = this.versionsOf(volume).filter((version) => version.placeAt(lba) === place);
    if (place <= LOST_PLACE || holders.length === 0) return OUTCOME.refused;
    for (const version of holders) {
      const page = version.pageOf(lba);
      // A page that versions share changes once, for all of them.
      if (version.placeAt(lba) === place) pool.putIn(page, lba & 511, LOST_PLACE, 0);
      pool.pages.markDirty(page);
      version.usedBlocks -= 1;
      version.touchNodeOf(lba);
    }
    this.segments.dropBlock(place);
    return OUTCOME.ok;
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

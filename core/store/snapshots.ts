/**
 * Snapshots of volumes: kept in constant time per 512 MiB of volume (one more holder of each node),
 * read like the volume, given up in the background. Each making and dropping is an item of the hot
 * lane, so it has its place among the writes: durable with the next sync, and where it was after a
 * crash.
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import type { VolumeId } from "../base/units.ts";
import { SNAPSHOTS_MAX } from "../format/checkpoint.ts";
import { encodeItemHeader, ITEM_HEADER_BYTES, ITEM_KIND, ItemHeader } from "../format/segment.ts";
import { applySnapshot } from "./apply.ts";
import type { StoreEngine } from "./engine.ts";
import { tellExtents, type Visit } from "./extents.ts";
import type { Live } from "./live.ts";
import { ROOM } from "./log_lane.ts";

const ID_MAX = 2 ** 32 - 1;

export class Snapshots {
  private readonly engine: StoreEngine;
  private readonly header = new ItemHeader();

  constructor(engine: StoreEngine) {
    this.engine = engine;
  }

  private get live(): Live | null {
    return this.engine.phase === "open" ? this.engine.live : null;
  }

  /**
   * Keeps the volume as everything appended so far leaves it. `id`: 1 to 2^32 - 1, the caller's.
   * `refused`: there is such a snapshot; `full`: there are too many; `pending`: no room in the log
   * now, sink.storeWritable follows.
   */
  create(volume: VolumeId, id: number): Outcome {
    const { live } = this;
    if (live === null) return OUTCOME.io;
    const { state } = live;
    if (state.volume(volume) === undefined || id < 1 || id > ID_MAX) return OUTCOME.invalid;
    if (state.snapshot(volume, id) !== undefined) return OUTCOME.refused;
    if (state.snapshots.length >= SNAPSHOTS_MAX) return OUTCOME.full;
    return this.append(live, ITEM_KIND.snapshot, volume, id);
  }

  /**
   * Gives up a snapshot: it cannot be read from now on, its space comes back in the background.
   * `refused`: there is none; `pending` as above.
   */
  drop(volume: VolumeId, id: number): Outcome {
    const { live } = this;
    if (live === null) return OUTCOME.io;
    if (live.state.snapshot(volume, id) === undefined) return OUTCOME.refused;
    return this.append(live, ITEM_KIND.drop, volume, id);
  }

  private append(live: Live, kind: number, volume: VolumeId, id: number): Outcome {
    const { writer, state } = live;
    const lane = writer.hot;
    if (lane.room(ITEM_HEADER_BYTES, state.geometry.floorSmall) !== ROOM.ok) {
      this.engine.wantsWritable = true;
      return OUTCOME.pending;
    }
    lane.reserve(ITEM_HEADER_BYTES, writer.mayPack);
    const { header } = this;
    header.kind = kind;
    header.form = 0;
    header.count = 0;
    header.bodyBytes = 0;
    header.subject = volume;
    header.number = id;
    const { buffer, view } = lane.itemBatch;
    encodeItemHeader(buffer, view, lane.itemAt, header);
    lane.commit(128 + kind, volume, id, 0, ITEM_HEADER_BYTES, lane.appended);
    writer.noteAppended();
    applySnapshot(state, kind, volume, id);
    return OUTCOME.ok;
  }

  /** Snapshots of the volume that can be read, oldest first. */
  list(volume: VolumeId): number[] {
    const all = this.live?.state.snapshots ?? [];
    return all.filter((each) => each.id === volume && !each.isDying).map((each) => each.snapshot);
  }

  /** As `Store.read`; a bad block is not reported, since only the volume itself is healed. */
  read(
    token: number,
    volume: VolumeId,
    id: number,
    lba: number,
    blockCount: number,
    out: Uint8Array,
    outAt: number,
  ): Outcome {
    const { live } = this;
    if (live === null) return OUTCOME.io;
    const version = live.state.snapshot(volume, id);
    if (version === undefined) return OUTCOME.refused;
    if (blockCount < 0 || lba < 0 || lba + blockCount > version.blocks) return OUTCOME.invalid;
    return live.reader.read(token, version, lba, blockCount, out, outAt);
  }

  /** As `Store.extents`. */
  extents(volume: VolumeId, id: number, lba: number, blockCount: number, visit: Visit): number {
    const { live } = this;
    const version = live?.state.snapshot(volume, id);
    if (live === null || version === undefined) return 0;
    const told = tellExtents(live.cache, version, lba, blockCount, visit);
    if (told < blockCount) this.engine.wantsWritable = true;
    return told;
  }
}

/**
 * The log-structured block store: the facade.
 *
 *            format / open               close
 *   created ---------------> opening -> open -------> closing -> closed
 *                               |         |              |
 *                               +---------+--------------+--> failed   (poisoned; never retried)
 *
 * Invariants (each proved by the tests in tests/unit/store and tests/crash):
 *  1. What `sync` answered survives any power cut; what was logged survives a killed process; after
 *     a cut each lane of the log is a prefix of what was appended, so no record is half there.
 *  2. A block read is the newest appended, verified against checksum, address and index (G5), or
 *     the read answers io and the block is reported.
 *  3. A failed or short write, a failed sync or an operation without end fails the store for good.
 *  4. Everything is bounded: log buffers, read slots, waiting runs, tasks (one).
 *  5. Requests never call the sink; events do.
 */
import { assert } from "../base/assert.ts";
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import type { Disk, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Lsn, Point, Seq, VolumeId } from "../base/units.ts";
import { BLOCK_BYTES, roundUp } from "../base/units.ts";
import { LIMITS } from "../base/limits.ts";
import { SCRUB_SLOT } from "../format/scrub.ts";
import {
  encodeEntry,
  encodeRecordHeader,
  hasBlocks,
  RECORD_HEADER_BYTES,
  RECORD_TYPE,
  RecordHeader,
  STORED_BLOCK_BYTES,
  writeRecordBytes,
} from "../format/record.ts";
import { applyRecord } from "./apply.ts";
import type {
  AdmitClass,
  RegionTag,
  StoreIdentity,
  StoreOptions,
  StoreSink,
  StoreStats,
} from "./contract.ts";
import { Documents } from "./documents.ts";
import { StoreEngine } from "./engine.ts";
import { tellExtents, type Visit } from "./extents.ts";
import { ROOM } from "./log_lane.ts";
import type { Scrubber } from "./scrubber.ts";
import { Snapshots } from "./snapshots.ts";
import { HOLE_PLACE } from "./index_pool.ts";
import type { VolumeIndex } from "./volume_index.ts";

interface Target {
  buffer: Uint8Array;
  view: DataView;
  at: number;
}

export class Store {
  /** Where the record of the last append lies; valid until the next call into the store. */
  lastBuffer: Uint8Array = new Uint8Array(0);
  lastAt = 0;
  lastLength = 0;
  /** End of the last record in the log, in bytes appended since open. Grows; not on disk. */
  lastLsn: Lsn = 0;
  readonly snapshots: Snapshots;
  private readonly engine: StoreEngine;
  private readonly documents = new Documents();
  private readonly header = new RecordHeader();
  /** Where the item being appended goes; one object, so that appends allocate nothing. */
  private readonly target: Target = {
    buffer: new Uint8Array(0),
    view: new DataView(new ArrayBuffer(0)),
    at: 0,
  };

  constructor(options: StoreOptions, disk: Disk, sink: StoreSink, trace: Trace, rules: Rules) {
    const append = (slot: number, bytes: Uint8Array): void => this.appendMeta(slot, bytes);
    const flush = (): boolean => this.documents.flush(this.engine.live, append);
    const save = (bytes: Uint8Array): void => this.keep(SCRUB_SLOT, bytes);
    this.engine = new StoreEngine(options, disk, sink, trace, rules, flush, save);
    this.snapshots = new Snapshots(this.engine);
  }

  /** Makes a new store on the disk, whatever lies there. Answer: sink.storeOpened. */
  format(nowMs: number, identity: StoreIdentity): void {
    this.engine.format(nowMs, identity);
  }

  /** Opens the store on the disk, recovering it. Answer: sink.storeOpened. */
  open(nowMs: number, expected: { clusterId: number; hostId: HostId }): void {
    this.engine.open(nowMs, expected);
  }

  /** Writes everything down and marks the store as closed in order. Answer: sink.storeClosed. */
  close(nowMs: number): void {
    this.engine.close(nowMs);
  }

  /** Operations at the disk; a closed store may still have some that do not matter any more. */
  get operationsInFlight(): number {
    return this.engine.operationsInFlight;
  }

  /** Everything appended below is in the operating system's hands. */
  get loggedLsn(): Lsn {
    return this.engine.live?.writer.hot.logged ?? 0;
  }

  /** Everything appended below is on stable storage. */
  get durableLsn(): Lsn {
    return this.engine.live?.writer.hot.durable ?? 0;
  }

  /** True between storeOpened and close or failure. */
  get isOpen(): boolean {
    return this.engine.phase === "open";
  }

  /**
   * May records of so many bytes in total be appended now? `full`: no room for data of this class
   * until something is trimmed; `pending`: the log's buffers or the cleaner are behind,
   * sink.storeWritable follows; `invalid`: longer than the log takes at once.
   */
  admit(bytes: number, from: AdmitClass): Outcome {
    const { engine } = this;
    if (engine.live === null || engine.phase !== "open") return OUTCOME.io;
    const { state, writer, background } = engine.live;
    const { geometry } = state;
    if (bytes > writer.hot.itemBytesMax) return OUTCOME.invalid;
    if (from !== "reserve") {
      const most = geometry.liveBytesMax(state.segments.reservedCount, from);
      if (state.liveBytes + bytes > most) {
        // What is being given up still counts.
        const isGivenUp = !state.pool.graveyard.isEmpty || state.hasDying;
        return this.later(state.segments.canGrow || isGivenUp);
      }
    }
    const isClient = from === "client" || from === "overwrite";
    const floor = isClient ? geometry.floorClient : geometry.floorSmall;
    const room = writer.hot.room(bytes, floor);
    if (room === ROOM.ok) return OUTCOME.ok;
    const isLast = room === ROOM.noSegment && background.isExhausted;
    return this.later(!isLast || state.segments.canGrow);
  }

  private later(isWorthWaiting: boolean): Outcome {
    if (!isWorthWaiting) return OUTCOME.full;
    this.engine.wantsWritable = true;
    return OUTCOME.pending;
  }

  /**
   * To be asked before `admit` and an append of a range: `ok` if the index can take it now;
   * `pending` while it cannot (its pages are not in memory, or too many wait for a checkpoint),
   * sink.storeWritable follows.
   */
  prepare(volume: VolumeId, lba: number, blockCount: number): Outcome {
    const { live, phase } = this.engine;
    if (live === null || phase !== "open") return OUTCOME.io;
    const index = live.state.volume(volume);
    if (index === undefined) return OUTCOME.invalid;
    if (live.state.pool.clock.isTight) return this.later(true);
    return live.cache.bringEnds(index, lba, blockCount) ? OUTCOME.ok : this.later(true);
  }

  /** After `prepare`: true if every block of the range has data, so writing it takes no room. */
  isAllData(volume: VolumeId, lba: number, blockCount: number): boolean {
    const index = this.index(volume);
    if (index === undefined || index.placeAt(lba) <= HOLE_PLACE) return false;
    return index.runLength(lba, blockCount) >= blockCount;
  }

  /** Bytes of all volumes' blocks that have data. */
  get dataBytes(): number {
    return (this.engine.live?.state.segments.liveBlockCount ?? 0) * BLOCK_BYTES;
  }

  /** Bytes of volume data that fit. */
  get sizeBytes(): number {
    return this.engine.sizeBytes;
  }

  /**
   * Appends `header.blockCount` blocks from `data[dataAt...]` as a record of type write or copy.
   * Copies the payload once. The caller has asked `admit` just before.
   */
  appendWrite(header: RecordHeader, data: Uint8Array, dataAt: number): void {
    assert(hasBlocks(header.type), "store: appendWrite takes records with blocks");
    const { blockCount, lba, volume } = header;
    assert(blockCount >= 1 && blockCount <= LIMITS.recordBlocksMax, "store: block count");
    header.bodyBytes = blockCount * STORED_BLOCK_BYTES;
    const length = writeRecordBytes(blockCount);
    const { buffer, view, at } = this.reserve(length);
    let entryAt = at + RECORD_HEADER_BYTES;
    for (let index = 0; index < blockCount; index += 1) {
      const from = dataAt + index * BLOCK_BYTES;
      buffer.set(data.subarray(from, from + BLOCK_BYTES), entryAt + 16);
      encodeEntry(buffer, view, entryAt, volume, lba + index);
      entryAt += STORED_BLOCK_BYTES;
    }
    encodeRecordHeader(buffer, view, at, header);
    this.commit(header, length);
  }

  /** Appends a record verbatim; the caller has verified it (verifyRecord) and asked `admit`. */
  appendRecord(header: RecordHeader, buffer: Uint8Array, at: number, length: number): void {
    assert(length === RECORD_HEADER_BYTES + header.bodyBytes, "store: record length");
    const target = this.reserve(length);
    target.buffer.set(buffer.subarray(at, at + length), target.at);
    this.commit(header, length);
  }

  /** Appends a record without body: zero, copyZero, copyLost or mark. */
  appendEmpty(header: RecordHeader): void {
    assert(!hasBlocks(header.type), "store: appendEmpty takes records without body");
    header.bodyBytes = 0;
    const { buffer, view, at } = this.reserve(RECORD_HEADER_BYTES);
    encodeRecordHeader(buffer, view, at, header);
    this.commit(header, RECORD_HEADER_BYTES);
  }

  private reserve(length: number): Target {
    const live = this.engine.live;
    assert(live !== null && this.engine.phase === "open", "store: append while not open");
    const lane = live.writer.hot;
    lane.reserve(length, live.writer.mayPack);
    const { target } = this;
    target.buffer = lane.itemBatch.buffer;
    target.view = lane.itemBatch.view;
    target.at = lane.itemAt;
    return target;
  }

  private commit(header: RecordHeader, length: number): void {
    const live = this.engine.live;
    assert(live !== null, "store: append while not open");
    const { writer, state } = live;
    const lane = writer.hot;
    const count = header.type === RECORD_TYPE.meta ? header.bodyBytes : header.blockCount;
    lane.commit(header.type, header.volume, header.lba, count, length, lane.appended);
    writer.noteAppended();
    const { buffer, view, at } = this.target;
    applyRecord(state, header, buffer, view, at, lane.itemPlace);
    this.engine.recordBytes += length;
    this.lastBuffer = buffer;
    this.lastAt = at;
    this.lastLength = length;
    this.lastLsn = lane.appended;
  }

  /** Keeps a document of at most 4 KiB; the newest per slot (0..14) survives restarts. */
  putMeta(slot: number, bytes: Uint8Array): void {
    assert(slot >= 0 && slot < SCRUB_SLOT, "store: meta slot");
    this.keep(slot, bytes);
  }

  private keep(slot: number, bytes: Uint8Array): void {
    if (this.engine.phase === "open") this.documents.keep(this.engine.live, slot, bytes);
  }

  /** The newest document of the slot; null if there never was one. */
  getMeta(slot: number): Uint8Array | null {
    return this.engine.live?.state.metas[slot] ?? null;
  }

  private appendMeta(slot: number, bytes: Uint8Array): void {
    const padded = roundUp(bytes.length, 16);
    const { header } = this;
    header.type = RECORD_TYPE.meta;
    header.lba = slot;
    // A meta's exact length; its body is padded.
    header.blockCount = bytes.length;
    header.bodyBytes = padded;
    const { buffer, view, at } = this.reserve(RECORD_HEADER_BYTES + padded);
    const body = at + RECORD_HEADER_BYTES;
    buffer.set(bytes, body);
    buffer.fill(0, body + bytes.length, body + padded);
    encodeRecordHeader(buffer, view, at, header);
    this.commit(header, RECORD_HEADER_BYTES + padded);
  }

  /**
   * Reads blocks into `out`, which is the store's until the answer. `ok`: done now. `pending`:
   * sink.readDone(token) follows. Holes read as zeros; unless the answer is ok, anything is there.
   */
  read(
    token: number,
    volume: VolumeId,
    lba: number,
    blockCount: number,
    out: Uint8Array,
    outAt: number,
  ): Outcome {
    const { live, phase } = this.engine;
    if (live === null || phase !== "open") return OUTCOME.io;
    const index = live.state.volume(volume);
    if (index === undefined || blockCount < 0 || lba < 0 || lba + blockCount > index.blocks) {
      return OUTCOME.invalid;
    }
    return live.reader.read(token, index, lba, blockCount, out, outAt);
  }

  /**
   * Visits the range as runs of data and holes, in order, as far as its pages of the index are in
   * memory; returns so many blocks. If not all, the next page is on its way and
   * sink.storeWritable follows.
   */
  extents(volume: VolumeId, lba: number, blockCount: number, visit: Visit): number {
    const { live } = this.engine;
    const index = this.index(volume);
    if (live === null || index === undefined) return 0;
    const told = tellExtents(live.cache, index, lba, blockCount, visit);
    if (told < blockCount) this.engine.wantsWritable = true;
    return told;
  }

  /** Where the block lies (0 a hole, 1 lost, below 0 not known yet: ask later); tells a change. */
  placeOf(volume: VolumeId, lba: number): number {
    const index = this.index(volume);
    if (index === undefined) return HOLE_PLACE;
    this.engine.live?.cache.bring(index, lba);
    return index.placeAt(lba);
  }

  /**
   * Rewrites a bad block with a good copy, if the index still points at `place` (`placeOf` when it
   * was found bad). `ok`; `refused`: the block changed meanwhile; `pending`: try again later.
   */
  heal(volume: VolumeId, lba: number, place: number, data: Uint8Array, dataAt: number): Outcome {
    const { live, phase } = this.engine;
    if (live === null || phase !== "open") return OUTCOME.io;
    const index = live.state.volume(volume);
    if (index === undefined || place <= HOLE_PLACE) return OUTCOME.refused;
    if (this.prepare(volume, lba, 1) !== OUTCOME.ok) return OUTCOME.pending;
    if (index.placeAt(lba) !== place) return OUTCOME.refused;
    const room = live.writer.hot.room(writeRecordBytes(1), live.state.geometry.floorSmall);
    if (room !== ROOM.ok) return OUTCOME.pending;
    const { header } = this;
    header.type = RECORD_TYPE.copy;
    header.volume = volume;
    header.lba = lba;
    header.blockCount = 1;
    // The content does not change, so neither does the region's tag: a tag of zero raises none.
    header.epoch = 0;
    header.tagPoint = 0;
    this.appendWrite(header, data, dataAt);
    this.engine.healedBlocks += 1;
    return OUTCOME.ok;
  }

  /**
   * Gives up the bytes of a bad block in every version of the volume whose index points at `place`:
   * from now on it is lost, so that its segment can be cleaned. Reads answer io until it is healed,
   * written, trimmed. Durable with the next checkpoint. For a store whose whole index is in memory.
   * `ok`; `refused`: it lies elsewhere by now; `pending`: try again after the next `settle`.
   */
  lose(volume: VolumeId, lba: number, place: number): Outcome {
    const { live, phase } = this.engine;
    return live === null || phase !== "open"
      ? OUTCOME.io
      : live.state.loseBlock(volume, lba, place);
  }

  /** The scrub: its rate, its pauses; null while there is none. */
  get scrubber(): Scrubber | null {
    return this.engine.live?.scrubber ?? null;
  }

  /** Makes everything appended so far durable: sink.synced(token, ok). Group commit. */
  sync(token: number): void {
    this.engine.sync(token);
  }

  /** First region at or after `from` that has data or a tag above zero; -1 if none. */
  nextRegion(volume: VolumeId, from: number): number {
    return this.index(volume)?.nextRegion(from) ?? -1;
  }

  regionTag(volume: VolumeId, region: number, out: RegionTag): void {
    out.epoch = 0;
    out.point = 0;
    this.index(volume)?.tagOf(region, out);
  }

  /**
   * Raises a region's tag. Survives with the next checkpoint; before that through the records
   * that carry the same tag (R11 copies do).
   */
  setRegionTag(volume: VolumeId, region: number, epoch: Epoch, point: Point): void {
    this.index(volume)?.tagRegion(region, epoch, point);
  }

  /** Newest epoch of which the log holds a record of a stream. */
  get streamEpoch(): Epoch {
    return this.engine.live?.state.streamEpoch ?? 0;
  }

  /** Last record of this sender's stream in `streamEpoch`; 0 if none. */
  streamSeq(sender: HostId): Seq {
    return this.engine.live?.state.streamSeqs[sender] ?? 0;
  }

  /** Durable records are lost and were not made good: blocks may be old. */
  get hasLosses(): boolean {
    return (this.engine.live?.state.lostRecords ?? 0) > 0;
  }

  /**
   * Everything here was copied from a mirror, or all mirrors agreed to go on from what is here.
   * Durable with the next checkpoint; until then a restart says again that records are lost.
   */
  forgetLosses(): void {
    const { live } = this.engine;
    if (live !== null) live.state.lostRecords = 0;
  }

  /** Bytes of the volume's blocks that have data. */
  volumeUsedBytes(volume: VolumeId): number {
    return (this.index(volume)?.usedBlocks ?? 0) * BLOCK_BYTES;
  }

  stats(): StoreStats {
    return this.engine.stats();
  }

  settle(nowMs: number): void {
    this.engine.settle(nowMs);
  }

  diskDone(nowMs: number, tag: number, result: number): void {
    this.engine.diskDone(nowMs, tag, result);
  }

  expire(nowMs: number): void {
    this.engine.settle(nowMs);
  }

  nextDeadlineMs(): number {
    return this.engine.nextDeadlineMs();
  }

  private index(volume: VolumeId): VolumeIndex | undefined {
    return this.engine.live?.state.volume(volume);
  }
}

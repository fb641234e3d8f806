/**
 * Resync, the joiner's side (R11): takes regions from one member in order, writes them into the
 * own store as copy records, never over a block written live in this session, and says
 * `complete` once all is durable.
 *
 * The session lives as long as this host goes on as a joining recipient; when its source goes, it
 * asks another member from its cursor on.
 */
import { OUTCOME } from "../base/outcome.ts";
import {
  BLOCK_BYTES,
  type HostId,
  hostId,
  REGION_BLOCKS,
  type VolumeId,
  volumeId,
} from "../base/units.ts";
import { BULK, COPY } from "../format/host_wire.ts";
import { viewOf } from "../format/layout.ts";
import {
  RECORD_TYPE,
  RecordHeader,
  writeRecordBytes,
  RECORD_HEADER_BYTES,
} from "../format/record.ts";
import { LiveSet } from "./live_set.ts";
import type { Store } from "../store/store.ts";
import type { Parts } from "./parts.ts";

/** Regions on their way at most: 2 MiB each. */
const CREDITS = 4;
/** Without any frame for this long, another member is asked. */
const STALL_MS = 3000;

export interface CopySink {
  askCopy(
    source: HostId,
    ask: { session: number; epoch: number; volume: number; region: number; credits: number },
  ): void;
  giveCredit(source: HostId, credit: { session: number; credits: number }): void;
  /** The block came as one of which no member has a good copy, and is lost here, too. */
  lost(volume: VolumeId, lba: number): void;
  /** Everything is copied and applied; the host syncs and reports. */
  copied(): void;
}

export class CopyTarget {
  private readonly parts: Parts;
  private readonly sink: CopySink;
  private readonly header = new RecordHeader();
  readonly live = new LiveSet();
  /** True from the first joining view to completion or exclusion. */
  isActive = false;
  isComplete = false;
  source: HostId | null = null;
  doneBytes = 0;
  totalBytes = 0;
  startedMs = 0;
  private session = 0;
  private volumeIndex = 0;
  private region = 0;
  private lastFrameMs = 0;
  /** Frames not yet applied (store buffers busy); bounded by the credits. */
  private frames: Uint8Array[] = [];

  constructor(parts: Parts, sink: CopySink) {
    this.parts = parts;
    this.sink = sink;
  }

  /** This host is listed in `joining`: blocks written from now on are live. */
  begin(): void {
    if (this.isActive) return;
    this.isActive = true;
    this.isComplete = false;
    this.live.clear();
    this.volumeIndex = 0;
    this.region = 0;
    this.doneBytes = 0;
    this.totalBytes = 0;
    this.startedMs = this.parts.nowMs;
    this.source = null;
    this.frames = [];
  }

  /** Out of the view, or a member now: the session is over. */
  end(): void {
    this.isActive = false;
    this.source = null;
    this.frames = [];
    this.live.clear();
  }

  /** The view opened (again) with us joining, or the source is lost: ask a member. */
  ask(candidates: readonly HostId[]): void {
    if (!this.isActive || this.isComplete || candidates.length === 0) return;
    const others = candidates.filter((host) => host !== this.source);
    this.source = (others.length > 0 ? others : candidates)[0]!;
    this.session = (this.session + 1) >>> 0;
    this.frames = [];
    this.lastFrameMs = this.parts.nowMs;
    const volume = this.parts.options.volumes[this.volumeIndex]!;
    this.sink.askCopy(this.source, {
      session: this.session,
      epoch: this.parts.epoch,
      volume: volume.id,
      region: this.region,
      credits: CREDITS,
    });
  }

  /** True if messages of this session from this host are meant for us. */
  isSession(from: HostId, session: number): boolean {
    return this.isActive && from === this.source && session === this.session;
  }

  /** True when no frame came for too long. */
  get isStalled(): boolean {
    if (!this.isActive || this.isComplete || this.frames.length > 0) return false;
    return this.parts.nowMs - this.lastFrameMs > STALL_MS;
  }

  /** A bulk frame of resync. False if it is malformed. */
  receive(from: HostId, buffer: Uint8Array, at: number, length: number): boolean {
    if (length < COPY.sizeBytes) return false;
    const view = viewOf(buffer);
    const kind = COPY.kind.get(view, at);
    const blockCount = COPY.blockCount.get(view, at);
    const dataBytes = kind === BULK.copy ? blockCount * BLOCK_BYTES : 0;
    if (length !== COPY.sizeBytes + dataBytes) return false;
    if (from !== this.source || COPY.session.get(view, at) !== this.session) return true;
    const volume = this.parts.options.volumes[this.volumeIndex];
    if (volume === undefined || COPY.volume.get(view, at) !== volume.id) return false;
    const lba = COPY.lba.get(view, at);
    const end = Math.ceil(volume.sizeBytes / BLOCK_BYTES / REGION_BLOCKS) * REGION_BLOCKS;
    if (lba < 0 || lba + blockCount > end) return false;
    this.lastFrameMs = this.parts.nowMs;
    this.frames.push(buffer.slice(at, at + length));
    this.pump();
    return true;
  }

  /** Applies waiting frames as far as the store takes them. */
  pump(): void {
    let applied = 0;
    while (applied < this.frames.length && this.apply(this.frames[applied]!)) applied += 1;
    if (applied > 0) this.frames.splice(0, applied);
  }

  private apply(frame: Uint8Array): boolean {
    const view = viewOf(frame);
    const store = this.parts.store;
    const blockCount = COPY.blockCount.get(view, 0);
    if (store === null) return false;
    switch (COPY.kind.get(view, 0)) {
      case BULK.copy: {
        // Worst case: every other block is live, each run a record of its own.
        const bytes = writeRecordBytes(blockCount) + (blockCount / 2) * RECORD_HEADER_BYTES;
        const volume = volumeId(COPY.volume.get(view, 0));
        const ready = store.prepare(volume, COPY.lba.get(view, 0), blockCount);
        if (ready !== OUTCOME.ok) return false;
        if (store.admit(bytes, "mirror") !== OUTCOME.ok) return false;
        this.applyBlocks(frame, view, blockCount);
        break;
      }
      case BULK.copyHole:
        return this.applyHole(view, blockCount);
      case BULK.copyLost:
        return this.applyLost(store, view, blockCount);
      default:
        this.finishRegion(view);
    }
    return true;
  }

  private applyBlocks(frame: Uint8Array, view: DataView, blockCount: number): void {
    const first = COPY.lba.get(view, 0);
    this.eachGap(first, blockCount, (lba, count) => {
      this.fill(view, RECORD_TYPE.copy, lba, count);
      const dataAt = COPY.sizeBytes + (lba - first) * BLOCK_BYTES;
      this.parts.store?.appendWrite(this.header, frame, dataAt);
    });
    this.doneBytes += blockCount * BLOCK_BYTES;
  }

  /**
   * Holes: only regions that have something here need records. Region by region, noting in the
   * frame how far it got, since a long hole may need more room than the store has at once.
   */
  private applyHole(view: DataView, blockCount: number): boolean {
    const store = this.parts.store;
    if (store === null) return false;
    const volume = this.parts.options.volumes[this.volumeIndex]!;
    const start = COPY.lba.get(view, 0);
    const end = Math.min(start + blockCount, volume.sizeBytes / BLOCK_BYTES);
    let region = store.nextRegion(volume.id, Math.floor(start / REGION_BLOCKS));
    while (region >= 0 && region * REGION_BLOCKS < end) {
      const from = Math.max(start, region * REGION_BLOCKS);
      const to = Math.min(end, (region + 1) * REGION_BLOCKS);
      const bytes = (RECORD_HEADER_BYTES * REGION_BLOCKS) / 2;
      const isReady = store.prepare(volume.id, from, to - from) === OUTCOME.ok;
      if (!isReady || store.admit(bytes, "reserve") !== OUTCOME.ok) {
        COPY.lba.set(view, 0, from);
        COPY.blockCount.set(view, 0, start + blockCount - from);
        return false;
      }
      this.eachGap(from, to - from, (lba, count) => {
        this.fill(view, RECORD_TYPE.copyZero, lba, count);
        store.appendEmpty(this.header);
      });
      region = store.nextRegion(volume.id, region + 1);
    }
    return true;
  }

  /** Blocks of which no member has a good copy: never holes, never what was here before. */
  private applyLost(store: Store, view: DataView, blockCount: number): boolean {
    const volume = volumeId(COPY.volume.get(view, 0));
    const first = COPY.lba.get(view, 0);
    if (store.prepare(volume, first, blockCount) !== OUTCOME.ok) return false;
    if (store.admit(RECORD_HEADER_BYTES * blockCount, "reserve") !== OUTCOME.ok) return false;
    this.eachGap(first, blockCount, (lba, count) => {
      this.fill(view, RECORD_TYPE.copyLost, lba, count);
      store.appendEmpty(this.header);
      for (let each = lba; each < lba + count; each += 1) this.sink.lost(volume, each);
    });
    return true;
  }

  private finishRegion(view: DataView): void {
    const volume = this.parts.options.volumes[this.volumeIndex]!;
    const next = Math.floor(COPY.lba.get(view, 0) / REGION_BLOCKS);
    for (let region = this.region; region < next; region += 1) this.live.forget(volume.id, region);
    const epoch = COPY.tagEpoch.get(view, 0);
    const point = COPY.tagPoint.get(view, 0);
    if (epoch > 0) this.parts.store?.setRegionTag(volume.id, next - 1, epoch, point);
    this.region = next;
    if (this.region >= Math.ceil(volume.sizeBytes / BLOCK_BYTES / REGION_BLOCKS)) {
      this.volumeIndex += 1;
      this.region = 0;
    }
    if (COPY.last.get(view, 0) === 1) {
      this.isComplete = true;
      this.sink.copied();
    } else {
      this.sink.giveCredit(this.source ?? hostId(0), { session: this.session, credits: 1 });
    }
  }

  private eachGap(lba: number, count: number, visit: (lba: number, count: number) => void): void {
    const volume = this.parts.options.volumes[this.volumeIndex]!;
    if (this.parts.rules.liveWriteWins) this.live.gaps(volume.id, lba, count, visit);
    else visit(lba, count);
  }

  private fill(view: DataView, type: number, lba: number, blockCount: number): void {
    const { header } = this;
    header.type = type;
    header.flags = 0;
    header.sender = this.parts.self;
    header.volume = COPY.volume.get(view, 0);
    header.blockCount = blockCount;
    header.lba = lba;
    header.epoch = COPY.tagEpoch.get(view, 0);
    header.seq = 0;
    header.grant = 0;
    header.request = 0;
    header.tagPoint = COPY.tagPoint.get(view, 0);
    header.origin = this.parts.self;
    header.originInc = 0;
  }
}

/**
 * How a store comes to life: format (a new one) and open (an old one).
 *
 *   open: superblocks -> checkpoint -> roll forward -> a checkpoint of its own -> ready
 *
 * Nothing of the old log is touched while it is needed: recovery writes only into segments that
 * were free, under a session number of its own that was made durable first, and the superblock
 * names the new checkpoint only when all of it is durable. So a power cut at any moment of a
 * recovery leaves the store as it was, and the next recovery does the same again.
 */
import type { Disk } from "../base/ports.ts";
import {
  AREA_OFFSET,
  FORMAT_VERSION,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_COPIES,
  type Superblock,
  superblockOffset,
} from "../format/superblock.ts";
import { Checkpointer } from "./checkpointer.ts";
import { CheckpointLoader } from "./checkpoint_loader.ts";
import { INDEX_BYTES_DEFAULT, type StoreIdentity, type StoreOptions } from "./contract.ts";
import { Damage } from "./damage.ts";
import type { DiskOps } from "./disk_ops.ts";
import {
  Geometry,
  SEGMENT_BYTES_MAX,
  SEGMENT_BYTES_MIN,
  SEGMENT_COUNT_MIN,
  segmentBytesFor,
} from "./geometry.ts";
import { BATCH_BYTES_MAX, windowBytes } from "./log_cursor.ts";
import { ItemReader, LOAD_BUFFER_BYTES } from "./item_reader.ts";
import { type LogBuffers, LogWriter } from "./log_writer.ts";
import { PageLoader } from "./page_loader.ts";
import { RollForward } from "./roll_forward.ts";
import { SEGMENT } from "./segment_table.ts";
import { StoreState } from "./state.ts";
import {
  judgeSuperblock,
  type Refusal,
  readSuperblock,
  refuse,
  writeSuperblock,
} from "./superblocks.ts";
import type { Task, TaskIo } from "./task.ts";

export const MISCOUNTED = "its counts of live blocks are wrong; a repair counts them anew";
/** Log buffers per lane. */
const HOT_BUFFERS = 4;
const COLD_BUFFERS = 2;
const COLD_BUFFER_BYTES = 1024 * 1024;

/** A store that is ready for work. */
export interface LiveStore {
  readonly ok: true;
  readonly state: StoreState;
  readonly writer: LogWriter;
  readonly checkpointer: Checkpointer;
  readonly damage: Damage;
  readonly clean: boolean;
}

export interface Expected {
  readonly clusterId: number;
  readonly hostId: number;
}

export class Recovery {
  /**
   * The writer of the store being brought to life: while it writes its first checkpoint, its
   * owner must carry the log's completions to it.
   */
  writer: LogWriter | null = null;
  state: StoreState | null = null;
  checkpointer: Checkpointer | null = null;
  private readonly options: StoreOptions;
  private readonly disk: Disk;
  private readonly ops: DiskOps;
  private readonly io: TaskIo;
  private readonly small: Uint8Array;

  constructor(options: StoreOptions, disk: Disk, ops: DiskOps, io: TaskIo) {
    this.options = options;
    this.disk = disk;
    this.ops = ops;
    this.io = io;
    this.small = disk.allocate(SUPERBLOCK_BYTES);
  }

  /** Makes a new store, whatever was there. */
  *format(identity: StoreIdentity): Task<LiveStore | Refusal> {
    const segmentBytes = this.options.segmentBytes ?? segmentBytesFor(this.disk.sizeBytes);
    const isPower = (segmentBytes & (segmentBytes - 1)) === 0;
    if (!isPower || segmentBytes < SEGMENT_BYTES_MIN || segmentBytes > SEGMENT_BYTES_MAX) {
      return refuse("small", "a segment must be a power of two from 64 KiB to 1 GiB");
    }
    const segmentCount = Math.floor((this.disk.sizeBytes - AREA_OFFSET) / segmentBytes);
    if (segmentCount < SEGMENT_COUNT_MIN) {
      return refuse(
        "small",
        `the disk holds ${Math.max(0, segmentCount)} segments, a store needs ${SEGMENT_COUNT_MIN}`,
      );
    }
    if (this.disk.isThin === true && !(yield* this.io.reserve(0, AREA_OFFSET))) {
      return refuse("io", "the file system below the store is full");
    }
    if (!(yield* this.wipe())) return refuse("io", "the disk cannot write the superblocks");
    const state = this.makeState(segmentBytes, segmentCount);
    for (const volume of this.options.volumes) state.addVolume(volume);
    state.segments.isThin = this.disk.isThin === true;
    state.segments.settleStates();
    const cut = { segment: 0, offset: 0, seq: 0, successor: 0 };
    const superblock: Superblock = {
      version: FORMAT_VERSION,
      compat: 0,
      incompat: 0,
      generation: 0,
      storeId: identity.storeId,
      clusterId: identity.clusterId,
      hostId: identity.hostId,
      sizeBytes: this.disk.sizeBytes,
      segmentBytes,
      segmentCount,
      clean: false,
      session: 0,
      attempt: 1,
      rootPlaces: [0, 0],
      rootBytes: 0,
      cutSeq: 0,
      cuts: [cut, cut],
      lostRecords: 0,
    };
    return yield* this.begin(state, superblock, new Damage(), 0, null, true);
  }

  private makeState(segmentBytes: number, segmentCount: number): StoreState {
    const indexBytes = this.options.indexBytes ?? INDEX_BYTES_DEFAULT;
    return new StoreState(new Geometry(segmentBytes, segmentCount), indexBytes);
  }

  /** Old superblocks must not outlive the store they speak of. */
  private *wipe(): Task<boolean> {
    this.small.fill(0);
    for (let copy = 0; copy < SUPERBLOCK_COPIES; copy += 1) {
      const put = yield* this.io.write(superblockOffset(copy), this.small, 0, SUPERBLOCK_BYTES);
      if (put !== SUPERBLOCK_BYTES) return false;
    }
    return (yield* this.io.sync()) === 0;
  }

  /** Opens an existing store; changes nothing unless it is this host's and readable. */
  *open(expected: Expected): Task<LiveStore | Refusal> {
    const found = yield* readSuperblock(this.io, this.small);
    if (!found.ok) return found;
    const refused = judgeSuperblock(found.value, this.disk.sizeBytes, expected);
    if (refused !== null) return refused;
    const damage = new Damage();
    const state = this.makeState(found.value.segmentBytes, found.value.segmentCount);
    const buffer = this.disk.allocate(LOAD_BUFFER_BYTES);
    const reader = new ItemReader(this.io, state.geometry, buffer);
    const loader = new CheckpointLoader(state, damage, reader);
    if (!(yield* loader.load(found.value))) {
      return refuse("damaged", "both copies of the checkpoint's root are damaged");
    }
    const pages = new PageLoader(state, reader, (volume, lba, count, segment) =>
      damage.add("page", volume, lba, count, segment, "does not verify"),
    );
    const recounts = this.options.recount === true;
    if (recounts) yield* pages.loadAll();
    if (state.pool.isInexact || recounts) yield* pages.recount();
    const shrunk = this.adoptVolumes(state);
    if (shrunk !== null) return shrunk;
    // After a killed process its last writes may be in the operating system's memory only: log that
    // is about to be believed, and half of the superblocks while the other half is written anew.
    if ((yield* this.io.sync()) !== 0) return refuse("io", "the disk cannot sync");
    // The number of this attempt is durable before anything is written under it.
    const attempt: Superblock = {
      ...found.value,
      generation: found.value.generation + 1,
      attempt: found.value.attempt + 1,
      clean: false,
    };
    if (!(yield* writeSuperblock(this.io, this.small, attempt))) {
      return refuse("io", "the disk cannot write the superblocks");
    }
    const forward = yield* this.rollForward(state, attempt, damage, pages);
    if (state.segments.isMiscounted) return refuse("damaged", MISCOUNTED);
    this.settleSegments(state, forward, found.value.cutSeq);
    // Kept in the superblock: the host may be killed before it has drawn its conclusions.
    state.lostRecords = found.value.lostRecords + damage.lostRecords;
    const { clean } = found.value;
    return yield* this.begin(state, attempt, damage, forward.highestSeq, loader, clean);
  }

  private *rollForward(
    state: StoreState,
    superblock: Superblock,
    damage: Damage,
    pages: PageLoader,
  ): Task<RollForward> {
    const bytes = windowBytes(superblock.segmentBytes);
    const windows = [this.disk.allocate(bytes), this.disk.allocate(bytes)] as const;
    const forward = new RollForward(this.io, state, superblock, damage, pages, windows);
    yield* forward.run();
    return forward;
  }

  /** Volumes of the configuration join those of the store; a smaller one is refused. */
  private adoptVolumes(state: StoreState): Refusal | null {
    for (const wanted of this.options.volumes) {
      const volume = state.volume(wanted.id);
      if (volume === undefined) {
        state.addVolume(wanted);
      } else if (wanted.blocks > volume.blocks) {
        volume.grow(wanted.blocks);
      } else if (wanted.blocks < volume.blocks) {
        return refuse(
          "volume",
          `volume ${wanted.id} has ${volume.blocks} blocks in the store, ${wanted.blocks} here`,
        );
      }
    }
    return null;
  }

  /**
   * The log's segments are in use, though the checkpoint may have called them free; what is empty
   * and below the checkpoint's cut is free at once.
   */
  private settleSegments(state: StoreState, forward: RollForward, cutSeq: number): void {
    const { segments } = state;
    for (let segment = 0; segment < segments.lastSeq.length; segment += 1) {
      if (forward.visited.has(segment)) {
        segments.state[segment] = SEGMENT.sealed;
        segments.lastSeq[segment] = forward.highestSeq;
      } else if (segments.lastSeq[segment]! > forward.highestSeq) {
        // A lane had it in reserve and never came to it.
        segments.lastSeq[segment] = 0;
      }
      if (segments.liveBlocks[segment]! > 0) segments.state[segment] = SEGMENT.sealed;
    }
    segments.isThin = this.disk.isThin === true;
    segments.settleStates();
    segments.reclaim(0, 0, cutSeq);
  }

  /**
   * Which free segments have room below is not kept on disk: asking for it again costs nothing
   * where it is there. Tries every segment if need be, as the file system may be full.
   */
  private *reserveSome({ segments, geometry }: StoreState): Task<void> {
    const wanted = geometry.cleanBelow;
    for (let tries = segments.unreservedCount; tries > 0; tries -= 1) {
      if (segments.freeCount >= wanted) return;
      const segment = segments.beginReserve();
      const offset = geometry.offsetOf(segment);
      segments.endReserve(segment, yield* this.io.reserve(offset, geometry.segmentBytes));
    }
  }

  /** Starts a session in fresh segments with a checkpoint of everything. */
  private *begin(
    state: StoreState,
    superblock: Superblock,
    damage: Damage,
    seq: number,
    loader: CheckpointLoader | null,
    clean: boolean,
  ): Task<LiveStore | Refusal> {
    const buffers = logBuffers(this.disk, this.options, state.geometry.segmentBytes);
    const writer = new LogWriter(this.disk, this.ops, state.geometry, state.segments, buffers);
    yield* this.reserveSome(state);
    if (!writer.start(seq, superblock.attempt, superblock.storeId)) {
      return refuse("small", "no free segment is left to go on in");
    }
    this.state = state;
    this.writer = writer;
    const checkpointer = new Checkpointer(state, writer, this.io, this.small, superblock);
    if (loader !== null) checkpointer.adoptRoot(loader.rootPlaces, loader.rootBytes);
    this.checkpointer = checkpointer;
    if (!(yield* checkpointer.run(false, true))) {
      return refuse("io", "the disk cannot write the first checkpoint");
    }
    state.pool.clock.shrink();
    return { ok: true, state, writer, checkpointer, damage, clean };
  }
}

/** Buffers of the log: at most a segment each, room for the largest record in full-size stores. */
function logBuffers(disk: Disk, options: StoreOptions, segmentBytes: number): LogBuffers {
  const wanted = Math.min(options.logBufferBytes ?? BATCH_BYTES_MAX, BATCH_BYTES_MAX);
  const bytes = Math.min(wanted - (wanted % 4096), segmentBytes);
  const coldBytes = Math.min(segmentBytes, COLD_BUFFER_BYTES);
  const hot: Uint8Array[] = [];
  const cold: Uint8Array[] = [];
  for (let index = 0; index < HOT_BUFFERS; index += 1) hot.push(disk.allocate(bytes));
  for (let index = 0; index < COLD_BUFFERS; index += 1) cold.push(disk.allocate(coldBytes));
  return { hot, cold };
}

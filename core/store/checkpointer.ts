/**
 * Writes checkpoints: what changed in the index since the one before, then the root, then, when
 * all of that and every record it speaks of is durable, the superblock that names it.
 *
 * It takes many turns, and clients go on meanwhile. The checkpoint may therefore say more than
 * the log before its cut; that is right, because the log from the cut on is durable before the
 * superblock is written, and rolling it forward over newer pages ends in the same state: for each
 * block its last record decides. A page is never written that speaks of records that a power cut
 * could still take.
 */
import { assert } from "../base/assert.ts";
import { encode } from "../format/codec.ts";
import {
  META_SLOTS,
  NODE_REGION,
  NODE_REGIONS,
  PAGE_BYTES,
  PAGE_WORDS,
  ROOT,
  ROOT_CHUNK_BYTES,
  SPARSE_ENTRY,
  SPARSE_MAX,
  STORED_SEGMENT,
} from "../format/checkpoint.ts";
import { encodeItemHeader, ITEM_HEADER_BYTES, ITEM_KIND, ItemHeader } from "../format/segment.ts";
import type { LaneCut, Superblock } from "../format/superblock.ts";
import type { Decoded } from "../format/codec.ts";
import { roundUp } from "../base/units.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import type { LogWriter } from "./log_writer.ts";
import { SEGMENT } from "./segment_table.ts";
import type { StoreState } from "./state.ts";
import { writeSuperblock } from "./superblocks.ts";
import { type Task, type TaskIo, WAIT } from "./task.ts";
import { RetiredPlaces, type VolumeIndex } from "./volume_index.ts";

/** Pages written in one turn. */
const PAGES_PER_TURN = 32;

type Root = Decoded<typeof ROOT>;

export class Checkpointer {
  /** Batches up to this number are not needed for roll-forward any more. */
  completedSeq = 0;
  /** `LogWriter.bytesWritten` when the last one began, and what the last one cost. */
  beganAtBytes = 0;
  costBytes = 0;
  count = 0;
  /** The superblock as it is on disk. */
  superblock: Superblock;
  private rootPlaces: number[] = [];
  private rootBytes: number[] = [];
  private readonly header = new ItemHeader();
  private readonly state: StoreState;
  private readonly writer: LogWriter;
  private readonly io: TaskIo;
  /** 4096 bytes for superblocks. */
  private readonly buffer: Uint8Array;

  constructor(
    state: StoreState,
    writer: LogWriter,
    io: TaskIo,
    buffer: Uint8Array,
    superblock: Superblock,
  ) {
    this.state = state;
    this.writer = writer;
    this.io = io;
    this.buffer = buffer;
    this.superblock = superblock;
  }

  /** After load: where the current root's chunks lie. */
  adoptRoot(places: readonly number[], bytes: readonly number[]): void {
    this.rootPlaces = [...places];
    this.rootBytes = [...bytes];
  }

  /** One checkpoint. False if the disk failed. `urgent`: without giving way between turns. */
  *run(clean: boolean, urgent: boolean): Task<boolean> {
    const { state, writer } = this;
    const cuts: [LaneCut, LaneCut] = [newCut(), newCut()];
    writer.hot.cut(cuts[0]);
    writer.cold.cut(cuts[1]);
    const cutSeq = writer.seq;
    this.beganAtBytes = writer.bytesWritten;
    const retiring = state.retired.now;
    state.retired.now = new RetiredPlaces();
    for (const volume of state.volumes.values()) {
      const nodes = volume.dirtyNodes;
      volume.dirtyNodes = [];
      for (const node of nodes) yield* this.writeNode(volume, node, retiring, urgent);
    }
    const root = encode(ROOT, this.captureRoot());
    const oldPlaces = this.rootPlaces;
    const oldBytes = this.rootBytes;
    this.rootPlaces = [];
    this.rootBytes = [];
    const first = yield* this.writeRoot(root);
    const second = yield* this.writeRoot(root);
    writer.wantDurable();
    yield WAIT.durable;
    const next: Superblock = {
      ...this.superblock,
      generation: this.superblock.generation + 1,
      clean,
      session: writer.session,
      rootPlaces: [first, second],
      rootBytes: root.length,
      cutSeq,
      cuts,
      lostRecords: state.lostRecords,
    };
    if (!(yield* writeSuperblock(this.io, this.buffer, next))) return false;
    this.superblock = next;
    this.completedSeq = cutSeq;
    this.costBytes = writer.bytesWritten - this.beganAtBytes;
    this.count += 1;
    this.drop(retiring.places, retiring.bytes);
    this.drop(oldPlaces, oldBytes);
    state.segments.cleaned.fill(0);
    return true;
  }

  private drop(places: readonly number[], bytes: readonly number[]): void {
    for (let index = 0; index < places.length; index += 1) {
      this.state.segments.dropMeta(places[index]!, bytes[index]!);
    }
  }

  private *writeNode(
    volume: VolumeIndex,
    node: IndexNode,
    retiring: RetiredPlaces,
    urgent: boolean,
  ): Task<void> {
    // From here on a change of the node counts for the next checkpoint.
    node.isDirty = false;
    let written = 0;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      if (node.changed[region] === 0) continue;
      if (node.isGone) return;
      node.changed[region] = 0;
      if (node.pages[region] === NO_PAGE) continue;
      yield* this.room(ITEM_HEADER_BYTES + PAGE_BYTES);
      // The page may have gone while this waited for room.
      const words = volume.pageWords(node, region);
      if (words !== null) this.putPage(volume, node, region, words, retiring);
      written += 1;
      if (!urgent && written % PAGES_PER_TURN === 0) yield WAIT.turn;
    }
    yield* this.room(ITEM_HEADER_BYTES + roundUp(NODE_REGIONS * NODE_REGION.sizeBytes, 16));
    if (!node.isGone) this.putNode(volume, node, retiring);
  }

  private putPage(
    volume: VolumeIndex,
    node: IndexNode,
    region: number,
    words: Uint32Array,
    retiring: RetiredPlaces,
  ): void {
    const lane = this.writer.cold;
    lane.reserve(ITEM_HEADER_BYTES + PAGE_BYTES, false);
    const { buffer, view } = lane.itemBatch;
    const at = lane.itemAt + ITEM_HEADER_BYTES;
    const count = node.counts[region]!;
    const isSparse = count <= SPARSE_MAX;
    const header = this.header;
    header.kind = ITEM_KIND.page;
    header.form = isSparse ? 1 : 0;
    header.count = isSparse ? count : 0;
    header.bodyBytes = isSparse
      ? sparsePage(buffer, view, at, words)
      : densePage(buffer, at, words);
    header.subject = volume.id;
    header.number = node.number * NODE_REGIONS + region;
    if (node.pagePlaces[region] !== 0) {
      retiring.push(node.pagePlaces[region]!, node.pageUnits[region]! * 16);
    }
    node.pagePlaces[region] = lane.itemPlace;
    node.pageUnits[region] = this.commit(header) / 16;
  }

  private putNode(volume: VolumeIndex, node: IndexNode, retiring: RetiredPlaces): void {
    const lane = this.writer.cold;
    lane.reserve(ITEM_HEADER_BYTES + roundUp(NODE_REGIONS * NODE_REGION.sizeBytes, 16), false);
    const { buffer, view } = lane.itemBatch;
    let at = lane.itemAt + ITEM_HEADER_BYTES;
    let count = 0;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const place = node.pagePlaces[region]!;
      const epoch = node.tagEpochs[region]!;
      const point = node.tagPoints[region]!;
      if (place === 0 && epoch === 0 && point === 0) continue;
      NODE_REGION.pagePlace.set(view, at, place);
      NODE_REGION.tagEpoch.set(view, at, epoch);
      NODE_REGION.tagPoint.set(view, at, point);
      NODE_REGION.region.set(view, at, region);
      NODE_REGION.pageUnits.set(view, at, node.pageUnits[region]!);
      at += NODE_REGION.sizeBytes;
      count += 1;
    }
    const bytes = count * NODE_REGION.sizeBytes;
    const padded = roundUp(bytes, 16);
    buffer.fill(0, at, at + padded - bytes);
    if (node.place !== 0) retiring.push(node.place, node.bytes);
    node.place = lane.itemPlace;
    const header = this.header;
    header.kind = ITEM_KIND.node;
    header.form = 0;
    header.count = count;
    header.bodyBytes = padded;
    header.subject = volume.id;
    header.number = node.number;
    node.bytes = this.commit(header);
  }

  /** Ends the item reserved in the cold lane; counts it as live; returns its length. */
  private commit(header: ItemHeader): number {
    const { cold, hot } = this.writer;
    const place = cold.itemPlace;
    const length = ITEM_HEADER_BYTES + header.bodyBytes;
    encodeItemHeader(cold.itemBatch.buffer, cold.itemBatch.view, cold.itemAt, header);
    cold.commit(128 + header.kind, header.subject, 0, header.bodyBytes, length, hot.appended);
    this.writer.noteAppended();
    this.state.segments.addMeta(place, length);
    return length;
  }

  private *room(bytes: number): Task<void> {
    this.io.roomBytes = bytes;
    yield WAIT.room;
  }

  /** Writes one copy of the root; returns where its last chunk lies. */
  private *writeRoot(root: Uint8Array): Task<number> {
    const lane = this.writer.cold;
    const chunkBytesMax = rootChunkBytes(this.state.geometry.segmentBytes);
    let previous = 0;
    let number = 0;
    for (let from = 0; from < root.length; from += chunkBytesMax) {
      const bytes = Math.min(chunkBytesMax, root.length - from);
      const padded = roundUp(bytes, 16);
      yield* this.room(ITEM_HEADER_BYTES + padded);
      lane.reserve(ITEM_HEADER_BYTES + padded, false);
      const { buffer } = lane.itemBatch;
      const at = lane.itemAt + ITEM_HEADER_BYTES;
      buffer.set(root.subarray(from, from + bytes), at);
      buffer.fill(0, at + bytes, at + padded);
      const place = lane.itemPlace;
      const header = this.header;
      header.kind = ITEM_KIND.root;
      header.form = 0;
      header.count = 0;
      header.bodyBytes = padded;
      header.subject = number;
      header.number = previous;
      const length = this.commit(header);
      this.rootPlaces.push(place);
      this.rootBytes.push(length);
      previous = place;
      number += 1;
    }
    return previous;
  }

  /** Everything but nodes and pages, at this moment. */
  private captureRoot(): Root {
    const { state } = this;
    const { segments } = state;
    const table: Root["segments"] = [];
    for (let segment = 0; segment < segments.state.length; segment += 1) {
      const isFree =
        segments.state[segment] === SEGMENT.free || segments.state[segment] === SEGMENT.discarding;
      table.push({
        state: isFree ? STORED_SEGMENT.free : STORED_SEGMENT.used,
        stamp: segments.stamp[segment]!,
        lastSeq: segments.lastSeq[segment]!,
      });
    }
    const metas: Root["metas"] = [];
    for (let slot = 0; slot < META_SLOTS; slot += 1) {
      const bytes = state.metas[slot];
      if (bytes !== null && bytes !== undefined) metas.push({ slot, bytes });
    }
    return {
      volumes: [...state.volumes.values()].map((volume) => ({
        id: volume.id,
        blocks: volume.blocks,
        nodes: nodesOf(volume),
      })),
      segments: table,
      metas,
      streamEpoch: state.streamEpoch,
      streamSeqs: [...state.streamSeqs],
    };
  }
}

/** Root chunks are smaller in stores with very small segments. */
export function rootChunkBytes(segmentBytes: number): number {
  return Math.min(ROOT_CHUNK_BYTES, segmentBytes / 4);
}

type RootNode = Root["volumes"][number]["nodes"][number];

function nodesOf(volume: VolumeIndex): RootNode[] {
  const nodes: RootNode[] = [];
  for (let number = 0; number < volume.nodes.length; number += 1) {
    const node = volume.nodes[number];
    const tagEpoch = volume.wideEpochs[number]!;
    const tagPoint = volume.widePoints[number]!;
    // A node made since the checkpoint began has no place: the log after the cut makes it anew.
    const place = node?.place ?? 0;
    if (place === 0 && tagEpoch === 0 && tagPoint === 0) continue;
    const last = nodes[nodes.length - 1];
    const isRun =
      last !== undefined &&
      place === 0 &&
      last.place === 0 &&
      last.number + last.run === number &&
      last.tagEpoch === tagEpoch &&
      last.tagPoint === tagPoint;
    if (isRun) last.run += 1;
    else nodes.push({ number, run: 1, place, bytes: node?.bytes ?? 0, tagEpoch, tagPoint });
  }
  return nodes;
}

function newCut(): LaneCut {
  return { segment: 0, offset: 0, seq: 0, successor: 0 };
}

/** Stores a page whole; returns its bytes. Words are little-endian on every machine Bun runs on. */
function densePage(buffer: Uint8Array, at: number, words: Uint32Array): number {
  buffer.set(new Uint8Array(words.buffer, words.byteOffset, PAGE_BYTES), at);
  return PAGE_BYTES;
}

/** Stores the blocks of a page that are there; returns the bytes, padded. */
function sparsePage(buffer: Uint8Array, view: DataView, at: number, words: Uint32Array): number {
  let position = at;
  for (let word = 0; word < PAGE_WORDS; word += 2) {
    const low = words[word]!;
    const high = words[word + 1]!;
    if (low === 0 && (high & 0xffff) === 0) continue;
    SPARSE_ENTRY.placeLow.set(view, position, low);
    SPARSE_ENTRY.placeHigh.set(view, position, high & 0xffff);
    SPARSE_ENTRY.check.set(view, position, high >>> 16);
    SPARSE_ENTRY.block.set(view, position, word / 2);
    SPARSE_ENTRY.reserved.set(view, position, 0);
    position += SPARSE_ENTRY.sizeBytes;
  }
  assert(position - at <= PAGE_BYTES, "checkpoint: sparse page longer than a dense one");
  const end = at + roundUp(position - at, 16);
  buffer.fill(0, position, end);
  return end - at;
}

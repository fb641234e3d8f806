/**
 * Writes checkpoints: what changed in the index since the one before, then the root, then, when
 * all of that and every record it speaks of is durable, the superblock that names it.
 *
 * It takes many turns, and clients go on meanwhile. A checkpoint is nevertheless exact: it says
 * what was true at its cut, the moment at which it began, because it holds every node that it is
 * going to write, and whoever changes a held node or its pages changes a copy (`index_pool.ts`).
 * The log from the cut on is therefore applied once, and only once, by roll-forward.
 */
import { encode } from "../format/codec.ts";
import { NODE_REGIONS, ROOT } from "../format/checkpoint.ts";
import { ITEM_HEADER_BYTES } from "../format/segment.ts";
import type { LaneCut, Superblock } from "../format/superblock.ts";
import { roundUp } from "../base/units.ts";
import { CheckpointItems, NODE_ITEM_BYTES_MAX, PAGE_ITEM_BYTES_MAX } from "./checkpoint_items.ts";
import { RootCut, rootChunkBytes } from "./checkpoint_root.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import type { RetiredPlaces } from "./index_pool.ts";
import type { LogWriter } from "./log_writer.ts";
import type { StoreState } from "./state.ts";
import { writeSuperblock } from "./superblocks.ts";
import { type Task, type TaskIo, WAIT } from "./task.ts";

/** Pages written in one turn. */
const PAGES_PER_TURN = 32;

export class Checkpointer {
  /** Batches up to this number are not needed for roll-forward any more. */
  completedSeq = 0;
  /** `LogWriter.bytesWritten` when the last one began, and what the last one cost. */
  beganAtBytes = 0;
  costBytes = 0;
  count = 0;
  isRunning = false;
  /** Something on disk is to be written anew though nothing changed. */
  isWanted = false;
  /** The superblock as it is on disk. */
  superblock: Superblock;
  private rootPlaces: number[] = [];
  private rootBytes: number[] = [];
  private written = 0;
  private readonly items: CheckpointItems;
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
    this.items = new CheckpointItems(state, writer);
  }

  /** After load: where the current root's chunks lie. */
  adoptRoot(places: readonly number[], bytes: readonly number[]): void {
    this.rootPlaces = [...places];
    this.rootBytes = [...bytes];
  }

  /** The chunks of both copies of the root, on disk. */
  rootItems(): { place: number; bytes: number }[] {
    return this.rootPlaces.map((place, index) => ({ place, bytes: this.rootBytes[index]! }));
  }

  /** One checkpoint. False if the disk failed. `urgent`: without giving way between turns. */
  *run(clean: boolean, urgent: boolean): Task<boolean> {
    this.isRunning = true;
    this.isWanted = false;
    const isDone = yield* this.write(clean, urgent);
    this.isRunning = false;
    return isDone;
  }

  private *write(clean: boolean, urgent: boolean): Task<boolean> {
    const { state, writer } = this;
    const cuts: [LaneCut, LaneCut] = [newCut(), newCut()];
    // The cut: from here to the first wait nothing else happens.
    writer.hot.cut(cuts[0]);
    writer.cold.cut(cuts[1]);
    const cutSeq = writer.seq;
    this.beganAtBytes = writer.bytesWritten;
    const coldBefore = writer.cold.appended;
    const retiring = state.pool.takeRetired();
    const cut = new RootCut(state);
    for (const node of state.pool.freeze()) {
      yield* this.writeNode(node, retiring, urgent);
      state.pool.dropNode(node);
    }
    state.pool.isFrozen = false;
    const root = encode(ROOT, cut.build());
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
    // The cold lane is this task's alone; what clients wrote meanwhile is no cost of it.
    this.costBytes = writer.cold.appended - coldBefore;
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

  /** Writes the node's dirty pages, then the node. */
  private *writeNode(node: IndexNode, retiring: RetiredPlaces, urgent: boolean): Task<void> {
    const { items } = this;
    const { pages } = this.state.pool;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const page = node.pages[region]!;
      if (page === NO_PAGE || pages.dirty[page] === 0) continue;
      yield* this.room(PAGE_ITEM_BYTES_MAX);
      items.putPage(node, region);
      retiring.push(pages.places[page]!, pages.units[page]! * 16);
      pages.places[page] = items.lastPlace;
      pages.units[page] = items.lastBytes / 16;
      pages.markClean(page);
      this.written += 1;
      if (!urgent && this.written % PAGES_PER_TURN === 0) yield WAIT.turn;
    }
    yield* this.room(NODE_ITEM_BYTES_MAX);
    items.putNode(node);
    retiring.push(node.place, node.bytes);
    node.place = items.lastPlace;
    node.bytes = items.lastBytes;
  }

  private *room(bytes: number): Task<void> {
    this.io.roomBytes = bytes;
    yield WAIT.room;
  }

  /** Writes one copy of the root; returns where its last chunk lies. */
  private *writeRoot(root: Uint8Array): Task<number> {
    const { items } = this;
    const chunkBytesMax = rootChunkBytes(this.state.geometry.segmentBytes);
    let previous = 0;
    let number = 0;
    for (let from = 0; from < root.length; from += chunkBytesMax) {
      const chunk = root.subarray(from, from + chunkBytesMax);
      yield* this.room(ITEM_HEADER_BYTES + roundUp(chunk.length, 16));
      items.putRootChunk(chunk, number, previous);
      this.rootPlaces.push(items.lastPlace);
      this.rootBytes.push(items.lastBytes);
      previous = items.lastPlace;
      number += 1;
    }
    return previous;
  }
}

function newCut(): LaneCut {
  return { segment: 0, offset: 0, seq: 0, successor: 0 };
}

/** Puts pages, nodes and chunks of the root into the cold lane, as items of a checkpoint. */
import { assert } from "../base/assert.ts";
import { roundUp } from "../base/units.ts";
import { NODE_REGION, NODE_REGIONS, PAGE_BYTES } from "../format/checkpoint.ts";
import { encodeItemHeader, ITEM_HEADER_BYTES, ITEM_KIND, ItemHeader } from "../format/segment.ts";
import { type IndexNode, NO_PAGE } from "./index_node.ts";
import type { LogWriter } from "./log_writer.ts";
import { encodePage } from "./page_codec.ts";
import type { StoreState } from "./state.ts";

/** Most bytes that one page or one node takes in the log. */
export const PAGE_ITEM_BYTES_MAX = ITEM_HEADER_BYTES + PAGE_BYTES;
export const NODE_ITEM_BYTES_MAX = ITEM_HEADER_BYTES + NODE_REGIONS * NODE_REGION.sizeBytes;

export class CheckpointItems {
  /** Of the item put last. */
  lastPlace = 0;
  lastBytes = 0;
  private readonly header = new ItemHeader();
  private readonly state: StoreState;
  private readonly writer: LogWriter;

  constructor(state: StoreState, writer: LogWriter) {
    this.state = state;
    this.writer = writer;
  }

  /** The cold lane has room for PAGE_ITEM_BYTES_MAX; the page is in memory. */
  putPage(node: IndexNode, region: number): void {
    const { pool } = this.state;
    const page = node.pages[region]!;
    const lane = this.writer.cold;
    lane.reserve(PAGE_ITEM_BYTES_MAX, false);
    const { buffer, view } = lane.itemBatch;
    const at = lane.itemAt + ITEM_HEADER_BYTES;
    const { header } = this;
    encodePage(buffer, view, at, pool.pageWords(page), pool.pages.counts[page]!, header);
    header.subject = node.volume;
    header.number = node.number * NODE_REGIONS + region;
    this.commit();
  }

  /** The cold lane has room for NODE_ITEM_BYTES_MAX; no page of the node is dirty. */
  putNode(node: IndexNode): void {
    const { pages } = this.state.pool;
    const lane = this.writer.cold;
    lane.reserve(NODE_ITEM_BYTES_MAX, false);
    const { view } = lane.itemBatch;
    let at = lane.itemAt + ITEM_HEADER_BYTES;
    let count = 0;
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const page = node.pages[region]!;
      const epoch = node.tagEpochs[region]!;
      const point = node.tagPoints[region]!;
      if (page === NO_PAGE && epoch === 0 && point === 0) continue;
      const isThere = page !== NO_PAGE;
      assert(!isThere || pages.dirty[page] === 0, "checkpoint: a node before one of its pages");
      NODE_REGION.pagePlace.set(view, at, isThere ? pages.places[page]! : 0);
      NODE_REGION.tagEpoch.set(view, at, epoch);
      NODE_REGION.tagPoint.set(view, at, point);
      NODE_REGION.region.set(view, at, region);
      NODE_REGION.pageUnits.set(view, at, isThere ? pages.units[page]! : 0);
      NODE_REGION.entryCount.set(view, at, isThere ? pages.counts[page]! : 0);
      NODE_REGION.lostCount.set(view, at, isThere ? pages.losts[page]! : 0);
      NODE_REGION.reserved.set(view, at, 0);
      at += NODE_REGION.sizeBytes;
      count += 1;
    }
    const { header } = this;
    header.kind = ITEM_KIND.node;
    header.form = 0;
    header.count = count;
    header.bodyBytes = count * NODE_REGION.sizeBytes;
    header.subject = node.volume;
    header.number = node.number;
    this.commit();
  }

  /** One chunk of the root; `previous`: place of the one before, 0 if it is the first. */
  putRootChunk(chunk: Uint8Array, number: number, previous: number): void {
    const lane = this.writer.cold;
    const padded = roundUp(chunk.length, 16);
    lane.reserve(ITEM_HEADER_BYTES + padded, false);
    const { buffer } = lane.itemBatch;
    const at = lane.itemAt + ITEM_HEADER_BYTES;
    buffer.set(chunk, at);
    buffer.fill(0, at + chunk.length, at + padded);
    const { header } = this;
    header.kind = ITEM_KIND.root;
    header.form = 0;
    header.count = 0;
    header.bodyBytes = padded;
    header.subject = number;
    header.number = previous;
    this.commit();
  }

  /** Ends the item reserved in the cold lane; counts it as live. */
  private commit(): void {
    const { header } = this;
    const { cold, hot } = this.writer;
    const length = ITEM_HEADER_BYTES + header.bodyBytes;
    encodeItemHeader(cold.itemBatch.buffer, cold.itemBatch.view, cold.itemAt, header);
    cold.commit(128 + header.kind, header.subject, 0, header.bodyBytes, length, hot.appended);
    this.writer.noteAppended();
    this.state.segments.addMeta(cold.itemPlace, length);
    this.lastPlace = cold.itemPlace;
    this.lastBytes = length;
  }
}

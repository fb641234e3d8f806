/**
 * Reads a checkpoint into memory: root, nodes, pages. What does not verify is not believed: a
 * damaged page makes its 512 blocks LOST (reads answer io until a mirror's copy heals them), a
 * damaged node those of its 256 regions; the other copy stands in for a damaged root.
 */
import { REGION_BLOCKS } from "../base/units.ts";
import { type Decoded, decode } from "../format/codec.ts";
import {
  NODE_REGION,
  NODE_REGIONS,
  PAGE_BYTES,
  PAGE_ENTRY,
  ROOT,
  SPARSE_ENTRY,
  STORED_SEGMENT,
} from "../format/checkpoint.ts";
import { viewOf } from "../format/layout.ts";
import {
  decodeItemHeader,
  ITEM_HEADER_BYTES,
  ITEM_KIND,
  ItemHeader,
  itemBodyIsWhole,
  PLACE_UNIT,
} from "../format/segment.ts";
import type { Superblock } from "../format/superblock.ts";
import { roundUp } from "../base/units.ts";
import { rootChunkBytes } from "./checkpointer.ts";
import type { Damage } from "./damage.ts";
import type { IndexNode } from "./index_node.ts";
import { SEGMENT } from "./segment_table.ts";
import type { StoreState } from "./state.ts";
import type { Task, TaskIo } from "./task.ts";
import { LOST_PLACE, NODE_BLOCKS, type VolumeIndex } from "./volume_index.ts";

export const LOAD_BUFFER_BYTES = 1024 * 1024;
/** Tag of a region of which nothing is known: later than every other in its epoch. */
const POINT_MAX = 0xffffffff;
const VOLUME_BLOCKS_MAX = 2 ** 38;

type Root = Decoded<typeof ROOT>;
type RootNode = Root["volumes"][number]["nodes"][number];

export class CheckpointLoader {
  /** Where the chunks of both roots lie. */
  readonly rootPlaces: number[] = [];
  readonly rootBytes: number[] = [];
  private readonly io: TaskIo;
  private readonly state: StoreState;
  private readonly damage: Damage;
  private readonly buffer: Uint8Array;
  private readonly view: DataView;
  private readonly header = new ItemHeader();
  /** Where the buffer's first byte lies on disk, and how much of it is valid. */
  private bufferOffset = 0;
  private bufferLength = 0;
  private readonly lostPages: { volume: VolumeIndex; node: IndexNode; region: number }[] = [];

  constructor(io: TaskIo, state: StoreState, damage: Damage, buffer: Uint8Array) {
    this.io = io;
    this.state = state;
    this.damage = damage;
    this.buffer = buffer;
    this.view = viewOf(buffer);
  }

  /** Loads everything; false if neither root can be read. */
  *load(superblock: Superblock): Task<boolean> {
    const root = yield* this.findRoot(superblock);
    if (root === null || !this.takeRoot(root)) return false;
    for (const stored of root.volumes) {
      const volume = this.state.volume(stored.id) as VolumeIndex;
      for (const node of stored.nodes) yield* this.loadNode(volume, node);
      for (const node of volume.nodes) if (node !== null) settleNode(node);
      volume.dirtyNodes = [];
    }
    // A page that was lost is stored as lost, so that its item is not needed any longer.
    for (const { volume, node, region } of this.lostPages) volume.markChanged(node, region);
    return true;
  }

  private *findRoot(superblock: Superblock): Task<Root | null> {
    let found: Root | null = null;
    for (const place of superblock.rootPlaces) {
      const bytes = yield* this.readRoot(place, superblock.rootBytes);
      const root = bytes === null ? null : decode(ROOT, bytes);
      if (root === null) {
        this.damage.add("root", 0, 0, 0, this.state.geometry.segmentOf(place), "does not verify");
      } else {
        found ??= root;
      }
    }
    return found;
  }

  private *readRoot(lastPlace: number, rootBytes: number): Task<Uint8Array | null> {
    const chunkBytes = rootChunkBytes(this.state.geometry.segmentBytes);
    const count = Math.ceil(rootBytes / chunkBytes);
    const root = new Uint8Array(rootBytes);
    const places: number[] = [];
    const lengths: number[] = [];
    let place = lastPlace;
    for (let number = count - 1; number >= 0; number -= 1) {
      const bytes = Math.min(chunkBytes, rootBytes - number * chunkBytes);
      const length = ITEM_HEADER_BYTES + roundUp(bytes, 16);
      const at = yield* this.readItem(place, length, ITEM_KIND.root);
      if (at < 0 || this.header.subject !== number) return null;
      const body = at + ITEM_HEADER_BYTES;
      root.set(this.buffer.subarray(body, body + bytes), number * chunkBytes);
      places.push(place);
      lengths.push(length);
      place = this.header.number;
    }
    this.rootPlaces.push(...places);
    this.rootBytes.push(...lengths);
    for (let index = 0; index < places.length; index += 1) {
      this.state.segments.addMeta(places[index]!, lengths[index]!);
    }
    return root;
  }

  /** Takes over what the root says itself; false if it makes no sense. */
  private takeRoot(root: Root): boolean {
    const { state } = this;
    if (root.segments.length !== state.geometry.segmentCount) return false;
    for (const stored of root.volumes) {
      if (stored.blocks < 1 || stored.blocks > VOLUME_BLOCKS_MAX) return false;
      if (state.volume(stored.id) !== undefined) return false;
      const volume = state.addVolume({ id: stored.id as VolumeIndex["id"], blocks: stored.blocks });
      for (const node of stored.nodes) {
        if (node.run < 1 || node.number + node.run > volume.nodes.length) return false;
      }
    }
    for (const meta of root.metas) {
      if (meta.slot >= state.metas.length) return false;
      state.metas[meta.slot] = meta.bytes;
    }
    for (let segment = 0; segment < root.segments.length; segment += 1) {
      const stored = root.segments[segment]!;
      const isFree = stored.state === STORED_SEGMENT.free;
      state.segments.state[segment] = isFree ? SEGMENT.free : SEGMENT.sealed;
      state.segments.stamp[segment] = stored.stamp;
      state.segments.lastSeq[segment] = stored.lastSeq;
    }
    state.streamEpoch = root.streamEpoch;
    state.streamSeqs.set(root.streamSeqs);
    return true;
  }

  private *loadNode(volume: VolumeIndex, stored: RootNode): Task<void> {
    for (let number = stored.number; number < stored.number + stored.run; number += 1) {
      volume.wideEpochs[number] = stored.tagEpoch;
      volume.widePoints[number] = stored.tagPoint;
    }
    if (stored.place === 0) return;
    const node = volume.nodeOf(stored.number);
    const at = yield* this.readItem(stored.place, stored.bytes, ITEM_KIND.node);
    const { header } = this;
    const isIt =
      at >= 0 &&
      header.subject === volume.id &&
      header.number === stored.number &&
      header.count * NODE_REGION.sizeBytes <= header.bodyBytes;
    if (!isIt) {
      this.loseNode(volume, node, stored.place);
      return;
    }
    node.place = stored.place;
    node.bytes = stored.bytes;
    this.state.segments.addMeta(node.place, node.bytes);
    let entryAt = at + ITEM_HEADER_BYTES;
    for (let index = 0; index < header.count; index += 1) {
      const region = NODE_REGION.region.get(this.view, entryAt);
      if (region < NODE_REGIONS) {
        node.pagePlaces[region] = NODE_REGION.pagePlace.get(this.view, entryAt);
        node.pageUnits[region] = NODE_REGION.pageUnits.get(this.view, entryAt);
        node.tagEpochs[region] = NODE_REGION.tagEpoch.get(this.view, entryAt);
        node.tagPoints[region] = NODE_REGION.tagPoint.get(this.view, entryAt);
      }
      entryAt += NODE_REGION.sizeBytes;
    }
    yield* this.loadPages(volume, node);
  }

  /** Pages in the order in which they lie, so that neighbours cost one read. */
  private *loadPages(volume: VolumeIndex, node: IndexNode): Task<void> {
    const regions: number[] = [];
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      if (node.pagePlaces[region] !== 0) regions.push(region);
    }
    regions.sort((left, right) => node.pagePlaces[left]! - node.pagePlaces[right]!);
    for (const region of regions) {
      const place = node.pagePlaces[region]!;
      const length = node.pageUnits[region]! * PLACE_UNIT;
      const at = yield* this.readItem(place, length, ITEM_KIND.page);
      const number = node.number * NODE_REGIONS + region;
      const isIt = at >= 0 && this.header.subject === volume.id && this.header.number === number;
      if (isIt && this.takePage(volume, number * REGION_BLOCKS, at)) {
        this.state.segments.addMeta(place, length);
      } else {
        node.pagePlaces[region] = 0;
        node.pageUnits[region] = 0;
        this.losePage(volume, node, region, place);
      }
    }
  }

  private takePage(volume: VolumeIndex, lba: number, at: number): boolean {
    const { header, view } = this;
    const body = at + ITEM_HEADER_BYTES;
    const isSparse = header.form === 1;
    const step = isSparse ? SPARSE_ENTRY.sizeBytes : PAGE_ENTRY.sizeBytes;
    const count = isSparse ? header.count : REGION_BLOCKS;
    if (count * step > header.bodyBytes || header.bodyBytes > PAGE_BYTES) return false;
    for (let index = 0; index < count; index += 1) {
      const entryAt = body + index * step;
      const block = isSparse ? SPARSE_ENTRY.block.get(view, entryAt) : index;
      const place =
        PAGE_ENTRY.placeLow.get(view, entryAt) +
        PAGE_ENTRY.placeHigh.get(view, entryAt) * 4294967296;
      if (place === 0) continue;
      if (block >= REGION_BLOCKS || lba + block >= volume.blocks) return false;
      const isKnown = place === LOST_PLACE || this.state.geometry.isBlockPlace(place);
      volume.set(lba + block, isKnown ? place : LOST_PLACE, PAGE_ENTRY.check.get(view, entryAt));
    }
    return true;
  }

  private losePage(volume: VolumeIndex, node: IndexNode, region: number, place: number): void {
    const lba = node.number * NODE_BLOCKS + region * REGION_BLOCKS;
    const count = Math.min(REGION_BLOCKS, volume.blocks - lba);
    if (count <= 0) return;
    const segment = this.state.geometry.segmentOf(place);
    this.damage.add("page", volume.id, lba, count, segment, "does not verify");
    for (let block = 0; block < count; block += 1) volume.set(lba + block, LOST_PLACE, 0);
    this.lostPages.push({ volume, node, region });
  }

  private loseNode(volume: VolumeIndex, node: IndexNode, place: number): void {
    const lba = node.number * NODE_BLOCKS;
    const count = Math.min(NODE_BLOCKS, volume.blocks - lba);
    const segment = this.state.geometry.segmentOf(place);
    this.damage.add("node", volume.id, lba, count, segment, "does not verify");
    for (let region = 0; region < NODE_REGIONS; region += 1) {
      const first = lba + region * REGION_BLOCKS;
      const blocks = Math.min(REGION_BLOCKS, volume.blocks - first);
      if (blocks <= 0) break;
      for (let block = 0; block < blocks; block += 1) volume.set(first + block, LOST_PLACE, 0);
      node.raiseTag(region, Math.max(1, this.state.streamEpoch), POINT_MAX);
      this.lostPages.push({ volume, node, region });
    }
  }

  /** Reads an item and checks it; its position in the buffer, or -1. */
  private *readItem(place: number, length: number, kind: number): Task<number> {
    const { geometry } = this.state;
    if (length < ITEM_HEADER_BYTES || length > LOAD_BUFFER_BYTES / 2) return -1;
    if (!geometry.isPlace(place)) return -1;
    const offset = place * PLACE_UNIT;
    const segment = geometry.segmentOf(place);
    const segmentEnd = geometry.offsetOf(segment) + geometry.segmentBytes;
    if (offset + length > segmentEnd) return -1;
    const inBuffer = offset >= this.bufferOffset;
    if (!inBuffer || offset + length > this.bufferOffset + this.bufferLength) {
      const from = offset - (offset % 4096);
      const want = Math.min(LOAD_BUFFER_BYTES, segmentEnd - from);
      yield* this.fill(from, want, roundUp(offset + length - from, 4096));
      if (offset + length > this.bufferOffset + this.bufferLength) return -1;
    }
    const at = offset - this.bufferOffset;
    if (!decodeItemHeader(this.buffer, this.view, at, this.header)) return -1;
    if (this.header.kind !== kind || this.header.bodyBytes !== length - ITEM_HEADER_BYTES) {
      return -1;
    }
    return itemBodyIsWhole(this.buffer, at, this.header) ? at : -1;
  }

  /** Reads ahead; if the disk cannot, only what is needed. */
  private *fill(from: number, want: number, need: number): Task<void> {
    this.bufferOffset = from;
    this.bufferLength = 0;
    let got = yield* this.io.read(from, this.buffer, 0, want);
    if (got !== want && need < want) got = yield* this.io.read(from, this.buffer, 0, need);
    if (got > 0) this.bufferLength = got;
  }
}

function settleNode(node: IndexNode): void {
  node.changed.fill(0);
  node.isDirty = false;
}

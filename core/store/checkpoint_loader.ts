/**
 * Reads a checkpoint: the root and the nodes; pages are read when they are needed. What does not
 * verify is not believed: a damaged node makes the blocks of its 256 regions LOST (reads answer
 * io until a mirror's copy heals them); the other copy stands in for a damaged root.
 */
import { REGION_BLOCKS, roundUp, type VolumeId } from "../base/units.ts";
import { decode } from "../format/codec.ts";
import {
  NODE_REGION,
  NODE_REGIONS,
  ROOT,
  ROOT_FLAG,
  STORED_SEGMENT,
} from "../format/checkpoint.ts";
import { ITEM_HEADER_BYTES, ITEM_KIND, PLACE_UNIT } from "../format/segment.ts";
import type { Superblock } from "../format/superblock.ts";
import { type Root, rootChunkBytes } from "./checkpoint_root.ts";
import type { Damage } from "./damage.ts";
import type { IndexNode } from "./index_node.ts";
import type { ItemReader } from "./item_reader.ts";
import { SEGMENT } from "./segment_table.ts";
import type { StoreState } from "./state.ts";
import type { Task } from "./task.ts";
import { NODE_BLOCKS, type VolumeIndex } from "./volume_index.ts";

/** Tag of a region of which nothing is known: later than every other in its epoch. */
const POINT_MAX = 0xffffffff;
const VOLUME_BLOCKS_MAX = 2 ** 38;
/** Nodes closer to each other than this are read at once. */
const GAP_PLACES_MAX = (64 * 1024) / PLACE_UNIT;

/** A node to read, and who holds it: a version, or the graveyard. */
interface Wanted {
  readonly place: number;
  readonly bytes: number;
  readonly volume: VolumeId;
  readonly number: number;
  readonly version: VolumeIndex | null;
  /** Of the graveyard's; see `GraveNode`. */
  readonly order: number;
}

export class CheckpointLoader {
  /** Where the chunks of both roots lie. */
  readonly rootPlaces: number[] = [];
  readonly rootBytes: number[] = [];
  private readonly state: StoreState;
  private readonly damage: Damage;
  private readonly reader: ItemReader;
  private readonly wanted: Wanted[] = [];
  /** Pages that several nodes may share, by the place of their stored version; else null. */
  private sharedPages: Map<number, number> | null = null;

  constructor(state: StoreState, damage: Damage, reader: ItemReader) {
    this.state = state;
    this.damage = damage;
    this.reader = reader;
  }

  /** Loads root and nodes; false if neither root can be read. */
  *load(superblock: Superblock): Task<boolean> {
    const root = yield* this.findRoot(superblock);
    if (root === null || !this.takeRoot(root)) return false;
    const extra = root.snapshots.length + root.graveNodes.length + root.gravePages.length;
    if (extra > 0) this.sharedPages = new Map();
    yield* this.loadNodes();
    for (const grave of root.gravePages) this.takeGravePage(grave);
    const { pool } = this.state;
    for (const version of [...this.state.volumes.values(), ...this.state.snapshots]) {
      for (const node of version.nodes) {
        if (node !== null) version.usedBlocks += node.usedBlocks(pool.pages);
      }
    }
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
    // Put together when all is there: a superblock may name any length.
    const chunks: Uint8Array[] = [];
    const places: number[] = [];
    const lengths: number[] = [];
    const { reader } = this;
    let place = lastPlace;
    for (let number = count - 1; number >= 0; number -= 1) {
      const bytes = Math.min(chunkBytes, rootBytes - number * chunkBytes);
      const length = ITEM_HEADER_BYTES + roundUp(bytes, 16);
      const at = yield* reader.read(place, length, ITEM_KIND.root, 0);
      if (at < 0 || reader.header.subject !== number) return null;
      const body = at + ITEM_HEADER_BYTES;
      chunks.push(reader.buffer.slice(body, body + bytes));
      places.push(place);
      lengths.push(length);
      place = reader.header.number;
    }
    this.rootPlaces.push(...places);
    this.rootBytes.push(...lengths);
    for (let index = 0; index < places.length; index += 1) {
      this.state.segments.addMeta(places[index]!, lengths[index]!);
    }
    const root = new Uint8Array(rootBytes);
    for (let index = 0; index < chunks.length; index += 1) {
      root.set(chunks[index]!, (count - 1 - index) * chunkBytes);
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
      const id = stored.id as VolumeId;
      const volume = state.addVolume({ id, blocks: stored.blocks });
      if (!this.takeNodes(volume, stored.nodes)) return false;
    }
    if (!this.takeSnapshots(root)) return false;
    for (const { volume, number, place, bytes, order } of root.graveNodes) {
      this.wanted.push({ place, bytes, volume: volume as VolumeId, number, version: null, order });
    }
    for (const { place, units } of root.gravePages) {
      if (!state.geometry.holdsItem(place, units * PLACE_UNIT)) return false;
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
      state.segments.liveBlocks[segment] = stored.liveBlocks;
      state.segments.liveBlockCount += stored.liveBlocks;
    }
    state.pool.isInexact = (root.flags & ROOT_FLAG.inexact) !== 0;
    state.streamEpoch = root.streamEpoch;
    state.streamSeqs.set(root.streamSeqs);
    return true;
  }

  private takeSnapshots(root: Root): boolean {
    const { state } = this;
    state.lastOrder = root.lastOrder;
    for (const { volume: id, id: number, order, isDying, blocks, nodes } of root.snapshots) {
      const volume = state.volume(id);
      if (volume === undefined || blocks < 1 || blocks > volume.blocks) return false;
      if (order > root.lastOrder || order <= (volume.older?.order ?? 0)) return false;
      const snapshot = state.adoptSnapshot(volume, number, order, blocks);
      snapshot.isDying = isDying === 1;
      for (const node of nodes) {
        if (node.number >= snapshot.nodes.length) return false;
        this.wanted.push({ ...node, volume: volume.id, version: snapshot, order: 0 });
      }
    }
    return true;
  }

  private takeNodes(version: VolumeIndex, nodes: Root["volumes"][number]["nodes"]): boolean {
    let next = 0;
    for (const stored of nodes) {
      const { number, run, place, bytes } = stored;
      if (number < next || run < 1 || number + run > version.nodes.length) return false;
      next = number + run;
      for (let each = number; each < number + run; each += 1) {
        version.wideEpochs[each] = stored.tagEpoch;
        version.widePoints[each] = stored.tagPoint;
      }
      if (place !== 0)
        this.wanted.push({ place, bytes, volume: version.id, number, version, order: 0 });
    }
    return true;
  }

  /** Nodes in the order in which they lie, each once however many hold it. */
  private *loadNodes(): Task<void> {
    const { wanted } = this;
    wanted.sort((left, right) => left.place - right.place);
    let last: IndexNode | null = null;
    for (let index = 0; index < wanted.length; index += 1) {
      const each = wanted[index]!;
      if (last !== null && last.place === each.place && last.volume === each.volume) {
        last.refs += 1;
      } else {
        last = yield* this.loadNode(each, this.aheadOf(index));
      }
      if (each.version !== null) each.version.nodes[each.number] = last;
      else this.state.pool.graveyard.nodes.push({ node: last, order: each.order });
    }
  }

  /** The place up to which nodes lie close together from this one on. */
  private aheadOf(index: number): number {
    const { wanted } = this;
    let end = wanted[index]!.place + wanted[index]!.bytes / PLACE_UNIT;
    for (let next = index + 1; next < wanted.length; next += 1) {
      const { place, bytes } = wanted[next]!;
      if (place - end > GAP_PLACES_MAX) break;
      end = place + bytes / PLACE_UNIT;
    }
    return end;
  }

  private *loadNode(wanted: Wanted, ahead: number): Task<IndexNode> {
    const { reader } = this;
    const node = this.state.pool.createNode(wanted.volume, wanted.number, null);
    const at = yield* reader.read(wanted.place, wanted.bytes, ITEM_KIND.node, ahead);
    const { header, view } = reader;
    const isIt = at >= 0 && header.subject === wanted.volume && header.number === wanted.number;
    if (!isIt || !this.isSound(at)) {
      this.loseNode(node, wanted);
      return node;
    }
    node.place = wanted.place;
    node.bytes = wanted.bytes;
    this.state.segments.addMeta(node.place, node.bytes);
    for (let index = 0; index < header.count; index += 1) {
      const entryAt = at + ITEM_HEADER_BYTES + index * NODE_REGION.sizeBytes;
      const region = NODE_REGION.region.get(view, entryAt);
      node.tagEpochs[region] = NODE_REGION.tagEpoch.get(view, entryAt);
      node.tagPoints[region] = NODE_REGION.tagPoint.get(view, entryAt);
      const place = NODE_REGION.pagePlace.get(view, entryAt);
      if (place === 0) continue;
      node.pageCount += 1;
      node.pages[region] = this.takePage(
        place,
        NODE_REGION.pageUnits.get(view, entryAt),
        NODE_REGION.entryCount.get(view, entryAt),
        NODE_REGION.lostCount.get(view, entryAt),
      );
    }
    return node;
  }

  /** True if the entries of the node just read say what can be. */
  private isSound(at: number): boolean {
    const { header, view } = this.reader;
    const { geometry } = this.state;
    if (header.count * NODE_REGION.sizeBytes > header.bodyBytes) return false;
    let before = -1;
    for (let index = 0; index < header.count; index += 1) {
      const entryAt = at + ITEM_HEADER_BYTES + index * NODE_REGION.sizeBytes;
      const region = NODE_REGION.region.get(view, entryAt);
      if (region <= before || region >= NODE_REGIONS) return false;
      before = region;
      const entryCount = NODE_REGION.entryCount.get(view, entryAt);
      if (entryCount > REGION_BLOCKS) return false;
      if (NODE_REGION.lostCount.get(view, entryAt) > entryCount) return false;
      const place = NODE_REGION.pagePlace.get(view, entryAt);
      const bytes = NODE_REGION.pageUnits.get(view, entryAt) * PLACE_UNIT;
      if (place !== 0 && !geometry.holdsItem(place, bytes)) return false;
    }
    return true;
  }

  /** The page whose stored version lies there, held once more. */
  private takePage(place: number, units: number, entryCount: number, lostCount: number): number {
    const { pages } = this.state.pool;
    const known = this.sharedPages?.get(place);
    if (known !== undefined) {
      pages.refs[known] = pages.refs[known]! + 1;
      return known;
    }
    const page = pages.create();
    pages.places[page] = place;
    pages.units[page] = units;
    pages.counts[page] = entryCount;
    pages.losts[page] = lostCount;
    this.state.segments.addMeta(place, units * PLACE_UNIT);
    this.sharedPages?.set(place, page);
    return page;
  }

  private takeGravePage(grave: Root["gravePages"][number]): void {
    const { pool } = this.state;
    const page = this.takePage(grave.place, grave.units, grave.entryCount, grave.lostCount);
    const { region, order } = grave;
    pool.graveyard.pages.push({ page, volume: grave.volume as VolumeId, region, order });
  }

  private loseNode(node: IndexNode, wanted: Wanted): void {
    const { pool, geometry } = this.state;
    pool.isInexact = true;
    const lba = node.number * NODE_BLOCKS;
    const inVolume = (wanted.version?.blocks ?? 0) - lba;
    const count = Math.max(0, Math.min(NODE_BLOCKS, inVolume));
    const segment = geometry.segmentOf(wanted.place);
    this.damage.add("node", node.volume, lba, count, segment, "does not verify");
    for (let region = 0; region * REGION_BLOCKS < count; region += 1) {
      const page = pool.createPage();
      pool.losePage(page, Math.min(REGION_BLOCKS, count - region * REGION_BLOCKS));
      node.pages[region] = page;
      node.pageCount += 1;
      node.raiseTag(region, Math.max(1, this.state.streamEpoch), POINT_MAX);
    }
    pool.touchNode(node);
  }
}

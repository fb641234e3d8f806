/** The root of a checkpoint: what it says beside nodes and pages, kept as it was at the cut. */
import {
  META_SLOTS,
  type ROOT,
  ROOT_CHUNK_BYTES,
  ROOT_FLAG,
  STORED_SEGMENT,
} from "../format/checkpoint.ts";
import type { Decoded } from "../format/codec.ts";
import type { GraveNode, GravePage } from "./graveyard.ts";
import type { IndexNode } from "./index_node.ts";
import { SEGMENT } from "./segment_table.ts";
import type { StoreState } from "./state.ts";

export type Root = Decoded<typeof ROOT>;
export type RootVolume = Root["volumes"][number];
export type RootNode = RootVolume["nodes"][number];

interface VersionCut {
  readonly id: number;
  readonly blocks: number;
  readonly nodes: readonly (IndexNode | null)[];
  readonly wideEpochs: Float64Array;
  readonly widePoints: Uint32Array;
}

interface SnapshotCut {
  readonly id: number;
  readonly snapshot: number;
  readonly order: number;
  readonly isDying: boolean;
  readonly blocks: number;
  readonly nodes: readonly (IndexNode | null)[];
}

/**
 * The state at a checkpoint's cut. Nodes are referred to, not copied: those to be written are
 * held by the checkpoint, and the others keep saying where their stored version lies, which is
 * all that the root needs, whatever becomes of them.
 */
export class RootCut {
  private readonly state: StoreState;
  private readonly volumes: VersionCut[];
  private readonly snapshots: SnapshotCut[];
  private readonly lastOrder: number;
  private readonly graveNodes: GraveNode[];
  private readonly gravePages: GravePage[];
  private readonly segmentStates: Uint8Array;
  private readonly stamps: Float64Array;
  private readonly lastSeqs: Float64Array;
  private readonly liveBlocks: Int32Array;
  private readonly metas: (Uint8Array | null)[];
  private readonly streamEpoch: number;
  private readonly streamSeqs: number[];

  constructor(state: StoreState) {
    const { segments, pool } = state;
    this.state = state;
    this.volumes = [...state.volumes.values()].map((volume) => ({
      id: volume.id,
      blocks: volume.blocks,
      nodes: volume.nodes.slice(),
      wideEpochs: volume.wideEpochs.slice(),
      widePoints: volume.widePoints.slice(),
    }));
    this.snapshots = state.snapshots.map(({ id, snapshot, order, isDying, blocks, nodes }) => ({
      id,
      snapshot,
      order,
      isDying,
      blocks,
      nodes: nodes.slice(),
    }));
    this.lastOrder = state.lastOrder;
    this.graveNodes = pool.graveyard.nodes.slice();
    this.gravePages = pool.graveyard.pages.slice();
    this.segmentStates = segments.state.slice();
    this.stamps = segments.stamp.slice();
    this.lastSeqs = segments.lastSeq.slice();
    this.liveBlocks = segments.liveBlocks.slice();
    this.metas = state.metas.slice();
    this.streamEpoch = state.streamEpoch;
    this.streamSeqs = [...state.streamSeqs];
  }

  /** The root, once all nodes held for the checkpoint are written. */
  build(): Root {
    const { pages, isInexact } = this.state.pool;
    return {
      flags: isInexact ? ROOT_FLAG.inexact : 0,
      volumes: this.volumes.map((volume) => ({
        id: volume.id,
        blocks: volume.blocks,
        nodes: nodesOf(volume),
      })),
      snapshots: this.snapshots.map(({ id, snapshot, order, isDying, blocks, nodes }) => ({
        volume: id,
        id: snapshot,
        order,
        isDying: isDying ? 1 : 0,
        blocks,
        nodes: storedNodesOf(nodes),
      })),
      lastOrder: this.lastOrder,
      graveNodes: this.graveNodes.map(({ node, order }) => ({
        volume: node.volume,
        number: node.number,
        place: node.place,
        bytes: node.bytes,
        order,
      })),
      gravePages: this.gravePages.map(({ page, volume, region, order }) => ({
        volume,
        region,
        place: pages.places[page]!,
        units: pages.units[page]!,
        entryCount: pages.counts[page]!,
        lostCount: pages.losts[page]!,
        order,
      })),
      segments: this.segments(),
      metas: this.documents(),
      streamEpoch: this.streamEpoch,
      streamSeqs: this.streamSeqs,
    };
  }

  private segments(): Root["segments"] {
    const table: Root["segments"] = [];
    for (let segment = 0; segment < this.segmentStates.length; segment += 1) {
      const state = this.segmentStates[segment];
      const isFree = state === SEGMENT.free || state === SEGMENT.discarding;
      table.push({
        state: isFree ? STORED_SEGMENT.free : STORED_SEGMENT.used,
        stamp: this.stamps[segment]!,
        lastSeq: this.lastSeqs[segment]!,
        liveBlocks: this.liveBlocks[segment]!,
      });
    }
    return table;
  }

  private documents(): Root["metas"] {
    const metas: Root["metas"] = [];
    for (let slot = 0; slot < META_SLOTS; slot += 1) {
      const bytes = this.metas[slot];
      if (bytes !== null && bytes !== undefined) metas.push({ slot, bytes });
    }
    return metas;
  }
}

function nodesOf(volume: VersionCut): RootNode[] {
  const nodes: RootNode[] = [];
  for (let number = 0; number < volume.nodes.length; number += 1) {
    const node = volume.nodes[number];
    const tagEpoch = volume.wideEpochs[number] ?? 0;
    const tagPoint = volume.widePoints[number] ?? 0;
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

function storedNodesOf(
  nodes: readonly (IndexNode | null)[],
): { number: number; place: number; bytes: number }[] {
  const stored: { number: number; place: number; bytes: number }[] = [];
  for (const node of nodes) {
    if (node === null || node.place === 0) continue;
    stored.push({ number: node.number, place: node.place, bytes: node.bytes });
  }
  return stored;
}

/** Root chunks are smaller in stores with very small segments. */
export function rootChunkBytes(segmentBytes: number): number {
  return Math.min(ROOT_CHUNK_BYTES, segmentBytes / 4);
}

/**
 * Watches every append of every host and checks what only somebody who sees all of them can
 * (docs/guarantees.md):
 *
 *  V3 after a promise nothing of an older epoch is appended, but what R5 brings;
 *  V5 what a FLUSH covers is durable on every recipient when it is answered;
 *  V6 two uncommitted records of different senders for one block never meet in one log;
 *  V7 per block, all recipients' logs have the records of an epoch in the same order;
 *  V8 what is tagged below a logged POINT is durable and equal on every recipient;
 *  V9 no request is twice in one log;
 *  V13 queues stay within their limits.
 */
import { LIMITS } from "../../core/base/limits.ts";
import { BLOCK_BYTES, REGION_BLOCKS } from "../../core/base/units.ts";
import { decode } from "../../core/format/codec.ts";
import { STORE_POINT } from "../../core/format/host_wire.ts";
import {
  ENTRY,
  hasBlocks,
  RECORD_HEADER_BYTES,
  RECORD_TYPE,
  type RecordHeader,
  STORED_BLOCK_BYTES,
} from "../../core/format/record.ts";
import { META } from "../../core/host/store_life.ts";
import type { Store } from "../../core/store/store.ts";
import type { SimNode } from "./node.ts";

type Fail = (why: string) => never;

/** Regions of the simulated volume. */
const REGIONS = 3;

/** What one log of one life has seen. */
class LogView {
  /** Value per block after the newest append; blocks from before this life are not there. */
  readonly values = new Map<number, number>();
  /** Where the record with a value ends in the log. */
  readonly ends = new Map<number, number>();
  /** Where the newest record of a region ends in the log. */
  readonly regionEnds = new Map<number, number>();
  /** Records per (epoch, block), in the log's order. */
  readonly counts = new Map<string, number>();
  readonly requests = new Map<string, string>();
}

export class Observer {
  private readonly nodes: readonly SimNode[];
  private readonly fail: Fail;
  private readonly logs = new WeakMap<Store, LogView>();
  /** The order of an epoch's records for a block, as the first log that got there has it. */
  private readonly orders = new Map<string, string[]>();
  private readonly tag = { epoch: 0, point: 0 };
  /** Writes answered and covered by no FLUSH yet. */
  private unflushed: { value: number; answeredMs: number }[] = [];
  appends = 0;

  constructor(nodes: readonly SimNode[], fail: Fail) {
    this.nodes = nodes;
    this.fail = fail;
  }

  /** Called after every batch of a node's events; begins to watch a store it has not seen. */
  look(node: SimNode): void {
    const parts = node.host?.inside.parts;
    if (parts === undefined) return;
    if (parts.ops.slots.length > LIMITS.waitingRequestsMax) this.fail("V13: too many requests");
    const { windowBytes, windowRecords, heldBytes } = parts.mirror.status();
    if (windowBytes > LIMITS.windowBytes) this.fail("V13: the window is larger than its bound");
    if (windowRecords > LIMITS.windowRecordsMax) this.fail("V13: too many records in the window");
    if (heldBytes > LIMITS.heldBytesMax) this.fail("V13: too many bytes held");
    const { store } = parts;
    if (store === null) return;
    // A host that was voted out may have records that never happened; their requests come again.
    const role = node.host?.inside.change.role;
    if (role !== "member") this.logs.get(store)?.requests.clear();
    if (this.logs.has(store)) return;
    this.logs.set(store, new LogView());
    this.wrap(node, store);
  }

  private wrap(node: SimNode, store: Store): void {
    const { appendWrite, appendRecord, appendEmpty } = store;
    store.appendWrite = (header, data, at) => {
      this.appended(node, store, header);
      appendWrite.call(store, header, data, at);
      this.noteContent(store, header, data, at, BLOCK_BYTES);
    };
    store.appendRecord = (header, buffer, at, length) => {
      this.appended(node, store, header);
      appendRecord.call(store, header, buffer, at, length);
      const first = at + RECORD_HEADER_BYTES + ENTRY.sizeBytes;
      this.noteContent(store, header, buffer, first, STORED_BLOCK_BYTES);
    };
    store.appendEmpty = (header) => {
      this.appended(node, store, header);
      appendEmpty.call(store, header);
      this.noteContent(store, header, null, 0, 0);
    };
    const { putMeta } = store;
    store.putMeta = (slot, bytes) => {
      putMeta.call(store, slot, bytes);
      if (slot === META.point) this.pointLogged(node, store, bytes);
    };
  }

  /** A client has the answer of the write of `value`. */
  writeAnswered(value: number, nowMs: number): void {
    this.unflushed.push({ value, answeredMs: nowMs });
  }

  /** V5: a FLUSH that began at `invokedMs` is answered. */
  flushAnswered(invokedMs: number): void {
    const covered = this.unflushed.filter((each) => each.answeredMs < invokedMs);
    this.unflushed = this.unflushed.filter((each) => each.answeredMs >= invokedMs);
    for (const { node, store } of this.recipients()) {
      const log = this.logs.get(store);
      for (const { value } of covered) {
        const end = log?.ends.get(value);
        if (end === undefined || end <= store.durableLsn) continue;
        this.fail(`V5: a FLUSH was answered while ${value} is not durable on host ${node.id}`);
      }
    }
  }

  /** What was not flushed may be gone, and no FLUSH speaks of it any more. */
  blackout(): void {
    this.unflushed = [];
  }

  /** V8, for every region whose tag is below the point on both hosts. */
  private pointLogged(node: SimNode, store: Store, bytes: Uint8Array): void {
    const reached = decode(STORE_POINT, bytes);
    const own = this.logs.get(store);
    // A host that is still being filled logs the point too; it says nothing of what it lacks.
    if (reached === null || own === undefined) return;
    if (node.host?.inside.change.role !== "member") return;
    for (const other of this.recipients()) {
      const log = this.logs.get(other.store);
      if (other.store === store || log === undefined) continue;
      for (let region = 0; region < REGIONS; region += 1) {
        if (!this.isBelow(node, store, region, reached)) continue;
        if (!this.isBelow(other.node, other.store, region, reached)) continue;
        if ((log.regionEnds.get(region) ?? 0) > other.store.durableLsn) {
          this.fail(`V8: region ${region} is not durable on host ${other.node.id}`);
        }
        this.checkEqual(region, { node, log: own }, { node: other.node, log });
      }
    }
  }

  private isBelow(
    node: SimNode,
    store: Store,
    region: number,
    reached: { epoch: number; point: number },
  ): boolean {
    const volume = node.host?.inside.parts.options.volumes[0];
    if (volume === undefined) return false;
    store.regionTag(volume.id, region, this.tag);
    if (this.tag.epoch !== reached.epoch) return this.tag.epoch < reached.epoch;
    return this.tag.point < reached.point;
  }

  private checkEqual(
    region: number,
    one: { node: SimNode; log: LogView },
    two: { node: SimNode; log: LogView },
  ): void {
    const first = region * REGION_BLOCKS;
    for (let lba = first; lba < first + REGION_BLOCKS; lba += 1) {
      const left = one.log.values.get(lba);
      const right = two.log.values.get(lba);
      if (left === undefined || right === undefined || left === right) continue;
      this.fail(`V8: block ${lba} is ${left} on ${one.node.id} and ${right} on ${two.node.id}`);
    }
  }

  /** Hosts that are recipients of the newest open view, and open there. */
  private recipients(): { node: SimNode; store: Store }[] {
    let newest = 0;
    for (const node of this.nodes) newest = Math.max(newest, node.host?.inside.parts.epoch ?? 0);
    const found: { node: SimNode; store: Store }[] = [];
    for (const node of this.nodes) {
      const inside = node.host?.inside;
      const store = inside?.parts.store ?? null;
      if (inside === undefined || store === null || inside.parts.epoch !== newest) continue;
      if (inside.change.role === "member") found.push({ node, store });
    }
    return newest === 0 ? [] : found;
  }

  private noteContent(
    store: Store,
    header: RecordHeader,
    data: Uint8Array | null,
    at: number,
    stride: number,
  ): void {
    const log = this.logs.get(store);
    if (log === undefined || header.type === RECORD_TYPE.mark) return;
    const view = data === null ? null : new DataView(data.buffer, data.byteOffset);
    for (let index = 0; index < header.blockCount; index += 1) {
      const lba = header.lba + index;
      const value =
        view === null || !hasBlocks(header.type) ? 0 : view.getUint32(at + index * stride);
      // A healed block is as durable as it was before it rotted: that it rots is no loss of ours.
      if (value !== 0 && log.values.get(lba) === value) continue;
      log.values.set(lba, value);
      log.ends.set(value, store.lastLsn);
      log.regionEnds.set(Math.floor(lba / REGION_BLOCKS), store.lastLsn);
    }
  }

  private appended(node: SimNode, store: Store, header: RecordHeader): void {
    const inside = node.host?.inside;
    if (inside === undefined || header.seq === 0 || header.type === RECORD_TYPE.mark) return;
    if (!hasBlocks(header.type) && header.type !== RECORD_TYPE.zero) return;
    const { parts } = inside;
    this.appends += 1;
    const id = `${header.epoch}/${header.sender}/${header.seq}`;
    if (parts.epoch !== 0 && header.epoch !== parts.epoch) {
      this.fail(`V3: host ${node.id} appended ${id} in epoch ${parts.epoch}`);
    }
    for (const [sender, queue] of parts.uncommitted.entries()) {
      if (sender === header.sender) continue;
      const other = queue.newestOverlap(header.volume, header.lba, header.blockCount);
      if (other === 0 || this.isCommitted(parts.epoch, sender, other)) continue;
      this.fail(`V6: host ${node.id} has ${id} and the uncommitted ${other} of ${sender}`);
    }
    const log = this.logs.get(store);
    if (log === undefined) return;
    this.checkRequest(node, log, header, id);
    for (let lba = header.lba; lba < header.lba + header.blockCount; lba += 1) {
      this.checkOrder(node, log, header.epoch, lba, id);
    }
  }

  /** What its sender knows, which is more than what the log's host has heard. */
  private isCommitted(epoch: number, sender: number, seq: number): boolean {
    const parts = this.nodes[sender]?.host?.inside.parts;
    if (parts === undefined || parts.epoch !== epoch) return true;
    return parts.mirror.committedOf(parts.self) >= seq;
  }

  private checkRequest(node: SimNode, log: LogView, header: RecordHeader, id: string): void {
    if (header.request === 0) return;
    const request = `${header.origin}.${header.originInc}.${header.request}`;
    const known = log.requests.get(request);
    if (known !== undefined && known !== id) {
      this.fail(`V9: request ${request} is in the log of host ${node.id} as ${known} and ${id}`);
    }
    log.requests.set(request, id);
  }

  private checkOrder(node: SimNode, log: LogView, epoch: number, lba: number, id: string): void {
    const key = `${epoch}:${lba}`;
    const position = log.counts.get(key) ?? 0;
    log.counts.set(key, position + 1);
    const order = this.orders.get(key) ?? [];
    if (position === 0) this.orders.set(key, order);
    const expected = order[position];
    if (expected === undefined) order.push(id);
    else if (expected !== id) {
      this.fail(`V7: block ${lba}: host ${node.id} has ${id} where another has ${expected}`);
    }
  }
}

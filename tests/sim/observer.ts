/**
 * Watches every append of every host and checks what only somebody who sees all of them can
 * (DESIGN.md section 8):
 *
 *  V3 after a promise nothing of an older epoch is appended, but what R5 brings;
 *  V6 two uncommitted records of different senders for one block never meet in one log;
 *  V7 per block, all recipients' logs have the records of an epoch in the same order;
 *  V9 no request is twice in one log;
 *  V13 queues stay within their limits.
 */
import { LIMITS } from "../../core/base/limits.ts";
import { hasBlocks, RECORD_TYPE, type RecordHeader } from "../../core/format/record.ts";
import type { Store } from "../../core/store/store.ts";
import type { SimNode } from "./node.ts";

type Fail = (why: string) => never;

/** What one log of one life has seen. */
class LogView {
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
    if (store === null || this.logs.has(store)) return;
    this.logs.set(store, new LogView());
    this.wrap(node, store);
  }

  private wrap(node: SimNode, store: Store): void {
    const { appendWrite, appendRecord, appendEmpty } = store;
    store.appendWrite = (header, data, at) => {
      this.appended(node, store, header);
      appendWrite.call(store, header, data, at);
    };
    store.appendRecord = (header, buffer, at, length) => {
      this.appended(node, store, header);
      appendRecord.call(store, header, buffer, at, length);
    };
    store.appendEmpty = (header) => {
      this.appended(node, store, header);
      appendEmpty.call(store, header);
    };
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

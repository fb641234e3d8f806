/**
 * The store's life inside a host: opened, formatted, failed, replaced. Also the routing of what
 * the store owes: each sync belongs to the mirror (acks, barriers), to a sync point, or to the
 * end of a resync.
 *
 *   none -> opening -> ok -> failed
 *     ^________________________|   (recover: a new disk)
 */
import { assert } from "../base/assert.ts";
import { crc32Text } from "../base/checksum.ts";
import type { Disk } from "../base/ports.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import type { StoreOpened, StoreRefusal, StoreSink, StoreStats } from "../store/contract.ts";
import { Store } from "../store/store.ts";
import type { Parts } from "./parts.ts";

export const SYNC_FOR = { mirror: 0, point: 1, copied: 2, view: 3 } as const;

/** Store meta slots. Append only. */
export const META = { view: 0, point: 1 } as const;

/**
 * What may happen to what lies on the disk: `existing`: a good store or nothing; `new`: a blank
 * disk becomes a store (a cluster that never had a view); `recover`: so does a bad store of ours;
 * `force`: so does anything.
 */
export type OpenMode = "existing" | "new" | "recover" | "force";

function mayReplace(mode: OpenMode, code: StoreRefusal): boolean {
  if (code === "io" || code === "small") return false;
  switch (mode) {
    case "existing":
      return false;
    case "new":
      return code === "blank";
    case "recover":
      return code === "blank" || code === "damaged" || code === "truncated";
    case "force":
      return true;
  }
}

export interface StoreLifeSink {
  /** The store opened or will not; the host may start or go on. */
  storeSettled(): void;
  storeFailed(why: string): void;
  storeClosed(): void;
  synced(purpose: number, token: number, ok: boolean): void;
}

export class StoreLife {
  private readonly parts: Parts;
  private readonly sink: StoreLifeSink;
  /** The store whose disk events are ours; kept after a failure only to be told apart. */
  private opening: Store | null = null;
  state: "none" | "opening" | "ok" | "failed" = "none";
  /** One sentence whenever the state is not ok. */
  why = "";
  /** One sentence while records of the store are lost and nothing made them good. */
  lossWhy = "";
  /** The store was made just now: it holds nothing. */
  isFresh = false;
  private mode: OpenMode = "existing";
  private disk: Disk | null = null;
  private scrubRate: number | null;

  constructor(parts: Parts, sink: StoreLifeSink) {
    this.parts = parts;
    this.sink = sink;
    this.scrubRate = parts.options.scrubBytesPerSecond;
  }

  /** Begins a pass now; null, or why not. */
  scrub(): string | null {
    const scrubber = this.parts.store?.scrubber ?? null;
    if (scrubber === null) return "this host has no working store";
    if (this.scrubRate === 0) return "the scrub is off in the config";
    scrubber.begin();
    return null;
  }

  /** For the store that is open, and any later one. */
  setScrubRate(bytesPerSecond: number | null): void {
    this.scrubRate = bytesPerSecond;
    this.parts.store?.scrubber?.setRate(bytesPerSecond);
  }

  /** Opens the store on `disk`, or makes one as `mode` allows. */
  open(disk: Disk, storeSink: StoreSink, mode: OpenMode): void {
    this.disk = disk;
    this.mode = mode;
    this.state = "opening";
    this.why = "the store is being opened";
    this.lossWhy = "";
    this.isFresh = false;
    this.opening = this.make(disk, storeSink);
    this.opening.open(this.parts.nowMs, this.identity());
  }

  absent(why: string): void {
    this.state = "none";
    this.why = why;
  }

  /** Answer of the store's `open` or `format`. */
  opened(result: StoreOpened, storeSink: StoreSink): void {
    assert(this.opening !== null, "store life: nothing is opening");
    if (result.ok) {
      this.state = "ok";
      this.why = "";
      this.isFresh = result.fresh;
      if (result.lostRecords > 0) this.tellLost(result.lostRecords);
      this.parts.store = this.opening;
      this.sink.storeSettled();
      return;
    }
    if (mayReplace(this.mode, result.code)) {
      this.format(storeSink);
      return;
    }
    this.state = "failed";
    this.why = result.why;
    if (result.code === "blank") this.why = "the store is blank; `vsan recover` rebuilds it";
    else if (this.mode === "recover" && mayReplace("force", result.code)) {
      this.why = `${result.why}; only --force overwrites it`;
    }
    this.opening = null;
    this.sink.storeSettled();
  }

  /** A joiner copies everything; a cold start prefers any other base (R12a). */
  private tellLost(count: number): void {
    const records = count === 1 ? "1 durable log record" : `${count} durable log records`;
    this.lossWhy = `${records} cannot be read any more; blocks they held may be old`;
    this.parts.ports.trace.event("error", "store.lost_records", this.lossWhy);
  }

  /** The store poisoned itself: the host goes on without its disk. */
  fail(why: string): void {
    this.state = "failed";
    this.why = why;
    this.parts.store = null;
    this.sink.storeFailed(why);
  }

  sync(purpose: number, token: number): void {
    const { store } = this.parts;
    if (store === null) this.sink.synced(purpose, token, false);
    else store.sync(token * 4 + purpose);
  }

  synced(token: number, ok: boolean): void {
    this.sink.synced(token % 4, Math.floor(token / 4), ok);
  }

  diskDone(tag: number, result: number): void {
    this.opening?.diskDone(this.parts.nowMs, tag, result);
  }

  settle(): void {
    if (this.state === "opening" || this.state === "ok") this.opening?.settle(this.parts.nowMs);
  }

  expire(): void {
    const { nowMs } = this.parts;
    if (this.opening !== null && this.opening.nextDeadlineMs() <= nowMs) this.opening.expire(nowMs);
  }

  nextDeadlineMs(): number {
    return this.opening?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
  }

  close(): void {
    if (this.parts.store === null) this.sink.storeClosed();
    else this.parts.store.close(this.parts.nowMs);
  }

  stats(): StoreStats | null {
    return this.parts.store?.stats() ?? null;
  }

  private format(storeSink: StoreSink): void {
    assert(this.disk !== null, "store life: no disk to format");
    const { entropy } = this.parts.ports;
    this.opening = this.make(this.disk, storeSink);
    this.mode = "existing";
    this.opening.format(this.parts.nowMs, {
      ...this.identity(),
      storeId: [entropy.u32(), entropy.u32()],
    });
  }

  private make(disk: Disk, storeSink: StoreSink): Store {
    const { options, ports, rules } = this.parts;
    return new Store(
      {
        segmentBytes: options.segmentBytes,
        diskTimeoutMs: options.timing.diskTimeoutMs,
        indexBytes: options.indexBytes,
        volumes: options.volumes.map((volume) => ({
          id: volume.id,
          blocks: volume.sizeBytes / BLOCK_BYTES,
        })),
        scrub: {
          bytesPerSecond: this.scrubRate,
          everyMs: options.timing.scrubEveryMs,
          wallOffsetMs: options.wallOffsetMs,
        },
      },
      disk,
      storeSink,
      ports.trace,
      rules,
    );
  }

  private identity(): { clusterId: number; hostId: Parts["self"] } {
    return { clusterId: crc32Text(this.parts.options.clusterName), hostId: this.parts.self };
  }
}

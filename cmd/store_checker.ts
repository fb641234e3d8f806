/**
 * Reads a whole store offline: opens it as a host would, on an overlay so that nothing changes,
 * then reads every block of every volume, each checked against its checksum and address (G5).
 */
import { statSync } from "node:fs";
import { crc32Text } from "../core/base/checksum.ts";
import { OUTCOME, type Outcome } from "../core/base/outcome.ts";
import type { Trace } from "../core/base/ports.ts";
import { ALL_RULES } from "../core/base/rules.ts";
import { BLOCK_BYTES, hostId, REGION_BLOCKS, type VolumeId } from "../core/base/units.ts";
import type { StoreOpened, StoreSink } from "../core/store/contract.ts";
import { Store } from "../core/store/store.ts";
import { BootClock } from "../transports/clock.ts";
import { type OpenDisk, openDisk } from "../transports/disk_open.ts";
import type { Config } from "./config.ts";
import { failure, refusal } from "./exit.ts";
import { hostOptions } from "./host_options.ts";
import { OverlayDisk } from "./overlay_disk.ts";

export interface DamagedRange {
  readonly volume: string;
  readonly startByte: number;
  endByte: number;
  readonly why: string;
}

export interface CheckReport {
  readonly store: string;
  readonly checkedBytes: number;
  readonly lostRecords: number;
  readonly damaged: readonly DamagedRange[];
  /** More were found than are listed. */
  readonly isCut: boolean;
  /** Why the store does not open at all; "" when it does. */
  readonly why: string;
}

const DAMAGED_RANGES_MAX = 10_000;
const READ_BLOCKS = 128;
const TICK_MS = 20;

/** Checks the store at `path` as this host's. Rejects if it cannot be looked at. */
export async function checkStore(config: Config, path: string): Promise<CheckReport> {
  const checker = new StoreChecker(config, path);
  const opened = await openDisk({ path, sizeBytes: 0 }, checker);
  if (!opened.ok) {
    if (opened.isInUse) throw refusal(`${opened.why}; stop its vsan serve first`);
    // Cut to almost nothing is damage; without a file there is nothing that could be checked.
    const isRest = statSync(path, { throwIfNoEntry: false })?.isFile() === true;
    if (!isRest || statSync(path).size >= BLOCK_BYTES) throw failure(opened.why);
    return {
      store: path,
      checkedBytes: 0,
      lostRecords: 0,
      damaged: [],
      isCut: false,
      why: opened.why,
    };
  }
  try {
    return await checker.run(opened.disk);
  } finally {
    await opened.disk.close();
  }
}

class StoreChecker implements StoreSink {
  private readonly config: Config;
  private readonly path: string;
  private readonly clock = new BootClock();
  private readonly damaged: DamagedRange[] = [];
  private readonly names = new Map<VolumeId, string>();
  private readonly openedGate = Promise.withResolvers<StoreOpened>();
  private readonly failedGate = Promise.withResolvers<never>();
  private readGate = Promise.withResolvers<Outcome>();
  private store: Store | null = null;
  private overlay: OverlayDisk | null = null;
  private disk: OpenDisk | null = null;
  private finished: [number, number][] = [];
  private isCut = false;

  constructor(config: Config, path: string) {
    this.config = config;
    this.path = path;
    this.failedGate.promise.catch(() => {});
  }

  async run(disk: OpenDisk): Promise<CheckReport> {
    const options = hostOptions(this.config, "");
    for (const volume of options.volumes) this.names.set(volume.id, volume.name);
    this.disk = disk;
    this.overlay = new OverlayDisk(disk, (tag, result) => this.finished.push([tag, result]));
    const volumes = options.volumes.map(({ id, sizeBytes }) => ({
      id,
      blocks: sizeBytes / BLOCK_BYTES,
    }));
    const { segmentBytes, timing, self, clusterName } = options;
    const storeOptions = { segmentBytes, volumes, diskTimeoutMs: timing.diskTimeoutMs };
    this.store = new Store(storeOptions, this.overlay, this, SILENT, ALL_RULES);
    this.store.open(this.clock.nowMs(), {
      clusterId: crc32Text(clusterName),
      hostId: hostId(self),
    });
    this.settle();
    const ticker = setInterval(() => this.tick(), TICK_MS);
    try {
      const opened = await Promise.race([this.openedGate.promise, this.failedGate.promise]);
      if (!opened.ok) return this.report(0, 0, opened.why);
      let checkedBytes = 0;
      for (const volume of volumes) checkedBytes += await this.readVolume(volume.id, volume.blocks);
      return this.report(checkedBytes, opened.lostRecords, "");
    } finally {
      clearInterval(ticker);
    }
  }

  // The disk's events.

  done(tag: number, result: number): void {
    this.overlay?.readDone(tag, result);
    this.store?.diskDone(this.clock.nowMs(), tag, result);
  }

  batch(): void {
    this.settle();
  }

  // The store's sink.

  storeOpened(result: StoreOpened): void {
    this.openedGate.resolve(result);
  }

  readDone(_token: number, outcome: Outcome): void {
    this.readGate.resolve(outcome);
  }

  badBlock(volume: VolumeId, lba: number, why: string): void {
    this.note(volume, lba, 1, why);
  }

  storeFailed(why: string): void {
    this.failedGate.reject(failure(`the check cannot go on: ${why}`));
  }

  storeClosed(): void {}
  logged(): void {}
  synced(): void {}
  storeWritable(): void {}

  /** Bytes of data read in one volume. */
  private async readVolume(volume: VolumeId, blocks: number): Promise<number> {
    const store = this.store as Store;
    const out = (this.disk as OpenDisk).allocate(READ_BLOCKS * BLOCK_BYTES);
    let bytes = 0;
    for (let region = store.nextRegion(volume, 0); region >= 0; ) {
      const first = region * REGION_BLOCKS;
      const runs: [number, number][] = [];
      let lba = first;
      store.extents(volume, first, Math.min(REGION_BLOCKS, blocks - first), (count, isData) => {
        if (isData) runs.push([lba, count]);
        lba += count;
      });
      for (const [start, count] of runs) {
        for (let at = 0; at < count; at += READ_BLOCKS) {
          const length = Math.min(READ_BLOCKS, count - at);
          await this.readBlocks(volume, start + at, length, out);
          bytes += length * BLOCK_BYTES;
        }
      }
      region = store.nextRegion(volume, region + 1);
    }
    return bytes;
  }

  private async readBlocks(
    volume: VolumeId,
    lba: number,
    count: number,
    out: Uint8Array,
  ): Promise<void> {
    this.readGate = Promise.withResolvers<Outcome>();
    const known = this.damaged.length;
    const now = (this.store as Store).read(1, volume, lba, count, out, 0);
    this.settle();
    const done = this.readGate.promise;
    const outcome =
      now === OUTCOME.pending ? await Promise.race([done, this.failedGate.promise]) : now;
    const wasReported = this.damaged.length > known || this.isCut;
    if (outcome === OUTCOME.ok || wasReported) return;
    if (count === 1) this.note(volume, lba, 1, "it cannot be read");
    else for (let at = 0; at < count; at++) await this.readBlocks(volume, lba + at, 1, out);
  }

  private note(volume: VolumeId, lba: number, count: number, why: string): void {
    const name = this.names.get(volume) ?? "";
    const startByte = lba * BLOCK_BYTES;
    const endByte = startByte + count * BLOCK_BYTES;
    const last = this.damaged.at(-1);
    if (last?.volume === name && last.endByte === startByte && last.why === why) {
      last.endByte = endByte;
    } else if (this.damaged.length < DAMAGED_RANGES_MAX) {
      this.damaged.push({ volume: name, startByte, endByte, why });
    } else {
      this.isCut = true;
    }
  }

  private tick(): void {
    const store = this.store as Store;
    const now = this.clock.nowMs();
    if (now >= store.nextDeadlineMs()) store.expire(now);
    this.settle();
  }

  /** Lets the store and the disk go on; the overlay's own completions come in the next turn. */
  private settle(): void {
    this.store?.settle(this.clock.nowMs());
    this.disk?.submit();
    setImmediate(() => this.deliver());
  }

  private deliver(): void {
    const finished = this.finished;
    this.finished = [];
    for (const [tag, result] of finished) this.store?.diskDone(this.clock.nowMs(), tag, result);
    const any = this.disk?.deliver() === true || finished.length > 0;
    if (any) this.settle();
  }

  private report(checkedBytes: number, lostRecords: number, why: string): CheckReport {
    const { damaged, isCut, path } = this;
    return { store: path, checkedBytes, lostRecords, damaged, isCut, why };
  }
}

const SILENT: Trace = { event() {} };

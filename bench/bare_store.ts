/** A store on a real file without network and mirror, for benchmarks of the store alone. */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert } from "../core/base/assert.ts";
import { OUTCOME } from "../core/base/outcome.ts";
import { ALL_RULES } from "../core/base/rules.ts";
import { BLOCK_BYTES, hostId, MIB, volumeId } from "../core/base/units.ts";
import { RECORD_TYPE, RecordHeader, writeRecordBytes } from "../core/format/record.ts";
import type { StoreSink } from "../core/store/contract.ts";
import { Store } from "../core/store/store.ts";
import { type OpenDisk, openDisk } from "../transports/disk_open.ts";

export const VOLUME = volumeId(1);
/** Blocks in the longest record that `write` appends. */
export const RECORD_BLOCKS = 128;

export class BareStore implements StoreSink {
  readonly store: Store;
  /** Sees every sync that was answered. */
  onSynced: (token: number) => void = () => {};
  private readonly disk: OpenDisk;
  private readonly path: string;
  private readonly header = new RecordHeader();
  private isOpen = false;
  private wake: () => void = () => {};

  /** A new store of `storeBytes` in a temporary file, with one volume; `close` removes it. */
  static async make(storeBytes: number, volumeBytes: number): Promise<BareStore> {
    const path = join(tmpdir(), `vsan-bare-store-${process.pid}`);
    let bare: BareStore | null = null;
    const opened = await openDisk(
      { path, sizeBytes: storeBytes },
      {
        done: (tag, result) => bare?.store.diskDone(performance.now(), tag, result),
        batch: () => bare?.wake(),
      },
    );
    if (!opened.ok) throw new Error(opened.why);
    bare = new BareStore(opened.disk, path, volumeBytes);
    const identity = { clusterId: 1, hostId: hostId(0), storeId: [1, 2] as const };
    bare.store.format(performance.now(), identity);
    while (!bare.isOpen) await bare.turnAndWait();
    return bare;
  }

  private constructor(disk: OpenDisk, path: string, volumeBytes: number) {
    this.disk = disk;
    this.path = path;
    const options = {
      segmentBytes: 16 * MIB,
      volumes: [{ id: VOLUME, blocks: volumeBytes / BLOCK_BYTES }],
      diskTimeoutMs: 60_000,
    };
    this.store = new Store(options, disk, this, { event() {} }, ALL_RULES);
  }

  async close(): Promise<void> {
    await this.disk.close();
    rmSync(this.path, { force: true });
  }

  /** One turn of a loop; true if completions were there already. */
  turn(): boolean {
    this.store.settle(performance.now());
    this.disk.submit();
    return this.disk.deliver();
  }

  /** A turn, then until the disk says something, unless it did at once. */
  async turnAndWait(): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.wake = resolve;
    });
    if (this.turn()) return;
    // A deadline that is near is waited for in turns, as `HostLoop` does.
    const isSoon = this.store.nextDeadlineMs() - performance.now() < 0.2;
    await (isSoon ? new Promise((resolve) => setImmediate(resolve)) : woken);
  }

  write(lba: number, blocks: number, data: Uint8Array): void {
    const { header } = this;
    header.type = RECORD_TYPE.write;
    header.volume = VOLUME;
    for (let done = 0; done < blocks; done += RECORD_BLOCKS) {
      header.lba = lba + done;
      header.blockCount = Math.min(RECORD_BLOCKS, blocks - done);
      const bytes = writeRecordBytes(header.blockCount);
      while (this.store.admit(bytes, "client") !== OUTCOME.ok) this.turn();
      this.store.appendWrite(header, data, done * BLOCK_BYTES);
    }
  }

  storeOpened(result: { ok: boolean }): void {
    assert(result.ok, "bench: the store did not open");
    this.isOpen = true;
  }
  storeClosed(): void {}
  logged(): void {}
  synced(token: number, ok: boolean): void {
    assert(ok, "bench: a sync failed");
    this.onSynced(token);
  }
  readDone(): void {}
  badBlock(): void {
    assert(false, "bench: a bad block");
  }
  storeWritable(): void {}
  storeFailed(): void {
    assert(false, "bench: the store failed");
  }
}

/**
 * Reads a volume out of one host's store, offline and alone: no other host, no process of vsan,
 * not a byte of the file changed. What it shows is what that one disk holds.
 */
import { crc32Text } from "../../core/base/checksum.ts";
import { OUTCOME, type Outcome } from "../../core/base/outcome.ts";
import { ERRNO, type Disk } from "../../core/base/ports.ts";
import { ALL_RULES } from "../../core/base/rules.ts";
import { BLOCK_BYTES, hostId, MIB, volumeId } from "../../core/base/units.ts";
import type { StoreOpened, StoreSink } from "../../core/store/contract.ts";
import { Store } from "../../core/store/store.ts";

const READ_BYTES = MIB / 2;
const TURNS_MAX = 1_000_000;

/** The file, mapped so that writes stay in this process. */
class MappedDisk implements Disk {
  readonly sizeBytes: number;
  readonly sectorBytes = 512;
  readonly readsMedium = true;
  readonly finished: [number, number][] = [];
  private readonly bytes: Uint8Array;

  constructor(path: string) {
    this.bytes = Bun.mmap(path, { shared: false });
    this.sizeBytes = this.bytes.length;
  }

  allocate(lengthBytes: number): Uint8Array {
    return new Uint8Array(lengthBytes);
  }

  readNow(): number {
    return -ERRNO.EAGAIN;
  }

  readPairsNow(): number {
    return -ERRNO.EAGAIN;
  }

  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    const chunk = this.bytes.subarray(offset, offset + length);
    buffer.set(chunk, at);
    this.finished.push([tag, chunk.length]);
  }

  readMedium(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.read(tag, offset, buffer, at, length);
  }

  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.bytes.set(buffer.subarray(at, at + length), offset);
    this.finished.push([tag, length]);
  }

  sync(tag: number): void {
    this.finished.push([tag, 0]);
  }

  discard(tag: number): void {
    this.finished.push([tag, 0]);
  }
}

class Reader implements StoreSink {
  private readonly disk: MappedDisk;
  private readonly store: Store;
  private readonly volume: ReturnType<typeof volumeId>;
  private nowMs = 0;
  private opened: StoreOpened | null = null;
  private outcome: Outcome | null = null;

  constructor(path: string, volumeName: string, volumeBytes: number) {
    this.volume = volumeId(crc32Text(volumeName));
    this.disk = new MappedDisk(path);
    const volumes = [{ id: this.volume, blocks: volumeBytes / BLOCK_BYTES }];
    const options = { segmentBytes: 4 * MIB, volumes, diskTimeoutMs: 60_000 };
    this.store = new Store(options, this.disk, this, { event() {} }, ALL_RULES);
  }

  read(clusterName: string, self: number, volumeBytes: number): Uint8Array {
    this.store.open(0, { clusterId: crc32Text(clusterName), hostId: hostId(self) });
    const opened = this.pump(() => this.opened);
    if (!opened.ok) throw new Error(`the store does not open: ${opened.why}`);
    const image = new Uint8Array(volumeBytes);
    for (let at = 0; at < volumeBytes; at += READ_BYTES) {
      const count = Math.min(READ_BYTES, volumeBytes - at) / BLOCK_BYTES;
      this.outcome = null;
      const now = this.store.read(1, this.volume, at / BLOCK_BYTES, count, image, at);
      const outcome = now === OUTCOME.pending ? this.pump(() => this.outcome) : now;
      if (outcome !== OUTCOME.ok) throw new Error(`byte ${at} of the store cannot be read`);
    }
    return image;
  }

  storeOpened(result: StoreOpened): void {
    this.opened = result;
  }
  readDone(_token: number, outcome: Outcome): void {
    this.outcome = outcome;
  }
  storeFailed(why: string): void {
    throw new Error(`the store failed: ${why}`);
  }
  badBlock(): void {}
  storeClosed(): void {}
  logged(): void {}
  synced(): void {}
  storeWritable(): void {}

  /** Turns of the store until `value` answers. */
  private pump<T>(value: () => T | null): T {
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      this.store.settle(this.nowMs);
      const found = value();
      if (found !== null) return found;
      const next = this.disk.finished.shift();
      if (next !== undefined) {
        this.store.diskDone(this.nowMs, next[0], next[1]);
        continue;
      }
      this.nowMs = Math.max(this.nowMs + 1, this.store.nextDeadlineMs());
      this.store.expire(this.nowMs);
    }
    throw new Error("the store does not come to an end");
  }
}

/** The whole volume as the store at `path` has it; `self` is the host's number in the roster. */
export function readStoreImage(
  path: string,
  options: { clusterName: string; self: number; volumeName: string; volumeBytes: number },
): Uint8Array {
  const reader = new Reader(path, options.volumeName, options.volumeBytes);
  return reader.read(options.clusterName, options.self, options.volumeBytes);
}

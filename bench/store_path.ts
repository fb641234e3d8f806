/**
 * Cost of the store per MiB and per 4 KiB block, without network and mirror: appends, and reads of
 * what lies in the page cache, on a real disk in a temporary file. Run: `bun bench/store_path.ts`.
 */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert } from "../core/base/assert.ts";
import { OUTCOME } from "../core/base/outcome.ts";
import { ALL_RULES } from "../core/base/rules.ts";
import { BLOCK_BYTES, hostId, MIB, volumeId } from "../core/base/units.ts";
import {
  RECORD_TYPE,
  RecordHeader,
  verifyRecord,
  writeRecordBytes,
} from "../core/format/record.ts";
import { viewOf } from "../core/format/layout.ts";
import type { StoreSink } from "../core/store/contract.ts";
import { Store } from "../core/store/store.ts";
import { openDisk } from "../transports/disk_open.ts";

const VOLUME = volumeId(1);
const VOLUME_MIB = 128;
const RECORD_BLOCKS = 128;
const ROUNDS = 7;

class Rig implements StoreSink {
  isOpen = false;
  readonly store: Store;
  private readonly disk: { submit(): void; deliver(): boolean };

  constructor(store: (sink: StoreSink) => Store, disk: { submit(): void; deliver(): boolean }) {
    this.store = store(this);
    this.disk = disk;
  }
  storeOpened(result: { ok: boolean }): void {
    assert(result.ok, "bench: the store did not open");
    this.isOpen = true;
  }
  storeClosed(): void {}
  logged(): void {}
  synced(): void {}
  readDone(): void {}
  badBlock(): void {
    assert(false, "bench: a bad block");
  }
  storeWritable(): void {}
  storeFailed(): void {
    assert(false, "bench: the store failed");
  }

  /** One turn of a loop. */
  turn(): void {
    this.store.settle(performance.now());
    this.disk.submit();
    this.disk.deliver();
  }

  async opened(): Promise<void> {
    while (!this.isOpen) {
      this.turn();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  write(lba: number, blocks: number, data: Uint8Array): void {
    const header = new RecordHeader();
    header.type = RECORD_TYPE.write;
    header.volume = VOLUME;
    for (let done = 0; done < blocks; done += RECORD_BLOCKS) {
      header.lba = lba + done;
      header.blockCount = Math.min(RECORD_BLOCKS, blocks - done);
      for (;;) {
        const bytes = writeRecordBytes(header.blockCount);
        if (this.store.admit(bytes, "client") === OUTCOME.ok) break;
        this.turn();
      }
      this.store.appendWrite(header, data, done * BLOCK_BYTES);
    }
  }
}

/** Median and best of several rounds of `count` calls, microseconds per call. */
function time(name: string, count: number, run: (index: number) => void): void {
  for (let index = 0; index < count; index += 1) run(index);
  const rounds: number[] = [];
  const cpuBefore = process.cpuUsage();
  for (let round = 0; round < ROUNDS; round += 1) {
    const begin = performance.now();
    for (let index = 0; index < count; index += 1) run(index);
    rounds.push(((performance.now() - begin) * 1000) / count);
  }
  const cpu = process.cpuUsage(cpuBefore);
  const cpuMicros = (cpu.user + cpu.system) / (ROUNDS * count);
  rounds.sort((left, right) => left - right);
  const median = rounds[ROUNDS >> 1] as number;
  const best = rounds[0] as number;
  const [micros, bestMicros, cpuText] = [median, best, cpuMicros].map((value) => value.toFixed(2));
  console.log(`${name.padEnd(30)} ${micros?.padStart(8)} us, best ${bestMicros}, CPU ${cpuText}`);
}

async function main(): Promise<void> {
  const path = join(tmpdir(), `vsan-store-path-${process.pid}`);
  let rig: Rig | null = null;
  const opened = await openDisk(
    { path, sizeBytes: 1024 * MIB },
    { done: (tag, result) => rig?.store.diskDone(performance.now(), tag, result), batch() {} },
  );
  if (!opened.ok) throw new Error(opened.why);
  const { disk } = opened;
  const options = {
    segmentBytes: 16 * MIB,
    volumes: [{ id: VOLUME, blocks: (VOLUME_MIB * MIB) / BLOCK_BYTES }],
    diskTimeoutMs: 60_000,
  };
  try {
    const trace = { event() {} };
    rig = new Rig((sink) => new Store(options, disk, sink, trace, ALL_RULES), disk);
    rig.store.format(performance.now(), { clusterId: 1, hostId: hostId(0), storeId: [1, 2] });
    await rig.opened();
    measure(rig);
    measureVerify(rig);
  } finally {
    await disk.close();
    rmSync(path, { force: true });
  }
}

function measure(rig: Rig): void {
  const data = new Uint8Array(MIB).map((_, index) => index * 31);
  const perMib = MIB / BLOCK_BYTES;
  time("write 1 MiB", 256, (index) => {
    rig.write((index % VOLUME_MIB) * perMib, perMib, data);
    rig.turn();
  });
  const out = new Uint8Array(MIB + 64);
  const read = (lba: number, blocks: number, at: number): void => {
    const outcome = rig.store.read(1, VOLUME, lba, blocks, out, at);
    assert(outcome === OUTCOME.ok, "bench: not in the page cache");
  };
  time("read 1 MiB, page cache", 512, (index) => {
    const lba = (index % VOLUME_MIB) * perMib;
    read(lba, RECORD_BLOCKS, 64);
    read(lba + RECORD_BLOCKS, RECORD_BLOCKS, 64 + MIB / 2);
  });
  time("read 4 KiB, page cache", 20_000, (index) => {
    read((index * 7919) % (VOLUME_MIB * perMib), 1, 64);
  });
  time("write 4 KiB", 20_000, (index) => {
    rig.write((index * 7919) % (VOLUME_MIB * perMib), 1, data);
    if (index % 32 === 0) rig.turn();
  });
}

/** What a mirror's receiver does to each record before it appends it. */
function measureVerify(rig: Rig): void {
  rig.write(0, RECORD_BLOCKS, new Uint8Array(MIB / 2));
  const { lastBuffer, lastAt, lastLength } = rig.store;
  const record = lastBuffer.slice(lastAt, lastAt + lastLength);
  const view = viewOf(record);
  const header = new RecordHeader();
  time("verify a record of 512 KiB", 512, () => {
    assert(verifyRecord(record, view, 0, record.length, header), "bench: a bad record");
  });
}

await main();

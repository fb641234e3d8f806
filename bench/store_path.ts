/**
 * Cost of the store per MiB and per 4 KiB block, without network and mirror: appends, and reads of
 * what lies in the page cache, on a real disk in a temporary file. Run: `bun bench/store_path.ts`.
 */
import { assert } from "../core/base/assert.ts";
import { OUTCOME } from "../core/base/outcome.ts";
import { BLOCK_BYTES, MIB } from "../core/base/units.ts";
import { viewOf } from "../core/format/layout.ts";
import { RecordHeader, verifyRecord } from "../core/format/record.ts";
import { BareStore, RECORD_BLOCKS, VOLUME } from "./bare_store.ts";

const VOLUME_MIB = 128;
const ROUNDS = 7;

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
  const bare = await BareStore.make(1024 * MIB, VOLUME_MIB * MIB);
  try {
    measure(bare);
    measureVerify(bare);
  } finally {
    await bare.close();
  }
}

function measure(bare: BareStore): void {
  const data = new Uint8Array(MIB).map((_, index) => index * 31);
  const perMib = MIB / BLOCK_BYTES;
  time("write 1 MiB", 256, (index) => {
    bare.write((index % VOLUME_MIB) * perMib, perMib, data);
    bare.turn();
  });
  const out = new Uint8Array(MIB + 64);
  const read = (lba: number, blocks: number, at: number): void => {
    const outcome = bare.store.read(1, VOLUME, lba, blocks, out, at);
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
    bare.write((index * 7919) % (VOLUME_MIB * perMib), 1, data);
    if (index % 32 === 0) bare.turn();
  });
}

/** What a mirror's receiver does to each record before it appends it. */
function measureVerify(bare: BareStore): void {
  bare.write(0, RECORD_BLOCKS, new Uint8Array(MIB / 2));
  const { lastBuffer, lastAt, lastLength } = bare.store;
  const record = lastBuffer.slice(lastAt, lastAt + lastLength);
  const view = viewOf(record);
  const header = new RecordHeader();
  time("verify a record of 512 KiB", 512, () => {
    assert(verifyRecord(record, view, 0, record.length, header), "bench: a bad record");
  });
}

await main();

/**
 * Durable writes: `bun bench/durable.ts [--seconds N]`. 4 KiB random writes, 32 at once, each on
 * stable storage when it is answered:
 *
 *   new store  appends to the store alone, in this process; its file was never written before
 *   store      the same when the log has been everywhere in its file, as for the rest of its life
 *   over NBD   a volume with `ack = "durable"` on one host, likewise
 *   appends    fio's 32 threads that write and fdatasync (`psync`), each at the end of a file of
 *              its own, as fio does it if nothing else is said
 *   in place   the same threads in one preallocated file that was written before: no file grows,
 *              no extent changes, and the file system merges their syncs
 *
 * All in the same run and file system; prints a Markdown table of the medians of alternating
 * repetitions.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BLOCK_BYTES, MIB } from "../core/base/units.ts";
import { Cluster } from "../tests/tools/cluster.ts";
import { BareStore } from "./bare_store.ts";
import { runFio } from "./fio.ts";

const SPAN_BYTES = 128 * MIB;
const STORE_BYTES = 2048 * MIB;
const DEPTH = 32;
const REPETITIONS = 3;

/** Writes a second. */
async function fioRate(words: readonly string[], seconds: number): Promise<number> {
  const job = await runFio(["--group_reporting", ...words], seconds);
  return job.write.iops;
}

/** Writes a second of the store alone: each writer's next write begins when its last is durable. */
async function storeRate(bare: BareStore, seconds: number): Promise<number> {
  const data = new Uint8Array(BLOCK_BYTES).fill(7);
  const blocks = SPAN_BYTES / BLOCK_BYTES;
  let idle = DEPTH;
  let count = 0;
  bare.onSynced = () => {
    idle += 1;
    count += 1;
  };
  const begin = performance.now();
  const endMs = begin + seconds * 1000;
  while (performance.now() < endMs) {
    for (; idle > 0; idle -= 1) {
      bare.write(Math.floor(Math.random() * blocks), 1, data);
      bare.store.sync(1);
    }
    await bare.turnAndWait();
  }
  while (idle < DEPTH) await bare.turnAndWait();
  return (count * 1000) / (performance.now() - begin);
}

/** Brings the log once through its whole file. */
async function goRound(bare: BareStore): Promise<void> {
  const blocks = MIB / BLOCK_BYTES;
  const data = new Uint8Array(MIB).fill(7);
  bare.onSynced = () => {};
  for (let at = 0; bare.store.stats().bytesWritten < 1.1 * STORE_BYTES; at += MIB) {
    bare.write((at % SPAN_BYTES) / BLOCK_BYTES, blocks, data);
    if (at % (64 * MIB) === 0) bare.store.sync(1);
    await bare.turnAndWait();
  }
}

function median(values: number[]): number {
  return values.sort((first, second) => first - second)[Math.floor(values.length / 2)] ?? 0;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { seconds: { type: "string", default: "3" } } });
  const seconds = Number(values.seconds);
  const directory = mkdtempSync(join(tmpdir(), "vsan-durable-"));
  const cluster = await Cluster.start({
    hosts: ["alpha"],
    volumeBytes: 2 * SPAN_BYTES,
    storeBytes: STORE_BYTES,
    ack: "durable",
  });
  const bare = await BareStore.make(STORE_BYTES, SPAN_BYTES);
  const fresh = await storeRate(bare, seconds);
  try {
    await goRound(bare);
    const nbd = ["--ioengine=nbd", `--uri=${cluster.host("alpha").nbd}`, `--iodepth=${DEPTH}`];
    const span = `--size=${SPAN_BYTES}`;
    const inPlace = ["--ioengine=psync", `--filename=${join(directory, "in_place")}`, span];
    const threads = ["--ioengine=psync", `--numjobs=${DEPTH}`, "--thread", "--fdatasync=1"];
    // Free segments are not taken in turn: after twice its size all were written.
    const rounds = `--loops=${(2 * STORE_BYTES) / SPAN_BYTES}`;
    await fioRate([...nbd, span, "--rw=write", "--bs=1M", rounds], 0);
    await fioRate([...inPlace, "--rw=write", "--end_fsync=1"], 0);
    const subjects: Record<string, () => Promise<number>> = {
      store: () => storeRate(bare, seconds),
      "over NBD": () => fioRate([...nbd, span, "--rw=randwrite"], seconds),
      appends: async () => {
        const own = mkdtempSync(join(directory, "appends-"));
        const words = [`--directory=${own}`, `--size=${SPAN_BYTES}`, "--rw=write"];
        const iops = await fioRate([...threads, ...words], seconds);
        rmSync(own, { recursive: true });
        return iops;
      },
      "in place": () => fioRate([...threads, ...inPlace, "--rw=randwrite"], seconds),
    };
    const names = Object.keys(subjects);
    const rates = names.map((): number[] => []);
    for (let repetition = 0; repetition < REPETITIONS; repetition += 1) {
      for (const [index, name] of names.entries()) {
        rates[index]?.push((await subjects[name]?.()) ?? 0);
      }
    }
    const cells = rates.map((rate) => Math.round(median(rate)));
    process.stdout.write(
      `| durable 4k writes/s, ${DEPTH} at once | new store | ${names.join(" | ")} |\n` +
        `| --- |${" ---: |".repeat(names.length + 1)}\n` +
        `| | ${Math.round(fresh)} | ${cells.join(" | ")} |\n`,
    );
  } finally {
    await cluster.close();
    await bare.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

await main();

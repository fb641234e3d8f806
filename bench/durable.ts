/**
 * Durable writes: `bun bench/durable.ts [--seconds N]`. 4 KiB random writes at depth 32, each on
 * stable storage when it is answered, to a volume with `ack = "durable"` over NBD; beside it, in
 * the same run and on the same file system, fio's 32 threads that each write and fdatasync
 * (`psync`) a preallocated file that was written before. Prints a Markdown table: the medians of
 * alternating repetitions.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Cluster } from "../tests/tools/cluster.ts";
import { runFio } from "./fio.ts";

const MIB = 1024 * 1024;
const SPAN_BYTES = 128 * MIB;
const DEPTH = 32;
const REPETITIONS = 3;

/** Writes a second. */
async function rate(words: readonly string[], seconds: number): Promise<number> {
  const job = await runFio([`--size=${SPAN_BYTES}`, "--group_reporting", ...words], seconds);
  return job.write.iops;
}

function median(values: number[]): number {
  return values.sort((first, second) => first - second)[Math.floor(values.length / 2)] ?? 0;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { seconds: { type: "string", default: "3" } } });
  const seconds = Number(values.seconds);
  const directory = mkdtempSync(join(tmpdir(), "vsan-durable-"));
  const file = join(directory, "raw.img");
  const cluster = await Cluster.start({
    hosts: ["alpha"],
    volumeBytes: 2 * SPAN_BYTES,
    storeBytes: 2048 * MIB,
    ack: "durable",
  });
  try {
    const ours = ["--ioengine=nbd", `--uri=${cluster.host("alpha").nbd}`, `--iodepth=${DEPTH}`];
    const raw = ["--ioengine=psync", `--filename=${file}`, `--numjobs=${DEPTH}`, "--fdatasync=1"];
    await rate([...ours, "--rw=write"], 0);
    await rate(["--ioengine=psync", `--filename=${file}`, "--rw=write", "--end_fsync=1"], 0);
    const rates: { ours: number[]; raw: number[] } = { ours: [], raw: [] };
    for (let repetition = 0; repetition < REPETITIONS; repetition += 1) {
      rates.raw.push(await rate([...raw, "--thread", "--rw=randwrite"], seconds));
      rates.ours.push(await rate([...ours, "--rw=randwrite"], seconds));
    }
    const [own, other] = [median(rates.ours), median(rates.raw)];
    process.stdout.write(
      `| durable 4k writes/s, ${DEPTH} at once | vsan one host | psync + fdatasync | ratio |\n` +
        "| --- | ---: | ---: | ---: |\n" +
        `| | ${Math.round(own)} | ${Math.round(other)} | ${(own / other).toFixed(2)} |\n`,
    );
  } finally {
    await cluster.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

await main();

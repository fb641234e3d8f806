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

const MIB = 1024 * 1024;
const SPAN_BYTES = 128 * MIB;
const DEPTH = 32;
const REPETITIONS = 3;
const FIO_EXTRA_MS = 20_000;

/** Writes a second. Rejects with fio's words. */
async function fio(words: readonly string[], seconds: number): Promise<number> {
  const command = ["fio", "--name=durable", `--size=${SPAN_BYTES}`, "--bs=4k", "--randrepeat=0"];
  const common = ["--norandommap", "--group_reporting", "--output-format=json"];
  const time = seconds > 0 ? ["--time_based", `--runtime=${seconds * 1000}ms`] : [];
  const child = Bun.spawn([...command, ...common, ...words, ...time], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: seconds * 1000 + FIO_EXTRA_MS,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`fio ${words.join(" ")} failed (${code}):\n${stderr}`);
  const report = JSON.parse(stdout.slice(stdout.indexOf("{"))) as {
    jobs: { write: { iops: number } }[];
  };
  return report.jobs[0]?.write.iops ?? 0;
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
    await fio([...ours, "--rw=write"], 0);
    await fio(["--ioengine=psync", `--filename=${file}`, "--rw=write", "--end_fsync=1"], 0);
    const rates: { ours: number[]; raw: number[] } = { ours: [], raw: [] };
    for (let repetition = 0; repetition < REPETITIONS; repetition += 1) {
      rates.raw.push(await fio([...raw, "--thread", "--rw=randwrite"], seconds));
      rates.ours.push(await fio([...ours, "--rw=randwrite"], seconds));
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

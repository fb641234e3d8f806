/**
 * What clients feel of the cleaner: 4 KiB random overwrites on a store 80 % full, which cleans all
 * the time, beside the same load on a store far from full, which never does. The same executable
 * and volume size, alternating in one run; medians of the repetitions.
 *
 *   bun bench/cleaning_latency.ts [SECONDS]
 */
import { Cluster } from "../tests/tools/cluster.ts";

const MIB = 1024 * 1024;
/** Of the full store: 64 segments of 16 MiB. */
const FULL_STORE_BYTES = 1024 * MIB;
const ROOMY_STORE_BYTES = 20 * 1024 * MIB;
const REPETITIONS = 5;
const SECONDS = 4;
const DEPTHS = [1, 32] as const;

interface Side {
  readonly name: string;
  readonly cluster: Cluster;
  readonly uri: string;
}

interface Result {
  readonly iops: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
}

interface FioReport {
  readonly jobs: readonly {
    readonly write: {
      readonly iops: number;
      readonly clat_ns: { readonly percentile: Readonly<Record<string, number>> };
    };
  }[];
}

async function fio(uri: string, words: readonly string[]): Promise<Result> {
  const common = ["--name=c", "--ioengine=nbd", `--uri=${uri}`, "--output-format=json"];
  const child = Bun.spawn(["fio", ...common, "--randrepeat=0", "--norandommap", ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const text = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(text);
  const { write } = (JSON.parse(text.slice(text.indexOf("{"))) as FioReport).jobs[0]!;
  const rank = (name: string): number => (write.clat_ns.percentile[name] ?? 0) / 1000;
  return { iops: write.iops, p50Micros: rank("50.000000"), p99Micros: rank("99.000000") };
}

async function start(name: string, storeBytes: number, volumeBytes: number): Promise<Side> {
  const cluster = await Cluster.start({ hosts: ["solo"], volumeBytes, storeBytes });
  return { name, cluster, uri: cluster.host("solo").nbd };
}

/** Bytes of data that the full store takes, as it says itself. */
async function takenBy(storeBytes: number): Promise<number> {
  const { cluster } = await start("probe", storeBytes, MIB);
  try {
    return (await cluster.stateOf("solo")).store?.sizeBytes ?? 0;
  } finally {
    await cluster.close();
  }
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

async function measure(sides: readonly Side[], depth: number, seconds: number): Promise<string[]> {
  const results = new Map<string, Result[]>(sides.map(({ name }) => [name, []]));
  for (let count = 0; count < REPETITIONS; count += 1) {
    for (const { name, uri } of sides) {
      const words = ["--rw=randwrite", "--bs=4k", `--iodepth=${depth}`, "--time_based"];
      results.get(name)?.push(await fio(uri, [...words, `--runtime=${seconds}`]));
    }
  }
  return sides.map(({ name }) => {
    const all = results.get(name) ?? [];
    const of = (pick: (result: Result) => number): string => median(all.map(pick)).toFixed(0);
    const cells = [of((one) => one.iops), of((one) => one.p50Micros), of((one) => one.p99Micros)];
    return `| QD${depth} | ${name} | ${cells.join(" | ")} |`;
  });
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? SECONDS);
  const size = await takenBy(FULL_STORE_BYTES);
  const volumeBytes = Math.floor((size * 0.8) / MIB) * MIB;
  const sides: Side[] = [];
  try {
    sides.push(await start("80 % full", FULL_STORE_BYTES, volumeBytes));
    sides.push(await start("far from full", ROOMY_STORE_BYTES, volumeBytes));
    for (const { uri } of sides) {
      await fio(uri, ["--rw=write", "--bs=1M", "--iodepth=4"]);
      // To the steady state: every block about twice.
      await fio(uri, ["--rw=randwrite", "--bs=4k", "--iodepth=32", `--io_size=${2 * volumeBytes}`]);
    }
    process.stdout.write(
      "| | store | op/s | p50 us | p99 us |\n| --- | --- | ---: | ---: | ---: |\n",
    );
    for (const depth of DEPTHS) {
      for (const row of await measure(sides, depth, seconds)) process.stdout.write(`${row}\n`);
    }
    for (const { name, cluster } of sides) {
      const { store } = await cluster.stateOf("solo");
      const share = Math.round((100 * (store?.usedBytes ?? 0)) / (store?.sizeBytes ?? 1));
      const amplification = store?.writeAmplification.toFixed(2);
      process.stdout.write(`${name}: ${share} % used, write amplification ${amplification}\n`);
    }
  } finally {
    await Promise.all(sides.map(({ cluster }) => cluster.close()));
  }
}

await main();

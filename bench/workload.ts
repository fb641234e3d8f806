/**
 * What is measured, and one measurement of it: fio with its NBD engine, a C client, as the load.
 * Sequences of random numbers differ from run to run (`randrepeat=0`), and blocks may be chosen
 * twice (`norandommap`), so that no server answers from a short list of hot blocks.
 */
import { type FioJob, runFio } from "./fio.ts";
import { cpuSecondsOf } from "./processes.ts";
import type { Subject } from "./subject.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** Part of the volume that is used; written once before anything is measured. */
export const SPAN_BYTES = 128 * MIB;

export interface Workload {
  readonly name: string;
  readonly mode: "randwrite" | "randread" | "write" | "read";
  readonly blockBytes: number;
  readonly depth: number;
  /** A FLUSH after so many writes; 0 = none. */
  readonly flushEvery: number;
}

export interface Result {
  readonly operationsPerSecond: number;
  /** Latency of the median operation, microseconds; of the write alone where it flushes. */
  readonly p50Micros: number;
  readonly p99Micros: number;
  readonly p999Micros: number;
  /** CPU time of all server processes, microseconds per operation. */
  readonly cpuMicros: number;
}

function random(mode: Workload["mode"], depth: number, flushEvery = 0): Workload {
  const verb = mode === "randread" ? "read" : "write";
  const flush = flushEvery === 0 ? "" : flushEvery === 1 ? " + flush" : ` + flush/${flushEvery}`;
  const name = `4k random ${verb}${flush} QD${depth}`;
  return { name, mode, blockBytes: 4 * KIB, depth, flushEvery };
}

function sequential(mode: Workload["mode"]): Workload {
  const name = `1M sequential ${mode} QD4`;
  return { name, mode, blockBytes: MIB, depth: 4, flushEvery: 0 };
}

/** Sequential reads follow sequential writes, so they meet what a sequential writer left. */
export const WORKLOADS: readonly Workload[] = [
  random("randwrite", 1),
  random("randwrite", 32),
  random("randwrite", 1, 1),
  random("randwrite", 32, 32),
  random("randread", 1),
  random("randread", 32),
  sequential("write"),
  sequential("read"),
];

/**
 * Seconds of each of two mixes of requests before anything is measured: a server is long warm when
 * it matters, and a just-in-time compiler needs its time (the first quarter of a minute of write +
 * flush on two hosts is a fifth slower than what follows).
 */
const WARM_SECONDS = 8;
/** As much as twice the stores of `subject.ts`: free segments are not taken in turn. */
const FILL_LOOPS = 32;

/**
 * Writes the whole span many times, so that also a log has been everywhere in its file and in the
 * page cache (the first touch of memory costs a virtual machine far more than the copy, the first
 * write into a preallocated file a change of its extents), then warms up what the server compiles.
 */
export async function prepare(subject: Subject): Promise<void> {
  await fio(subject.uri, ["--rw=write", "--bs=1M", "--iodepth=4", `--loops=${FILL_LOOPS}`], 0);
  const mixed = ["--rw=randrw", "--bs=4k"];
  await fio(subject.uri, [...mixed, "--iodepth=32"], WARM_SECONDS);
  await fio(subject.uri, [...mixed, "--iodepth=1", "--fsync=1"], WARM_SECONDS);
}

/** Runs one workload for `seconds`. Rejects if fio fails, with its words. */
export async function measure(
  subject: Subject,
  workload: Workload,
  seconds: number,
): Promise<Result> {
  const { mode, blockBytes, depth, flushEvery } = workload;
  const words = [`--rw=${mode}`, `--bs=${blockBytes}`, `--iodepth=${depth}`];
  if (flushEvery > 0) words.push(`--fsync=${flushEvery}`);
  const before = cpuSecondsOf(subject.pids);
  const job = await fio(subject.uri, words, seconds);
  const cpuSeconds = cpuSecondsOf(subject.pids) - before;
  const side = mode.endsWith("read") ? job.read : job.write;
  const rank = (name: string): number => (side.clat_ns.percentile?.[name] ?? 0) / 1000;
  return {
    operationsPerSecond: side.iops,
    p50Micros: rank("50.000000"),
    p99Micros: rank("99.000000"),
    p999Micros: rank("99.900000"),
    cpuMicros: (cpuSeconds * 1e6) / Math.max(side.total_ios, 1),
  };
}

/** One fio job over NBD; `seconds` 0 goes over the span once. */
function fio(uri: string, words: readonly string[], seconds: number): Promise<FioJob> {
  return runFio(["--ioengine=nbd", `--uri=${uri}`, `--size=${SPAN_BYTES}`, ...words], seconds);
}

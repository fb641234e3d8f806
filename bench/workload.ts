/** What is measured over NBD: requests of one kind at a fixed depth for a fixed time. */
import { SeededRandom } from "../core/base/random.ts";
import { FLAG, NbdClient } from "../tests/tools/nbd_client.ts";

const KIB = 1024;
/** Part of the volume that is used; written once before it is read. */
const SPAN_BYTES = 48 * KIB * KIB;
const WARM_SHARE = 0.2;

export interface Workload {
  readonly name: string;
  readonly action: "read" | "write" | "write-fua";
  readonly blockBytes: number;
  readonly depth: number;
  readonly isRandom: boolean;
}

export interface Result {
  readonly workload: string;
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Writes come first, so that reads find data. */
export const WORKLOADS: readonly Workload[] = [
  { name: "128K write QD8", action: "write", blockBytes: 128 * KIB, depth: 8, isRandom: false },
  { name: "4K random write QD1", action: "write", blockBytes: 4 * KIB, depth: 1, isRandom: true },
  { name: "4K random write QD32", action: "write", blockBytes: 4 * KIB, depth: 32, isRandom: true },
  { name: "4K write FUA QD1", action: "write-fua", blockBytes: 4 * KIB, depth: 1, isRandom: true },
  {
    name: "4K write FUA QD32",
    action: "write-fua",
    blockBytes: 4 * KIB,
    depth: 32,
    isRandom: true,
  },
  { name: "4K random read QD1", action: "read", blockBytes: 4 * KIB, depth: 1, isRandom: true },
  { name: "4K random read QD32", action: "read", blockBytes: 4 * KIB, depth: 32, isRandom: true },
  { name: "128K read QD8", action: "read", blockBytes: 128 * KIB, depth: 8, isRandom: false },
];

/** Runs one workload for `seconds`; its first fifth warms up and is not counted. */
export async function measure(uri: string, workload: Workload, seconds: number): Promise<Result> {
  const client = await NbdClient.connect({ uri });
  const random = new SeededRandom(1);
  const { action, blockBytes, depth, isRandom } = workload;
  const blocks = Math.floor(Math.min(SPAN_BYTES, client.sizeBytes) / blockBytes);
  const data = new Uint8Array(blockBytes);
  for (let at = 0; at < blockBytes; at++) data[at] = random.below(256);
  const latencies: number[] = [];
  const begun = performance.now();
  const countFrom = begun + seconds * 1000 * WARM_SHARE;
  const end = begun + seconds * 1000;
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let now = performance.now(); now < end; now = performance.now()) {
      const block = isRandom ? random.below(blocks) : next++ % blocks;
      const offset = block * blockBytes;
      if (action === "read") await client.read(offset, blockBytes);
      else await client.write(offset, data, action === "write-fua" ? FLAG.fua : 0);
      if (now >= countFrom) latencies.push(performance.now() - now);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
  const countedSeconds = (performance.now() - countFrom) / 1000;
  client.close();
  latencies.sort((first, second) => first - second);
  const rank = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0;
  const operationsPerSecond = latencies.length / countedSeconds;
  return {
    workload: workload.name,
    operationsPerSecond,
    bytesPerSecond: operationsPerSecond * blockBytes,
    p50Ms: rank(0.5),
    p99Ms: rank(0.99),
  };
}

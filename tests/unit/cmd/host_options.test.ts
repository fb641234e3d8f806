/** From the config to the core's options. */
import { expect, test } from "bun:test";
import { loadConfig } from "../../../cmd/config.ts";
import { hostAddresses, hostOptions, storeBytesFor } from "../../../cmd/host_options.ts";
import { segmentBytesFor } from "../../../core/store/geometry.ts";
import { crc32Text } from "../../../core/base/checksum.ts";
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MIB = 1024 ** 2;
const directory = mkdtempSync(join(tmpdir(), "vsan-options-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const TEXT = `
[cluster]
name = "lab"
cold_start = "all"
cold_wait = "3s"
peer_timeout = "2s"
min_copies = 2
[[host]]
name = "alpha"
link = "10.0.0.1:1"
shared = "10.1.0.1:1"
store = "a"
[[host]]
name = "beta"
link = "10.0.0.2:1"
store = "b"
store_size = "1G"
disk_timeout = "7s"
priority = 7
scrub = "8M"
index_memory = "300M"
[[host]]
name = "wit"
kind = "witness"
link = "10.0.0.3:1"
[[volume]]
name = "vol0"
size = "1G"
[[volume]]
name = "vol1"
size = "2G"
ack = "durable"
read_only = true
[shared_network]
rate_limit = "2M"
[policing]
timeout = "1s"
aging = "500ms"
`;

test("every value of the config arrives where it acts", () => {
  const file = join(directory, "vsan.toml");
  writeFileSync(file, TEXT);
  const config = loadConfig({ file, host: "beta" });
  const options = hostOptions(config, { bootId: "boot", wallOffsetMs: 5, memoryBytes: 1 });
  expect(Number(options.self)).toBe(1);
  expect(options.clusterName).toBe("lab");
  expect(options.bootId).toBe("boot");
  expect(options.coldStart).toBe("all");
  expect(options.minCopies).toBe(2);
  expect(options.timing.coldWaitMs).toBe(3000);
  expect(options.timing.peerTimeoutMs).toBe(2000);
  expect(options.timing.policingTimeoutMs).toBe(1000);
  expect(options.timing.agingMs).toBe(500);
  expect(options.multicastBytesPerSecond).toBe(2 * MIB);
  expect(options.scrubBytesPerSecond).toBe(8 * MIB);
  expect(options.indexBytes).toBe(300 * MIB);
  const other = loadConfig({ file, host: "alpha" });
  const facts = { bootId: "", wallOffsetMs: 0, memoryBytes: 4096 * MIB };
  const defaults = { scrubBytesPerSecond: null, indexBytes: 256 * MIB };
  expect(hostOptions(other, facts)).toMatchObject(defaults);
  expect(hostOptions(other, { ...facts, memoryBytes: MIB }).indexBytes).toBe(64 * MIB);
  expect(options.wallOffsetMs).toBe(5);
  expect(options.roster.map(({ name, kind, priority }) => [name, kind, priority])).toEqual([
    ["alpha", "data", 3],
    ["beta", "data", 7],
    ["wit", "witness", 3],
  ]);
  expect(options.volumes.map(({ id }) => Number(id))).toEqual([
    crc32Text("vol0"),
    crc32Text("vol1"),
  ]);
  expect(options.volumes[1]).toMatchObject({
    sizeBytes: 2 * 1024 * MIB,
    ack: "durable",
    readOnly: true,
  });
  expect(options.timing.diskTimeoutMs).toBe(7000);
  const addresses = hostAddresses(config);
  expect(addresses.map(({ link, shared }) => [link, shared])).toEqual([
    ["10.0.0.1:1", "10.1.0.1:1"],
    ["10.0.0.2:1", null],
    ["10.0.0.3:1", null],
  ]);
});

test("segments are powers of two, enough of them, never too small for a record", () => {
  for (const [size, segment] of [
    [64 * MIB, 4],
    [256 * MIB, 4],
    [1024 * MIB, 16],
    [2048 * MIB, 32],
    [1024 ** 4, 32],
  ] as const) {
    expect(segmentBytesFor(size)).toBe(segment * MIB);
  }
});

test("a store made for a volume holds it at 80 per cent", () => {
  for (const bytes of [4096, MIB, 1024 * MIB, 1024 ** 4]) {
    expect(storeBytesFor(bytes) * 0.8).toBeGreaterThan(bytes);
    expect(storeBytesFor(bytes) % MIB).toBe(0);
  }
});

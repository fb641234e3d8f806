/** NBD's own tools against a pair of hosts: what they ask, copy, compare and map. */
import { afterAll, beforeAll, expect } from "bun:test";
import { join } from "node:path";
import { Cluster } from "../tools/cluster.ts";
import { must, pattern, run, testWith } from "../tools/lab.ts";

const MIB = 1024 * 1024;
const VOLUME_BYTES = 64 * MIB;
let cluster: Cluster;
let alpha = "";
let beta = "";

beforeAll(async () => {
  cluster = await Cluster.start({
    hosts: ["alpha", "beta"],
    volumeBytes: VOLUME_BYTES,
    storeBytes: 512 * MIB,
  });
  await cluster.inSync();
  alpha = `${cluster.host("alpha").nbd}/vol0`;
  beta = `${cluster.host("beta").nbd}/vol0`;
});
afterAll(async () => await cluster.close());

function file(name: string): string {
  return join(cluster.directory, name);
}

/** One qemu-io run; throws unless every command succeeded. */
async function qemuIo(uri: string, ...commands: string[]): Promise<string> {
  const out = await must([
    "qemu-io",
    "-f",
    "raw",
    uri,
    ...commands.flatMap((each) => ["-c", each]),
  ]);
  expect(out).not.toMatch(/failed|error/i);
  return out;
}

testWith(["nbdinfo"], "nbdinfo lists the exports and says what they can", async () => {
  expect(await must(["nbdinfo", "--list", cluster.host("alpha").nbd])).toContain('export="vol0"');
  const json = JSON.parse(await must(["nbdinfo", "--json", alpha]));
  expect(json.exports[0]["export-size"]).toBe(VOLUME_BYTES);
  expect(await must(["nbdinfo", "--size", beta])).toBe(`${VOLUME_BYTES}\n`);
  for (const what of ["fua", "flush", "multi-conn", "trim", "zero", "df", "cache"]) {
    expect(`${what} ${(await run(["nbdinfo", "--can", what, alpha])).code}`).toBe(`${what} 0`);
  }
  expect((await run(["nbdinfo", "--is", "readonly", alpha])).code).toBe(2);
  expect((await run(["nbdinfo", `${cluster.host("alpha").nbd}/nothing`])).code).toBe(1);
});

testWith(["nbdcopy"], "nbdcopy copies in through one host and out through the other", async () => {
  const data = pattern(1, VOLUME_BYTES);
  await Bun.write(file("in.img"), data);
  const flags = ["--connections=4", "--requests=8", "--flush"];
  await must(["nbdcopy", ...flags, file("in.img"), alpha]);
  await must(["nbdcopy", ...flags, beta, file("out.img")]);
  expect(Buffer.compare(await Bun.file(file("out.img")).bytes(), data)).toBe(0);
});

testWith(
  ["qemu-io", "nbdinfo"],
  "qemu-io: unaligned, zero, discard, FUA; the other host agrees",
  async () => {
    await qemuIo(
      alpha,
      "write -P 0x55 0 1M",
      "write -P 0x66 513 1021",
      "write -z -u 64k 64k",
      "write -z 128k 4k",
      "discard 256k 64k",
      "write -f -P 9 4k 4k",
      "aio_write -P 0x77 700001 33333",
      "aio_flush",
      "flush",
    );
    const checks = [
      "read -P 0x55 0 513",
      "read -P 0x66 513 1021",
      "read -P 0x55 1534 2562",
      "read -P 9 4k 4k",
      "read -P 0 64k 64k",
      "read -P 0 128k 4k",
      "read -P 0 256k 64k",
      "read -P 0x77 700001 33333",
      "read -P 0x55 733334 315242",
    ];
    for (const uri of [alpha, beta]) {
      expect(await qemuIo(uri, ...checks)).not.toContain("Pattern verification failed");
    }
    expect(await qemuIo(beta, "map")).toContain("64 MiB");
    await qemuIo(alpha, "discard 0 64M", "write -P 5 0 256k", "discard 64k 64k");
    const map = JSON.parse(await must(["nbdinfo", "--map", "--json", beta]));
    expect(map).toMatchObject([
      { offset: 0, length: 65536, type: 0 },
      { offset: 65536, length: 65536, type: 3, description: "hole,zero" },
      { offset: 131072, length: 131072, type: 0 },
      { offset: 262144, length: VOLUME_BYTES - 262144, type: 3 },
    ]);
  },
);

testWith(["qemu-img"], "qemu-img: map, compare, convert, bench", async () => {
  await qemuIo(alpha, "discard 0 64M", "write -P 3 8M 4M");
  const map = JSON.parse(await must(["qemu-img", "map", "--output=json", "-f", "raw", beta]));
  const data = map.filter((extent: { data: boolean }) => extent.data);
  expect(data).toHaveLength(1);
  expect(data[0]).toMatchObject({ start: 8 * MIB, length: 4 * MIB });
  await must(["qemu-img", "compare", "-f", "raw", "-F", "raw", alpha, beta]);
  await must(["qemu-img", "convert", "-f", "raw", "-O", "raw", beta, file("copy.img")]);
  await qemuIo(alpha, "discard 0 64M");
  const back = ["convert", "-n", "-f", "raw", "-O", "raw", file("copy.img"), alpha];
  await must(["qemu-img", ...back]);
  await must(["qemu-img", "compare", "-f", "raw", "-F", "raw", file("copy.img"), beta]);
  const bench = ["bench", "-w", "-f", "raw", "-c", "1000", "-d", "16", "-s", "4096"];
  await must(["qemu-img", ...bench, "--flush-interval=16", alpha]);
});

/**
 * BLOCK_STATUS against a model: random writes, writes of zeros, zeroes, provisioned zeroes and
 * trims of any alignment through one host, and what `nbdinfo` and `qemu-img` find at the other is
 * what the model says: every block, data or hole, and no room taken by what is a hole.
 */
import { afterAll, beforeAll, expect } from "bun:test";
import { SeededRandom } from "../../core/base/random.ts";
import { Cluster } from "../tools/cluster.ts";
import { must, pattern, testWith } from "../tools/lab.ts";
import { FLAG, type NbdClient } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
const BLOCK = 4096;
const VOLUME_BYTES = 32 * MIB;
/** Requests are cut into records at these boundaries; a record of zeros is a hole. */
const PIECE_BYTES = 512 * 1024;
let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start({
    hosts: ["alpha", "beta"],
    volumeBytes: VOLUME_BYTES,
    storeBytes: 256 * MIB,
  });
  await cluster.inSync();
});
afterAll(async () => await cluster.close());

/** What the volume must be: its bytes, and which blocks have data. */
class Model {
  readonly bytes = new Uint8Array(VOLUME_BYTES);
  readonly isData = new Uint8Array(VOLUME_BYTES / BLOCK);

  write(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
    this.pieces(offset, data.length, (from, to, isPartial) => {
      const isZero = data.subarray(from - offset, to - offset).every((byte) => byte === 0);
      this.mark(from, to, isPartial || !isZero);
    });
  }

  /** TRIM leaves parts of blocks as they are; zeroes do not. */
  clear(offset: number, length: number, kind: "trim" | "zero" | "provision"): void {
    this.pieces(offset, length, (from, to, isPartial) => {
      if (kind !== "trim" || !isPartial) this.bytes.fill(0, from, to);
      if (kind === "provision") this.mark(from, to, true);
      else if (!isPartial) this.mark(from, to, false);
    });
  }

  get runs(): { offset: number; length: number; isData: boolean }[] {
    const runs: { offset: number; length: number; isData: boolean }[] = [];
    for (const [index, value] of this.isData.entries()) {
      const last = runs.at(-1);
      if (last !== undefined && last.isData === (value === 1)) last.length += BLOCK;
      else runs.push({ offset: index * BLOCK, length: BLOCK, isData: value === 1 });
    }
    return runs;
  }

  get dataBytes(): number {
    return this.isData.reduce((sum, value) => sum + value, 0) * BLOCK;
  }

  private pieces(
    offset: number,
    length: number,
    visit: (from: number, to: number, isPartial: boolean) => void,
  ): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const blockEnd = (Math.floor(at / BLOCK) + 1) * BLOCK;
      const isPartial = at % BLOCK !== 0 || end < blockEnd;
      const boundary = (Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES;
      const wholeEnd = Math.floor(end / BLOCK) * BLOCK;
      const to = isPartial ? Math.min(blockEnd, end) : Math.min(boundary, wholeEnd);
      visit(at, to, isPartial);
      at = to;
    }
  }

  private mark(from: number, to: number, isData: boolean): void {
    this.isData.fill(isData ? 1 : 0, Math.floor(from / BLOCK), Math.ceil(to / BLOCK));
  }
}

async function act(client: NbdClient, model: Model, random: SeededRandom): Promise<void> {
  const unit = random.chance(0.7) ? BLOCK : 512;
  const most = random.chance(0.2) ? 3 * MIB : 96 * 1024;
  const length = unit * (1 + random.below(most / unit));
  const offset = unit * random.below((VOLUME_BYTES - length) / unit + 1);
  const roll = random.below(10);
  if (roll < 4) {
    const data = pattern(random.below(60_000) + 1, length);
    if (random.chance(0.3)) data.fill(0, 0, Math.min(length, random.below(1024 * 1024)));
    if (random.chance(0.3)) data.fill(0);
    await client.write(offset, data);
    model.write(offset, data);
  } else if (roll < 7) {
    await client.trim(offset, length);
    model.clear(offset, length, "trim");
  } else if (roll < 9) {
    await client.zero(offset, length);
    model.clear(offset, length, "zero");
  } else {
    await client.zero(offset, length, FLAG.noHole);
    model.clear(offset, length, "provision");
  }
}

interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}
interface QemuExtent {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
  readonly zero: boolean;
}

async function expectMaps(uri: string, model: Model): Promise<void> {
  const found = JSON.parse(await must(["nbdinfo", "--map", "--json", uri])) as NbdExtent[];
  expect(found.map(({ offset, length, type }) => ({ offset, length, isData: type === 0 }))).toEqual(
    model.runs,
  );
  expect(found.every(({ type }) => type === 0 || type === 3)).toBe(true);
  const words = ["qemu-img", "map", "--output=json", "-f", "raw", uri];
  const qemu = JSON.parse(await must(words)) as QemuExtent[];
  expect(qemu.map(({ start, length, data }) => ({ offset: start, length, isData: data }))).toEqual(
    model.runs,
  );
}

testWith(
  ["nbdinfo", "qemu-img"],
  "random trims, zeroes and writes: the map is exact on both hosts, and so is the room taken",
  async () => {
    const client = await cluster.client("alpha");
    const model = new Model();
    const random = new SeededRandom(21);
    for (let round = 0; round < 8; round += 1) {
      for (let count = 0; count < 40; count += 1) await act(client, model, random);
      for (const name of ["alpha", "beta"]) {
        await expectMaps(`${cluster.host(name).nbd}/vol0`, model);
        await cluster.until(
          name,
          "the room taken is the data's",
          ({ volumes }) => volumes[0]?.usedBytes === model.dataBytes,
        );
      }
    }
    const read = await client.read(0, VOLUME_BYTES);
    expect(Buffer.compare(read, model.bytes)).toBe(0);
    // And after both stores were read back from disk.
    for (const name of ["alpha", "beta"]) await cluster.host(name).stop();
    for (const name of ["alpha", "beta"]) cluster.host(name).spawn();
    await cluster.inSync();
    await expectMaps(`${cluster.host("beta").nbd}/vol0`, model);
  },
  120_000,
);

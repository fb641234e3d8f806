/** What `vsan recover` will not do: one sentence, the right exit code, and nothing overwritten. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Cluster } from "../tools/cluster.ts";
import type { Finished, HostProcess } from "../tools/host_process.ts";

const MIB = 1024 * 1024;

/** The last line on stderr; log lines of the host that ran for the command come before it. */
function sentence({ stderr }: Finished): string {
  expect(stderr).not.toContain("    at ");
  return stderr.trimEnd().split("\n").at(-1) ?? "";
}

function digest(path: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
}

function blank(host: HostProcess): void {
  const { size } = Bun.file(host.store);
  truncateSync(host.store, 0);
  truncateSync(host.store, size);
}

describe("in a cluster", () => {
  let cluster: Cluster;
  let beta: HostProcess;

  beforeAll(async () => {
    cluster = await Cluster.start({
      hosts: ["alpha", "beta"],
      volumeBytes: 16 * MIB,
      storeBytes: 256 * MIB,
    });
    beta = cluster.host("beta");
    await cluster.inSync();
    const client = await cluster.client("alpha");
    await client.write(0, new Uint8Array(MIB).fill(9));
    await client.flush();
    client.close();
  });
  afterAll(async () => await cluster.close());

  test("a store that works is not rebuilt elsewhere", async () => {
    const path = join(cluster.directory, "other.vsan");
    const answer = await beta.run(["recover", "--store", path]);
    expect(sentence(answer)).toBe("vsan: the store works and needs no recovery");
    expect(answer.code).toBe(3);
    expect(existsSync(path)).toBe(false);
    expect((await cluster.stateOf("beta")).state).toBe("in-sync");
  });

  test("a path in no directory is wrong use", async () => {
    const answer = await beta.run(["recover", "--store", join(cluster.directory, "no", "disk")]);
    expect(sentence(answer)).toContain("there is no directory");
    expect(answer.code).toBe(2);
    expect(existsSync(join(cluster.directory, "no"))).toBe(false);
  });

  test("a store in use by another host is left alone", async () => {
    await beta.kill();
    blank(beta);
    const answer = await beta.run(["recover", "--store", cluster.host("alpha").store]);
    expect(sentence(answer)).toContain("is in use by another vsan process");
    expect(answer.code).toBe(3);
    expect((await cluster.stateOf("alpha")).disk).toBe("ok");
  });

  test("another host's store is only overwritten by force", async () => {
    const copy = join(cluster.directory, "copy.vsan");
    copyFileSync(cluster.host("alpha").store, copy);
    const before = digest(copy);
    const answer = await beta.run(["recover", "--store", copy]);
    expect(sentence(answer)).toMatch(/belongs to host .*--force/);
    expect(answer.code).toBe(1);
    expect(digest(copy)).toBe(before);
    const forced = await beta.run(["recover", "--store", copy, "--force"]);
    expect(`${forced.code} ${forced.stdout}`).toBe("0 vsan recover: beta is in sync\n");
    expect(digest(copy)).not.toBe(before);
  });

  test("something that is no store is only overwritten by force", async () => {
    const path = join(cluster.directory, "photos.img");
    writeFileSync(path, new Uint8Array(256 * MIB).fill(0x55));
    const before = digest(path);
    const answer = await beta.run(["recover", "--store", path]);
    expect(sentence(answer)).toMatch(/something other than a store.*--force/);
    expect(answer.code).toBe(1);
    expect(digest(path)).toBe(before);
  });

  test("without any host in sync, what is left on the disk is kept", async () => {
    await cluster.host("alpha").kill();
    const damaged = readFileSync(beta.store);
    damaged.fill(0xee, 0, MIB / 4);
    writeFileSync(beta.store, damaged);
    const before = digest(beta.store);
    const answer = await beta.run(["recover"]);
    expect(sentence(answer)).toContain("no host in sync is connected to rebuild from (alpha)");
    expect(answer.code).toBe(3);
    expect(digest(beta.store)).toBe(before);
  });
});

test("a host alone has nothing to rebuild from", async () => {
  const cluster = await Cluster.start({ hosts: ["solo"], volumeBytes: 16 * MIB });
  try {
    const solo = cluster.host("solo");
    const client = await cluster.client("solo");
    await client.write(0, new Uint8Array(MIB).fill(9));
    client.close();
    expect(await solo.stop()).toBe(0);
    const damaged = readFileSync(solo.store);
    damaged.fill(0xee, 0, MIB / 4);
    writeFileSync(solo.store, damaged);
    const before = digest(solo.store);
    const answer = await solo.run(["recover"]);
    expect(sentence(answer)).toContain("solo is the only data host");
    expect(answer.code).toBe(3);
    expect(digest(solo.store)).toBe(before);
  } finally {
    await cluster.close();
  }
});

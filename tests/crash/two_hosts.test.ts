/** Two data hosts and nobody else: without its peer a host reads, and says why it writes not. */
import { afterEach, expect, test } from "bun:test";
import { Cluster } from "../tools/cluster.ts";
import { contentsOf } from "../tools/volume_content.ts";

const MIB = 1024 * 1024;
let cluster: Cluster | null = null;

afterEach(async () => {
  await cluster?.close();
  cluster = null;
});

test("reads go on, writes wait for the peer and are done when it returns", async () => {
  cluster = await Cluster.start({ hosts: ["alpha", "beta"], volumeBytes: 16 * MIB });
  await cluster.inSync();
  const client = await cluster.client("alpha");
  await client.write(0, new Uint8Array(MIB).fill(1));
  await client.flush();
  await cluster.host("beta").kill();
  let isDone = false;
  const waiting = client.write(MIB, new Uint8Array(MIB).fill(2)).then(() => {
    isDone = true;
  });
  const { volumes, view } = await cluster.until(
    "alpha",
    "frozen",
    (status) => !status.view.majority && status.volumes[0]?.io === "frozen",
  );
  expect(volumes[0]?.why).toMatch(/^writes frozen: 1 of 2 votes, beta unreachable for \d+ s$/);
  expect(view.why).toBe(volumes[0]?.why ?? "");
  expect(await client.read(0, MIB)).toEqual(new Uint8Array(MIB).fill(1));
  const { code, stdout } = await cluster.host("alpha").run(["mirror", "status"]);
  expect(code).toBe(0);
  expect(stdout).toContain("writes frozen: 1 of 2 votes");
  const refused = await cluster.host("alpha").run(["recover", "--store", `${cluster.directory}/x`]);
  expect(refused.code).toBe(3);
  expect(isDone).toBe(false);
  await cluster.host("beta").start();
  await waiting;
  await cluster.inSync();
  const other = await cluster.client("beta");
  expect(await other.read(MIB, MIB)).toEqual(new Uint8Array(MIB).fill(2));
  expect(await contentsOf(other)).toBe(await contentsOf(client));
});

test("an orderly stop leaves the other one alone with everything", async () => {
  cluster = await Cluster.start({ hosts: ["alpha", "beta"], volumeBytes: 16 * MIB });
  await cluster.inSync();
  expect(await cluster.host("beta").stop()).toBe(0);
  const status = await cluster.until(
    "alpha",
    "beta is gone",
    ({ hosts }) => hosts.find(({ name }) => name === "beta")?.state === "offline",
  );
  // Two votes, one gone: no majority. It said goodbye, so its vote is known, not its return.
  expect(["ok", "frozen"]).toContain(status.volumes[0]?.io ?? "");
  if (status.volumes[0]?.io === "frozen") expect(status.volumes[0].why).not.toBe("");
  await cluster.host("beta").start();
  await cluster.inSync();
});

test("min_copies = 2: a majority with one copy reads, and writes wait for the second", async () => {
  cluster = await Cluster.start({
    hosts: ["alpha", "beta", "gamma"],
    kinds: { gamma: "witness" },
    volumeBytes: 16 * MIB,
    clusterLines: ["min_copies = 2"],
  });
  await cluster.inSync();
  const client = await cluster.client("alpha");
  await client.write(0, new Uint8Array(MIB).fill(1));
  await cluster.host("beta").kill();
  const why = "writes frozen: 1 of min_copies 2 hosts in sync";
  await cluster.until("alpha", "one member, which does not write", ({ view, volumes }) => {
    const [volume] = volumes;
    return view.members.length === 1 && volume?.io === "frozen" && volume.why === why;
  });
  let isDone = false;
  const waiting = client.write(MIB, new Uint8Array(MIB).fill(2)).then(() => {
    isDone = true;
  });
  expect(await client.read(0, MIB)).toEqual(new Uint8Array(MIB).fill(1));
  expect(isDone).toBe(false);
  await cluster.host("beta").start();
  await waiting;
  await cluster.inSync();
  const other = await cluster.client("beta");
  expect(await other.read(MIB, MIB)).toEqual(new Uint8Array(MIB).fill(2));
});

/** fio with checksums through NBD: over several hosts, and while one of them dies and returns. */
import { afterEach, expect } from "bun:test";
import { Cluster, type ClusterOptions } from "../tools/cluster.ts";
import { Cleanup, must, testWith, until } from "../tools/lab.ts";

const MIB = 1024 * 1024;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

async function start(options: Partial<ClusterOptions> = {}): Promise<Cluster> {
  const hosts = ["alpha", "beta", "gamma"];
  const cluster = await Cluster.start({ hosts, storeBytes: 512 * MIB, ...options });
  cleanup.add(() => cluster.close());
  await cluster.inSync();
  return cluster;
}

function fio(cluster: Cluster, host: string, ...flags: string[]): string[] {
  const uri = `--uri=${cluster.host(host).nbd}/vol0`;
  const common = ["--name=w", "--ioengine=nbd", "--bs=4k", "--iodepth=16", "--verify=crc32c"];
  // fio writes files of its own beside the current directory if it is told to keep a state.
  const quiet = ["--verify_fatal=1", "--verify_state_save=0", "--randseed=7"];
  return ["fio", ...common, ...quiet, uri, ...flags];
}

testWith(["fio"], "what fio wrote through one host verifies through every other", async () => {
  const cluster = await start();
  const job = ["--rw=randwrite", "--size=16M"];
  await must(fio(cluster, "alpha", ...job, "--do_verify=0", "--end_fsync=1"));
  for (const name of ["alpha", "beta", "gamma"]) {
    await must(fio(cluster, name, ...job, "--verify_only=1"));
  }
});

for (const [what, ...flags] of [
  ["fio", "--rate_iops=1500"],
  ["fio with a flush after each write", "--iodepth=1", "--fsync=1"],
] as const) {
  const name = `${what} verifies at one host of three while another is killed and returns`;
  testWith(["fio"], name, async () => {
    const cluster = await start();
    const job = ["--rw=randrw", "--size=24M", "--time_based=1", "--runtime=8", ...flags];
    let isOver = false;
    const running = must(fio(cluster, "beta", ...job, "--verify_backlog=256"), 60_000).finally(
      () => {
        isOver = true;
      },
    );
    running.catch(() => {});
    await until("fio writes", async () => {
      const { volumes } = await cluster.host("beta").status();
      return volumes.some((volume) => volume.usedBytes > MIB);
    });
    await cluster.host("alpha").kill();
    await cluster.until("beta", "a view without alpha", ({ view }) => {
      return view.open && !view.members.includes("alpha");
    });
    expect(isOver).toBe(false);
    await cluster.host("alpha").start();
    await cluster.inSync();
    await running;
    await cluster.inSync();
    for (const host of cluster.hosts) {
      const { code, stdout } = await host.run(["mirror", "status"]);
      expect(`${code} ${stdout}`).toStartWith("0 ");
    }
    const seen = new Set<string>();
    for (const host of cluster.hosts) {
      const client = await cluster.client(host.name);
      const hash = new Bun.CryptoHasher("sha256");
      for (let at = 0; at < 24 * MIB; at += MIB) hash.update(await client.read(at, MIB));
      seen.add(hash.digest("hex"));
    }
    expect(seen.size).toBe(1);
  });
}

/** Three hosts mirror by multicast over a network that loses datagrams. */
import { afterEach, expect } from "bun:test";
import { expectEqual, readAll } from "../tools/bytes.ts";
import { Cluster } from "../tools/cluster.ts";
import { Cleanup, testWith } from "../tools/lab.ts";
import { Load } from "../tools/load.ts";
import { NEEDS_OF_NET_LAB, NetLab } from "../tools/net_lab.ts";
import { readStoreImage } from "../tools/store_image.ts";

const MIB = 1024 * 1024;
const VOLUME_BYTES = 64 * MIB;
const HOSTS = ["alpha", "beta", "gamma"];
const WRITES = 200;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

testWith(
  NEEDS_OF_NET_LAB,
  "mirror = shared with 5 % of the datagrams lost: identical copies, in bounded time",
  async () => {
    const lab = await NetLab.create(HOSTS);
    cleanup.add(() => lab.close());
    const cluster = await Cluster.start({
      hosts: HOSTS,
      mirror: "shared",
      volumeBytes: VOLUME_BYTES,
      storeBytes: 256 * MIB,
      ...lab.clusterOptions,
    });
    cleanup.add(() => cluster.close());
    await cluster.inSync();
    for (const name of HOSTS) await lab.loseMulticast(name, 0.05);
    const begun = performance.now();
    const loads = await Promise.all(
      ["alpha", "beta"].map(async (name, index) => {
        const options = { offset: index * 16 * MIB, bytes: 4 * MIB, seed: 50 + index };
        return new Load(await cluster.client(name), options);
      }),
    );
    await Promise.all(loads.map((load) => load.progress(WRITES, 30_000)));
    const results = await Promise.all(loads.map((load) => load.stop()));
    expect(performance.now() - begun).toBeLessThan(30_000);
    for (const name of HOSTS) expect(await lab.lostMulticast(name)).toBeGreaterThan(20);
    for (const name of HOSTS) {
      const client = await cluster.client(name);
      for (const [index, { expected }] of results.entries()) {
        expectEqual(await readAll(client, index * 16 * MIB, expected.length), expected);
      }
    }
    const status = await cluster.host("alpha").status();
    expect(status.view.members).toEqual(HOSTS);
    expect(await Promise.all(cluster.hosts.map((host) => host.stop()))).toEqual([0, 0, 0]);
    const images = cluster.hosts.map((host, self) =>
      readStoreImage(host.store, {
        clusterName: "test",
        self,
        volumeName: "vol0",
        volumeBytes: VOLUME_BYTES,
      }),
    );
    for (const image of images.slice(1)) expectEqual(image, images[0] as Uint8Array);
  },
);

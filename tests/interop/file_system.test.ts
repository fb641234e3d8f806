/** ext4 on a volume: a tree is copied, the host under it dies, and another host has it all. */
import { afterEach, expect } from "bun:test";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Cluster } from "../tools/cluster.ts";
import { MountedVolume, NEEDS_OF_FILE_SYSTEM } from "../tools/file_system.ts";
import { Cleanup, must, testWith } from "../tools/lab.ts";

const MIB = 1024 * 1024;
const ROOT = join(import.meta.dir, "../..");
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

testWith(
  [...NEEDS_OF_FILE_SYSTEM, "fsck.ext4", "diff"],
  "ext4 survives the death of the host under it; another host has every synced file",
  async () => {
    const hosts = ["alpha", "beta", "gamma"];
    const cluster = await Cluster.start({ hosts, volumeBytes: 128 * MIB, storeBytes: 512 * MIB });
    cleanup.add(() => cluster.close());
    await cluster.inSync();
    const volume = new MountedVolume(join(cluster.directory, "ext4"));
    cleanup.add(() => volume.close());
    await volume.open(cluster.host("alpha").nbd, { format: true });
    // A copy first: somebody may be working on the sources.
    const trees = ["core", "cmd", "tests", "docs"];
    const kept = join(cluster.directory, "trees");
    mkdirSync(kept);
    await must(["cp", "-r", ...trees.map((tree) => join(ROOT, tree)), kept]);
    await must(["cp", "-r", ...trees.map((tree) => join(kept, tree)), volume.path]);
    await must(["sync", "-f", volume.path]);
    await cluster.host("alpha").kill();
    await volume.close();
    // The journal is replayed by the mount; then the file system must be clean.
    await volume.open(cluster.host("beta").nbd, { format: false });
    for (const tree of trees) await must(["diff", "-r", join(kept, tree), join(volume.path, tree)]);
    expect(readdirSync(volume.path).sort()).toEqual([...trees, "lost+found"].sort());
    await volume.unmount();
    await volume.check(cluster.host("gamma").nbd);
    await cluster.host("alpha").start();
    await cluster.inSync();
    await volume.check(cluster.host("alpha").nbd);
  },
  120_000,
);

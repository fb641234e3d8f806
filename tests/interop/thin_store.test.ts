/**
 * A thin store on a small file system that runs full under it (FAULTS 13): ENOSPC to the client,
 * nothing lost, TRIM goes on and gives space back below, and room that comes back is used.
 */
import { afterEach, expect } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expectEqual, readAll, writeAll } from "../tools/bytes.ts";
import { Cluster } from "../tools/cluster.ts";
import { Cleanup, must, pattern, testWith, until } from "../tools/lab.ts";
import { LoopDevice, NEEDS_OF_LOOP } from "../tools/loop_device.ts";
import { NbdError } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
const ENOSPC = 28;
const cleanup = new Cleanup();
afterEach(async () => await cleanup.run());

/** A directory that is a file system of its own. */
async function smallFileSystem(sizeBytes: number): Promise<string> {
  const device = await LoopDevice.make(sizeBytes);
  cleanup.add(async () => await device.close());
  await must(["mkfs.ext4", "-q", device.path]);
  const directory = mkdtempSync(join(tmpdir(), "vsan-thin-"));
  cleanup.add(() => rmSync(directory, { recursive: true, force: true }));
  const mountPoint = join(directory, "mnt");
  mkdirSync(mountPoint);
  await must(["mount", device.path, mountPoint]);
  cleanup.add(async () => void (await must(["umount", mountPoint])));
  return mountPoint;
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

testWith(
  [...NEEDS_OF_LOOP, "mkfs.ext4"],
  "fault 13: a thin store whose file system is full is a full store, and comes back by itself",
  async () => {
    const directory = await smallFileSystem(300 * MIB);
    const store = join(directory, "solo.vsan");
    const cluster = await Cluster.start({
      hosts: ["solo"],
      volumeBytes: 400 * MIB,
      storeBytes: 500 * MIB,
      store: () => store,
      hostLines: () => ['store_alloc = "thin"'],
    });
    cleanup.add(async () => await cluster.close());
    const solo = cluster.host("solo");
    const client = await cluster.client("solo");
    const taken = (): number => statSync(store).blocks * 512;
    // Somebody else has a part of the file system.
    writeFileSync(join(directory, "other"), new Uint8Array(40 * MIB));
    let written = 0;
    let refused: unknown = null;
    while (refused === null) {
      refused = await client.write(written * MIB, pattern(written + 1, MIB)).then(
        () => null,
        (thrown) => thrown,
      );
      if (refused === null) written += 1;
    }
    expect(refused).toBeInstanceOf(NbdError);
    expect((refused as NbdError).errno).toBe(ENOSPC);
    const full = await cluster.until("solo", "it says so", ({ volumes }) =>
      (volumes[0]?.why ?? "").includes("the store of solo is full"),
    );
    expect(full.hosts[0]?.disk).toBe("ok");
    // What is there may be written again, also after a kill in this state.
    await writeAll(client, 0, pattern(77, 8 * MIB));
    await client.flush();
    await solo.kill();
    await solo.start();
    const again = await cluster.client("solo");
    expectEqual(await readAll(again, 0, 8 * MIB), pattern(77, 8 * MIB));
    for (let at = 8; at < written; at += 7) {
      expectEqual(await again.read(at * MIB, MIB), pattern(at + 1, MIB));
    }
    // TRIM makes room in the store, and below.
    const before = { taken: taken(), free: freeBytes(directory) };
    await again.trim(0, (written - 10) * MIB);
    for (let round = 0; round < 60; round += 1) {
      await again.write(390 * MIB, pattern(round + 1, MIB));
      await again.flush();
    }
    await until("space came back below", () => taken() < before.taken - 32 * MIB, 20_000);
    expect(freeBytes(directory)).toBeGreaterThan(before.free + 32 * MIB);
    await writeAll(again, 200 * MIB, pattern(5, 32 * MIB));
    expectEqual(await readAll(again, 200 * MIB, 32 * MIB), pattern(5, 32 * MIB));
    expect(await solo.stop()).toBe(0);
    const { code, stdout } = await solo.run(["recover", "check"]);
    expect(`${code} ${stdout}`).toStartWith("0 ");
  },
  120_000,
);

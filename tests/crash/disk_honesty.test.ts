/**
 * Writes and syncs that fail once in the real executable, by system call: whatever the disk says
 * afterwards, it is not trusted again, and no client sees an error. (Rebello et al., "Can
 * Applications Recover from fsync Failures?", USENIX ATC 2020: after a failed fsync the page cache
 * holds pages that are marked clean and are not on the disk.)
 */
import { afterEach, describe, expect, test } from "bun:test";
import { BlockLoad } from "../tools/block_load.ts";
import { Cluster } from "../tools/cluster.ts";
import { canTrace, SyscallFault } from "../tools/syscall_fault.ts";

const MIB = 1024 * 1024;

let cluster: Cluster | null = null;
let load: BlockLoad | null = null;
let fault: SyscallFault | null = null;

afterEach(async () => {
  await fault?.detach();
  await load?.stop();
  await Promise.all((cluster?.hosts ?? []).map((host) => host.kill()));
  await cluster?.close();
  cluster = null;
  load = null;
  fault = null;
});

/** Three hosts under load; beta's calls fail as `injection` says, until beta's disk has failed. */
async function whyFailed(backend: "auto" | "fs", injection: string): Promise<string> {
  const all = await Cluster.start({
    hosts: ["alpha", "beta", "gamma"],
    volumeBytes: 16 * MIB,
    storeBytes: 128 * MIB,
    environment: backend === "fs" ? { VSAN_DISK: "fs" } : {},
  });
  cluster = all;
  await all.inSync();
  load = new BlockLoad(all.hosts, 64, 7);
  load.start();
  await load.more(200);
  fault = await SyscallFault.attach(all.host("beta").pid, [injection]);
  const client = await all.client("alpha");
  await client.flush();
  await all.until("alpha", "beta's disk has failed and beta left the members", (status) => {
    const beta = status.hosts.find(({ name }) => name === "beta");
    return !status.view.members.includes("beta") && beta?.disk === "failed";
  });
  // The disk works again; nobody asks it.
  await fault.detach();
  fault = null;
  await load.more(200);
  await client.flush();
  await load.stop();
  expect(load.errorTexts).toEqual([]);
  const own = await all.stateOf("beta");
  expect(own.disk).toBe("failed");
  for (const name of ["alpha", "beta", "gamma"]) {
    const reader = await all.client(name);
    expect(await load.check(reader)).toEqual([]);
    reader.close();
  }
  return own.why;
}

describe.skipIf(!canTrace)("a call that fails once", () => {
  test("fdatasync, over the thread pool", async () => {
    expect(await whyFailed("fs", "fdatasync:error=EIO:when=1")).toBe("a sync failed (errno 5)");
  }, 60_000);

  test.each(["auto", "fs"] as const)(
    "pwrite64, inline, backend %s",
    async (backend) => {
      const why = await whyFailed(backend, "pwrite64:error=EIO:when=1");
      expect(why).toBe("a write failed (errno 5)");
    },
    60_000,
  );

  test("a write that writes nothing and says so, over the thread pool", async () => {
    expect(await whyFailed("fs", "pwrite64:retval=0")).toBe("a write was cut short");
  }, 60_000);
});

/** The commands on a cluster of three processes: status, signals, recover, both ways. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import type { StatusDocument } from "../../cmd/status_document.ts";
import { Cluster } from "../tools/cluster.ts";
import { NbdClient } from "../tools/nbd_client.ts";

const MIB = 1024 * 1024;
let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start({ hosts: ["alpha", "beta", "gamma"] });
  await cluster.inSync();
});
afterAll(async () => await cluster.close());

describe("a cluster of three", () => {
  test("every host tells the same of the view", async () => {
    // Hosts that started while the others did may have met on the shared path first.
    const usesLinks = (status: StatusDocument): boolean => {
      const own = status.hosts.find((entry) => entry.name === status.host);
      return own?.paths.filter(({ via, up }) => via === "dedicated" && up).length === 2;
    };
    const seen = await Promise.all(
      cluster.hosts.map(({ name }) => cluster.until(name, "both dedicated links up", usesLinks)),
    );
    for (const { view } of seen) {
      expect(view.members).toEqual(["alpha", "beta", "gamma"]);
      expect(view.epoch).toBe(seen[0]?.view.epoch as number);
    }
    const { code, stdout } = await cluster.host("beta").run(["mirror", "status"]);
    expect(code).toBe(0);
    expect(stdout).toContain("alpha, beta, gamma");
  });

  test("the holder of a written range is listed", async () => {
    const client = await cluster.client("beta");
    await client.write(0, new Uint8Array(4096).fill(1));
    const { code, stdout } = await cluster.host("alpha").run(["lease", "list", "vol0", "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).map((lease: { holder: string }) => lease.holder)).toContain("beta");
    client.close();
  });

  test("an orderly stop is 0, and the others go on", async () => {
    expect(await cluster.host("gamma").stop()).toBe(0);
    const status = await cluster.until(
      "alpha",
      "gamma is gone",
      ({ view }) => view.open && !view.members.includes("gamma"),
    );
    expect(status.view.majority).toBe(true);
    const gone = await cluster.stateOf("alpha", "gamma");
    expect(gone.connected).toBe(false);
    expect(gone.why).not.toBe("");
    const client = await cluster.client("alpha");
    await client.write(MIB, new Uint8Array(MIB).fill(3));
    await client.flush();
    client.close();
    await cluster.host("gamma").start();
    await cluster.inSync();
  });

  test("recover without a running serve rebuilds an empty disk, then the host serves", async () => {
    const gamma = cluster.host("gamma");
    await gamma.kill();
    const size = Bun.file(gamma.store).size;
    truncateSync(gamma.store, 0);
    truncateSync(gamma.store, size);
    const { code, stdout, stderr } = await gamma.run(["recover"]);
    expect(`${code} ${stdout} ${code === 0 ? "" : stderr}`).toBe(
      "0 vsan recover: gamma is in sync\n ",
    );
    const check = await gamma.run(["recover", "check"]);
    expect(`${check.code} ${check.stdout}`).toStartWith("0 ");
    await gamma.start();
    await cluster.inSync();
    const client = await NbdClient.connect({ uri: gamma.nbd });
    expect(await client.read(MIB, MIB)).toEqual(new Uint8Array(MIB).fill(3));
    client.close();
  });

  test("recover --store through the running serve moves the host to another disk", async () => {
    const gamma = cluster.host("gamma");
    const path = `${gamma.store}.new`;
    const { code, stdout, stderr } = await gamma.run(["recover", "--store", path]);
    // A host that holds a good copy may refuse to give it up; it must then say so, with 3.
    if (code === 3) expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    else expect(`${code} ${stdout}`).toBe("0 vsan recover: gamma is in sync\n");
    const client = await cluster.client("gamma");
    expect(await client.read(MIB, MIB)).toEqual(new Uint8Array(MIB).fill(3));
    client.close();
  });

  test("a second signal ends a host at once", async () => {
    const gamma = cluster.host("gamma");
    gamma.pause();
    gamma.signal("SIGTERM");
    gamma.signal("SIGINT");
    gamma.resume();
    const started = performance.now();
    await gamma.stop();
    expect(performance.now() - started).toBeLessThan(1000);
    expect(gamma.isRunning).toBe(false);
  });
});

/** `vsan serve --init`: what it writes works for every host, and it overwrites nothing. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readClusterKey } from "../../../cmd/cluster_key.ts";
import { loadConfig } from "../../../cmd/config.ts";
import { EXIT } from "../../../cmd/exit.ts";
import { initCluster, initReport } from "../../../cmd/init.ts";

const root = mkdtempSync(join(tmpdir(), "vsan-init-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;

function fresh(): string {
  count += 1;
  return join(root, `lab-${count}`);
}

const GOOD = { hosts: "alpha,beta,gamma", volume: "vol0:10G" };

describe("what is written", () => {
  test("is a config for every host, with ports of its own", async () => {
    const directory = fresh();
    const result = await initCluster({ directory, ...GOOD });
    const used = new Set<string>();
    for (const name of ["alpha", "beta", "gamma"]) {
      const { self, document } = loadConfig({ file: result.file, host: name });
      expect(self.store).toBe(join(directory, `${name}.vsan`));
      for (const text of [self.link, self.shared, ...self.nbd, self.control, self.state]) {
        expect(text).toBeDefined();
        used.add(text as string);
      }
      expect(document.volume[0]?.size).toBe(10 * 1024 ** 3);
      expect(self.store_size).toBeGreaterThan(12 * 1024 ** 3);
    }
    expect(used.size).toBe(15);
    expect(readClusterKey(result.keyFile)).toHaveLength(32);
    expect(statSync(result.keyFile).mode & 0o777).toBe(0o600);
    expect(initReport(result)).toContain(`vsan serve --config ${result.file} --host beta`);
  });

  test("explains every setting of a host", async () => {
    const { file } = await initCluster({ directory: fresh(), ...GOOD });
    const text = readFileSync(file, "utf8");
    const settings = text
      .split("\n")
      .filter((line) => /^(link|store|nbd|control|state) = /.test(line));
    expect(settings).toHaveLength(15);
    for (const line of settings) expect(line).toContain(" # ");
  });

  test("leaves out a port that is in use", async () => {
    const server = createServer();
    const taken = await new Promise<boolean>((done) => {
      server.once("error", () => done(false));
      server.listen({ port: 7440, host: "127.0.0.1" }, () => done(true));
    });
    try {
      const { file } = await initCluster({ directory: fresh(), ...GOOD });
      expect(readFileSync(file, "utf8")).not.toContain('"127.0.0.1:7440"');
    } finally {
      if (taken) await new Promise((done) => server.close(done));
    }
  });

  test("says how two hosts get a third vote", async () => {
    const { file } = await initCluster({ directory: fresh(), hosts: "a,b", volume: "v:1G" });
    expect(readFileSync(file, "utf8")).toContain('kind = "witness"');
  });
});

describe("nothing is written when it is refused", () => {
  test.each([
    [{ hosts: "alpha,alpha" }, "alpha is named twice"],
    [{ hosts: "alpha,,beta" }, '"" is not a host name'],
    [{ hosts: "al pha" }, "is not a host name"],
    [{ hosts: Array.from({ length: 17 }, (_, i) => `h${i}`).join(",") }, "the most is 16"],
    [{ volume: "vol0" }, "expected NAME:SIZE"],
    [{ volume: "vol0:10" }, "whole 4096-byte blocks"],
    [{ volume: "vol0:0" }, "whole 4096-byte blocks"],
    [{ volume: "vol0:2P" }, "the largest is 1024T"],
    [{ volume: "a/b:1G" }, "expected NAME:SIZE"],
  ])("%p", async (change, complaint) => {
    const directory = fresh();
    const thrown = await initCluster({ directory, ...GOOD, ...change }).catch((error) => error);
    expect(String(thrown)).toContain(complaint);
    expect(thrown.code).toBe(EXIT.usage);
    expect(existsSync(directory)).toBe(false);
  });

  test("an existing config or key stays as it is", async () => {
    for (const name of ["vsan.toml", "cluster.key"]) {
      const directory = fresh();
      await initCluster({ directory, ...GOOD });
      const other = name === "vsan.toml" ? "cluster.key" : "vsan.toml";
      rmSync(join(directory, other));
      writeFileSync(join(directory, name), "mine");
      await expect(initCluster({ directory, ...GOOD })).rejects.toThrow("is left as it is");
      expect(readFileSync(join(directory, name), "utf8")).toBe("mine");
      expect(existsSync(join(directory, other))).toBe(false);
    }
  });

  test("a directory whose sockets would have too long a path", async () => {
    const directory = join(root, "x".repeat(120));
    await expect(initCluster({ directory, ...GOOD })).rejects.toThrow("too long a path");
  });
});

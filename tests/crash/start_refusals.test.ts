/**
 * Starts that must not happen: an address, a store or a name that is taken. One clear sentence,
 * exit 1, no ready line, and the stores and votes as they were. And configs that make no sense:
 * exit 2, and nothing at all was made.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { Cluster, EXECUTABLE, freePorts } from "../tools/cluster.ts";

const MIB = 1024 * 1024;
let cluster: Cluster;
let taken: Server;
let takenPort = 0;

beforeAll(async () => {
  cluster = await Cluster.start({
    hosts: ["alpha", "beta"],
    volumeBytes: 16 * MIB,
    storeBytes: 256 * MIB,
  });
  await cluster.inSync();
  takenPort = (await freePorts(1))[0] ?? 0;
  taken = createServer();
  await new Promise<void>((done) => {
    taken.listen(takenPort, "127.0.0.1", () => done());
  });
});
afterAll(async () => {
  taken.close();
  await cluster.close();
});

interface Answer {
  readonly code: number;
  readonly out: string;
  readonly last: string;
}

function serve(words: readonly string[], cwd = cluster.directory): Answer {
  const { exitCode, stdout, stderr } = Bun.spawnSync([EXECUTABLE, "serve", ...words], {
    cwd,
    env: { ...process.env, VSAN_CONFIG: "" },
    stdin: "ignore",
    timeout: 20_000,
    killSignal: "SIGKILL",
  });
  const error = stderr.toString();
  expect(error).not.toContain("    at ");
  const last = error.trimEnd().split("\n").at(-1) ?? "";
  return { code: exitCode ?? -1, out: stdout.toString(), last };
}

function fresh(name: string): string {
  const path = join(cluster.directory, name);
  mkdirSync(path);
  return path;
}

function digest(path: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
}

describe("a host alone, nothing there before", () => {
  test.each([
    ["nbd", () => ["--nbd", `127.0.0.1:${takenPort}`], /cannot serve NBD on .*in use/],
    ["nbd-unix", () => ["--nbd", "unix:/proc/nbd.sock"], /cannot serve NBD on unix:/],
    ["control", () => ["--control", cluster.host("alpha").control], /in use by another process/],
    ["control-file", () => ["--control", cluster.configFile], /exists and is not a socket/],
  ])("%s", async (name, words, complaint) => {
    const cwd = fresh(`alone-${name}`);
    const nbd = ["--nbd", `127.0.0.1:${(await freePorts(1))[0]}`];
    const flags = words();
    const answer = serve(["--size", "16M", ...(flags[0] === "--nbd" ? [] : nbd), ...flags], cwd);
    expect(answer.last).toMatch(complaint);
    expect(answer.code).toBe(1);
    expect(answer.out).toBe("");
    const made = existsSync(join(cwd, "vsan-data")) ? readdirSync(join(cwd, "vsan-data")) : [];
    expect(made.filter((file) => !file.endsWith(".lock"))).toEqual([]);
  });
});

describe("one of a cluster", () => {
  test("a second process of the same host", () => {
    const { code, out, last } = serve(["--config", cluster.configFile, "--host", "beta"]);
    expect(last).toMatch(/^vsan: .*beta\.state is in use by another vsan process$/);
    expect(code).toBe(1);
    expect(out).toBe("");
  });

  test("its store is in use, by a process that has a state of its own", async () => {
    const words = ["--config", cluster.configFile, "--host", "beta"];
    for (const name of ["state", "control"]) {
      words.push(`--${name}`, join(cluster.directory, `second.${name}`));
    }
    const [link, shared, nbd] = await freePorts(3);
    words.push("--link", `127.0.0.1:${link}`, "--shared", `127.0.0.1:${shared}`);
    const { code, out, last } = serve([...words, "--nbd", `127.0.0.1:${nbd}`]);
    expect(last).toMatch(/^vsan: .*beta\.vsan is in use by another vsan process$/);
    expect(code).toBe(1);
    expect(out).toBe("");
    expect(existsSync(join(cluster.directory, "second.state"))).toBe(false);
  });

  test("its link address is taken", async () => {
    const beta = cluster.host("beta");
    await beta.stop();
    const before = [digest(beta.store), digest(beta.state)];
    const link = ["--link", `127.0.0.1:${takenPort}`];
    const answer = serve(["--config", cluster.configFile, "--host", "beta", ...link]);
    expect(answer.last).toMatch(/cannot listen on 127\.0\.0\.1:\d+: the address is in use/);
    expect(answer.code).toBe(1);
    expect([digest(beta.store), digest(beta.state)]).toEqual(before);
  });

  test("its store is another host's, or of another cluster", async () => {
    const beta = cluster.host("beta");
    const alpha = cluster.host("alpha");
    const before = [digest(beta.state), digest(beta.store)];
    const common = ["--config", cluster.configFile, "--host", "beta"];
    const copy = join(cluster.directory, "copy.vsan");
    copyFileSync(alpha.store, copy);
    const copied = digest(copy);
    const another = serve([...common, "--store", copy]);
    expect(another.last).toBe(`vsan: ${copy} is the store of alpha, this is beta`);
    expect(another.code).toBe(1);
    const foreign = join(cluster.directory, "foreign.toml");
    const text = readFileSync(cluster.configFile, "utf8").replace('"test"', '"other"');
    writeFileSync(foreign, text);
    const cluster2 = serve(["--config", foreign, "--host", "beta"]);
    expect(cluster2.last).toBe(`vsan: ${beta.store} is a store of another cluster than other`);
    expect(cluster2.code).toBe(1);
    expect(digest(copy)).toBe(copied);
    expect([digest(beta.state), digest(beta.store)]).toEqual(before);
    expect((await cluster.stateOf("alpha")).disk).toBe("ok");
  });

  test("after all of this it starts as if nothing had been", async () => {
    await cluster.host("beta").start();
    await cluster.inSync();
  });
});

/** The running cluster's config, one thing in it changed. */
function changed(name: string, from: string | RegExp, to: string): string {
  const file = join(cluster.directory, `${name}.toml`);
  const text = readFileSync(cluster.configFile, "utf8");
  const result = text.replace(from, to);
  expect(result).not.toBe(text);
  writeFileSync(file, result);
  return file;
}

describe("configs that make no sense end with 2", () => {
  test.each([
    ["unknown-key", "[cluster]\n", "[cluster]\nnam = 1\n", /unknown key nam/],
    ["unknown-section", "[cluster]\n", "[clutser]\nx = 1\n[cluster]\n", /clutser/],
    ["odd-size", 'size = "16777216"', 'size = "16777217"', /4096/],
    ["no-size", 'size = "16777216"', 'size = "0"', /size/],
    ["odd-store", 'store_size = "268435456"', 'store_size = "268435457"', /store_size/],
    ["small-store", 'store_size = "268435456"', 'store_size = "64M"', /100M at least/],
    ["two-names", 'name = "beta"', 'name = "alpha"', /alpha/],
    ["bad-kind", 'kind = "data"', 'kind = "date"', /kind/],
    ["bad-mirror", 'mirror = "dedicated"', 'mirror = "dedicate"', /mirror/],
    ["no-toml", "[cluster]", "[cluster", /no-toml\.toml/],
    ["bad-address", /nbd = \["[^"]*"\]/, 'nbd = ["127.0.0.1:99999"]', /nbd/],
  ])("%s", (name, from, to, complaint) => {
    const file = changed(name, from, to);
    const { code, out, last } = serve(["--config", file, "--host", "alpha"]);
    expect(last).toMatch(complaint);
    expect(code).toBe(2);
    expect(out).toBe("");
  });

  test("one address for two hosts", () => {
    const text = readFileSync(cluster.configFile, "utf8");
    const links = [...text.matchAll(/^link = "([^"]*)"$/gm)].map(([, address]) => address ?? "");
    const file = changed("two-links", links[1] ?? "", links[0] ?? "");
    const { code, last } = serve(["--config", file, "--host", "alpha"]);
    expect(last).toContain(links[0] ?? "");
    expect(code).toBe(2);
  });

  test.each([
    ["too open", 0o644, "", /mode is 0644/],
    ["too short", 0o600, Buffer.alloc(16, 1).toString("base64"), /32/],
    ["no base64", 0o600, "!".repeat(44), /base64|32/],
    ["missing", 0, "", /key/],
  ])("a key file that is %s", (name, mode, content, complaint) => {
    const key = join(cluster.directory, `${name.replace(" ", "-")}.key`);
    if (mode !== 0) {
      const good = readFileSync(join(cluster.directory, "cluster.key"), "utf8");
      writeFileSync(key, content === "" ? good : content);
      chmodSync(key, mode);
    }
    const file = changed(`key-${name}`, "[cluster]\n", `[cluster]\nkey_file = "${key}"\n`);
    const { code, out, last } = serve(["--config", file, "--host", "alpha"]);
    expect(last).toMatch(complaint);
    expect(code).toBe(2);
    expect(out).toBe("");
  });
});

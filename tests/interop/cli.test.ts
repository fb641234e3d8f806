/** The compiled executable as an operator meets it: words, exit codes, streams, signals. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EXECUTABLE, freePorts } from "../tools/cluster.ts";
import { NbdClient } from "../tools/nbd_client.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-cli-"));
const environment = { ...process.env, VSAN_CONFIG: "", NO_COLOR: "1" };
const running: Bun.Subprocess[] = [];

beforeAll(() => {
  if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is missing: bun run build`);
});
afterAll(async () => {
  for (const child of running) child.kill("SIGKILL");
  await Promise.all(running.map((child) => child.exited));
  rmSync(directory, { recursive: true, force: true });
});

interface Result {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Runs to the end; nothing may hang. */
function vsan(words: readonly string[], cwd = directory): Result {
  const result = Bun.spawnSync([EXECUTABLE, ...words], {
    cwd,
    env: environment,
    stdin: "ignore",
    timeout: 20_000,
    killSignal: "SIGKILL",
  });
  const { exitCode, stdout, stderr } = result;
  return { code: exitCode ?? -1, out: stdout.toString(), error: stderr.toString() };
}

function fresh(name: string): string {
  const path = join(directory, name);
  mkdirSync(path);
  return path;
}

describe("wrong use ends with 2 and one sentence", () => {
  test.each([
    [["serve", "--bogus"], "vsan serve: unknown flag --bogus"],
    [["serve", "--sise", "1G"], "did you mean --size?"],
    [["serve", "--size"], "--size needs a value"],
    [["serve", "--size", "1000"], "--size: expected a size of whole 4096-byte blocks"],
    [["serve", "extra"], "surplus argument extra"],
    [["serv"], "unknown command serv; did you mean serve?"],
    [["mirror", "stats"], "did you mean status?"],
    [["mirror", "pause"], "missing argument"],
    [["lease", "list", "vol9"], "no volume vol9; did you mean vol0?"],
    [["serve", "--config", "/nonexistent/vsan.toml"], "cannot read the config"],
    [["serve", "--hosts", "a,b"], "--hosts is for --init"],
    [["serve", "--init", "x", "--store", "y"], "--store has no meaning with --init"],
    [["serve", "--nbd", "127.0.0.1"], "--nbd: expected an address"],
    [["mirror", "status", "--host", "a", "--host", "b"], "--host is given twice"],
  ])("%p", (words, complaint) => {
    const cwd = fresh(`use-${words.join("_").replaceAll("/", "_")}`);
    const { code, out, error } = vsan(words, cwd);
    expect(error).toContain(complaint);
    expect(error.trimEnd().split("\n")).toHaveLength(1);
    expect(out).toBe("");
    expect(code).toBe(2);
    expect(existsSync(join(cwd, "vsan-data"))).toBe(false);
  });
});

describe("what is not there yet is refused by name, with 1", () => {
  test.each([
    [["mirror", "verify"]],
    [["mirror", "pause", "beta"]],
    [["mirror", "resume", "beta"]],
    [["mirror", "throttle", "40M"]],
    [["lease", "acquire", "vol0", "0-1G", "--ttl", "30s"]],
    [["lease", "release", "1"]],
    [["lease", "revoke", "1"]],
    [["lease", "watch"]],
    [["recover", "takeover"]],
    [["recover", "resolve", "--keep", "alpha"]],
    [["recover", "forks"]],
    [["recover", "export", "f", "g"]],
  ])("%p", (words) => {
    const { code, out, error } = vsan(words);
    const name = words.slice(0, 2).join(" ");
    expect(error).toBe(`vsan ${name}: not in this version\n`);
    expect(out).toBe("");
    expect(code).toBe(1);
  });
});

test("help is on every level, with examples, on stdout", () => {
  for (const words of [[], ["serve"], ["mirror"], ["mirror", "status"], ["recover", "check"]]) {
    const { code, out, error } = vsan([...words, "--help"]);
    expect(code).toBe(0);
    expect(out).toContain("EXAMPLES");
    expect(out).toContain("vsan ");
    expect(error).toBe("");
  }
  expect(vsan(["--version"]).out).toMatch(/^vsan \d+\.\d+\.\d+\n$/);
  expect(vsan([]).code).toBe(2);
});

test("a foreign directory's .env and bunfig.toml mean nothing", () => {
  const cwd = fresh("foreign");
  writeFileSync(join(cwd, ".env"), "VSAN_CONFIG=/nonexistent/from-dot-env\n");
  writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
  writeFileSync(join(cwd, "evil.ts"), 'throw new Error("preloaded");\n');
  const { code, out } = vsan(["serve", "--print-config"], cwd);
  expect(code).toBe(0);
  expect(out).toContain('name = "vol0"');
});

test("no serve: status says where it looked, with 1", () => {
  const { code, error, out } = vsan(["mirror", "status", "--json"], fresh("none"));
  expect(code).toBe(1);
  expect(out).toBe("");
  expect(error).toMatch(
    /^vsan: no vsan serve of local at .*control\.sock: nothing listens there\n$/,
  );
});

test("--init writes once, and what it wrote is taken", () => {
  const cwd = fresh("init");
  const first = vsan(["serve", "--init", "lab", "--volume", "data:64M", "--json"], cwd);
  expect(first.code).toBe(0);
  const result = JSON.parse(first.out);
  expect(result.hosts).toHaveLength(3);
  const shown = vsan(["serve", "--config", result.file, "--host", "beta", "--print-config"], cwd);
  expect(shown.code).toBe(0);
  expect(shown.out).toContain('size = "64M"');
  const again = vsan(["serve", "--init", "lab"], cwd);
  expect(again.code).toBe(2);
  expect(again.error).toContain("is left as it is");
  chmodSync(result.keyFile, 0o644);
  const open = vsan(["serve", "--config", result.file, "--host", "beta"], cwd);
  expect(open.code).toBe(2);
  expect(open.error).toContain("mode is 0644");
});

describe("a single host", () => {
  const cwd = join(directory, "single");
  let port = 0;
  let child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  let ready = "";

  async function start(words: readonly string[] = []): Promise<void> {
    child = Bun.spawn(
      [EXECUTABLE, "serve", "--size", "64M", "--nbd", `127.0.0.1:${port}`, ...words],
      { cwd, env: environment, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    );
    running.push(child);
    const reader = child.stdout.getReader();
    ready = new TextDecoder().decode((await reader.read()).value);
    reader.releaseLock();
  }

  beforeAll(async () => {
    mkdirSync(cwd);
    [port] = (await freePorts(1)) as [number];
    await start();
  });

  test("says that it is ready, in one line", () => {
    const control = join(cwd, "vsan-data", "control.sock");
    expect(ready).toBe(
      `vsan serve: ready host=local nbd=nbd://127.0.0.1:${port} control=${control}\n`,
    );
  });

  test("serves a volume", async () => {
    const client = await NbdClient.connect({ uri: `nbd://127.0.0.1:${port}`, exportName: "vol0" });
    expect(client.sizeBytes).toBe(64 * 1024 * 1024);
    await client.write(4096, new Uint8Array(8192).fill(7));
    await client.flush();
    expect(await client.read(4096, 8192)).toEqual(new Uint8Array(8192).fill(7));
    client.close();
  });

  test("answers the other commands, for people and as one document", () => {
    const status = vsan(["mirror", "status", "--json"], cwd);
    expect(status.code).toBe(0);
    expect(JSON.parse(status.out).hosts[0]).toMatchObject({ name: "local", state: "in-sync" });
    expect(vsan(["mirror", "status"], cwd).out).toContain("in-sync");
    expect(Array.isArray(JSON.parse(vsan(["lease", "list", "--json"], cwd).out))).toBe(true);
    const events = vsan(["mirror", "events"], cwd).out.trim().split("\n");
    expect(events.length).toBeGreaterThan(0);
    for (const line of events) expect(JSON.parse(line).host).toBe("local");
  });

  test("recover has nothing to do on a host that is well", () => {
    const { code, out } = vsan(["recover"], cwd);
    expect(out).toBe("vsan recover: local is in sync\n");
    expect(code).toBe(0);
  });

  test("a second serve of the same store is refused in a sentence", () => {
    const second = vsan(["serve", "--size", "64M", "--nbd", "127.0.0.1:1"], cwd);
    expect(second.code).toBe(1);
    expect(second.error.trimEnd().split("\n").at(-1)).toContain("another");
    expect(vsan(["recover", "check"], cwd).code).toBe(3);
    expect(vsan(["recover", "check", "--repair"], cwd).code).toBe(3);
  });

  test("a port that is in use is one sentence, with 1", () => {
    const other = fresh("port");
    const result = vsan(["serve", "--size", "16M", "--nbd", `127.0.0.1:${port}`], other);
    expect(result.code).toBe(1);
    expect(result.out).toBe("");
    expect(result.error).toContain(`127.0.0.1:${port}`);
    expect(result.error).not.toContain("    at ");
  });

  test("a reload is answered, and SIGTERM ends in order with 0", async () => {
    child.kill("SIGHUP");
    for (let tries = 0; tries < 100; tries++) {
      if (vsan(["mirror", "events"], cwd).out.includes("config.same")) break;
      await Bun.sleep(20);
    }
    expect(vsan(["mirror", "events"], cwd).out).toContain("config.same");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(existsSync(join(cwd, "vsan-data", "control.sock"))).toBe(false);
  });

  test("the store is sound, and is found again", async () => {
    const check = vsan(["recover", "check", "--json"], cwd);
    expect(JSON.parse(check.out)).toMatchObject({ damaged: [], why: "", checkedBytes: 8192 });
    expect(check.code).toBe(0);
    await start(["--json"]);
    expect(JSON.parse(ready)).toMatchObject({ ready: true, host: "local" });
    const client = await NbdClient.connect({ uri: `nbd://127.0.0.1:${port}` });
    expect(await client.read(4096, 8192)).toEqual(new Uint8Array(8192).fill(7));
    client.close();
    child.kill("SIGINT");
    expect(await child.exited).toBe(0);
  });

  test("a socket left by a killed host does not keep the next one away", async () => {
    await start();
    child.kill("SIGKILL");
    await child.exited;
    expect(existsSync(join(cwd, "vsan-data", "control.sock"))).toBe(true);
    await start();
    expect(ready).toContain("ready host=local");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  });
});

/**
 * What tests on real processes share: other people's programs run with a time limit, tests that
 * say plainly why they are skipped, and data whose every block is unlike any other.
 */
import { test } from "bun:test";
import { accessSync, constants, existsSync } from "node:fs";

const PATH = `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;

/** Runs one command after another at the end of a test, last first; keeps the first failure. */
export class Cleanup {
  private readonly actions: (() => void | Promise<void>)[] = [];

  add(action: () => void | Promise<void>): void {
    this.actions.push(action);
  }

  async run(): Promise<void> {
    let failure: unknown = null;
    for (const action of this.actions.splice(0).reverse()) {
      try {
        await action();
      } catch (thrown) {
        failure ??= thrown;
      }
    }
    if (failure !== null) throw failure;
  }
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. `timeoutMs` ends it with SIGKILL, which is a code above 128. */
export async function run(words: readonly string[], timeoutMs = 60_000): Promise<Outcome> {
  const child = Bun.spawn([...words], {
    env: { ...process.env, PATH },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: timeoutMs,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** As `run`, and anything but exit code 0 is an error with the program's words. */
export async function must(words: readonly string[], timeoutMs = 60_000): Promise<string> {
  const { code, stdout, stderr } = await run(words, timeoutMs);
  if (code === 0) return stdout;
  throw new Error(
    `${words.join(" ")} ended with ${code}\n${stdout.slice(-2000)}${stderr.slice(-2000)}`,
  );
}

/** A program's name, or one of what else a machine may lack. */
export type Need = "root" | "fuse" | "loop devices" | "namespaces" | (string & {});

/** What of `needs` this machine lacks. */
export function lacking(needs: readonly Need[]): string[] {
  return needs.filter((need) => {
    if (need === "root") return process.getuid?.() !== 0;
    if (need === "fuse") return !isOpenable("/dev/fuse");
    if (need === "loop devices") return !isOpenable("/dev/loop-control");
    if (need === "namespaces") return !canMakeNamespaces();
    return need.startsWith("/") ? !existsSync(need) : Bun.which(need, { PATH }) === null;
  });
}

/** A test that needs more than vsan; skipped, with the reason, where something is missing. */
export function testWith(
  needs: readonly Need[],
  name: string,
  action: () => Promise<void>,
  timeoutMs = 60_000,
): void {
  const missing = lacking(needs);
  if (missing.length === 0) {
    test(name, action, timeoutMs);
    return;
  }
  process.stdout.write(`skipped: ${name}: this machine lacks ${missing.join(", ")}\n`);
  test.skip(name, action);
}

function isOpenable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

let namespaces: boolean | null = null;
function canMakeNamespaces(): boolean {
  namespaces ??= Bun.which("ip", { PATH }) !== null && tryNamespace();
  return namespaces;
}

function tryNamespace(): boolean {
  const words = ["unshare", "--net", "ip", "link", "add", "br0", "type", "bridge"];
  const options = { env: { ...process.env, PATH }, stdout: "ignore", stderr: "ignore" } as const;
  return Bun.spawnSync(words, options).success;
}

/** Bytes in which every 4 KiB block differs from every other of any seed. */
export function pattern(seed: number, lengthBytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  let state = (seed * 0x9e3779b1) >>> 0 || 1;
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = index % 1024 === 0 ? seed * 65536 + index / 1024 : state;
  }
  return new Uint8Array(words.buffer, 0, lengthBytes);
}

/** Waits until `condition` is true; what was waited for is in the error. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await Bun.sleep(20);
  }
}

/**
 * `bun run test`: everything that says whether this tree is good, in one command.
 *
 * On a machine with only Node and npm, `npx -y bun run test` works: packages are installed from
 * bun.lock, the script starts itself again on the pinned Bun, Debian packages that tests use are
 * installed if this is root, and what cannot be had is named. Then: type check, lint and format,
 * build, the tests inside one process (in parallel), the tests on real processes (one after
 * another). The last line is `N passed, N failed`; the exit code is 0 only without a failure.
 *
 * `bun run test PATTERN...` runs only the test files whose path contains a pattern.
 *
 * Nothing here may be imported from a package: this runs before packages are installed.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { type Counts, countsOfJunit } from "./junit.ts";
import { findPinnedBun, pinnedBun, pinnedVersion } from "./pinned_bun.ts";
import { preparePackages } from "./system_packages.ts";

const ROOT = resolve(import.meta.dir, "../..");
/** Directories of tests/ whose tests start real processes and must not share the machine. */
const PROCESS_LEVEL = ["claims", "interop", "crash"];
const UNIT_TIMEOUT_MS = 60_000;
const PROCESS_TIMEOUT_MS = 120_000;
/** A file of process-level tests that takes longer is ended and counts as failed. */
const FILE_LIMIT_MS = 6 * 60_000;

interface Step {
  readonly name: string;
  readonly counts: Counts;
  readonly seconds: number;
}

async function main(patterns: readonly string[]): Promise<number> {
  installPackages();
  const started = performance.now();
  preparePackages(say);
  const all = testFiles();
  const chosen = all.filter((file) => matches(file, patterns));
  const steps: Step[] = [];
  const isWhole = patterns.length === 0;
  if (isWhole) {
    steps.push(await item("type check", [tool("tsc"), "--noEmit"]));
    steps.push(await item("lint and format", [tool("biome"), "check", "."]));
  }
  const processLevel = chosen.filter(isProcessLevel);
  if (isWhole || processLevel.length > 0) {
    const script = join(ROOT, "tests", "tools", "build.ts");
    const built = await item("build", [pinnedBun(ROOT), script]);
    if (isWhole || built.counts.failed > 0) steps.push(built);
  }
  const together = chosen.filter((file) => !isProcessLevel(file));
  if (together.length > 0) {
    const workers = String(Math.min(4, availableParallelism()));
    const flags = [`--parallel=${workers}`, `--timeout=${UNIT_TIMEOUT_MS}`];
    steps.push(await testRun("tests in one process", together, flags, 2 * FILE_LIMIT_MS));
  }
  for (const file of processLevel) {
    const name = relative(ROOT, file);
    steps.push(await testRun(name, [file], [`--timeout=${PROCESS_TIMEOUT_MS}`], FILE_LIMIT_MS));
  }
  return summary(steps, (performance.now() - started) / 1000);
}

/** Installs bun.lock's packages, and goes on as the pinned Bun if this is another one. */
function installPackages(): void {
  if (findPinnedBun(ROOT) === null || !existsSync(tool("tsc")) || !existsSync(tool("biome"))) {
    say("installing the packages of bun.lock");
    const result = Bun.spawnSync([process.execPath, "install", "--frozen-lockfile"], {
      cwd: ROOT,
      stdout: "inherit",
      stderr: "inherit",
    });
    if (!result.success) fail("bun install failed; is the package registry reachable?");
  }
  const pinned = findPinnedBun(ROOT);
  if (pinned === null) fail(`Bun ${pinnedVersion(ROOT)} is not among the installed packages`);
  if (Bun.version === pinnedVersion(ROOT)) return;
  say(`going on with Bun ${pinnedVersion(ROOT)} (started by ${Bun.version})`);
  const again = Bun.spawnSync([pinned, import.meta.path, ...process.argv.slice(2)], {
    cwd: ROOT,
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  });
  process.exit(again.exitCode ?? 1);
}

function fail(why: string): never {
  say(why);
  say("0 passed, 1 failed");
  process.exit(1);
}

function tool(name: string): string {
  return join(ROOT, "node_modules", ".bin", name);
}

function testFiles(): string[] {
  const glob = new Bun.Glob("tests/**/*.test.ts");
  return [...glob.scanSync({ cwd: ROOT })].sort().map((file) => join(ROOT, file));
}

function matches(file: string, patterns: readonly string[]): boolean {
  const path = relative(ROOT, file);
  return patterns.length === 0 || patterns.some((pattern) => path.includes(pattern));
}

function isProcessLevel(file: string): boolean {
  return PROCESS_LEVEL.includes(relative(join(ROOT, "tests"), file).split("/")[0] ?? "");
}

/** A check that is one item: it passes or fails as a whole. */
async function item(name: string, command: string[]): Promise<Step> {
  const started = performance.now();
  const child = Bun.spawn(command, { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  const ok = (await child.exited) === 0;
  if (!ok) process.stdout.write(`${out}${err}`);
  const seconds = (performance.now() - started) / 1000;
  say(`${ok ? "ok    " : "FAILED"} ${name} (${seconds.toFixed(1)} s)`);
  return { name, counts: { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 }, seconds };
}

/** One `bun test`; its counts come from its JUnit report, not from its words. */
async function testRun(
  name: string,
  files: readonly string[],
  flags: readonly string[],
  limitMs: number,
): Promise<Step> {
  const started = performance.now();
  const directory = mkdtempSync(join(tmpdir(), "vsan-test-"));
  const report = join(directory, "junit.xml");
  const command = [
    pinnedBun(ROOT),
    "test",
    "--only-failures",
    "--reporter=junit",
    `--reporter-outfile=${report}`,
    ...flags,
    ...files.map((file) => `./${relative(ROOT, file)}`),
  ];
  const child = Bun.spawn(command, { cwd: ROOT, stdout: "inherit", stderr: "inherit" });
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const code = await child.exited;
  clearTimeout(timer);
  const counts = countsOfJunit(report, code);
  rmSync(directory, { recursive: true, force: true });
  const seconds = (performance.now() - started) / 1000;
  const label = counts.failed === 0 ? "ok    " : "FAILED";
  say(`${label} ${name}: ${countsText(counts)} (${seconds.toFixed(1)} s)`);
  return { name, counts, seconds };
}

function countsText({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`;
}

function summary(steps: readonly Step[], seconds: number): number {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const { counts } of steps) {
    sum.passed += counts.passed;
    sum.failed += counts.failed;
    sum.skipped += counts.skipped;
  }
  say("");
  for (const step of steps.filter(({ counts }) => counts.failed > 0)) {
    say(`failed: ${step.name}: ${countsText(step.counts)}`);
  }
  if (sum.skipped > 0) say(`skipped: ${sum.skipped}`);
  say(`took ${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`);
  say(`${sum.passed} passed, ${sum.failed} failed`);
  return sum.failed === 0 && sum.passed > 0 ? 0 : 1;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

process.exitCode = await main(process.argv.slice(2));

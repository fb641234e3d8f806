/**
 * `bun run build`: one executable, `dist/vsan`, compiled by the Bun that bun.lock pins.
 *
 * A compiled program of Bun reads `.env` and `bunfig.toml` of the directory it is started in,
 * unless told not to: a storage program must not (measured, see docs/decisions.md).
 */
import { existsSync, mkdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { ensurePackages, pinnedBun } from "./pinned_bun.ts";

const ROOT = resolve(import.meta.dir, "../..");
/** Files that run in a Worker must be entry points of their own, or the binary lacks them. */
const WORKERS: readonly string[] = [];

/** Compiles the executable; returns its path. Throws with the compiler's words. */
export function build(outfile = join(ROOT, "dist", "vsan")): string {
  ensurePackages(ROOT);
  mkdirSync(join(ROOT, "dist"), { recursive: true });
  const command = [
    pinnedBun(ROOT),
    "build",
    "--compile",
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    "--sourcemap=inline",
    join(ROOT, "cmd", "main.ts"),
    ...WORKERS.map((file) => join(ROOT, file)),
    "--outfile",
    outfile,
  ];
  const result = Bun.spawnSync(command, { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
  if (!result.success || !existsSync(outfile)) {
    throw new Error(`build failed:\n${result.stdout}${result.stderr}`);
  }
  return outfile;
}

if (import.meta.main) {
  const started = performance.now();
  const outfile = build();
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const megabytes = Math.round(statSync(outfile).size / 1e6);
  process.stdout.write(`built ${outfile} (${megabytes} MB) in ${seconds} s\n`);
}

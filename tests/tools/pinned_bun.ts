/**
 * The Bun of bun.lock. Tests, builds and measurements run on it and on no other, whichever Bun
 * started the script (`npx -y bun` fetches the newest). No imports from packages: this also runs
 * before they are installed.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The version that package.json pins. */
export function pinnedVersion(root: string): string {
  const manifest: { devDependencies: { bun: string } } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  return manifest.devDependencies.bun;
}

/** Path of the pinned Bun, or null while it is not installed. */
export function findPinnedBun(root: string): string | null {
  const wanted = pinnedVersion(root);
  for (const path of candidates(root)) {
    if (existsSync(path) && versionOf(path) === wanted) return path;
  }
  return null;
}

/** Installs bun.lock's packages if they are not there, as in a fresh clone. Throws if it fails. */
export function ensurePackages(root: string): void {
  const isThere = existsSync(join(root, "node_modules", "citty"));
  if (isThere && findPinnedBun(root) !== null) return;
  process.stdout.write("installing the packages of bun.lock\n");
  const result = Bun.spawnSync([process.execPath, "install", "--frozen-lockfile"], {
    cwd: root,
    stdout: "inherit",
    stderr: "inherit",
  });
  if (!result.success) throw new Error("bun install failed; is the package registry reachable?");
}

/** Path of the pinned Bun; throws when the packages are not installed. */
export function pinnedBun(root: string): string {
  const found = findPinnedBun(root);
  if (found === null) throw new Error(`Bun ${pinnedVersion(root)} is missing: bun install`);
  return found;
}

/**
 * The package `bun` is filled by an install script, which not every installer runs; the platform
 * packages beside it hold the same executable (the baseline one for processors without AVX2).
 */
function candidates(root: string): string[] {
  const modules = join(root, "node_modules");
  const arch = process.arch === "arm64" ? "aarch64" : process.arch;
  const flavours = [`bun-linux-${arch}`, `bun-linux-${arch}-baseline`, `bun-linux-${arch}-musl`];
  const packages = flavours.map((name) => join(modules, "@oven", name, "bin", "bun"));
  return [join(modules, "bun", "bin", "bun.exe"), ...packages, process.execPath];
}

function versionOf(path: string): string {
  try {
    const result = Bun.spawnSync([path, "--version"], { stdout: "pipe", stderr: "ignore" });
    return result.success ? result.stdout.toString().trim() : "";
  } catch {
    return "";
  }
}

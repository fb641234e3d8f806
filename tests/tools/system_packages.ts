/**
 * Debian packages that tests on real processes use: NBD clients, file systems, fault injection.
 * Installed when this is root and apt is there; otherwise what is missing is named, and the tests
 * that need it say that they were skipped.
 */
import { existsSync } from "node:fs";

interface Tool {
  /** A program to look for in PATH, or an absolute path. */
  readonly probe: string;
  readonly debian: string;
}

const TOOLS: readonly Tool[] = [
  { probe: "nbdkit", debian: "nbdkit" },
  { probe: "/usr/include/nbdkit-plugin.h", debian: "nbdkit-plugin-dev" },
  { probe: "nbdcopy", debian: "libnbd-bin" },
  { probe: "nbdfuse", debian: "libnbd-bin" },
  { probe: "nbdsh", debian: "python3-libnbd" },
  { probe: "qemu-io", debian: "qemu-utils" },
  { probe: "fio", debian: "fio" },
  { probe: "fusermount3", debian: "fuse3" },
  { probe: "ip", debian: "iproute2" },
  { probe: "iptables", debian: "iptables" },
  { probe: "mke2fs", debian: "e2fsprogs" },
  { probe: "strace", debian: "strace" },
  { probe: "gcc", debian: "gcc" },
];

/** Makes the tools available as far as it can and says in a few lines what is not. */
export function preparePackages(say: (line: string) => void): void {
  const missing = missingTools();
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => tool.debian))];
  const isRoot = process.getuid?.() === 0;
  if (isRoot && Bun.which("apt-get") !== null) {
    say(`installing Debian packages for the tests: ${packages.join(" ")}`);
    install(packages);
  } else {
    const why = isRoot ? "there is no apt-get" : "this is not root";
    say(`Debian packages are missing and not installed, because ${why}: ${packages.join(" ")}`);
  }
  const left = missingTools();
  if (left.length === 0) return;
  const names = [...new Set(left.map((tool) => tool.probe))];
  say(`tests that need these are skipped: ${names.join(", ")}`);
}

function missingTools(): Tool[] {
  return TOOLS.filter(({ probe }) =>
    probe.startsWith("/") ? !existsSync(probe) : findProgram(probe) === null,
  );
}

/** PATH of an unprivileged user often lacks the directories of system programs. */
function findProgram(name: string): string | null {
  return Bun.which(name, { PATH: `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin` });
}

function install(packages: readonly string[]): void {
  const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const run = (args: string[]): boolean =>
    Bun.spawnSync(["apt-get", ...args], {
      env: environment,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
      timeout: 5 * 60_000,
    }).success;
  const command = ["install", "-y", "-q", "--no-install-recommends"];
  if (run([...command, ...packages])) return;
  run(["update", "-q"]);
  if (run([...command, ...packages])) return;
  // One package that this release lacks must not keep the others away.
  for (const name of packages) run([...command, name]);
}

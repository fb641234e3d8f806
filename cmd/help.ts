/** `--help` on every level: citty's usage, and examples that can be pasted. */
import { renderUsage } from "citty";
import type { Chosen, Command } from "./arguments.ts";

/** Examples by command path, in the order in which a new user needs them. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  "": [
    "vsan serve                       # one host, one volume, NBD on 127.0.0.1:10809",
    "vsan serve --init lab            # write the config of a cluster of three",
    "vsan mirror status               # how the cluster is",
  ],
  serve: [
    "vsan serve --size 20G",
    "vsan serve --init lab --hosts alpha,beta,gamma --volume vol0:10G",
    "vsan serve --config lab/vsan.toml --host alpha",
    "vsan serve --config lab/vsan.toml --host alpha --print-config",
  ],
  mirror: ["vsan mirror status --watch", "vsan mirror events --follow"],
  "mirror status": [
    "vsan mirror status",
    "vsan mirror status --watch",
    "vsan mirror status --json",
  ],
  "mirror events": ["vsan mirror events", "vsan mirror events --follow | grep view."],
  "mirror verify": ["vsan mirror verify vol0", "vsan mirror verify --repair"],
  "mirror pause": ["vsan mirror pause gamma"],
  "mirror resume": ["vsan mirror resume gamma"],
  "mirror throttle": ["vsan mirror throttle 40M"],
  lease: ["vsan lease list", "vsan lease list vol0 --json"],
  "lease list": ["vsan lease list", "vsan lease list vol0 --json"],
  "lease acquire": ["vsan lease acquire vol0 0-1G --priority 5 --ttl 30s --wait 10s"],
  "lease release": ["vsan lease release 17"],
  "lease revoke": ["vsan lease revoke 17"],
  "lease watch": ["vsan lease watch vol0"],
  recover: [
    "vsan recover --config lab/vsan.toml --host alpha",
    "vsan recover --store /dev/sdb",
    "vsan recover check --store lab/alpha.vsan",
  ],
  "recover check": [
    "vsan recover check",
    "vsan recover check --store lab/alpha.vsan --json",
    "vsan recover check --repair",
  ],
  "recover takeover": ["vsan recover takeover"],
  "recover resolve": ["vsan recover resolve --keep alpha"],
  "recover forks": ["vsan recover forks"],
  "recover export": ["vsan recover export fork-1 /tmp/fork-1.img"],
};

/** The help of the chosen command, ending in a newline. */
export async function helpText(chosen: Chosen): Promise<string> {
  const parentPath = ["vsan", ...chosen.path.slice(0, -1)].join(" ");
  const parent: Command | undefined =
    chosen.path.length === 0 ? undefined : { meta: { name: parentPath } };
  const usage = await renderUsage(chosen.command, parent);
  const examples = EXAMPLES[chosen.path.join(" ")] ?? [];
  const plain = process.stdout.isTTY ? usage : Bun.stripANSI(usage);
  return `${plain.trimEnd()}\n\nEXAMPLES\n\n${examples.map((line) => `  ${line}\n`).join("")}`;
}

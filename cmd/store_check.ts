/** `vsan recover check`: is everything in this store reachable and as it was written? */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import { COMMON_ARGS } from "./arguments.ts";
import { configOf, printJson } from "./command.ts";
import { EXIT, usageError } from "./exit.ts";
import { Progress } from "./progress.ts";
import { humanBytes } from "./quantity.ts";
import { type CheckDocument, checkStore, type DamagedStructure } from "./store_checker.ts";

/** Lines that people read; `--json` has them all. */
const LINES_SHOWN = 20;

export const checkCommand = defineCommand({
  meta: { name: "check", description: "read a whole store offline and verify every checksum" },
  args: {
    store: { type: "string", valueHint: "PATH", description: "the store, if not the config's" },
    repair: {
      type: "boolean",
      description: "make what is left consistent, and say what is lost",
    },
    ...COMMON_ARGS,
  },
  async run({ args }) {
    const config = configOf(args);
    const path = args.store === undefined ? config.self.store : resolve(args.store);
    if (path === undefined) {
      throw usageError(`vsan recover check: ${config.self.name} has no store; give --store PATH`);
    }
    const progress = new Progress(process.stderr);
    const found = await checkStore(config, path, { repair: args.repair === true, progress });
    if (args.json === true) printJson(found);
    else process.stdout.write(checkText(found));
    return isSound(found) ? EXIT.done : EXIT.damaged;
  },
});

function isSound(found: CheckDocument): boolean {
  const rows = found.damaged.length + found.structure.length;
  return found.why === "" && rows === 0 && found.lostRecords === 0;
}

/** The report for people. */
export function checkText(found: CheckDocument): string {
  if (found.why !== "") return `${found.store}: ${found.why}\n`;
  const lines = [`${found.store}: ${humanBytes(found.checkedBytes)} of data read`];
  const { repaired } = found;
  if (repaired !== null) lines.push(...shown(repaired.structure.map(structureLine)));
  lines.push(...shown(found.structure.map(structureLine)));
  const ranges = found.damaged.map(
    ({ volume, startByte, endByte, why }) => `${volume} bytes ${startByte}-${endByte}: ${why}`,
  );
  lines.push(...shown(ranges, found.isCut ? " or more" : ""));
  if (found.lostRecords > 0) {
    lines.push(`  ${found.lostRecords} log records are lost: what they changed may be old here`);
  }
  lines.push(`  ${verdictOf(found)}`);
  return `${lines.join("\n")}\n`;
}

function structureLine({ kind, volume, startByte, endByte, why }: DamagedStructure): string {
  const what = endByte > startByte ? ` (${volume} bytes ${startByte}-${endByte})` : "";
  return `${kind}${what}: ${why}`;
}

function shown(lines: readonly string[], more = ""): string[] {
  const first = lines.slice(0, LINES_SHOWN).map((line) => `  ${line}`);
  const hidden = lines.length - LINES_SHOWN;
  if (hidden > 0) first.push(`  and ${hidden}${more} damaged ranges`);
  return first;
}

function verdictOf(found: CheckDocument): string {
  const { repaired } = found;
  const hadDamage = repaired !== null && repaired.structure.length + repaired.damaged.length > 0;
  if (isSound(found)) return hadDamage ? "repaired; nothing is lost" : "no damage";
  if (repaired === null || found.structure.length > 0) {
    return "damaged; --repair makes the rest consistent, vsan recover rebuilds all of it";
  }
  return "what is listed is lost here, until another host's copy heals it or it is written anew";
}

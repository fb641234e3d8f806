/** `vsan recover check`: is everything in this store reachable and as it was written? */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import { COMMON_ARGS } from "./arguments.ts";
import { configOf, printJson } from "./command.ts";
import { EXIT, notInThisVersion, usageError } from "./exit.ts";
import { humanBytes } from "./quantity.ts";
import { type CheckReport, checkStore } from "./store_checker.ts";

/** Lines that people read; `--json` has them all. */
const LINES_SHOWN = 20;

export const checkCommand = defineCommand({
  meta: { name: "check", description: "read a whole store offline and verify every checksum" },
  args: {
    store: { type: "string", valueHint: "PATH", description: "the store, if not the config's" },
    repair: { type: "boolean", description: "repair from the mirror (not in this version)" },
    ...COMMON_ARGS,
  },
  async run({ args }) {
    if (args.repair === true) throw notInThisVersion("vsan recover check --repair");
    const config = configOf(args);
    const path = args.store === undefined ? config.self.store : resolve(args.store);
    if (path === undefined) {
      throw usageError(`vsan recover check: ${config.self.name} has no store; give --store PATH`);
    }
    const report = await checkStore(config, path);
    if (args.json === true) printJson(report);
    else process.stdout.write(checkText(report));
    return isSound(report) ? EXIT.done : EXIT.damaged;
  },
});

function isSound(report: CheckReport): boolean {
  return report.why === "" && report.damaged.length === 0 && report.lostRecords === 0;
}

/** The report for people. */
export function checkText(report: CheckReport): string {
  if (report.why !== "") return `${report.store}: ${report.why}\n`;
  const lines = [`${report.store}: ${humanBytes(report.checkedBytes)} of data read`];
  if (report.lostRecords > 0) lines.push(`  ${report.lostRecords} log records are lost`);
  for (const { volume, startByte, endByte, why } of report.damaged.slice(0, LINES_SHOWN)) {
    lines.push(`  ${volume} bytes ${startByte}-${endByte}: ${why}`);
  }
  const hidden = report.damaged.length - LINES_SHOWN;
  if (hidden > 0) lines.push(`  and ${hidden}${report.isCut ? " or more" : ""} damaged ranges`);
  lines.push(isSound(report) ? "  no damage" : "  damaged; vsan recover rebuilds it");
  return `${lines.join("\n")}\n`;
}

/** The entry point: one executable, four commands, one place that turns errors into exit codes. */
import { defineCommand, runCommand } from "citty";
import { checkWords, choose, wantsHelp } from "./arguments.ts";
import { CommandError, EXIT, messageOf } from "./exit.ts";
import { helpText } from "./help.ts";
import { leaseCommand } from "./lease.ts";
import { mirrorCommand } from "./mirror.ts";
import { recoverCommand } from "./recover.ts";
import { serveCommand } from "./serve.ts";
import { VERSION } from "./version.ts";

const rootCommand = defineCommand({
  meta: {
    name: "vsan",
    version: VERSION,
    description: "Servers with their own disks, as one shared storage node over NBD",
  },
  subCommands: {
    serve: serveCommand,
    mirror: mirrorCommand,
    lease: leaseCommand,
    recover: recoverCommand,
  },
});

/** Runs the command that `words` name; resolves to the exit code. Never rejects. */
async function main(words: readonly string[]): Promise<number> {
  try {
    if (words.length === 1 && (words[0] === "--version" || words[0] === "-V")) {
      process.stdout.write(`vsan ${VERSION}\n`);
      return EXIT.done;
    }
    const chosen = choose(rootCommand, words);
    if (wantsHelp(chosen.rest)) {
      process.stdout.write(await helpText(chosen));
      return EXIT.done;
    }
    if (chosen.command.run === undefined) {
      process.stderr.write(await helpText(chosen));
      return EXIT.usage;
    }
    checkWords(chosen);
    const { result } = await runCommand(chosen.command, { rawArgs: [...chosen.rest] });
    return typeof result === "number" ? result : EXIT.done;
  } catch (thrown) {
    if (thrown instanceof CommandError) {
      const named = /^vsan( [a-z]+)*: /.test(thrown.message);
      process.stderr.write(`${named ? "" : "vsan: "}${thrown.message}\n`);
      return thrown.code;
    }
    const stack = thrown instanceof Error ? thrown.stack : undefined;
    process.stderr.write(`vsan: defect: ${stack ?? messageOf(thrown)}\n`);
    return EXIT.failed;
  }
}

process.exitCode = await main(process.argv.slice(2));

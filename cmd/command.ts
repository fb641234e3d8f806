/** What commands share: reading their common options and refusing what is not there yet. */
import { type ArgsDef, defineCommand } from "citty";
import { type Command, COMMON_ARGS } from "./arguments.ts";
import { type Config, loadConfig } from "./config.ts";
import { ControlClient } from "./control_client.ts";
import { notInThisVersion } from "./exit.ts";

/** The values of `COMMON_ARGS` as citty gives them. */
export interface CommonValues {
  readonly config?: string | undefined;
  readonly host?: string | undefined;
  readonly json?: boolean | undefined;
}

/** The config that the common options name. */
export function configOf(values: CommonValues): Config {
  return loadConfig({ file: values.config, host: values.host });
}

/** The control socket of this host's `vsan serve`. */
export function clientOf(values: CommonValues): ControlClient {
  return new ControlClient(configOf(values));
}

/** The one JSON document of `--json`. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/**
 * A command that docs/cli.md names and that a later version brings: its use is checked and its help
 * is there, but it refuses to run.
 */
export function laterCommand(path: string, description: string, args: ArgsDef): Command {
  const name = path.split(" ").at(-1) ?? path;
  return defineCommand({
    meta: { name, description: `${description} (not in this version)` },
    args: { ...args, ...COMMON_ARGS },
    run() {
      throw notInThisVersion(`vsan ${path}`);
    },
  });
}

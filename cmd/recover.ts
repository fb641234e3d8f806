/** `vsan recover`: rebuild this host's disk from the others, or check a store. */
import { defineCommand } from "citty";
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { COMMON_ARGS } from "./arguments.ts";
import { configOf, laterCommand, printJson } from "./command.ts";
import type { Config } from "./config.ts";
import { ControlClient } from "./control_client.ts";
import { failure, refusal, usageError } from "./exit.ts";
import { Progress } from "./progress.ts";
import { followRecovery, type RecoveryTarget, SETTLE_MS } from "./recovery.ts";
import { startRuntime } from "./runtime.ts";
import { runUntilSignal } from "./signals.ts";
import { readStatus, type StatusDocument, statusDocument } from "./status_document.ts";
import { checkCommand } from "./store_check.ts";

interface RecoverRequest {
  readonly config: Config;
  /** Another store than the config's; absolute. */
  readonly path: string | null;
  readonly force: boolean;
  readonly json: boolean;
}

export const recoverCommand = defineCommand({
  meta: { name: "recover", description: "rebuild this host's disk from the others" },
  args: {
    store: { type: "string", valueHint: "PATH", description: "the new disk, if not the config's" },
    force: { type: "boolean", description: "overwrite a store of something else" },
    ...COMMON_ARGS,
  },
  subCommands: {
    check: checkCommand,
    takeover: laterCommand("recover takeover", "form a view without a majority", {}),
    resolve: laterCommand("recover resolve", "keep one of two diverged copies", {
      keep: { type: "string", valueHint: "HOST", description: "whose writes stay" },
    }),
    forks: laterCommand("recover forks", "list the diverged copies that were kept", {}),
    export: laterCommand("recover export", "write a fork as an image", {
      fork: { type: "positional", description: "the fork" },
      file: { type: "positional", description: "the image" },
    }),
  },
  async run({ args }) {
    const config = configOf(args);
    if (config.self.kind !== "data") {
      throw usageError(
        `vsan recover: ${config.self.name} is a ${config.self.kind}, without a store`,
      );
    }
    const path = args.store === undefined ? null : resolve(args.store);
    if (path !== null && !existsSync(dirname(path))) {
      throw usageError(`vsan recover: --store ${path}: there is no directory ${dirname(path)}`);
    }
    const json = args.json === true;
    const request = { config, path, force: args.force === true, json };
    const client = new ControlClient(config);
    if (await client.isRunning()) await recoverThrough(client, request);
    else await recoverAlone(request);
  },
});

/** Through the running `vsan serve`, which goes on serving its clients meanwhile. */
async function recoverThrough(client: ControlClient, request: RecoverRequest): Promise<void> {
  const target: RecoveryTarget = {
    patienceMs: 0,
    status: async () => readStatus(await client.get("/status")),
    isReady: async () => true,
    begin: async () => {
      await client.post("/recover", { path: request.path, force: request.force });
    },
  };
  report(
    request,
    await followRecovery(target, request.path !== null, new Progress(process.stderr)),
  );
}

/** Without a running `vsan serve`: this process is the host, for as long as the copy takes. */
async function recoverAlone(request: RecoverRequest): Promise<void> {
  const { config, path, force, json } = request;
  const runtime = await startRuntime({ config, withClients: false, json });
  const { drive, options } = runtime;
  const interrupted = Promise.withResolvers<never>();
  interrupted.promise.catch(() => {});
  const ended = runUntilSignal(
    runtime,
    () => {},
    () => {
      interrupted.reject(failure("interrupted; the same command goes on where it stopped"));
    },
  );
  const target: RecoveryTarget = {
    patienceMs: SETTLE_MS,
    status: async () => {
      const status = drive.host.status(drive.nowMs());
      return statusDocument(status, drive.paths(), options.roster);
    },
    isReady: async () => drive.host.phase !== "starting",
    begin: async () => {
      const refused = await drive.recover({ path, force });
      if (refused !== null) throw refusal(refused);
    },
  };
  try {
    const progress = new Progress(process.stderr);
    const following = followRecovery(target, path !== null, progress);
    const broken = ended.then((): never => {
      throw failure("the host stopped before the copy was complete");
    });
    broken.catch(() => {});
    report(request, await Promise.race([following, interrupted.promise, broken]));
  } finally {
    drive.stop();
    await ended;
  }
}

function report(request: RecoverRequest, status: StatusDocument): void {
  if (request.json) printJson(status);
  else process.stdout.write(`vsan recover: ${status.host} is in sync\n`);
}

/** `vsan serve`: one host in the foreground, until SIGTERM or SIGINT. */
import { defineCommand } from "citty";
import { notifySystemd } from "../transports/notify.ts";
import { nbdUri } from "./address.ts";
import { COMMON_ARGS } from "./arguments.ts";
import { printJson } from "./command.ts";
import { type Config, type ConfigRequest, loadConfig } from "./config.ts";
import { configText, configValues } from "./config_text.ts";
import { usageError } from "./exit.ts";
import { HOST_FLAGS, hostFlagsOf } from "./host_flags.ts";
import { initCluster, initReport } from "./init.ts";
import { MetricsServer } from "./metrics.ts";
import { Reloader } from "./reload.ts";
import { startRuntime } from "./runtime.ts";
import { runUntilSignal } from "./signals.ts";

export const serveCommand = defineCommand({
  meta: { name: "serve", description: "run one host in the foreground" },
  args: {
    size: { type: "string", valueHint: "SIZE", description: "size of vol0 without a config (1G)" },
    init: { type: "string", valueHint: "DIR", description: "write a new cluster's config and key" },
    hosts: { type: "string", valueHint: "A,B,C", description: "with --init: the hosts' names" },
    volume: { type: "string", valueHint: "NAME:SIZE", description: "with --init: the volume" },
    "print-config": { type: "boolean", description: "show the resulting config and exit" },
    ...HOST_FLAGS,
    ...COMMON_ARGS,
  },
  async run({ args }) {
    const json = args.json === true;
    if (args.init !== undefined) return await init(args, json);
    for (const flag of ["hosts", "volume"]) {
      if (args[flag] !== undefined) throw usageError(`--${flag} is for --init`);
    }
    const request: ConfigRequest = {
      file: args.config,
      host: args.host,
      size: args.size,
      flags: hostFlagsOf(args),
    };
    const config = loadConfig(request);
    if (args["print-config"] !== true) return await serve(config, request, json);
    if (json) printJson({ self: config.self.name, ...configValues(config.document) });
    else process.stdout.write(configText(config));
  },
});

async function init(args: Readonly<Record<string, unknown>>, json: boolean): Promise<void> {
  const allowed = ["init", "hosts", "volume", "json", "_"];
  const surplus = Object.keys(args).find((key) => !allowed.includes(key));
  if (surplus !== undefined) throw usageError(`--${surplus} has no meaning with --init`);
  const result = await initCluster({
    directory: String(args.init),
    hosts: String(args.hosts ?? "alpha,beta,gamma"),
    volume: String(args.volume ?? "vol0:10G"),
  });
  if (json) printJson(result);
  else process.stdout.write(initReport(result));
}

async function serve(config: Config, request: ConfigRequest, json: boolean): Promise<number> {
  const runtime = await startRuntime({ config, withClients: true, json });
  const { drive, events } = runtime;
  const metrics = new MetricsServer(() => drive.host.status(drive.nowMs()), events);
  metrics.listen(config.self.http ?? null);
  void runtime.ready.then((nbd) => announce(config, nbd, json));
  const setScrubRate = (bytesPerSecond: number | null): void => {
    drive.run((host, nowMs) => host.setScrubRate(nowMs, bytesPerSecond));
  };
  const reloader = new Reloader(config, request, events, { metrics, setScrubRate });
  const code = await runUntilSignal(runtime, () => reloader.reload());
  metrics.listen(null);
  return code;
}

/** The one line on stdout, which scripts wait for, and systemd's READY=1. */
function announce(config: Config, nbd: readonly string[], json: boolean): void {
  const { name, control } = config.self;
  const uris = nbd.map(nbdUri);
  if (json) {
    process.stdout.write(`${JSON.stringify({ ready: true, host: name, nbd: uris, control })}\n`);
  } else {
    const where = uris.length === 0 ? "none" : uris.join(",");
    process.stdout.write(`vsan serve: ready host=${name} nbd=${where} control=${control}\n`);
  }
  notifySystemd("READY=1");
}

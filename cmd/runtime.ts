/** One host, running: the config turned into a drive, its events and its control routes. */
import { totalmem } from "node:os";
import { ALL_RULES } from "../core/base/rules.ts";
import { Host } from "../core/host/host.ts";
import type { HostOptions } from "../core/host/machine.ts";
import { BootClock, readBootId } from "../transports/clock.ts";
import { type Drive, openDrive } from "../transports/drive.ts";
import { randomKey, readClusterKey } from "./cluster_key.ts";
import type { Config } from "./config.ts";
import { controlRoutes } from "./control_routes.ts";
import { EventLog } from "./event_log.ts";
import { failure, messageOf } from "./exit.ts";
import { hostAddresses, hostOptions, storeBytesOf } from "./host_options.ts";
import { eventPrinter } from "./log.ts";

export interface RuntimeRequest {
  readonly config: Config;
  /** False for `vsan recover`: the store is rebuilt before any client is served. */
  readonly withClients: boolean;
  /** Events as NDJSON on stderr instead of lines. */
  readonly json: boolean;
}

export interface Runtime {
  readonly drive: Drive;
  readonly events: EventLog;
  readonly options: HostOptions;
  /** Resolves with the addresses really bound when the host accepts clients. */
  readonly ready: Promise<readonly string[]>;
  /** Resolves when everything is closed; rejects when our own code broke. */
  readonly stopped: Promise<void>;
}

/** Opens everything and starts the host. Rejects in one sentence, with nothing left open. */
export async function startRuntime(request: RuntimeRequest): Promise<Runtime> {
  const { config } = request;
  const wallOffsetMs = Date.now() - new BootClock().nowMs();
  const options = hostOptions(config, {
    bootId: readBootId(),
    wallOffsetMs,
    memoryBytes: totalmem(),
  });
  const clusterKey = keyOf(config);
  const events = new EventLog(config.self.name, eventPrinter(request.json));
  const ready = Promise.withResolvers<readonly string[]>();
  const stopped = Promise.withResolvers<void>();
  // Whoever is not interested in one of them must not be ended by its rejection.
  stopped.promise.catch(() => {});
  const { self, document } = config;
  const isShared = document.volume.some((section) => section.mirror === "shared");
  const drive: Drive = openDrive(
    {
      self: options.self,
      clusterName: options.clusterName,
      clusterKey,
      hosts: hostAddresses(config),
      controlOverShared: document.policing.network === "shared",
      store:
        self.store === undefined
          ? null
          : {
              path: self.store,
              sizeBytes: storeBytesOf(config),
              deviceBytesLeast: self.store_size ?? 0,
              isThin: self.store_alloc === "thin",
            },
      // A recovery is how a wrong store gets replaced; serving begins with a right one.
      strictStore: request.withClients,
      statePath: self.state,
      nbd: request.withClients ? self.nbd : [],
      group: isShared ? document.shared_network.group : null,
      control: self.control,
      busyPoll: self.busy_poll === "auto",
      trace: events,
    },
    controlRoutes(options, events, () => drive),
    { ready: ready.resolve, stopped: stopped.resolve, fatal: stopped.reject },
    (ports) => new Host(options, ports, ALL_RULES),
  );
  try {
    await drive.start();
  } catch (thrown) {
    throw failure(messageOf(thrown));
  }
  return { drive, events, options, ready: ready.promise, stopped: stopped.promise };
}

/** A host alone needs no key file; with others the key is what makes it one of them. */
function keyOf(config: Config): Uint8Array {
  if (config.file === null) return randomKey();
  return readClusterKey(config.document.cluster.key_file);
}

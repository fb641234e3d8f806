/** A checked config as the text of a `vsan.toml`, for `vsan serve --print-config`. */
import { stringify } from "smol-toml";
import type { Config } from "./config.ts";
import type { ConfigDocument } from "./config_schema.ts";
import { durationText, sizeText } from "./quantity.ts";

/** The document with sizes and durations as an operator writes them, every default stated. */
export function configValues(document: ConfigDocument): Record<string, unknown> {
  const { cluster, host, volume, shared_network, policing } = document;
  return {
    cluster: {
      ...cluster,
      cold_wait: durationText(cluster.cold_wait),
      peer_timeout: durationText(cluster.peer_timeout),
    },
    host: host.map(({ store_size, ...rest }) => ({
      ...rest,
      scrub: scrubText(rest.scrub),
      ...(store_size === undefined ? {} : { store_size: sizeText(store_size) }),
      index_memory: rest.index_memory === "auto" ? "auto" : sizeText(rest.index_memory),
      disk_timeout: durationText(rest.disk_timeout),
    })),
    volume: volume.map((section) => ({ ...section, size: sizeText(section.size) })),
    shared_network: { ...shared_network, rate_limit: sizeText(shared_network.rate_limit) },
    policing: {
      ...policing,
      timeout: durationText(policing.timeout),
      aging: durationText(policing.aging),
    },
  };
}

function scrubText(scrub: number | "auto"): string {
  if (scrub === "auto") return scrub;
  return scrub === 0 ? "off" : sizeText(scrub);
}

/** TOML that `loadConfig` reads back to the same document, and which host this one is. */
export function configText(config: Config): string {
  const source = config.file === null ? "no config file" : config.file;
  const head = `# host ${config.self.name}, from ${source}\n`;
  return `${head}${stringify(configValues(config.document))}\n`;
}

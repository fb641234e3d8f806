/** From the checked config to what the core and the drive are given. Pure. */
import { crc32Text } from "../core/base/checksum.ts";
import { MIB, hostId, volumeId } from "../core/base/units.ts";
import { DEFAULT_TIMING, type HostOptions } from "../core/host/machine.ts";
import type { HostAddresses } from "../transports/drive.ts";
import type { Config } from "./config.ts";
import { INDEX_BYTES_LEAST } from "./config_schema.ts";

/** Room for a volume's blocks, their index and the cleaner (at most 80 % full). */
export function storeBytesFor(volumeBytes: number): number {
  return Math.ceil((volumeBytes * 1.4) / (64 * MIB)) * 64 * MIB + 256 * MIB;
}

/** The size of this host's store: as configured, or what the volumes ask for. */
export function storeBytesOf({ self, document }: Config): number {
  if (self.store_size !== undefined) return self.store_size;
  return storeBytesFor(document.volume.reduce((sum, section) => sum + section.size, 0));
}

/** What a host is given of its config and its machine. */
export interface MachineFacts {
  /** Identifies this boot of the machine. */
  readonly bootId: string;
  /** Milliseconds since 1970 when the machine's boot clock was 0. */
  readonly wallOffsetMs: number;
  /** Memory of the machine. */
  readonly memoryBytes: number;
}

/** Bytes a second for the scrub; null = it chooses. */
export function scrubRateOf({ self }: Config): number | null {
  return self.scrub === "auto" ? null : self.scrub;
}

/** Memory for the index: as the config says, or a sixteenth of the machine's. */
function indexBytesOf({ self }: Config, memoryBytes: number): number {
  if (self.index_memory !== "auto") return self.index_memory;
  return Math.max(INDEX_BYTES_LEAST, Math.floor(memoryBytes / 16));
}

export function hostOptions(config: Config, facts: MachineFacts): HostOptions {
  const { bootId, wallOffsetMs, memoryBytes } = facts;
  const { cluster, host, volume, shared_network, policing } = config.document;
  return {
    self: hostId(config.selfIndex),
    clusterName: cluster.name,
    roster: host.map((section, index) => ({
      id: hostId(index),
      name: section.name,
      kind: section.kind,
      priority: section.priority,
    })),
    volumes: volume.map((section) => ({
      id: volumeId(crc32Text(section.name)),
      name: section.name,
      sizeBytes: section.size,
      mirror: section.mirror,
      ack: section.ack,
      readOnly: section.read_only,
    })),
    timing: {
      ...DEFAULT_TIMING,
      peerTimeoutMs: cluster.peer_timeout,
      coldWaitMs: cluster.cold_wait,
      policingTimeoutMs: policing.timeout,
      agingMs: policing.aging,
      diskTimeoutMs: config.self.disk_timeout,
    },
    minCopies: cluster.min_copies,
    coldStart: cluster.cold_start,
    bootId,
    multicastBytesPerSecond: shared_network.rate_limit,
    scrubBytesPerSecond: scrubRateOf(config),
    wallOffsetMs,
    indexBytes: indexBytesOf(config, memoryBytes),
  };
}

/** Where each host of the roster is reached. A host alone is reached by nobody. */
export function hostAddresses(config: Config): HostAddresses[] {
  return config.document.host.map((section, index) => ({
    id: hostId(index),
    name: section.name,
    link: section.link ?? "",
    shared: section.shared ?? null,
  }));
}

/**
 * The document of `vsan mirror status --json` (docs/cli.md): the host's own status, the version,
 * and the paths, which only the transports know. Read back by the other commands, hence checked.
 */
import * as v from "valibot";
import type { HostStatus, RosterEntry } from "../core/host/machine.ts";
import type { PeerPath } from "../transports/peer_link.ts";
import { failure } from "./exit.ts";
import { VERSION } from "./version.ts";

const storeSchema = v.object({
  sizeBytes: v.number(),
  usedBytes: v.number(),
  segmentsFree: v.number(),
  writeAmplification: v.number(),
  badBlocksHealed: v.number(),
  badBlocksWaiting: v.number(),
  indexBytes: v.number(),
  indexMisses: v.number(),
  scrub: v.object({
    bytesPerSecond: v.number(),
    isRunning: v.boolean(),
    share: v.number(),
    passes: v.number(),
    endedAt: v.string(),
    checkedBlocks: v.number(),
    badBlocks: v.number(),
    readsMedium: v.boolean(),
  }),
});

const statusSchema = v.object({
  cluster: v.string(),
  host: v.string(),
  version: v.string(),
  view: v.object({
    epoch: v.number(),
    members: v.array(v.string()),
    joining: v.array(v.string()),
    majority: v.boolean(),
    open: v.boolean(),
    why: v.string(),
  }),
  hosts: v.array(
    v.object({
      name: v.string(),
      kind: v.string(),
      connected: v.boolean(),
      state: v.string(),
      disk: v.string(),
      why: v.string(),
      paths: v.array(
        v.object({ to: v.string(), via: v.string(), up: v.boolean(), rttMicros: v.number() }),
      ),
      store: v.nullable(storeSchema),
    }),
  ),
  volumes: v.array(
    v.object({
      name: v.string(),
      sizeBytes: v.number(),
      io: v.string(),
      why: v.string(),
      clients: v.number(),
      usedBytes: v.number(),
    }),
  ),
  resync: v.array(
    v.object({
      to: v.string(),
      from: v.string(),
      doneBytes: v.number(),
      totalBytes: v.number(),
      bytesPerSecond: v.number(),
      etaSeconds: v.number(),
    }),
  ),
});

export type StatusDocument = v.InferOutput<typeof statusSchema>;
export type StatusHost = StatusDocument["hosts"][number];
export type ScrubDocument = NonNullable<StatusHost["store"]>["scrub"];
export type StatusResync = StatusDocument["resync"][number];

/** Joins what the host and what the transports know. */
export function statusDocument(
  status: HostStatus,
  paths: readonly PeerPath[],
  roster: readonly RosterEntry[],
): StatusDocument {
  const nameOf = (id: number): string => roster.find((entry) => entry.id === id)?.name ?? "";
  const own = paths.map(({ to, via, up, rttMicros }) => ({ to: nameOf(to), via, up, rttMicros }));
  return {
    cluster: status.cluster,
    host: status.host,
    version: VERSION,
    view: {
      ...status.view,
      members: [...status.view.members],
      joining: [...status.view.joining],
    },
    hosts: status.hosts.map((host) => ({
      name: host.name,
      kind: host.kind,
      connected: host.connected,
      state: host.state,
      disk: host.disk,
      why: host.why,
      paths: host.name === status.host ? own : [],
      store: host.store === null ? null : storeDocument(host.store),
    })),
    volumes: status.volumes.map((volume) => ({ ...volume })),
    resync: status.resync.map((entry) => ({ ...entry })),
  };
}

type StoreStatus = NonNullable<HostStatus["hosts"][number]["store"]>;

/** Times as people and programs read them: RFC 3339, "" = never. */
function storeDocument(store: StoreStatus): NonNullable<StatusHost["store"]> {
  const { endedMs, ...scrub } = store.scrub;
  const endedAt = endedMs === 0 ? "" : new Date(endedMs).toISOString();
  return { ...store, scrub: { ...scrub, endedAt } };
}

/** Reads a document that a `vsan serve` of perhaps another version sent. */
export function readStatus(value: unknown): StatusDocument {
  const result = v.safeParse(statusSchema, value);
  if (result.success) return result.output;
  throw failure("the running vsan serve sent a status that this version cannot read");
}

/** The entry of the host that answered. */
export function ownEntry(status: StatusDocument): StatusHost {
  const found = status.hosts.find((host) => host.name === status.host);
  if (found === undefined) throw failure("the status does not name the host that sent it");
  return found;
}

/** `vsan lease`: who may write which portion of a volume. */
import { defineCommand } from "citty";
import * as v from "valibot";
import { COMMON_ARGS } from "./arguments.ts";
import { configOf, laterCommand, printJson } from "./command.ts";
import { ControlClient } from "./control_client.ts";
import { failure, usageError } from "./exit.ts";
import { suggestion } from "./nearest.ts";
import { sizeText } from "./quantity.ts";
import { readStatus } from "./status_document.ts";
import { table } from "./table.ts";

const leasesSchema = v.array(
  v.object({
    volume: v.string(),
    startByte: v.number(),
    endByte: v.number(),
    holder: v.string(),
    priority: v.number(),
    waiting: v.array(v.string()),
  }),
);
type LeaseDocument = v.InferOutput<typeof leasesSchema>;

const listCommand = defineCommand({
  meta: { name: "list", description: "ranges, holder, priority, who waits" },
  args: {
    volume: { type: "positional", required: false, description: "only this volume" },
    ...COMMON_ARGS,
  },
  async run({ args }) {
    const config = configOf(args);
    const names = config.document.volume.map((section) => section.name);
    const wanted = typeof args.volume === "string" ? args.volume : null;
    if (wanted !== null && !names.includes(wanted)) {
      throw usageError(`vsan lease list: no volume ${wanted}${suggestion(wanted, names)}`);
    }
    const client = new ControlClient(config);
    const answer = v.safeParse(leasesSchema, await client.get("/leases"));
    if (!answer.success) throw failure("the running vsan serve sent leases that cannot be read");
    const { volumes } = readStatus(await client.get("/status"));
    const sizes = new Map(volumes.map(({ name, sizeBytes }) => [name, sizeBytes]));
    const leases = clippedLeases(
      answer.output.filter((lease) => wanted === null || lease.volume === wanted),
      sizes,
    );
    if (args.json === true) printJson(leases);
    else process.stdout.write(leasesText(leases));
  },
});

/** Hosts take whole regions, and wish ahead: what lies past a volume's end is nobody's. */
export function clippedLeases(
  leases: readonly LeaseDocument[number][],
  sizes: ReadonlyMap<string, number>,
): LeaseDocument {
  return leases
    .map((lease) => ({
      ...lease,
      endByte: Math.min(lease.endByte, sizes.get(lease.volume) ?? lease.endByte),
    }))
    .filter((lease) => lease.startByte < lease.endByte);
}

/** Leases for people, one range a line. */
export function leasesText(leases: LeaseDocument): string {
  if (leases.length === 0) return "no leases are held\n";
  const rows = leases.map((lease) => [
    { text: lease.volume },
    { text: `${sizeText(lease.startByte)}-${sizeText(lease.endByte)}` },
    { text: lease.holder === "" ? "-" : lease.holder },
    { text: String(lease.priority) },
    { text: lease.waiting.length === 0 ? "-" : lease.waiting.join(", ") },
  ]);
  return `${table(["VOLUME", "RANGE", "HOLDER", "PRIORITY", "WAITING"], rows, false)}\n`;
}

const VOLUME_ARG = { volume: { type: "positional", description: "the volume" } } as const;
const ID_ARG = { id: { type: "positional", description: "the lease's id" } } as const;

export const leaseCommand = defineCommand({
  meta: { name: "lease", description: "who may write which portion of a volume" },
  subCommands: {
    list: listCommand,
    acquire: laterCommand("lease acquire", "reserve a portion for this host", {
      ...VOLUME_ARG,
      range: { type: "positional", description: "0-1G or offset+length, end exclusive" },
      priority: { type: "string", valueHint: "P", description: "0 to 7" },
      ttl: { type: "string", valueHint: "DURATION", description: "given back after this" },
      wait: { type: "string", valueHint: "DURATION", description: "give up after this" },
    }),
    release: laterCommand("lease release", "give a reservation back", ID_ARG),
    revoke: laterCommand("lease revoke", "take a reservation away from another host", ID_ARG),
    watch: laterCommand("lease watch", "hand-overs as they happen", {
      volume: { type: "positional", required: false, description: "only this volume" },
    }),
  },
});

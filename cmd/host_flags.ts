/** A host's section given as flags, for short runs: they win over the file (docs/cli.md). */
import type { ArgsDef } from "citty";
import type { HostFlags } from "./config.ts";

export const HOST_FLAGS = {
  link: { type: "string", valueHint: "ADDRESS", description: "this host's dedicated link" },
  shared: { type: "string", valueHint: "ADDRESS", description: "its path on the shared network" },
  store: { type: "string", valueHint: "PATH", description: "file or block device" },
  "store-size": { type: "string", valueHint: "SIZE", description: "size of a store in a file" },
  "store-alloc": { type: "string", valueHint: "full|thin", description: "room of a new file" },
  "disk-timeout": { type: "string", valueHint: "DURATION", description: "after it a disk failed" },
  "index-memory": { type: "string", valueHint: "SIZE|auto", description: "for the store's index" },
  "busy-poll": { type: "string", valueHint: "auto|off", description: "awake between requests" },
  nbd: { type: "string", valueHint: "ADDRESS,...", description: "where NBD clients attach" },
  control: { type: "string", valueHint: "PATH", description: "the control socket" },
  state: { type: "string", valueHint: "PATH", description: "the file of its votes" },
  http: { type: "string", valueHint: "ADDRESS", description: "metrics" },
  scrub: { type: "string", valueHint: "SIZE|off", description: "what the scrub may read a second" },
  priority: { type: "string", valueHint: "0..7", description: "of writes received here" },
} as const satisfies ArgsDef;

/** The flags that were given, as the keys and types of a `[[host]]` section. */
export function hostFlagsOf(args: Readonly<Record<string, unknown>>): HostFlags {
  const flags: Record<string, unknown> = {};
  for (const name of Object.keys(HOST_FLAGS)) {
    const value = args[name];
    if (typeof value !== "string") continue;
    const key = name.replaceAll("-", "_");
    if (key === "nbd") flags[key] = value.split(",");
    // What is no number stays text, so that the schema refuses it and names it.
    else if (key === "priority") flags[key] = /^[0-9]+$/.test(value) ? Number(value) : value;
    else flags[key] = value;
  }
  return flags;
}

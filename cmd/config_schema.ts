/**
 * The shape of `vsan.toml` (docs/cli.md), as valibot schemas: types, defaults and what each value
 * must look like. What concerns several values at once is in `config_check.ts`.
 */
import * as v from "valibot";
import { LIMITS } from "../core/base/limits.ts";
import { BLOCK_BYTES, KIB, MIB } from "../core/base/units.ts";
import { isMulticast, parseAddress, parseTcpAddress } from "./address.ts";
import { parseDuration, parseSize } from "./quantity.ts";

/** A string that `parse` understands; the issue says what was expected. */
function parsed<T>(parse: (text: string) => T | null, expected: string) {
  return v.pipe(
    v.string(`expected ${expected}`),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      const value = parse(dataset.value);
      if (value !== null) return value;
      addIssue({ message: `expected ${expected}, not ${JSON.stringify(dataset.value)}` });
      return NEVER;
    }),
  );
}

/** A string that `parse` understands, kept as it is written. */
function checked(parse: (text: string) => unknown, expected: string) {
  return parsed((text) => (parse(text) === null ? null : text), expected);
}

function oneOf<const T extends readonly string[]>(values: T) {
  const words = values.map((value) => JSON.stringify(value)).join(", ");
  return v.picklist(values, `expected one of ${words}`);
}

const size = parsed(parseSize, "a size such as 4K, 10G or 1T");
const duration = parsed((text) => {
  const milliseconds = parseDuration(text);
  return milliseconds === 0 ? null : milliseconds;
}, "a duration such as 250ms, 10s or 5m");
const tcp = checked(parseTcpAddress, 'an address such as "10.1.0.1:7440"');
const nbd = checked(parseAddress, 'an address such as "0.0.0.0:10809" or "unix:/run/nbd.sock"');
const path = v.pipe(
  v.string("expected a path"),
  v.minLength(1, "expected a path, not an empty string"),
);

/** Names appear in paths, URIs, logs and NBD's export list: keep them plain. */
export function isPlainName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text);
}
const name = checked(
  (text) => (isPlainName(text) ? text : null),
  "a name of 1 to 64 letters, digits, '.', '_' and '-', first a letter or digit",
);

function wholeNumber(least: number, most: number) {
  const expected = `expected a whole number from ${least} to ${most}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(least, expected),
    v.maxValue(most, expected),
  );
}

/** 24 segments of 4 MiB and the superblocks; below it a store would be refused after its making. */
const STORE_BYTES_LEAST = 100 * MIB;
/** A busy disk may take as long for one flush; a shorter bound would fail it for good. */
const DISK_TIMEOUT_MS_LEAST = 1000;
/** Datagrams have one size; their IP and UDP headers take 28 bytes more. */
const MTU_LEAST = LIMITS.datagramBytesMax + 28;
/** Below it a pass over a small store would take longer than the time between passes. */
const SCRUB_BYTES_LEAST = 64 * KIB;
/** Less would be read again and again, also for small volumes. */
export const INDEX_BYTES_LEAST = 64 * MIB;
/** Below it multicast would be slower than the repairs it has to carry. */
const RATE_BYTES_LEAST = 64 * KIB;

/** Bytes a second; 0 = off. */
const scrub = parsed((text): number | "auto" | null => {
  if (text === "auto") return "auto";
  if (text === "off") return 0;
  const bytes = parseSize(text);
  return bytes !== null && bytes >= SCRUB_BYTES_LEAST ? bytes : null;
}, '"auto", "off" or a size a second, 64K at least');

/** Bytes for the store's index in memory. */
const indexMemory = parsed((text): number | "auto" | null => {
  if (text === "auto") return "auto";
  const bytes = parseSize(text);
  return bytes !== null && bytes >= INDEX_BYTES_LEAST ? bytes : null;
}, '"auto" or a size, 64M at least');

const clusterSchema = v.strictObject({
  name: v.optional(name, "vsan"),
  key_file: v.optional(path, "cluster.key"),
  on_lost_majority: v.optional(oneOf(["freeze", "survive"]), "freeze"),
  fence: v.optional(v.array(v.string("expected a string"), "expected a list of strings")),
  survivor: v.optional(name),
  cold_start: v.optional(oneOf(["flushed", "all"]), "flushed"),
  cold_wait: v.optional(duration, "10s"),
  peer_timeout: v.optional(duration, "5s"),
  min_copies: v.optional(wholeNumber(1, 16), 1),
});

const hostSchema = v.strictObject({
  name,
  kind: v.optional(oneOf(["data", "witness", "client"]), "data"),
  link: v.optional(tcp),
  shared: v.optional(tcp),
  store: v.optional(path),
  store_size: v.optional(
    v.pipe(
      size,
      v.check(
        (bytes) => bytes >= STORE_BYTES_LEAST && bytes % BLOCK_BYTES === 0,
        `expected a size of whole ${BLOCK_BYTES}-byte blocks, 100M at least`,
      ),
    ),
  ),
  store_alloc: v.optional(oneOf(["full", "thin"]), "full"),
  index_memory: v.optional(indexMemory, "auto"),
  disk_timeout: v.optional(
    parsed((text) => {
      const milliseconds = parseDuration(text);
      return milliseconds === null || milliseconds < DISK_TIMEOUT_MS_LEAST ? null : milliseconds;
    }, "a duration such as 20s, 1s at least"),
    "20s",
  ),
  nbd: v.optional(v.array(nbd, "expected a list of addresses"), []),
  control: v.optional(path),
  state: v.optional(path),
  http: v.optional(tcp),
  priority: v.optional(wholeNumber(0, 7), 3),
  scrub: v.optional(scrub, "auto"),
  busy_poll: v.optional(oneOf(["auto", "off"]), "auto"),
});

const volumeSchema = v.strictObject({
  name,
  size: v.pipe(
    size,
    v.check(
      (bytes) => bytes > 0 && bytes % BLOCK_BYTES === 0,
      `expected a size of whole ${BLOCK_BYTES}-byte blocks, above zero`,
    ),
  ),
  mirror: v.optional(oneOf(["dedicated", "shared"]), "dedicated"),
  ack: v.optional(oneOf(["sync", "durable"]), "sync"),
  read_only: v.optional(v.boolean("expected true or false"), false),
});

const sharedNetworkSchema = v.strictObject({
  group: v.optional(
    checked((text) => {
      const address = parseTcpAddress(text);
      return address !== null && isMulticast(address.host) ? text : null;
    }, 'a multicast address such as "239.255.74.40:7441"'),
    "239.255.74.40:7441",
  ),
  mtu: v.optional(
    v.pipe(
      wholeNumber(0, 65_535),
      v.minValue(
        MTU_LEAST,
        `expected ${MTU_LEAST} or more, since datagrams are ${LIMITS.datagramBytesMax} bytes`,
      ),
    ),
    1500,
  ),
  rate_limit: v.optional(
    v.pipe(
      size,
      v.check((bytes) => bytes >= RATE_BYTES_LEAST, "expected a size a second, 64K at least"),
    ),
    "40M",
  ),
});

const policingSchema = v.strictObject({
  network: v.optional(oneOf(["dedicated", "shared"]), "dedicated"),
  timeout: v.optional(duration, "10s"),
  aging: v.optional(duration, "2s"),
});

export const configSchema = v.strictObject({
  cluster: v.optional(clusterSchema, {}),
  host: v.array(hostSchema, "expected [[host]] sections"),
  volume: v.array(volumeSchema, "expected [[volume]] sections"),
  shared_network: v.optional(sharedNetworkSchema, {}),
  policing: v.optional(policingSchema, {}),
});

/** The document after defaults: sizes in bytes, durations in milliseconds. */
export type ConfigDocument = v.InferOutput<typeof configSchema>;
export type HostSection = ConfigDocument["host"][number];
export type VolumeSection = ConfigDocument["volume"][number];

/** The keys that may stand where an unknown one was found, for "did you mean". */
export function knownKeys(parents: readonly (string | number)[]): string[] {
  const sections: Record<string, { entries: object }> = {
    cluster: clusterSchema,
    host: hostSchema,
    volume: volumeSchema,
    shared_network: sharedNetworkSchema,
    policing: policingSchema,
  };
  const section = parents[0];
  if (section === undefined) return Object.keys(sections);
  return Object.keys(sections[String(section)]?.entries ?? {});
}

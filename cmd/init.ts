/**
 * `vsan serve --init DIR`: a commented config and a fresh key for a new cluster. The ports are
 * chosen so that all hosts run on this machine at once; for several machines the operator edits
 * the addresses and copies the directory.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { LIMITS } from "../core/base/limits.ts";
import { BLOCK_BYTES } from "../core/base/units.ts";
import { UNIX_PATH_BYTES_MAX } from "./address.ts";
import { writeClusterKey } from "./cluster_key.ts";
import { isPlainName } from "./config_schema.ts";
import { failure, messageOf, usageError } from "./exit.ts";
import { storeBytesFor } from "./host_options.ts";
import { parseSize, sizeText } from "./quantity.ts";

export interface InitRequest {
  readonly directory: string;
  /** Comma-separated names. */
  readonly hosts: string;
  /** NAME:SIZE. */
  readonly volume: string;
}

export interface InitResult {
  readonly file: string;
  readonly keyFile: string;
  readonly hosts: readonly { name: string; link: string; nbd: string }[];
}

interface HostPlan {
  readonly name: string;
  readonly link: number;
  readonly shared: number;
  readonly nbd: number;
}

/** Where the search for free ports begins; each kind has its own range. */
const FIRST_PORTS = { link: 7440, shared: 7540, nbd: 10809 } as const;

/** Writes the files, or throws before anything is written. */
export async function initCluster(request: InitRequest): Promise<InitResult> {
  const directory = resolve(request.directory);
  const file = join(directory, "vsan.toml");
  const keyFile = join(directory, "cluster.key");
  const names = hostNames(request.hosts);
  const volume = volumeSpec(request.volume);
  for (const path of [file, keyFile]) {
    if (existsSync(path)) throw usageError(`--init: ${path} exists and is left as it is`);
  }
  const longest = Math.max(...names.map((name) => name.length));
  if (Buffer.byteLength(directory) + longest + 6 > UNIX_PATH_BYTES_MAX) {
    throw usageError(`--init: ${directory} is too long a path for control sockets in it`);
  }
  const plans = await planHosts(names);
  try {
    mkdirSync(directory, { recursive: true });
    writeClusterKey(keyFile);
    writeFileSync(file, initText(plans, volume), { flag: "wx" });
  } catch (thrown) {
    throw failure(`--init: ${messageOf(thrown)}`);
  }
  const hosts = plans.map(({ name, link, nbd }) => ({
    name,
    link: `127.0.0.1:${link}`,
    nbd: `nbd://127.0.0.1:${nbd}`,
  }));
  return { file, keyFile, hosts };
}

/** What was written and what to type next. */
export function initReport({ file, keyFile, hosts }: InitResult): string {
  const starts = hosts.map(({ name }) => `  vsan serve --config ${file} --host ${name}`);
  return `wrote ${file}
wrote ${keyFile} (mode 0600; every host needs a copy of both)

Start each host, here or, with its own addresses in the file, on its own machine:
${starts.join("\n")}

Clients attach to any host, for example ${hosts[0]?.nbd ?? ""}
`;
}

function hostNames(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const bad = names.find((name) => !isPlainName(name));
  if (bad !== undefined) {
    throw usageError(`--hosts: ${JSON.stringify(bad)} is not a host name (letters, digits, . _ -)`);
  }
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw usageError(`--hosts: ${twice} is named twice`);
  if (names.length > LIMITS.hostCountMax) {
    throw usageError(`--hosts: ${names.length} hosts; the most is ${LIMITS.hostCountMax}`);
  }
  return names;
}

function volumeSpec(text: string): { name: string; sizeBytes: number } {
  const match = /^([^:]+):([^:]+)$/.exec(text);
  if (match === null || !isPlainName(match[1] as string)) {
    throw usageError(`--volume: expected NAME:SIZE such as vol0:10G, not ${JSON.stringify(text)}`);
  }
  const sizeBytes = parseSize(match[2] as string);
  if (sizeBytes === null || sizeBytes === 0 || sizeBytes % BLOCK_BYTES !== 0) {
    const what = `a size of whole ${BLOCK_BYTES}-byte blocks such as 10G`;
    throw usageError(`--volume: expected ${what}, not ${JSON.stringify(match[2])}`);
  }
  if (sizeBytes > LIMITS.volumeBytesMax) throw usageError("--volume: the largest is 1024T");
  return { name: match[1] as string, sizeBytes };
}

async function planHosts(names: readonly string[]): Promise<HostPlan[]> {
  const plans: HostPlan[] = [];
  let { link, shared, nbd } = FIRST_PORTS as { link: number; shared: number; nbd: number };
  for (const name of names) {
    link = await nextFreePort(link);
    shared = await nextFreePort(shared);
    nbd = await nextFreePort(nbd);
    plans.push({ name, link, shared, nbd });
    link += 1;
    shared += 1;
    nbd += 1;
  }
  return plans;
}

async function nextFreePort(from: number): Promise<number> {
  for (let port = from; port <= 65535; port++) {
    if (await isFree(port)) return port;
  }
  throw failure(`--init: no free port from ${from} on`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once("error", () => done(false));
    server.listen({ port, host: "127.0.0.1" }, () => server.close(() => done(true)));
  });
}

function initText(plans: readonly HostPlan[], volume: { name: string; sizeBytes: number }): string {
  const storeSize = sizeText(storeBytesFor(volume.sizeBytes));
  const hosts = plans.map((plan) => hostText(plan, storeSize));
  const two = plans.length === 2 ? TWO_HOSTS : "";
  return `# A vsan cluster. The same file, and cluster.key beside it, on every host.
# Sizes: 4K, 10G, 1T (powers of 1024). Durations: 250ms, 10s, 5m. Relative paths begin here.

[cluster]
name = "lab"
key_file = "cluster.key"            # 32 random bytes in base64, mode 0600
on_lost_majority = "freeze"         # a side without a majority of hosts serves reads only
cold_start = "flushed"              # or "all": after a blackout wait for every last member
cold_wait = "10s"
peer_timeout = "5s"                 # a host that owes an answer longer is voted out
min_copies = 1                      # copies that a write needs at least
${two}
${hosts.join("\n")}
[[volume]]
name = "${volume.name}"
size = "${sizeText(volume.sizeBytes)}"
mirror = "dedicated"                # or "shared": one multicast over the shared network
ack = "sync"                        # or "durable": every write waits for all disks
read_only = false

[shared_network]                    # for volumes with mirror = "shared"
group = "239.255.74.40:7441"
mtu = 1500                          # 1428 at least; datagrams stay at 1400 bytes
rate_limit = "40M"                  # bytes a second that a host may multicast

[policing]                          # who may write where, when several hosts want to
network = "dedicated"               # or "shared": its messages leave the dedicated link to data
timeout = "10s"                     # for reservations, which this version lacks: no effect
aging = "2s"                        # a waiting request gains one priority in this time
`;
}

const TWO_HOSTS = `
# With two hosts, losing one freezes writes at the other (it cannot know which of them is cut
# off). A third [[host]] with kind = "witness" and a link, but no store, lifts that.
`;

function hostText({ name, link, shared, nbd }: HostPlan, storeSize: string): string {
  const lines = [
    [`name = "${name}"`, ""],
    ['kind = "data"', "data | witness (votes only) | client (no store)"],
    [`link = "127.0.0.1:${link}"`, "dedicated link, host to host"],
    [`shared = "127.0.0.1:${shared}"`, "second path, over the network the clients use"],
    [`store = "${name}.vsan"`, "file (created) or block device"],
    [`store_size = "${storeSize}"`, "for a file; a device is used whole"],
    ['store_alloc = "full"', "or thin: a file takes space as it is written"],
    ['busy_poll = "auto"', "or off: never awake without work"],
    ['disk_timeout = "20s"', "a disk that takes longer has failed"],
    [`nbd = ["127.0.0.1:${nbd}"]`, 'where clients attach; also "unix:/path"'],
    [`control = "${name}.sock"`, "for vsan mirror, lease and recover"],
    [`state = "${name}.state"`, "votes; never on the store, never deleted"],
    ['scrub = "auto"', "bytes a second for verifying cold data, such as 8M, or off"],
    ["priority = 3", "0..7, of writes that arrive here"],
  ] as const;
  const text = lines.map(([setting, comment]) =>
    comment === "" ? setting : `${setting.padEnd(COMMENT_COLUMN - 1)} # ${comment}`,
  );
  return `[[host]]\n${text.join("\n")}\n`;
}

const COMMENT_COLUMN = 36;

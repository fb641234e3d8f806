/**
 * Real hosts on this machine, for tests on processes: the compiled executable, loopback ports
 * that were free, files in a directory of their own. Everything that is started is ended by its
 * pid in `close()`, whatever happened before.
 *
 *   const cluster = await Cluster.start({ hosts: ["alpha", "beta", "gamma"] });
 *   try { ... cluster.host("alpha").nbd ... } finally { await cluster.close(); }
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { randomBytes, randomInt } from "node:crypto";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { StatusDocument, StatusHost } from "../../cmd/status_document.ts";
import { HostProcess } from "./host_process.ts";
import { NbdClient } from "./nbd_client.ts";

const ROOT = resolve(import.meta.dir, "../..");
export const EXECUTABLE = process.env.VSAN_EXECUTABLE ?? join(ROOT, "dist", "vsan");

const MIB = 1024 * 1024;

export interface ClusterOptions {
  readonly hosts: readonly string[];
  /** Kind by host name; "data" without. */
  readonly kinds?: Readonly<Record<string, "data" | "witness" | "client">>;
  readonly volumeBytes?: number;
  readonly storeBytes?: number;
  readonly mirror?: "dedicated" | "shared";
  readonly ack?: "sync" | "durable";
  /** Lines for the [cluster] section. */
  readonly clusterLines?: readonly string[];
  /** Replaces the loopback address of a host's link, e.g. a network namespace's. */
  readonly linkAddress?: (name: string, port: number) => string;
  readonly sharedAddress?: (name: string, port: number) => string;
  /** Where a host's NBD listens, as in vsan.toml: "ADDRESS:PORT" or "unix:PATH". */
  readonly nbdAddress?: (name: string, port: number) => string;
  /** Replaces a host's store, e.g. by a disk with faults. */
  readonly store?: (name: string) => string | null;
  /** Further lines for a host's section. */
  readonly hostLines?: (name: string) => readonly string[];
  /** Further sections, e.g. [policing]. */
  readonly sections?: readonly string[];
  /** A command line to put before a host's own, e.g. `ip netns exec ...`. */
  readonly wrapper?: (name: string) => readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Another executable than `EXECUTABLE`. */
  readonly executable?: string;
  /** Flags for every `vsan serve` that `start` starts. */
  readonly serveFlags?: readonly string[];
  /** Start only these at first; all without. */
  readonly started?: readonly string[];
  readonly readyTimeoutMs?: number;
}

export class Cluster {
  readonly directory: string;
  readonly configFile: string;
  private readonly byName = new Map<string, HostProcess>();
  private readonly clients: NbdClient[] = [];

  private constructor(directory: string) {
    this.directory = directory;
    this.configFile = join(directory, "vsan.toml");
  }

  /** Writes the config, starts the hosts and waits until each says that it is ready. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is missing: bun run build`);
    const cluster = new Cluster(mkdtempSync(join(tmpdir(), "vsan-cluster-")));
    try {
      await cluster.prepare(options);
      const names = options.started ?? options.hosts;
      const waitMs = options.readyTimeoutMs ?? 20_000;
      await Promise.all(names.map((name) => cluster.host(name).start(waitMs, options.serveFlags)));
      return cluster;
    } catch (thrown) {
      const logs = cluster.logTails();
      await cluster.close();
      throw new Error(`${thrown instanceof Error ? thrown.message : thrown}\n${logs}`);
    }
  }

  host(name: string): HostProcess {
    const found = this.byName.get(name);
    if (found === undefined) throw new Error(`no host ${name} in this cluster`);
    return found;
  }

  get hosts(): HostProcess[] {
    return [...this.byName.values()];
  }

  /** An NBD client of one host; ended by `close()` if nobody did before. */
  async client(name: string, exportName = ""): Promise<NbdClient> {
    const client = await NbdClient.connect({ uri: this.host(name).nbd, exportName });
    this.clients.push(client);
    return client;
  }

  /** What one host knows of another (or of itself). */
  async stateOf(observer: string, name = observer): Promise<StatusHost> {
    const status = await this.host(observer).status();
    const found = status.hosts.find((entry) => entry.name === name);
    if (found === undefined) throw new Error(`${observer} does not know ${name}`);
    return found;
  }

  /** Waits until `condition` holds of a host's status; the last status is in the error. */
  async until(
    name: string,
    what: string,
    condition: (status: StatusDocument) => boolean,
    timeoutMs = 30_000,
  ): Promise<StatusDocument> {
    const deadline = performance.now() + timeoutMs;
    let last: StatusDocument | string = "no answer";
    while (performance.now() < deadline) {
      try {
        last = await this.host(name).status();
        if (condition(last)) return last;
      } catch (thrown) {
        last = String(thrown);
      }
      await Bun.sleep(50);
    }
    throw new Error(
      `${name}: not within ${timeoutMs} ms: ${what}\n${JSON.stringify(last, null, 1)}`,
    );
  }

  /** Waits until every running data host is in sync and the view is open. */
  async inSync(timeoutMs = 30_000): Promise<void> {
    const running = this.hosts.filter((host) => host.isRunning && host.kind === "data");
    for (const { name } of running) {
      const settled = (status: StatusDocument): boolean =>
        status.view.open &&
        running.every((host) =>
          status.hosts.some((entry) => entry.name === host.name && entry.state === "in-sync"),
        );
      await this.until(name, "all running hosts in sync", settled, timeoutMs);
    }
  }

  /** The last lines that each host logged, for the message of a failed test. */
  logTails(lines = 30): string {
    const tails = this.hosts.map((host) => {
      const text = existsSync(host.logFile) ? readFileSync(host.logFile, "utf8") : "";
      return `--- ${host.name}\n${text.split("\n").slice(-lines).join("\n")}`;
    });
    return tails.join("\n");
  }

  /** Ends clients and hosts, and removes every file. Never rejects. */
  async close(): Promise<void> {
    for (const client of this.clients) client.abort();
    await Promise.all(this.hosts.map((host) => host.kill()));
    if (process.env.VSAN_KEEP === undefined) {
      rmSync(this.directory, { recursive: true, force: true });
    }
  }

  private async prepare(options: ClusterOptions): Promise<void> {
    const ports = await freePorts(options.hosts.length * 3 + 1);
    writeFileSync(join(this.directory, "cluster.key"), `${randomBytes(32).toString("base64")}\n`, {
      mode: 0o600,
    });
    const sections: string[] = [];
    for (const [index, name] of options.hosts.entries()) {
      const kind = options.kinds?.[name] ?? "data";
      const [link, shared, nbdPort] = ports.slice(index * 3) as [number, number, number];
      const loopback = (_: string, port: number): string => `127.0.0.1:${port}`;
      const lines = [
        "[[host]]",
        `name = "${name}"`,
        `kind = "${kind}"`,
        `link = "${(options.linkAddress ?? loopback)(name, link)}"`,
        `shared = "${(options.sharedAddress ?? loopback)(name, shared)}"`,
        `control = "${name}.sock"`,
        `state = "${name}.state"`,
      ];
      const store = options.store?.(name) ?? join(this.directory, `${name}.vsan`);
      if (kind === "data") {
        lines.push(`store = "${store}"`, `store_size = "${options.storeBytes ?? 512 * MIB}"`);
      }
      const nbd = (options.nbdAddress ?? loopback)(name, nbdPort);
      if (kind !== "witness") lines.push(`nbd = ["${nbd}"]`);
      lines.push(...(options.hostLines?.(name) ?? []));
      sections.push(lines.join("\n"));
      const process = new HostProcess({
        name,
        kind,
        directory: this.directory,
        configFile: this.configFile,
        executable: options.executable ?? EXECUTABLE,
        wrapper: options.wrapper?.(name) ?? [],
        environment: options.environment ?? {},
        nbd: kind === "witness" ? "" : uriOf(nbd),
        store,
      });
      this.byName.set(name, process);
    }
    const volume = [
      "[[volume]]",
      'name = "vol0"',
      `size = "${options.volumeBytes ?? 64 * MIB}"`,
      `mirror = "${options.mirror ?? "dedicated"}"`,
      `ack = "${options.ack ?? "sync"}"`,
    ];
    const cluster = ["[cluster]", 'name = "test"', ...(options.clusterLines ?? [])];
    // A group of its own, or clusters of other tests on this machine would hear this one.
    const group = `239.255.${randomInt(1, 255)}.${randomInt(1, 255)}:${ports.at(-1)}`;
    const more = [`[shared_network]\ngroup = "${group}"`, ...(options.sections ?? [])];
    const text = [cluster.join("\n"), ...sections, volume.join("\n"), ...more].join("\n\n");
    writeFileSync(this.configFile, `${text}\n`);
  }
}

function uriOf(nbd: string): string {
  return nbd.startsWith("unix:") ? `nbd+unix:///?socket=${nbd.slice(5)}` : `nbd://${nbd}`;
}

/** Below ip_local_port_range (32768 up), or an outgoing connection could be given one of them. */
const PORTS = { first: 20_000, count: 12_000 } as const;

/** Ports that nothing uses now, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const found = new Set<number>();
  for (let tries = 0; found.size < count && tries < 100 * count; tries++) {
    const port = PORTS.first + randomInt(PORTS.count);
    if (!found.has(port) && (await isFree(port))) found.add(port);
  }
  if (found.size < count) throw new Error(`no ${count} free ports on the loopback address`);
  return [...found];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once("error", () => done(false));
    server.listen({ port, host: "127.0.0.1" }, () => server.close(() => done(true)));
  });
}

/** What is measured: clusters of ours, and other NBD servers, each with a volume of 64 MiB. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster, freePorts } from "../tests/tools/cluster.ts";
import { NbdClient } from "../tests/tools/nbd_client.ts";

const VOLUME_BYTES = 64 * 1024 * 1024;
const START_LIMIT_MS = 5000;

export const PEERS: readonly string[] = ["nbdkit-memory", "nbdkit-file", "qemu-nbd"];

export interface Subject {
  readonly name: string;
  readonly uri: string;
  stop(): Promise<void>;
}

/** Starts what `name` means; null if it is not installed. */
export async function startSubject(name: string): Promise<Subject | null> {
  if (name === "vsan-1") return await startCluster(name, ["alpha"]);
  if (name === "vsan-3") return await startCluster(name, ["alpha", "beta", "gamma"]);
  return await startPeer(name);
}

async function startCluster(name: string, hosts: readonly string[]): Promise<Subject> {
  const cluster = await Cluster.start({ hosts, volumeBytes: VOLUME_BYTES });
  await cluster.inSync();
  return { name, uri: cluster.host("alpha").nbd, stop: () => cluster.close() };
}

async function startPeer(name: string): Promise<Subject | null> {
  const directory = mkdtempSync(join(tmpdir(), "vsan-bench-"));
  const file = join(directory, "disk.img");
  writeFileSync(file, "");
  truncateSync(file, VOLUME_BYTES);
  const [port] = (await freePorts(1)) as [number];
  const command = commandOf(name, file, String(port));
  if (Bun.which(command[0] as string) === null) {
    rmSync(directory, { recursive: true });
    return null;
  }
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  const uri = `nbd://127.0.0.1:${port}`;
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await child.exited;
    rmSync(directory, { recursive: true, force: true });
  };
  const deadline = performance.now() + START_LIMIT_MS;
  for (;;) {
    const client = await NbdClient.connect({ uri }).catch(() => null);
    client?.close();
    if (client !== null) return { name, uri, stop };
    if (performance.now() > deadline) {
      await stop();
      throw new Error(`${name} did not start: ${command.join(" ")}`);
    }
    await Bun.sleep(50);
  }
}

function commandOf(name: string, file: string, port: string): string[] {
  if (name === "nbdkit-memory") return ["nbdkit", "-f", "-p", port, "memory", String(VOLUME_BYTES)];
  if (name === "nbdkit-file") return ["nbdkit", "-f", "-p", port, "file", file];
  return ["qemu-nbd", "-f", "raw", "-p", port, "-t", "--cache=writeback", "-e", "32", file];
}

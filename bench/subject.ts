/**
 * What is measured: clusters of ours and other NBD servers, each with one volume in files of one
 * directory, all over the loopback address.
 *
 * `qemu-quorum` is the peer of two mirrored hosts: qemu's quorum driver writes each block to a
 * file and over NBD to a second qemu-nbd, and answers when both have it; it reads from its own
 * file (`read-pattern=fifo`), as we do. Both qemu-nbd use the page cache (`writeback`), as
 * `nbdkit file` and our own log do, so a write is in memory when it is answered, and on disk
 * after a flush.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster, freePorts } from "../tests/tools/cluster.ts";
import { NbdClient } from "../tests/tools/nbd_client.ts";

const MIB = 1024 * 1024;
const VOLUME_BYTES = 256 * MIB;
const STORE_BYTES = 2048 * MIB;
const START_LIMIT_MS = 5000;

export const PEERS: readonly string[] = ["nbdkit-file", "qemu-quorum", "nbdkit-memory", "qemu-nbd"];
export const DEFAULT_PEERS: readonly string[] = ["nbdkit-file", "qemu-quorum"];

export interface Subject {
  readonly name: string;
  readonly uri: string;
  /** Its processes; those below them belong to it, too. */
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

/** A cluster of `hostCount` hosts of `executable` (dist/vsan without), in sync. */
export async function startCluster(
  name: string,
  hostCount: number,
  executable?: string,
): Promise<Subject> {
  const cluster = await Cluster.start({
    hosts: ["alpha", "beta", "gamma"].slice(0, hostCount),
    volumeBytes: VOLUME_BYTES,
    storeBytes: STORE_BYTES,
    ...(executable === undefined ? {} : { executable }),
  });
  await cluster.inSync();
  return {
    name,
    uri: cluster.host("alpha").nbd,
    pids: cluster.hosts.map((host) => host.pid),
    stop: () => cluster.close(),
  };
}

/** Starts the peer of this name; null if it is not installed. */
export async function startPeer(name: string): Promise<Subject | null> {
  const directory = mkdtempSync(join(tmpdir(), "vsan-bench-"));
  const children: Bun.Subprocess[] = [];
  const stop = async (): Promise<void> => {
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(children.map((child) => child.exited));
    rmSync(directory, { recursive: true, force: true });
  };
  const ports = await freePorts(2);
  const commands = commandsOf(name, directory, ports);
  if (commands.some((command) => Bun.which(command[0] as string) === null)) {
    await stop();
    return null;
  }
  try {
    for (const [index, command] of commands.entries()) {
      children.push(Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "inherit" }));
      await answers(`nbd://127.0.0.1:${ports[commands.length - 1 - index]}`, command);
    }
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  const pids = children.map((child) => child.pid);
  return { name, uri: `nbd://127.0.0.1:${ports[0]}`, pids, stop };
}

/** Waits until the server answers a client. */
async function answers(uri: string, command: readonly string[]): Promise<void> {
  const deadline = performance.now() + START_LIMIT_MS;
  for (;;) {
    const client = await NbdClient.connect({ uri }).catch(() => null);
    client?.close();
    if (client !== null) return;
    if (performance.now() > deadline) throw new Error(`did not start: ${command.join(" ")}`);
    await Bun.sleep(50);
  }
}

/** In the order to start them; the last listens on `ports[0]`, the one before it on `ports[1]`. */
function commandsOf(name: string, directory: string, ports: readonly number[]): string[][] {
  const [port, second] = ports.map(String) as [string, string];
  const file = imageIn(directory, "first.img");
  if (name === "nbdkit-memory") {
    return [["nbdkit", "-f", "-p", port, "memory", String(VOLUME_BYTES)]];
  }
  if (name === "nbdkit-file") return [["nbdkit", "-f", "-p", port, "file", file]];
  const common = ["qemu-nbd", "-t", "-e", "32", "-b", "127.0.0.1", "--cache=writeback"];
  if (name === "qemu-nbd") return [[...common, "-p", port, "-f", "raw", file]];
  const other = imageIn(directory, "second.img");
  const quorum = [
    "driver=quorum",
    "vote-threshold=2",
    "read-pattern=fifo",
    "children.0.driver=raw",
    "children.0.file.driver=file",
    `children.0.file.filename=${file}`,
    "children.1.driver=nbd",
    "children.1.server.type=inet",
    "children.1.server.host=127.0.0.1",
    `children.1.server.port=${second}`,
  ];
  return [
    [...common, "-p", second, "-f", "raw", other],
    [...common, "-p", port, "--image-opts", quorum.join(",")],
  ];
}

function imageIn(directory: string, name: string): string {
  const file = join(directory, name);
  writeFileSync(file, "");
  truncateSync(file, VOLUME_BYTES);
  return file;
}

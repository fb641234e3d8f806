/**
 * Hosts in network namespaces of their own, on two networks: the dedicated one (10.71.0.0/24) and
 * the shared one (10.72.0.0/24), each a bridge in a further namespace, which is also where a
 * workstation would stand. Cables can be pulled, pairs separated, multicast made lossy. Nothing
 * of the machine's own network is touched; `close()` deletes the namespaces and all in them.
 */
import { randomInt } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ClusterOptions } from "./cluster.ts";
import { must, run } from "./lab.ts";

export type Network = "dedicated" | "shared";
const NETWORKS = ["dedicated", "shared"] as const;
const SUBNET = { dedicated: "10.71.0", shared: "10.72.0" } as const;
/** The workstation's address on the shared network. */
export const WORKSTATION = `${SUBNET.shared}.254`;
export const NEEDS_OF_NET_LAB = ["root", "namespaces", "ip", "iptables"] as const;

export class NetLab {
  private readonly prefix = `vsan${process.pid}x${randomInt(1000)}`;
  private readonly names: readonly string[];
  private readonly made: string[] = [];
  /** Clients outside the namespaces reach the hosts by sockets here. */
  private readonly sockets = mkdtempSync(join(tmpdir(), "vsan-nbd-"));

  private constructor(names: readonly string[]) {
    this.names = names;
  }

  static async create(names: readonly string[]): Promise<NetLab> {
    const lab = new NetLab(names);
    await sweep();
    try {
      await lab.build();
      return lab;
    } catch (thrown) {
      await lab.close();
      throw thrown;
    }
  }

  /** What a cluster in this lab needs in its config. */
  get clusterOptions(): Partial<ClusterOptions> {
    return {
      linkAddress: (name, port) => `${this.address(name, "dedicated")}:${port}`,
      sharedAddress: (name, port) => `${this.address(name, "shared")}:${port}`,
      nbdAddress: (name) => `unix:${join(this.sockets, `${name}.sock`)}`,
      wrapper: (name) => this.wrapper(name),
    };
  }

  address(name: string, network: Network): string {
    const index = this.names.indexOf(name);
    if (index < 0) throw new Error(`no host ${name} in this lab`);
    return `${SUBNET[network]}.${index + 1}`;
  }

  /** Words that run a command in a host's namespace. */
  wrapper(name: string): string[] {
    return ["ip", "netns", "exec", this.space(name)];
  }

  /** Words that run a command where the workstation stands. */
  get workstation(): string[] {
    return this.wrapper("hub");
  }

  /** Pulls a host's cable out of a network, or puts it back. */
  async cable(name: string, network: Network, isIn: boolean): Promise<void> {
    const port = `${network.slice(0, 3)}-${this.names.indexOf(name)}`;
    await must(["ip", "-n", this.space("hub"), "link", "set", port, isIn ? "up" : "down"]);
  }

  /** Two hosts no longer hear each other on these networks. */
  async separate(one: string, other: string, networks: readonly Network[]): Promise<void> {
    await this.rules("-A", one, other, networks);
  }

  async join(one: string, other: string, networks: readonly Network[]): Promise<void> {
    await this.rules("-D", one, other, networks);
  }

  /** From now on a host loses this part of the multicast datagrams it is sent. */
  async loseMulticast(name: string, probability: number): Promise<void> {
    const match = ["-p", "udp", "-d", "224.0.0.0/4", "-m", "statistic", "--mode", "random"];
    const rule = [...match, "--probability", String(probability), "-j", "DROP"];
    await must([...this.wrapper(name), "iptables", "-w", "-A", "INPUT", ...rule]);
  }

  /** Datagrams that the rule of `loseMulticast` has dropped. */
  async lostMulticast(name: string): Promise<number> {
    const list = await must([...this.wrapper(name), "iptables", "-w", "-nvxL", "INPUT"]);
    const line = list.split("\n").find((each) => each.includes("statistic")) ?? "";
    return Number(line.trim().split(/\s+/)[0] ?? 0);
  }

  /** Bytes that a host has sent into a network. */
  async sentBytes(name: string, network: Network): Promise<number> {
    const words = ["ip", "-n", this.space(name), "-j", "-s", "link", "show", "dev", network];
    return JSON.parse(await must(words))[0].stats64.tx.bytes;
  }

  async close(): Promise<void> {
    for (const space of this.made.splice(0).reverse()) await run(["ip", "netns", "del", space]);
    rmSync(this.sockets, { recursive: true, force: true });
  }

  private space(name: string): string {
    return `${this.prefix}-${name}`;
  }

  private async build(): Promise<void> {
    for (const name of ["hub", ...this.names]) {
      await must(["ip", "netns", "add", this.space(name)]);
      this.made.push(this.space(name));
      await must(["ip", "-n", this.space(name), "link", "set", "lo", "up"]);
    }
    const hub = this.space("hub");
    for (const network of NETWORKS) {
      // Without snooping a bridge is a plain switch: multicast reaches every port.
      const bridge = ["link", "add", network, "type", "bridge", "mcast_snooping", "0"];
      await must(["ip", "-n", hub, ...bridge]);
      await must(["ip", "-n", hub, "link", "set", network, "up"]);
      for (const [index, name] of this.names.entries()) {
        const port = `${network.slice(0, 3)}-${index}`;
        const space = this.space(name);
        const pair = ["link", "add", port, "type", "veth", "peer", network, "netns", space];
        await must(["ip", "-n", hub, ...pair]);
        await must(["ip", "-n", hub, "link", "set", port, "master", network, "up"]);
        const address = `${this.address(name, network)}/24`;
        await must(["ip", "-n", space, "addr", "add", address, "dev", network]);
        await must(["ip", "-n", space, "link", "set", network, "up"]);
      }
    }
    await must(["ip", "-n", hub, "addr", "add", `${WORKSTATION}/24`, "dev", "shared"]);
  }

  private async rules(
    action: "-A" | "-D",
    one: string,
    other: string,
    networks: readonly Network[],
  ): Promise<void> {
    for (const network of networks) {
      for (const [at, from] of [
        [one, other],
        [other, one],
      ] as const) {
        const rule = ["-s", this.address(from, network), "-j", "DROP"];
        await must([...this.wrapper(at), "iptables", "-w", action, "INPUT", ...rule]);
      }
    }
  }
}

/** Deletes namespaces that a killed test run left behind. */
async function sweep(): Promise<void> {
  const { stdout } = await run(["ip", "netns", "list"]);
  for (const [name, pid] of stdout.matchAll(/^vsan(\d+)x\S*/gm)) {
    if (!existsSync(`/proc/${pid}`)) await run(["ip", "netns", "del", name]);
  }
}

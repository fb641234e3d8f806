/** The simulated links keep the contract of the real ones, calm and in bad weather. */
import { SeededRandom } from "../../core/base/random.ts";
import { type HostId, hostId } from "../../core/base/units.ts";
import { Scheduler } from "../sim/scheduler.ts";
import { CALM, type NetFaults, SimNet } from "../sim/sim_net.ts";
import { type PacketRig, packetSuite } from "./packet_suite.ts";
import { type StreamEvent, type StreamRig, streamSuite } from "./stream_suite.ts";

const HOSTS: readonly [HostId, HostId, HostId] = [hostId(0), hostId(1), hostId(2)];

function makeWorld(hostCount: number, faults: Partial<NetFaults>) {
  const scheduler = new Scheduler();
  const streams: StreamEvent[][] = HOSTS.map(() => []);
  const packets: Uint8Array[][] = HOSTS.map(() => []);
  const at = <T>(lists: T[][], host: HostId): T[] => lists[host] as T[];
  const net = new SimNet(
    {
      random: new SeededRandom(1),
      schedule: (delayMs, run) => scheduler.after(delayMs, run),
      faults: { ...CALM, ...faults },
    },
    {
      peerUp: (host, peer, peerInc) => at(streams, host).push({ kind: "up", peer, peerInc }),
      peerDown: (host, peer) => at(streams, host).push({ kind: "down", peer }),
      peerData: (host, peer, lane, chunk) =>
        at(streams, host).push({ kind: "data", peer, lane, chunk }),
      peerDrain: (host, peer, lane) => at(streams, host).push({ kind: "drain", peer, lane }),
      packet: (host, chunk) => at(packets, host).push(chunk),
    },
  );
  for (const host of HOSTS.slice(0, hostCount)) net.start(host, 10 + host);
  const until = async (isDone: () => boolean): Promise<boolean> => {
    const bound = scheduler.nowMs + 5000;
    while (!isDone()) if (!scheduler.step(bound)) return isDone();
    return true;
  };
  return { net, streams, packets, until, at };
}

async function streamRig(faults: Partial<NetFaults>): Promise<StreamRig> {
  const { net, streams, until, at } = makeWorld(2, faults);
  return {
    hosts: [HOSTS[0], HOSTS[1]],
    incOf: (host) => 10 + host,
    link: (host) => net.linkOf(host),
    events: (host) => at(streams, host),
    until,
    close: async () => {},
  };
}

async function packetRig(faults: Partial<NetFaults>): Promise<PacketRig> {
  const { net, packets, until, at } = makeWorld(3, faults);
  return {
    hosts: HOSTS,
    link: (host) => net.packetsOf(host),
    packets: (host) => at(packets, host),
    until,
    close: async () => {},
  };
}

streamSuite("simulated", () => streamRig({}));
streamSuite("simulated, slow and in small pieces", () =>
  streamRig({ bufferBytes: 20_000, delayMaxMs: 5, partialSend: 0.5 }),
);
packetSuite("simulated", () => packetRig({}));
packetSuite("simulated, lossy", () => packetRig({ packetLoss: 0.1, packetReorder: 0.3 }));

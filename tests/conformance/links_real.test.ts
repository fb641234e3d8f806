/** The real links keep the contract of the simulated ones, on loopback. */
import { LANE, type Lane } from "../../core/base/ports.ts";
import { type HostId, hostId } from "../../core/base/units.ts";
import { BootClock } from "../../transports/clock.ts";
import { SystemEntropy } from "../../transports/entropy.ts";
import { HmacMac } from "../../transports/mac.ts";
import { Multicast } from "../../transports/multicast.ts";
import { PeerLinks } from "../../transports/peer_link.ts";
import { freePort, Remembered } from "../unit/transports/sink.ts";
import { type PacketRig, packetSuite } from "./packet_suite.ts";
import { type StreamEvent, type StreamRig, streamSuite } from "./stream_suite.ts";

const HOSTS: readonly [HostId, HostId, HostId] = [hostId(0), hostId(1), hostId(2)];

/** Lets the world run until `isDone`, at most for `boundMs`. */
async function settled(isDone: () => boolean, boundMs: number): Promise<boolean> {
  const endMs = performance.now() + boundMs;
  while (!isDone()) {
    if (performance.now() > endMs) return false;
    await new Promise<void>((resolve) => setTimeout(resolve, 1));
  }
  return true;
}

async function streamRig(): Promise<StreamRig> {
  const clock = new BootClock();
  const pair: readonly [HostId, HostId] = [HOSTS[0], HOSTS[1]];
  const hosts = pair.map((id) => {
    return { id, name: `host${id}`, link: `127.0.0.1:${freePort()}`, shared: null };
  });
  const events: StreamEvent[][] = [[], []];
  const links = pair.map((self) => {
    const ports = {
      mac: new HmacMac(new Uint8Array(32).fill(1)),
      entropy: new SystemEntropy(),
      trace: new Remembered(),
      nowMs: () => clock.nowMs(),
    };
    const mine = events[self] as StreamEvent[];
    const made = new PeerLinks({ self, clusterName: "lab", hosts }, ports, {
      peerUp: (peer, peerInc) => mine.push({ kind: "up", peer, peerInc }),
      peerDown: (peer) => mine.push({ kind: "down", peer }),
      peerData: (peer, lane: Lane, chunk) => mine.push({ kind: "data", peer, lane, chunk }),
      peerDrain: (peer, lane: Lane) => mine.push({ kind: "drain", peer, lane }),
    });
    made.listen();
    return made;
  });
  for (const [self, link] of links.entries()) link.start(10 + self);
  return {
    hosts: pair,
    incOf: (host) => 10 + host,
    link: (host) => links[host] as PeerLinks,
    events: (host) => events[host] as StreamEvent[],
    until: (isDone) => settled(isDone, 4000),
    close: async () => {
      for (const link of links) link.stop();
    },
  };
}

async function packetRig(): Promise<PacketRig> {
  const group = `239.255.74.43:${freePort()}`;
  const addresses = new Map(HOSTS.map((host) => [host, `127.0.0.1:${freePort()}`]));
  const packets: Uint8Array[][] = [[], [], []];
  const links: Multicast[] = [];
  for (const host of HOSTS) {
    const peers = new Map([...addresses].filter(([peer]) => peer !== host));
    const options = { group, own: addresses.get(host) ?? "", peers };
    const mine = packets[host] as Uint8Array[];
    const link = new Multicast(options, { packet: (chunk) => mine.push(chunk) }, new Remembered());
    await link.open();
    links.push(link);
  }
  return {
    hosts: HOSTS,
    link: (host) => links[host] as Multicast,
    packets: (host) => packets[host] as Uint8Array[],
    until: (isDone) => settled(isDone, 500),
    close: async () => {
      for (const link of links) link.close();
    },
  };
}

streamSuite(`TCP, lanes ${LANE.control} and ${LANE.data}`, streamRig);
packetSuite("UDP", packetRig);

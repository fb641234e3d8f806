/**
 * PacketLink over UDP: one socket for the host's own address (sends everything, receives
 * unicast), one bound to the group (receives multicast). The group is joined on the interface of
 * the host's shared address, by IP: a name Bun does not know would join the default interface.
 *
 * Several hosts on one machine share the group's port, and hear each other because multicast
 * loopback is on; a host's own datagrams are dropped by their source address.
 *
 * Bun reads a socket until it is empty, so the receive handler only keeps the (fresh) buffer in a
 * bounded ring; the ring is emptied in slices between other events, and overflow is loss, which
 * multicast repairs: a flood must not keep the host from its other work.
 */
import { isIP } from "node:net";
import type { udp } from "bun";
import { LIMITS } from "../core/base/limits.ts";
import type { PacketLink, Trace } from "../core/base/ports.ts";
import { type HostId, MIB } from "../core/base/units.ts";
import { SOCKET_OPTION, setSocketOption } from "./libc.ts";
import { type HostPort, parseHostPort, rethrowBug, socketErrorText } from "./tcp.ts";

const RECEIVE_BUFFER_BYTES = 8 * MIB;
/** Datagrams waiting to be processed; the newest are dropped past it. A power of two. */
const RING_DATAGRAMS = 8192;
/** Datagrams per slice: about a millisecond of work. */
const SLICE_DATAGRAMS = 64;
/** LIBUS_LISTEN_REUSE_PORT of Bun's socket library; not in its types. */
const REUSE_PORT = 4;

export interface PacketEvents {
  packet(chunk: Uint8Array): void;
}

export interface MulticastOptions {
  /** "address:port" of the group. */
  readonly group: string;
  /** This host's shared address, "ip:port". */
  readonly own: string;
  /** The other hosts' shared addresses. */
  readonly peers: ReadonlyMap<HostId, string>;
}

type Socket = udp.Socket<"buffer">;

/** A PacketLink for clusters without a shared network: everything is lost. */
export const NO_PACKETS: PacketLink = {
  multicast() {},
  unicast() {},
};

export class Multicast implements PacketLink {
  private readonly group: HostPort;
  private readonly own: HostPort;
  private readonly peers = new Map<HostId, HostPort>();
  private readonly events: PacketEvents;
  private readonly trace: Trace;
  private ownSocket: Socket | null = null;
  private groupSocket: Socket | null = null;
  private readonly ring: (Uint8Array | null)[] = new Array(RING_DATAGRAMS).fill(null);
  private head = 0;
  private tail = 0;
  private isSlicePlanned = false;
  /** Datagrams dropped because the ring was full, or refused by the kernel when sent. */
  receiveDrops = 0;
  sendDrops = 0;

  /** Throws one sentence if an address is malformed. */
  constructor(options: MulticastOptions, events: PacketEvents, trace: Trace) {
    this.group = addressOf(options.group);
    this.own = addressOf(options.own);
    for (const [peer, address] of options.peers) this.peers.set(peer, addressOf(address));
    this.events = events;
    this.trace = trace;
  }

  /** Binds both sockets and joins the group; rejects with one sentence. */
  async open(): Promise<void> {
    const { own, group } = this;
    try {
      this.ownSocket = await this.bind(own.hostname, own.port, 0);
      this.groupSocket = await this.bind(group.hostname, group.port, REUSE_PORT);
      this.ownSocket.setMulticastInterface(own.hostname);
      this.ownSocket.setMulticastTTL(1);
      this.ownSocket.setMulticastLoopback(true);
      const joined = this.groupSocket.addMembership(group.hostname, own.hostname);
      if (!joined) throw new Error("the group cannot be joined on this address");
    } catch (error) {
      this.close();
      const where = `${own.hostname}:${own.port} and group ${group.hostname}:${group.port}`;
      throw new Error(`cannot use the shared network at ${where}: ${socketErrorText(error)}`);
    }
  }

  multicast(buffer: Uint8Array, at: number, length: number): void {
    this.send(buffer, at, length, this.group);
  }

  unicast(peer: HostId, buffer: Uint8Array, at: number, length: number): void {
    const target = this.peers.get(peer);
    if (target !== undefined) this.send(buffer, at, length, target);
  }

  close(): void {
    this.ownSocket?.close();
    this.groupSocket?.close();
    this.ownSocket = null;
    this.groupSocket = null;
    this.head = this.tail;
    this.ring.fill(null);
  }

  private send(buffer: Uint8Array, at: number, length: number, target: HostPort): void {
    if (this.ownSocket === null) return;
    try {
      const chunk = buffer.subarray(at, at + length);
      if (!this.ownSocket.send(chunk, target.port, target.hostname)) this.sendDrops += 1;
    } catch {
      // Unreachable network, EPERM of a firewall, EMSGSIZE: all are loss to a datagram's sender.
      this.sendDrops += 1;
    }
  }

  private async bind(hostname: string, port: number, flags: number): Promise<Socket> {
    const options: udp.SocketOptions<"buffer"> & { readonly flags: number } = {
      hostname,
      port,
      flags,
      socket: {
        data: (_socket, chunk, fromPort, fromAddress) => {
          this.received(chunk, fromPort, fromAddress);
        },
        // The types promise (socket, error); 1.4.5 passes the error alone (canary `udp`).
        error: (...given: readonly unknown[]) => {
          const error = given.find((one) => one instanceof Error);
          if (error === undefined) return;
          rethrowBug(error);
          this.trace.event("debug", "packet.error", `a datagram socket reports: ${error.message}`);
        },
      },
    };
    const socket = await Bun.udpSocket(options);
    const { fd } = socket as unknown as { readonly fd: number };
    setSocketOption(fd, SOCKET_OPTION.receiveErrors, 0);
    if (!setSocketOption(fd, SOCKET_OPTION.receiveBufferForce, RECEIVE_BUFFER_BYTES)) {
      setSocketOption(fd, SOCKET_OPTION.receiveBuffer, RECEIVE_BUFFER_BYTES);
    }
    return socket;
  }

  private received(chunk: Uint8Array, fromPort: number, fromAddress: string): void {
    if (fromPort === this.own.port && fromAddress === this.own.hostname) return;
    if (chunk.length > LIMITS.datagramBytesMax || this.tail - this.head >= RING_DATAGRAMS) {
      this.receiveDrops += 1;
      return;
    }
    this.ring[this.tail % RING_DATAGRAMS] = chunk;
    this.tail += 1;
    if (this.isSlicePlanned) return;
    this.isSlicePlanned = true;
    setImmediate(this.slice);
  }

  private readonly slice = (): void => {
    this.isSlicePlanned = false;
    const end = Math.min(this.tail, this.head + SLICE_DATAGRAMS);
    while (this.head < end) {
      const at = this.head % RING_DATAGRAMS;
      const chunk = this.ring[at];
      this.ring[at] = null;
      this.head += 1;
      if (chunk !== null && chunk !== undefined) this.events.packet(chunk);
    }
    if (this.head < this.tail && !this.isSlicePlanned) {
      this.isSlicePlanned = true;
      setImmediate(this.slice);
    }
  };
}

function addressOf(text: string): HostPort {
  const parsed = parseHostPort(text);
  if (parsed === null || isIP(parsed.hostname) === 0)
    throw new Error(`shared network address ${text} is not ip:port`);
  return parsed;
}

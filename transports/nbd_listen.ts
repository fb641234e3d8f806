/**
 * NBD clients' connections: TCP and Unix listeners, numbered clients, the ClientLink port.
 *
 * Invariants
 *  1. A client number is used once. `clientOpen` comes first; `clientClosed` comes once, also
 *     after the core's own `close`, and nothing comes after it.
 *  2. Nothing is delivered from inside `send`, `pause` or `close`.
 *  3. At most `LIMITS.clientCountMax` clients; a further one is closed at once.
 *  4. Before `admit` the addresses are held, and whoever connects is closed at once: so that an
 *     address in use is known before anything is done, and nobody waits on a host without a view.
 */
import { chmodSync } from "node:fs";
import type { Socket, SocketHandler, TCPSocketListener, UnixSocketListener } from "bun";
import { LIMITS } from "../core/base/limits.ts";
import type { ClientLink, Trace } from "../core/base/ports.ts";
import { addressOf, libc } from "./libc.ts";
import {
  closeGently,
  parseHostPort,
  pauseSocket,
  rethrowBug,
  socketErrorText,
  socketFd,
} from "./tcp.ts";
import { freeSocketPath } from "./unix_socket.ts";

const UNIX_MODE = 0o660;
const MSG_DONTWAIT = 0x40;

export interface ClientEvents {
  clientOpen(client: number): void;
  clientData(client: number, chunk: Uint8Array): void;
  clientDrain(client: number): void;
  clientClosed(client: number): void;
}

interface Client {
  readonly id: number;
  readonly socket: Socket<ClientData>;
  wantsDrain: boolean;
  isClosing: boolean;
}
interface ClientData {
  client: Client | null;
}
type Listener = TCPSocketListener<ClientData> | UnixSocketListener<ClientData>;

export class NbdListeners implements ClientLink {
  private readonly events: ClientEvents;
  private readonly trace: Trace;
  private readonly clients = new Map<number, Client>();
  private readonly listeners: Listener[] = [];
  private nextId = 1;
  private isAdmitting = false;

  constructor(events: ClientEvents, trace: Trace) {
    this.events = events;
    this.trace = trace;
  }

  get clientCount(): number {
    return this.clients.size;
  }

  /**
   * Listens on "host:port" or "unix:/path"; the address really bound (a port 0 becomes one).
   * Rejects with one sentence.
   */
  async listen(address: string): Promise<string> {
    try {
      if (address.startsWith("unix:")) return await this.listenUnix(address.slice(5));
      const target = parseHostPort(address);
      if (target === null) throw new Error("it is neither host:port nor unix:/path");
      const listener = Bun.listen<ClientData>({ ...target, socket: this.handlers });
      this.listeners.push(listener);
      const name = target.hostname.includes(":") ? `[${target.hostname}]` : target.hostname;
      return `${name}:${listener.port}`;
    } catch (error) {
      throw new Error(`cannot serve NBD on ${address}: ${socketErrorText(error)}`);
    }
  }

  /** From now on clients are served. */
  admit(): void {
    this.isAdmitting = true;
  }

  /** Accepts no more; the clients there are stay. */
  stopListening(): void {
    for (const listener of this.listeners) listener.stop(false);
    this.listeners.length = 0;
  }

  /** Cuts every client without events. */
  stop(): void {
    this.stopListening();
    for (const client of this.clients.values()) {
      client.socket.data.client = null;
      client.socket.terminate();
    }
    this.clients.clear();
  }

  send(client: number, buffer: Uint8Array, at: number, length: number): number {
    const state = this.clients.get(client);
    if (state === undefined || state.isClosing) return -1;
    const taken = state.socket.write(buffer, at, length);
    if (taken >= 0 && taken < length) state.wantsDrain = true;
    return taken;
  }

  /**
   * By recv(2) on the connection's own descriptor: Bun has delivered all that it read before, so
   * the order of bytes is kept. An end or an error shows as 0 here and is told by Bun.
   */
  receiveNow(client: number, buffer: Uint8Array, at: number, length: number): number {
    const state = this.clients.get(client);
    if (state === undefined || state.isClosing) return 0;
    const fd = socketFd(state.socket);
    const count = Number(libc().recv(fd, addressOf(buffer) + at, length, MSG_DONTWAIT));
    return Math.max(count, 0);
  }

  pause(client: number, paused: boolean): void {
    const state = this.clients.get(client);
    if (state !== undefined && !state.isClosing) pauseSocket(state.socket, paused);
  }

  close(client: number): void {
    const state = this.clients.get(client);
    if (state === undefined || state.isClosing) return;
    state.isClosing = true;
    // Whatever it still sends is read and dropped, so that its FIN is seen.
    pauseSocket(state.socket, false);
    closeGently(state.socket);
    setImmediate(() => this.gone(state));
  }

  private async listenUnix(path: string): Promise<string> {
    await freeSocketPath(path);
    const listener = Bun.listen<ClientData>({ unix: path, socket: this.handlers });
    this.listeners.push(listener);
    chmodSync(path, UNIX_MODE);
    return `unix:${path}`;
  }

  private opened(socket: Socket<ClientData>): void {
    if (!this.isAdmitting) {
      socket.data = { client: null };
      socket.terminate();
      return;
    }
    if (this.clients.size >= LIMITS.clientCountMax) {
      socket.data = { client: null };
      socket.terminate();
      this.trace.event("warn", "nbd.crowded", "a client was turned away: too many are connected");
      return;
    }
    const client = { id: this.nextId, socket, wantsDrain: false, isClosing: false };
    this.nextId += 1;
    socket.data = { client };
    socket.setNoDelay(true);
    this.clients.set(client.id, client);
    this.events.clientOpen(client.id);
  }

  private gone(client: Client): void {
    if (!this.clients.delete(client.id)) return;
    client.socket.data.client = null;
    if (!client.isClosing) client.socket.terminate();
    this.events.clientClosed(client.id);
  }

  private readonly handlers: SocketHandler<ClientData> = {
    open: (socket) => this.opened(socket),
    data: (socket, chunk) => {
      const { client } = socket.data;
      if (client !== null && !client.isClosing) this.events.clientData(client.id, chunk);
    },
    drain: (socket) => {
      const { client } = socket.data;
      if (client === null || client.isClosing || !client.wantsDrain) return;
      client.wantsDrain = false;
      this.events.clientDrain(client.id);
    },
    end: (socket) => {
      const { client } = socket.data;
      if (client !== null) this.gone(client);
    },
    close: (socket) => {
      const { client } = socket.data;
      if (client !== null) this.gone(client);
    },
    error: (socket, error) => {
      rethrowBug(error);
      const { client } = socket.data;
      if (client !== null) this.gone(client);
    },
  };
}

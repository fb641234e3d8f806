/**
 * One TCP connection between two hosts: first the handshake, then one lane's bytes.
 *
 *   open -> (handshake) -> established -> flow() -> data ... -> closed
 *                \______________\____________________/  close(why)
 *
 * Invariants
 *  1. No byte reaches the owner before the handshake is done and the owner called `flow`; until
 *     then the socket is paused and what had been read is kept, at most `HELD_BYTES_MAX`.
 *  2. `closed` is called exactly once, never from inside `close` or `send`.
 *
 * TLS would be put between Bun's socket and this class, with `exportKeyingMaterial` as the
 * handshake's channel binding.
 */
import type { Socket, SocketHandler } from "bun";
import { MIB } from "../core/base/units.ts";
import type { Handshake, HandshakeResult } from "../core/membership/handshake.ts";
import { SOCKET_OPTION, setSocketOption } from "./libc.ts";
import { closeGently, pauseSocket, rethrowBug, roundTripMicros, socketFd } from "./tcp.ts";

/** Bytes kept for an owner that is not ready; more cannot be read once the socket is paused. */
const HELD_BYTES_MAX = 2 * MIB;
/** A path on which nothing is acknowledged for so long is dead (heartbeats flow every 100 ms). */
const USER_TIMEOUT_MS = 1500;

export interface LinkSocketOwner {
  established(link: LinkSocket): void;
  data(link: LinkSocket, chunk: Uint8Array): void;
  drain(link: LinkSocket): void;
  /** The connection is gone, not by our `close`. */
  closed(link: LinkSocket, why: string): void;
}

export class LinkSocket {
  readonly handshake: Handshake;
  readonly remote: string;
  private readonly owner: LinkSocketOwner;
  private socket: Socket<LinkSocket | undefined> | null = null;
  private held: Uint8Array[] = [];
  private heldBytes = 0;
  private flowing = false;
  private isClosed = false;
  private wantsDrain = false;

  constructor(handshake: Handshake, owner: LinkSocketOwner, remote: string) {
    this.handshake = handshake;
    this.owner = owner;
    this.remote = remote;
  }

  get result(): HandshakeResult | null {
    return this.handshake.result;
  }

  get closed(): boolean {
    return this.isClosed;
  }

  rttMicros(): number {
    return this.socket === null ? -1 : roundTripMicros(this.socket);
  }

  attach(socket: Socket<LinkSocket | undefined>): void {
    if (this.isClosed) {
      socket.terminate();
      return;
    }
    this.socket = socket;
    socket.setNoDelay(true);
    setSocketOption(socketFd(socket), SOCKET_OPTION.userTimeout, USER_TIMEOUT_MS);
    this.sendHandshake();
  }

  received(chunk: Uint8Array): void {
    if (this.isClosed) return;
    if (this.flowing) {
      this.owner.data(this, chunk);
      return;
    }
    if (this.handshake.state === "done") {
      this.hold(chunk);
      return;
    }
    this.handshake.receive(chunk);
    this.sendHandshake();
    this.handshakeMoved();
  }

  /** Bytes taken, 0 when full (the owner's `drain` follows), -1 when closed. */
  send(buffer: Uint8Array, at: number, length: number): number {
    if (this.isClosed || this.socket === null) return -1;
    const taken = this.socket.write(buffer, at, length);
    if (taken < length) this.wantsDrain = true;
    return taken;
  }

  drained(): void {
    if (!this.wantsDrain || this.isClosed) return;
    this.wantsDrain = false;
    this.owner.drain(this);
  }

  /** The owner is ready: gives it what was kept, and everything from now on. */
  flow(): void {
    if (this.flowing || this.isClosed) return;
    this.flowing = true;
    const { held } = this;
    this.held = [];
    for (const chunk of held) {
      if (this.isClosed) return;
      this.owner.data(this, chunk);
    }
    if (!this.isClosed && this.socket !== null) pauseSocket(this.socket, false);
  }

  expire(nowMs: number): void {
    this.handshake.expire(nowMs);
    this.handshakeMoved();
  }

  /** Drops the connection without telling the owner. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.held = [];
    this.socket?.terminate();
  }

  /** The other side, or the network, ended the connection. */
  lost(why: string): void {
    if (this.isClosed) return;
    this.close();
    this.owner.closed(this, why);
  }

  private hold(chunk: Uint8Array): void {
    this.held.push(chunk);
    this.heldBytes += chunk.length;
    if (this.heldBytes > HELD_BYTES_MAX) this.lost("more was sent than a new link may hold");
  }

  private sendHandshake(): void {
    const output = this.handshake.takeOutput();
    if (output === null || this.socket === null) return;
    // A new connection has room for these few hundred bytes, or it is not worth having.
    if (this.socket.write(output) !== output.length) this.lost("the connection took no handshake");
  }

  private handshakeMoved(): void {
    if (this.isClosed || this.handshake.state === "open") return;
    if (this.handshake.state === "failed") {
      this.isClosed = true;
      if (this.socket !== null) closeGently(this.socket);
      this.owner.closed(this, this.handshake.why);
      return;
    }
    if (this.socket !== null) pauseSocket(this.socket, true);
    const rest = this.handshake.takeRest();
    if (rest.length > 0) this.hold(rest);
    this.owner.established(this);
  }
}

/**
 * Bun's handlers, the same object for every link; `socket.data` is its `LinkSocket`, or undefined
 * for a connection that was turned away at once.
 */
export const LINK_HANDLERS: SocketHandler<LinkSocket | undefined> = {
  open(socket) {
    socket.data?.attach(socket);
  },
  data(socket, chunk) {
    socket.data?.received(chunk);
  },
  drain(socket) {
    socket.data?.drained();
  },
  end(socket) {
    socket.data?.lost("the other side closed the connection");
  },
  close(socket, error) {
    socket.data?.lost(error === undefined ? "the connection was lost" : error.message);
  },
  error(socket, error) {
    rethrowBug(error);
    socket.data?.lost(error.message);
  },
};

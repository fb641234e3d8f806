/**
 * What both TCP users (peer links and NBD clients) need of Bun's sockets: addresses, the members
 * its types leave out, and a close that loses nothing.
 *
 * Facts relied on (canary `tcp`): `write` returns the bytes taken, 0 when full and -1 when closed,
 * and keeps nothing back; `drain` follows once; `terminate` and `end` call `close` synchronously;
 * chunks given to `data` are fresh and never reused.
 */
import type { Socket } from "bun";
import { AssertionError } from "../core/base/assert.ts";
import { getSocketOption, SOCKET_OPTION } from "./libc.ts";

/** Members of Bun's sockets that bun-types 1.4.5 does not declare. */
interface Undeclared {
  readonly fd: number;
  pause(): void;
  resume(): void;
}

export function socketFd(socket: Socket<unknown>): number {
  return (socket as unknown as Undeclared).fd;
}

/** Stops or restarts reading; the kernel's buffer then pushes back on the sender. */
export function pauseSocket(socket: Socket<unknown>, paused: boolean): void {
  const raw = socket as unknown as Undeclared;
  if (paused) raw.pause();
  else raw.resume();
}

/** How long a peer may take to read what was sent before its connection is cut. */
const LINGER_MS = 2000;

/**
 * Ends our side, and the whole connection when the other side ends too or after `LINGER_MS`: a
 * close with unread input would make the kernel drop what was sent (RFC 1122, 4.2.2.13).
 */
export function closeGently(socket: Socket<unknown>): void {
  socket.shutdown();
  const timer = setTimeout(() => socket.terminate(), LINGER_MS);
  timer.unref();
}

/** TCP's smoothed round trip (struct tcp_info), microseconds; -1 if the kernel does not tell. */
export function roundTripMicros(socket: Socket<unknown>): number {
  const info = getSocketOption(socketFd(socket), SOCKET_OPTION.tcpInfo, 104);
  return info === null || info.byteLength < 72 ? -1 : info.getUint32(68, true);
}

/**
 * Bun gives what a handler throws to the socket's `error` handler, as if the network had failed.
 * A bug of ours must end the process instead: it is thrown again where nothing catches it.
 */
export function rethrowBug(error: Error): void {
  const isOurs = error instanceof AssertionError || error instanceof TypeError;
  if (!isOurs) return;
  queueMicrotask(() => {
    throw error;
  });
}

export interface HostPort {
  readonly hostname: string;
  readonly port: number;
}

/** Splits "host:port" or "[v6]:port"; null if it is neither. */
export function parseHostPort(text: string): HostPort | null {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65535 ? null : { hostname: match[1] ?? match[2] ?? "", port };
}

/** "why" of a failed listen or connect, in plain words. */
export function socketErrorText(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const texts: Readonly<Record<string, string>> = {
    EADDRINUSE: "the address is in use",
    EADDRNOTAVAIL: "the address is not on this host",
    EACCES: "permission denied",
    ECONNREFUSED: "nobody listens there",
    EHOSTUNREACH: "no route to the host",
    ENETUNREACH: "no route to the network",
    ETIMEDOUT: "no answer",
    ENOTFOUND: "the name is unknown",
    ENOENT: "the directory does not exist",
  };
  if (code !== "") return texts[code] ?? code;
  return error instanceof Error ? error.message : String(error);
}

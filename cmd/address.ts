/**
 * Addresses as the config writes them: `10.1.0.1:7440`, `[fd00::1]:7440`, `name:7440` and
 * `unix:/path`. Only syntax is checked here; whether the address exists is found by listening.
 */
import { isIP } from "node:net";

export interface TcpAddress {
  readonly type: "tcp";
  readonly host: string;
  readonly port: number;
}

export interface UnixAddress {
  readonly type: "unix";
  readonly path: string;
}

export type Address = TcpAddress | UnixAddress;

/** sun_path of Linux is 108 bytes with its final zero (unix(7)). */
export const UNIX_PATH_BYTES_MAX = 107;

/** The address, or null if `text` is not `host:port` with a port in 1..65535. */
export function parseTcpAddress(text: string): TcpAddress | null {
  const match = /^(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  if (port < 1 || port > 65535) return null;
  if (match[1] !== undefined) {
    return isIP(match[1]) === 6 ? { type: "tcp", host: match[1], port } : null;
  }
  const host = match[2] as string;
  const looksNumeric = /^[0-9.]+$/.test(host);
  return looksNumeric && isIP(host) !== 4 ? null : { type: "tcp", host, port };
}

/** A TCP address or `unix:/absolute/or/relative/path`; null if neither. */
export function parseAddress(text: string): Address | null {
  if (!text.startsWith("unix:")) return parseTcpAddress(text);
  const path = text.slice("unix:".length);
  return path === "" ? null : { type: "unix", path };
}

/** As an NBD client is told it: `nbd://127.0.0.1:10809`, `nbd+unix:///?socket=/path`. */
export function nbdUri(text: string): string {
  const address = parseAddress(text);
  if (address === null || address.type === "tcp") return `nbd://${text}`;
  return `nbd+unix:///?socket=${address.path}`;
}

/** True if every address of the machine is meant, so that two machines may both use it. */
export function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** True for an IPv4 address in 224.0.0.0/4. */
export function isMulticast(host: string): boolean {
  const first = Number(host.split(".")[0]);
  return isIP(host) === 4 && first >= 224 && first <= 239;
}

/**
 * What must hold between the values of a config: unique names and addresses, whole paths for
 * every data host, volumes whose identities do not collide. Pure; the first problem wins.
 */
import { crc32Text } from "../core/base/checksum.ts";
import { LIMITS } from "../core/base/limits.ts";
import { isWildcard, parseTcpAddress, UNIX_PATH_BYTES_MAX } from "./address.ts";
import type { ConfigDocument, HostSection } from "./config_schema.ts";

/** Where, and one sentence. */
export interface Problem {
  readonly path: readonly (string | number)[];
  readonly message: string;
  /** The message is about the value at `path`, which it does not name itself. */
  readonly needsName?: boolean;
}

/** The first problem of `document`, or null. */
export function findProblem(document: ConfigDocument): Problem | null {
  return (
    clusterProblem(document) ??
    hostsProblem(document) ??
    addressProblem(document.host) ??
    machineProblem(document.host) ??
    volumesProblem(document) ??
    policingProblem(document)
  );
}

function clusterProblem({ cluster, host }: ConfigDocument): Problem | null {
  if (cluster.on_lost_majority === "survive") {
    const message = '"survive" is not in this version; expected "freeze"';
    return { path: ["cluster", "on_lost_majority"], message };
  }
  for (const key of ["fence", "survivor"] as const) {
    if (cluster[key] === undefined) continue;
    const message = `${key} has a meaning only with on_lost_majority = "survive"`;
    return { path: ["cluster", key], message };
  }
  const dataCount = host.filter((section) => section.kind === "data").length;
  if (cluster.min_copies > dataCount && dataCount > 0) {
    const message = `min_copies is ${cluster.min_copies}, but there are ${dataCount} data hosts`;
    return { path: ["cluster", "min_copies"], message };
  }
  return null;
}

function hostsProblem({ host }: ConfigDocument): Problem | null {
  if (host.length === 0) return { path: ["host"], message: "there is no [[host]]" };
  if (host.length > LIMITS.hostCountMax) {
    const message = `there are ${host.length} hosts; the most is ${LIMITS.hostCountMax}`;
    return { path: ["host", LIMITS.hostCountMax], message };
  }
  const names = new Set<string>();
  for (const [index, section] of host.entries()) {
    if (names.has(section.name)) {
      return { path: ["host", index, "name"], message: `two hosts are named ${section.name}` };
    }
    names.add(section.name);
    const missing = missingKey(section, host.length);
    if (missing !== null) return { path: ["host", index], message: missing };
  }
  if (!host.some((section) => section.kind === "data")) {
    return { path: ["host"], message: 'no host has kind = "data", so nothing could be stored' };
  }
  return null;
}

function missingKey(section: HostSection, hostCount: number): string | null {
  const { name, kind } = section;
  if (kind === "data" && section.store === undefined) {
    return `host ${name} is a data host and needs store = "PATH"`;
  }
  if (kind !== "data" && section.store !== undefined) {
    return `host ${name} is a ${kind} and has no store`;
  }
  if (kind === "witness" && section.nbd.length > 0) {
    return `host ${name} is a witness and serves no nbd`;
  }
  if (hostCount > 1 && section.link === undefined) {
    return `host ${name} needs link = "ADDRESS:PORT", the others reach it there`;
  }
  return null;
}

/** Addresses by which hosts reach each other must differ everywhere. */
function addressProblem(hosts: readonly HostSection[]): Problem | null {
  const owners = new Map<string, string>();
  for (const [index, section] of hosts.entries()) {
    for (const key of ["link", "shared"] as const) {
      const text = section[key];
      if (text === undefined) continue;
      const address = parseTcpAddress(text);
      if (hosts.length > 1 && address !== null && isWildcard(address.host)) {
        const message = `${key} is where the other hosts connect; ${text} names no host`;
        return { path: ["host", index, key], message };
      }
      const owner = owners.get(text);
      if (owner !== undefined) {
        const message = `${owner} and ${section.name} both have the address ${text}`;
        return { path: ["host", index, key], message };
      }
      owners.set(text, section.name);
    }
  }
  return null;
}

/** What a machine has only once: ports, sockets and files of hosts with one link address. */
function machineProblem(hosts: readonly HostSection[]): Problem | null {
  const owners = new Map<string, string>();
  for (const [index, section] of hosts.entries()) {
    const machine = parseTcpAddress(section.link ?? "")?.host ?? "";
    for (const [key, text] of claimsOf(section)) {
      const claim = `${machine} ${text}`;
      const owner = owners.get(claim);
      if (owner !== undefined) {
        const message = `${text} is used twice, by ${owner} and by ${section.name}'s ${key}`;
        return { path: ["host", index, key], message };
      }
      owners.set(claim, `${section.name}'s ${key}`);
    }
    const long = unixPaths(section).find((path) => Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX);
    if (long !== undefined) {
      const message = `the socket path is longer than ${UNIX_PATH_BYTES_MAX} bytes: ${long}`;
      return { path: ["host", index], message };
    }
  }
  return null;
}

function claimsOf(section: HostSection): [string, string][] {
  const claims: [string, string][] = section.nbd.map((text) => ["nbd", text]);
  for (const key of ["link", "shared", "http", "store", "state", "control"] as const) {
    const text = section[key];
    if (text !== undefined) claims.push([key, text]);
  }
  return claims;
}

function unixPaths(section: HostSection): string[] {
  const sockets = section.nbd
    .filter((text) => text.startsWith("unix:"))
    .map((text) => text.slice(5));
  return section.control === undefined ? sockets : [...sockets, section.control];
}

function volumesProblem({ volume, host }: ConfigDocument): Problem | null {
  if (volume.length === 0) return { path: ["volume"], message: "there is no [[volume]]" };
  if (volume.length > LIMITS.volumeCountMax) {
    const message = `there are ${volume.length} volumes; the most is ${LIMITS.volumeCountMax}`;
    return { path: ["volume", LIMITS.volumeCountMax], message };
  }
  const owners = new Map<number, string>();
  for (const [index, section] of volume.entries()) {
    const id = crc32Text(section.name);
    const owner = owners.get(id);
    if (owner === section.name) {
      return { path: ["volume", index, "name"], message: `two volumes are named ${owner}` };
    }
    if (owner !== undefined || id === 0) {
      const other = owner === undefined ? "the reserved id 0" : `the id of ${owner}`;
      const message = `the name ${section.name} has ${other} (CRC-32); choose another name`;
      return { path: ["volume", index, "name"], message };
    }
    owners.set(id, section.name);
    if (section.size > LIMITS.volumeBytesMax) {
      return { path: ["volume", index, "size"], message: "the largest volume is 1024T" };
    }
    const bare = host.find((entry) => entry.kind === "data" && entry.shared === undefined);
    if (section.mirror === "shared" && host.length > 1 && bare !== undefined) {
      const message = `mirror = "shared" needs shared = "ADDRESS:PORT" at host ${bare.name}`;
      return { path: ["volume", index, "mirror"], message };
    }
  }
  return null;
}

/** Policing over the shared network needs all hosts on it. */
function policingProblem({ policing, host }: ConfigDocument): Problem | null {
  const bare = host.find((entry) => entry.shared === undefined);
  if (policing.network === "dedicated" || host.length === 1 || bare === undefined) return null;
  const message = `network = "shared" needs shared = "ADDRESS:PORT" at host ${bare.name}`;
  return { path: ["policing", "network"], message };
}

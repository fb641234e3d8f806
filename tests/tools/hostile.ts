/** Strangers for tests: raw connections that say anything, and links with the wrong credentials. */
import { readFileSync } from "node:fs";
import { LANE, type Lane } from "../../core/base/ports.ts";
import type { SeededRandom } from "../../core/base/random.ts";
import { hostId } from "../../core/base/units.ts";
import { LINK_ID_BYTES } from "../../core/format/handshake_wire.ts";
import {
  Handshake,
  handshakeKey,
  LINK_VERSION_MAX,
  LINK_VERSION_MIN,
  PATH,
  randomBytes,
} from "../../core/membership/handshake.ts";
import { SystemEntropy } from "../../transports/entropy.ts";
import { HmacMac } from "../../transports/mac.ts";

/** Where to connect: a port of the loopback address or a Unix socket. */
export type Target = { readonly hostname: string; readonly port: number } | { unix: string };

export function garbage(random: SeededRandom, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = random.below(256);
  return bytes;
}

/** A raw connection; what it is sent is kept. */
export class RawConnection {
  readonly received: Uint8Array[] = [];
  isClosed = false;
  onData: (chunk: Uint8Array) => void = () => {};
  private socket: Bun.Socket | null = null;
  private readonly closed = Promise.withResolvers<void>();

  /** A connection that is refused or reset at once counts as one that was closed. */
  static async open(target: Target): Promise<RawConnection> {
    const made = new RawConnection();
    const handlers = {
      data: (_: Bun.Socket, chunk: Buffer) => {
        made.received.push(new Uint8Array(chunk));
        made.onData(new Uint8Array(chunk));
      },
      close: () => made.ended(),
      error: () => made.ended(),
    };
    try {
      made.socket =
        "unix" in target
          ? await Bun.connect({ unix: target.unix, socket: handlers })
          : await Bun.connect({ ...target, socket: handlers });
    } catch {
      made.ended();
    }
    return made;
  }

  /** Sends as much as the socket takes; the rest is of no interest. */
  say(bytes: Uint8Array | string): void {
    if (!this.isClosed) this.socket?.write(bytes);
  }

  end(): void {
    this.socket?.terminate();
  }

  /** False if the other side did not end it in time. */
  async untilClosed(timeoutMs: number): Promise<boolean> {
    const timer = setTimeout(() => this.closed.resolve(), timeoutMs);
    await this.closed.promise;
    clearTimeout(timer);
    return this.isClosed;
  }

  private ended(): void {
    this.isClosed = true;
    this.closed.resolve();
  }
}

export interface Stranger {
  readonly target: Target;
  readonly self: number;
  readonly peer: number;
  readonly key: Uint8Array;
  readonly clusterName: string;
  readonly versions?: readonly [number, number];
  readonly lane?: Lane;
  readonly link?: Uint8Array;
  /** Changes what is sent. */
  readonly spoil?: (bytes: Uint8Array) => Uint8Array;
}

/** Dials a host as another one would; the connection, and how the handshake ended. */
export async function dialLink(
  stranger: Stranger,
): Promise<{ connection: RawConnection; handshake: Handshake }> {
  const { self, peer, versions = [LINK_VERSION_MIN, LINK_VERSION_MAX] } = stranger;
  const entropy = new SystemEntropy();
  const link = stranger.link ?? randomBytes(entropy, LINK_ID_BYTES);
  const me = {
    self: hostId(self),
    incarnation: 4_000_000,
    clusterName: stranger.clusterName,
    hosts: [0, 1, 2].map((id) => hostId(id)),
    versionMin: versions[0],
    versionMax: versions[1],
  };
  const key = handshakeKey(new HmacMac(stranger.key), stranger.clusterName);
  const dial = {
    peer: hostId(peer),
    lane: stranger.lane ?? LANE.control,
    path: PATH.dedicated,
    link,
  };
  const handshake = new Handshake(0, me, dial, { key, entropy });
  const connection = await RawConnection.open(stranger.target);
  const ended = Promise.withResolvers<void>();
  const pump = (): void => {
    for (let out = handshake.takeOutput(); out !== null; out = handshake.takeOutput()) {
      connection.say(stranger.spoil === undefined ? out : stranger.spoil(out));
    }
    if (handshake.state !== "open") ended.resolve();
  };
  connection.onData = (chunk) => {
    handshake.receive(chunk);
    pump();
  };
  pump();
  const closed = connection.untilClosed(10_000);
  await Promise.race([ended.promise, closed]);
  return { connection, handshake };
}

/** Resident memory of a process, bytes. */
export function residentBytes(pid: number): number {
  const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(found?.[1] ?? 0) * 1024;
}

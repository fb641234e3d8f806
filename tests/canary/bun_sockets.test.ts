/** Bun 1.4.5's sockets: what tcp.ts, link_socket.ts and multicast.ts rely on or avoid. */
import { describe, expect, test } from "bun:test";
import type { Socket } from "bun";
import { SOCKET_OPTION, setSocketOption } from "../../transports/libc.ts";
import { socketFd } from "../../transports/tcp.ts";
import { freePort, until } from "../unit/transports/sink.ts";

interface Two {
  readonly near: Socket;
  readonly far: Socket;
  readonly chunks: Uint8Array[];
  readonly happened: string[];
  close(): void;
}

async function connectedPair(): Promise<Two> {
  const chunks: Uint8Array[] = [];
  const happened: string[] = [];
  let far: Socket | null = null;
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        far = socket;
      },
      data(_socket, chunk) {
        chunks.push(chunk);
      },
    },
  });
  const near = await Bun.connect({
    hostname: "127.0.0.1",
    port: listener.port,
    socket: {
      data() {},
      drain() {
        happened.push("drain");
      },
      close() {
        happened.push("close");
      },
    },
  });
  await until("accepted", () => far !== null);
  if (far === null) throw new Error("not accepted");
  return { near, far, chunks, happened, close: () => listener.stop(true) };
}

describe("tcp", () => {
  test("write: a count, 0 when full, -1 when closed; drain; synchronous close", async () => {
    const two = await connectedPair();
    const raw = two.far as unknown as { pause(): void; resume(): void };
    raw.pause();
    const big = new Uint8Array(32 << 20);
    const taken = two.near.write(big);
    expect(taken).toBeGreaterThan(0);
    expect(taken).toBeLessThan(big.length);
    expect(two.near.write(big)).toBe(0);
    raw.resume();
    await until("drain", () => two.happened.includes("drain"));
    const total = (): number => two.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    await until("all read", () => total() === taken);
    two.near.terminate();
    expect(two.happened.at(-1)).toBe("close");
    expect(two.near.write(big)).toBe(-1);
    two.close();
  });

  test("end(data) still truncates (bun pull/41785): never used", async () => {
    const two = await connectedPair();
    const raw = two.far as unknown as { pause(): void };
    raw.pause();
    const big = new Uint8Array(32 << 20);
    expect(two.near.end(big)).toBeLessThan(big.length);
    two.close();
  });

  test("chunks are fresh: keeping them costs no copy", async () => {
    const two = await connectedPair();
    for (let round = 1; round <= 20; round += 1) {
      two.near.write(new Uint8Array(100).fill(round));
      await until("arrived", () => two.chunks.length === round);
    }
    for (const [index, chunk] of two.chunks.entries()) {
      expect(chunk.every((byte) => byte === index + 1)).toBe(true);
    }
    expect(new Set(two.chunks.map((chunk) => chunk.buffer)).size).toBe(20);
    two.close();
  });

  test("the descriptor takes socket options", async () => {
    const two = await connectedPair();
    expect(setSocketOption(socketFd(two.near), SOCKET_OPTION.userTimeout, 1000)).toBe(true);
    two.close();
  });
});

describe("bugs", () => {
  test("what a handler throws comes to the error handler, which rethrows it", async () => {
    const given: unknown[][] = [];
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data() {
          throw new TypeError("tcp");
        },
        error(...all) {
          given.push(all);
        },
      },
    });
    const handlers = { data() {} };
    const where = { hostname: "127.0.0.1", port: listener.port, socket: handlers };
    const client = await Bun.connect(where);
    client.write("x");
    await until("tcp", () => given.length === 1);
    expect(String(given[0]?.[1])).toBe("TypeError: tcp");
    client.terminate();
    listener.stop(true);
    const socket = await Bun.udpSocket({
      hostname: "127.0.0.1",
      socket: {
        data() {
          throw new TypeError("udp");
        },
        error(...all: unknown[]) {
          given.push(all);
        },
      },
    });
    socket.send("x", socket.port, "127.0.0.1");
    await until("udp", () => given.length === 2);
    // Not (socket, error) as the types say.
    expect(given[1]?.map(String)).toEqual(["TypeError: udp"]);
    socket.close();
  });
});

describe("udp", () => {
  const GROUP = "239.255.74.42";
  type Flagged = { hostname: string; port: number; flags?: number; socket: { data(): void } };
  const bind = (options: Flagged) => Bun.udpSocket(options);

  test("flag 4 lets sockets share a port, without it they may not", async () => {
    const port = freePort();
    const socket = { data() {} };
    const first = await bind({ hostname: GROUP, port, flags: 4, socket });
    const second = await bind({ hostname: GROUP, port, flags: 4, socket });
    const alone = async () => await bind({ hostname: GROUP, port, socket });
    await expect(alone()).rejects.toThrow("EADDRINUSE");
    first.close();
    second.close();
  });

  test("membership by interface name is silently the default one: never by name", async () => {
    const socket = await bind({ hostname: GROUP, port: freePort(), socket: { data() {} } });
    expect(socket.addMembership(GROUP, "eth9")).toBe(true);
    socket.close();
  });

  test("an ICMP error poisons sends unless IP_RECVERR is off (bun pull/35922)", async () => {
    const dead = freePort();
    let got = 0;
    const live = await Bun.udpSocket({
      hostname: "127.0.0.1",
      socket: {
        data() {
          got += 1;
        },
      },
    });
    const delivered = async (fix: boolean): Promise<number> => {
      const socket = await Bun.udpSocket({
        hostname: "127.0.0.1",
        socket: { data() {}, error() {} },
      });
      const { fd } = socket as unknown as { readonly fd: number };
      if (fix) setSocketOption(fd, SOCKET_OPTION.receiveErrors, 0);
      got = 0;
      for (let round = 0; round < 10; round += 1) {
        for (const port of [dead, live.port]) {
          try {
            socket.send(new Uint8Array(1), port, "127.0.0.1");
          } catch {}
        }
        await new Promise<void>((resolve) => setTimeout(resolve, 2));
      }
      socket.close();
      return got;
    };
    expect(await delivered(false)).toBe(0);
    expect(await delivered(true)).toBe(10);
    live.close();
  });
});

/** NBD client connections: numbers, backpressure, close that loses nothing, the limit. */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { LIMITS } from "../../../core/base/limits.ts";
import { MIB } from "../../../core/base/units.ts";
import { NbdListeners } from "../../../transports/nbd_listen.ts";
import { parseHostPort } from "../../../transports/tcp.ts";
import { Remembered, until } from "./sink.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-nbd-"));
afterAll(() => rmSync(directory, { recursive: true }));
let listeners: NbdListeners | null = null;
afterEach(() => {
  listeners?.stop();
  listeners = null;
});

class Server {
  readonly happened: string[] = [];
  readonly chunks: Uint8Array[] = [];
  bytes = 0;
  readonly links: NbdListeners;
  readonly trace = new Remembered();
  inCall = false;
  onData: (client: number, chunk: Uint8Array) => void = () => {};

  constructor() {
    const note = (text: string): void => {
      expect(this.inCall).toBe(false);
      this.happened.push(text);
    };
    this.links = new NbdListeners(
      {
        clientOpen: (client) => note(`open ${client}`),
        clientData: (client, chunk) => {
          this.chunks.push(chunk);
          this.bytes += chunk.length;
          this.onData(client, chunk);
        },
        clientDrain: (client) => note(`drain ${client}`),
        clientClosed: (client) => note(`closed ${client}`),
      },
      this.trace,
    );
    this.links.admit();
    listeners = this.links;
  }

  async connect(address: string): Promise<Client> {
    const client = new Client();
    const target = parseHostPort(address);
    const where = target ?? { unix: address.slice(5) };
    client.socket = await Bun.connect({ ...where, socket: client.handlers } as never);
    return client;
  }
}

class Client {
  socket: Socket | null = null;
  bytes = 0;
  isClosed = false;
  readonly handlers = {
    data: (_socket: Socket, chunk: Uint8Array): void => {
      this.bytes += chunk.length;
    },
    close: (): void => {
      this.isClosed = true;
    },
  };
  pause(paused: boolean): void {
    const raw = this.socket as unknown as { pause(): void; resume(): void };
    if (paused) raw.pause();
    else raw.resume();
  }
}

describe("NBD listeners", () => {
  test("receiveNow takes what was not delivered, in order, and never waits", async () => {
    const server = new Server();
    const taken: Uint8Array[] = [];
    const buffer = new Uint8Array(MIB);
    server.onData = (client, chunk) => {
      taken.push(chunk);
      for (;;) {
        const count = server.links.receiveNow(client, buffer, 7, buffer.length - 7);
        if (count === 0) break;
        taken.push(buffer.slice(7, 7 + count));
      }
    };
    const client = await server.connect(await server.links.listen("127.0.0.1:0"));
    await until("the client is known", () => server.happened.length === 1);
    expect(server.links.receiveNow(1, buffer, 0, 10)).toBe(0);
    const sent = Uint8Array.from(
      { length: 3 * MIB },
      (_, index) => (index * 7 + (index >> 9)) & 255,
    );
    const raw = client.socket as Socket;
    let at = 0;
    const count = (): number => taken.reduce((sum, bytes) => sum + bytes.length, 0);
    await until("all bytes arrived", () => {
      if (at < sent.length) at += Math.max(0, raw.write(sent, at, sent.length - at));
      return count() === sent.length;
    });
    expect(Buffer.concat(taken).equals(sent)).toBe(true);
    raw.terminate();
    await until("it is closed", () => server.happened.includes("closed 1"));
    expect(server.links.receiveNow(1, buffer, 0, 10)).toBe(0);
  });

  test("TCP and Unix sockets; clients have numbers, bytes go both ways", async () => {
    const server = new Server();
    const tcp = await server.links.listen("127.0.0.1:0");
    const unix = await server.links.listen(`unix:${join(directory, "k.sock")}`);
    expect(tcp).toMatch(/^127\.0\.0\.1:\d+$/);
    const first = await server.connect(tcp);
    const second = await server.connect(unix);
    await until("both open", () => server.happened.length === 2);
    second.socket?.write("hello");
    await until("data", () => server.bytes === 5);
    expect(server.links.send(1, new Uint8Array(100), 10, 20)).toBe(20);
    await until("answer", () => first.bytes === 20);
    first.socket?.terminate();
    await until("closed", () => server.happened.includes("closed 1"));
    expect(server.links.send(1, new Uint8Array(8), 0, 8)).toBe(-1);
    expect(server.happened).toEqual(["open 1", "open 2", "closed 1"]);
  });

  test("a slow reader fills up, then a drain comes", async () => {
    const server = new Server();
    const client = await server.connect(await server.links.listen("127.0.0.1:0"));
    await until("open", () => server.happened.length === 1);
    client.pause(true);
    const buffer = new Uint8Array(MIB);
    let sent = 0;
    for (let taken = MIB; taken === MIB; sent += taken)
      taken = server.links.send(1, buffer, 0, MIB);
    expect(server.happened).toEqual(["open 1"]);
    client.pause(false);
    await until("drain", () => server.happened.includes("drain 1"));
    await until("all read", () => client.bytes === sent);
  });

  test("a paused client is not read", async () => {
    const server = new Server();
    const client = await server.connect(await server.links.listen("127.0.0.1:0"));
    await until("open", () => server.happened.length === 1);
    server.links.pause(1, true);
    const buffer = new Uint8Array(64 * MIB);
    const taken = client.socket?.write(buffer) ?? 0;
    expect(taken).toBeLessThan(buffer.length);
    await new Promise<void>((resolve) => setTimeout(resolve, 50));
    expect(server.bytes).toBeLessThan(taken);
    server.links.pause(1, false);
    await until("all read", () => server.bytes >= taken);
  });

  test("close lets everything sent arrive, even with unread input", async () => {
    const server = new Server();
    const client = await server.connect(await server.links.listen("127.0.0.1:0"));
    await until("open", () => server.happened.length === 1);
    server.links.pause(1, true);
    client.pause(true);
    client.socket?.write(new Uint8Array(MIB));
    const buffer = new Uint8Array(MIB);
    const sent = server.links.send(1, buffer, 0, MIB);
    expect(sent).toBeGreaterThan(0);
    server.inCall = true;
    server.links.close(1);
    server.inCall = false;
    await until("told", () => server.happened.includes("closed 1"));
    expect(server.links.send(1, buffer, 0, 1)).toBe(-1);
    client.pause(false);
    await until("all arrived", () => client.bytes === sent);
    await until("closed", () => client.isClosed);
    expect(server.happened).toEqual(["open 1", "closed 1"]);
  });

  test("one client too many is turned away, the others stay", async () => {
    const server = new Server();
    const address = await server.links.listen(`unix:${join(directory, "many.sock")}`);
    const clients: Client[] = [];
    for (let index = 0; index < LIMITS.clientCountMax; index += 1) {
      clients.push(await server.connect(address));
    }
    await until("all open", () => server.links.clientCount === LIMITS.clientCountMax);
    const surplus = await server.connect(address);
    await until("turned away", () => surplus.isClosed);
    expect(server.trace.has("too many are connected")).toBe(true);
    expect(clients.some((client) => client.isClosed)).toBe(false);
    clients[0]?.socket?.terminate();
    await until("room", () => server.links.clientCount === LIMITS.clientCountMax - 1);
    const another = await server.connect(address);
    await until("open", () => server.links.clientCount === LIMITS.clientCountMax);
    expect(another.isClosed).toBe(false);
    for (const client of [...clients, another]) client.socket?.terminate();
  });

  test("an address that cannot be had is refused in one sentence", async () => {
    const server = new Server();
    const taken = await server.links.listen("127.0.0.1:0");
    await expect(server.links.listen(taken)).rejects.toThrow(
      `cannot serve NBD on ${taken}: the address is in use`,
    );
    await expect(server.links.listen("nonsense")).rejects.toThrow("neither host:port nor unix:");
  });
});

/** Peer links on loopback: real sockets, real handshakes. */
import { afterEach, describe, expect, test } from "bun:test";
import { LANE, type Lane } from "../../../core/base/ports.ts";
import { type HostId, hostId, MIB } from "../../../core/base/units.ts";
import { BootClock } from "../../../transports/clock.ts";
import { SystemEntropy } from "../../../transports/entropy.ts";
import { HmacMac } from "../../../transports/mac.ts";
import { type HostAddresses, PeerLinks } from "../../../transports/peer_link.ts";
import { freePort, Remembered, until } from "./sink.ts";

const clock = new BootClock();
const CONTROL = LANE.control;
const DATA = LANE.data;

/** One end of the links, which remembers what happened to it. */
class End {
  readonly id: HostId;
  readonly trace = new Remembered();
  readonly happened: string[] = [];
  readonly received: [Uint8Array[], Uint8Array[]] = [[], []];
  readonly links: PeerLinks;
  drains = 0;
  isUp = false;

  constructor(
    id: number,
    hosts: HostAddresses[],
    options: { key?: number; cluster?: string } = {},
  ) {
    this.id = hostId(id);
    const key = new Uint8Array(32).fill(options.key ?? 1);
    const ports = {
      mac: new HmacMac(key),
      entropy: new SystemEntropy(),
      trace: this.trace,
      nowMs: () => clock.nowMs(),
    };
    const clusterName = options.cluster ?? "lab";
    this.links = new PeerLinks({ self: this.id, clusterName, hosts }, ports, {
      peerUp: (peer, inc) => {
        this.isUp = true;
        this.happened.push(`up ${peer} ${inc}`);
      },
      peerDown: (peer) => {
        this.isUp = false;
        this.happened.push(`down ${peer}`);
      },
      peerData: (_peer, lane, chunk) => {
        this.received[lane].push(chunk);
      },
      peerDrain: () => {
        this.drains += 1;
      },
    });
    ends.push(this);
  }

  begin(incarnation = 1): this {
    this.links.listen();
    this.links.start(incarnation);
    return this;
  }

  text(lane: Lane): string {
    return Buffer.concat(this.received[lane]).toString();
  }

  send(to: End, lane: Lane, text: string): number {
    const bytes = new TextEncoder().encode(text);
    return this.links.send(to.id, lane, bytes, 0, bytes.length);
  }
}

let ends: End[] = [];
afterEach(() => {
  for (const end of ends) end.links.stop();
  ends = [];
});

function roster(count: number, withShared = false): HostAddresses[] {
  const hosts: HostAddresses[] = [];
  for (let id = 0; id < count; id += 1) {
    const link = `127.0.0.1:${freePort()}`;
    const shared = withShared ? `127.0.0.1:${freePort()}` : null;
    hosts.push({ id: hostId(id), name: `host${id}`, link, shared });
  }
  return hosts;
}

async function connected(hosts = roster(2)): Promise<[End, End]> {
  const left = new End(0, hosts).begin(7);
  const right = new End(1, hosts).begin(9);
  await until("both up", () => left.isUp && right.isUp);
  return [left, right];
}

describe("a link between two hosts", () => {
  test("comes up with the incarnations, and carries both lanes both ways", async () => {
    const [left, right] = await connected();
    expect(left.happened).toEqual(["up 1 9"]);
    expect(right.happened).toEqual(["up 0 7"]);
    left.send(right, CONTROL, "a");
    left.send(right, DATA, "bb");
    right.send(left, CONTROL, "ccc");
    right.send(left, DATA, "dddd");
    await until("all there", () => right.text(DATA) === "bb" && left.text(DATA) === "dddd");
    await until("all there", () => right.text(CONTROL) === "a" && left.text(CONTROL) === "ccc");
    const [path] = left.links.paths();
    expect(path).toMatchObject({ to: right.id, via: "dedicated", up: true });
    expect(path?.rttMicros).toBeGreaterThan(0);
  });

  test("megabytes arrive whole and in order through partial sends and drains", async () => {
    const [left, right] = await connected();
    const total = 64 * MIB;
    const buffer = new Uint32Array(total / 4);
    for (let index = 0; index < buffer.length; index += 1) buffer[index] = index * 2654435761;
    const bytes = new Uint8Array(buffer.buffer);
    let sent = 0;
    let partial = 0;
    let drainsSeen = 0;
    while (sent < total) {
      const taken = left.links.send(right.id, DATA, bytes, sent, total - sent);
      expect(taken).toBeGreaterThanOrEqual(0);
      sent += taken;
      if (sent === total) break;
      partial += 1;
      drainsSeen += 1;
      await until("a drain", () => left.drains >= drainsSeen);
    }
    expect(partial).toBeGreaterThan(0);
    const arrived = (): number => right.received[DATA].reduce((sum, one) => sum + one.length, 0);
    await until("all there", () => arrived() === total);
    expect(Buffer.concat(right.received[DATA]).equals(Buffer.from(bytes.buffer))).toBe(true);
  });

  test("a reset is told later, on both sides, and the link is made anew", async () => {
    const [left, right] = await connected();
    left.links.reset(right.id, "the test wants it");
    expect(left.happened).toEqual(["up 1 9"]);
    expect(left.send(right, CONTROL, "x")).toBe(-1);
    await until("up again", () => left.happened.length === 3 && right.happened.length === 3);
    expect(left.happened).toEqual(["up 1 9", "down 1", "up 1 9"]);
    expect(right.happened).toEqual(["up 0 7", "down 0", "up 0 7"]);
    expect(left.trace.has("the test wants it")).toBe(true);
    left.send(right, CONTROL, "again");
    await until("data", () => right.text(CONTROL) === "again");
  });

  test("a restarted peer comes back with its new incarnation", async () => {
    const hosts = roster(2);
    const [left, right] = await connected(hosts);
    right.links.stop();
    await until("down", () => left.happened.includes("down 1"));
    new End(1, hosts).begin(10);
    await until("up", () => left.happened.includes("up 1 10"));
  });

  test("goes over the shared network without the dedicated link, and back", async () => {
    const hosts = roster(2, true);
    // On the left the dedicated address of the right leads nowhere, at first.
    const wrong = [hosts[0], { ...hosts[1], link: `127.0.0.1:${freePort()}` }] as HostAddresses[];
    const left = new End(0, wrong).begin(1);
    const right = new End(1, hosts).begin(1);
    await until("up", () => left.isUp && right.isUp);
    const states = left.links.paths().map((path) => `${path.via} ${path.up}`);
    expect(states).toEqual(["dedicated false", "shared true"]);
    // Now something answers there and passes everything on, like a cable put back.
    const target = Number(hosts[1]?.link.split(":")[1]);
    const relay = relayTo(Number(wrong[1]?.link.split(":")[1]), target);
    await until("back", () => left.links.paths()[0]?.rttMicros !== -1);
    await until("right too", () => right.happened.length === 3 && right.isUp);
    expect(left.happened).toEqual(["up 1 1", "down 1", "up 1 1"]);
    // The dedicated link dies again: the shared one takes over.
    relay.stop();
    await until("over again", () => left.links.paths()[1]?.rttMicros !== -1 && right.isUp);
    left.send(right, DATA, "still here");
    await until("data", () => right.text(DATA) === "still here");
  }, 15_000);
});

/** A relay that can be pulled like a cable. */
function relayTo(port: number, target: number): { stop(): void } {
  type Socket = import("bun").Socket<{ other: Socket | null; early: Uint8Array[] }>;
  const all = new Set<Socket>();
  const handlers = {
    data(socket: Socket, chunk: Uint8Array) {
      if (socket.data.other === null) socket.data.early.push(chunk);
      else socket.data.other.write(chunk);
    },
    close(socket: Socket) {
      all.delete(socket);
      socket.data.other?.terminate();
    },
  };
  const listener = Bun.listen<{ other: Socket | null; early: Uint8Array[] }>({
    hostname: "127.0.0.1",
    port,
    socket: {
      ...handlers,
      async open(socket) {
        socket.data = { other: null, early: [] };
        all.add(socket);
        const data = { other: socket, early: [] };
        const there = { hostname: "127.0.0.1", port: target, data, socket: handlers };
        const other = await Bun.connect<{ other: Socket | null; early: Uint8Array[] }>(there);
        all.add(other);
        socket.data.other = other;
        for (const chunk of socket.data.early) other.write(chunk);
      },
    },
  });
  return {
    stop() {
      listener.stop(true);
      for (const socket of all) socket.terminate();
    },
  };
}

describe("who is refused", () => {
  async function refused(
    options: { key?: number; cluster?: string; id?: number },
    sentence: string,
  ): Promise<void> {
    const hosts = roster(3);
    const right = new End(1, hosts).begin();
    const left = new End(options.id ?? 0, hosts, options).begin();
    await until("said at the right", () => right.trace.has(sentence));
    await until("said at the left", () => left.trace.has(sentence));
    expect(left.isUp || right.isUp).toBe(false);
  }

  test("another key", () => refused({ key: 2 }, "does not have this cluster's key"));
  test("another cluster", () => refused({ cluster: "home" }, "clusters of different names"));

  test("a host that is not in the roster", async () => {
    const hosts = roster(3);
    const right = new End(2, hosts.slice(1)).begin();
    const left = new End(0, hosts).begin();
    await until("said", () => right.trace.has("host 0 is not in the roster of host 2"));
    await until("heard", () => left.trace.has("host 0 is not in the roster of host 2"));
  });

  test("a host at another's address", async () => {
    const hosts = roster(3);
    const twin = { ...hosts[1], link: hosts[0]?.link ?? "" } as HostAddresses;
    const right = new End(0, hosts).begin();
    const unlistened = { ...hosts[0], link: `127.0.0.1:${freePort()}` } as HostAddresses;
    const left = new End(0, [unlistened, twin]).begin();
    await until("said", () => right.trace.has("the address of host 1 is that of host 0"));
    await until("heard", () => left.trace.has("the address of host 1 is that of host 0"));
  });

  test("garbage, silence and floods cost nothing to others", async () => {
    const hosts = roster(2);
    const right = new End(1, hosts).begin();
    const port = Number(hosts[1]?.link.split(":")[1]);
    let closed = 0;
    const handlers = {
      data() {},
      close() {
        closed += 1;
      },
    };
    const where = { hostname: "127.0.0.1", port, socket: handlers };
    const garbage = await Bun.connect(where);
    garbage.write("GET / HTTP/1.1\r\n\r\n");
    await until("thrown out", () => closed === 1);
    expect(right.trace.has("does not speak vsan's link protocol")).toBe(true);
    // More silent connections than may be pending: the oldest make room.
    for (let index = 0; index < 80; index += 1) await Bun.connect(where);
    await until("the oldest are cut", () => closed >= 1 + 80 - 64);
    const left = new End(0, hosts).begin();
    await until("up all the same", () => left.isUp && right.isUp);
    await until("the silent are cut at the deadline", () => closed === 81).catch(() => {});
    await until("the silent are cut at the deadline", () => closed === 81);
  }, 15_000);
});

/**
 * The drive and its loop around a small machine that echoes what clients and peers say and writes
 * to its disk: real sockets, a real file, a real vote file.
 */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AssertionError } from "../../../core/base/assert.ts";
import { crc32Text } from "../../../core/base/checksum.ts";
import type { Disk, Lane } from "../../../core/base/ports.ts";
import { type HostId, hostId, MIB } from "../../../core/base/units.ts";
import type {
  HostMachine,
  HostPorts,
  HostStart,
  HostStatus,
  LeaseStatus,
} from "../../../core/host/machine.ts";
import { encodeVotes } from "../../../core/format/votes.ts";
import { type Drive, type DriveOptions, openDrive } from "../../../transports/drive.ts";
import { parseHostPort } from "../../../transports/tcp.ts";
import { freePort, Remembered, until } from "./sink.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-drive-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** What a voter of the cluster "lab" remembers. */
const VOTES = encodeVotes({
  clusterId: crc32Text("lab"),
  self: hostId(0),
  inc: 42,
  voterInc: 42,
  voting: true,
  promised: 0,
  accepted: null,
  servedEpoch: 0,
  servedBoot: "",
  known: [],
});

/** Echoes; every byte from a client is first written to the disk. */
class EchoHost implements HostMachine {
  phase: "starting" | "ready" | "stopping" | "stopped" = "starting";
  incarnation = 0;
  readonly calls: string[] = [];
  depth = 0;
  deadlineMs = Infinity;
  settles = 0;
  started: HostStart | null = null;
  private readonly ports: HostPorts;
  private disk: Disk | null = null;
  private buffer: Uint8Array = new Uint8Array(0);
  private readonly answers: { client: number; bytes: Uint8Array }[] = [];

  constructor(ports: HostPorts) {
    this.ports = ports;
  }

  private note(call: string, work: () => void = () => {}): void {
    expect(this.depth).toBe(0);
    this.depth += 1;
    this.calls.push(call);
    work();
    this.depth -= 1;
  }

  start(_nowMs: number, start: HostStart): void {
    this.note("start", () => {
      this.started = start;
      this.disk = start.disk;
      this.buffer = start.disk?.allocate(MIB) ?? this.buffer;
      this.ports.votes.write(1, VOTES);
    });
  }

  stop(): void {
    this.note("stop", () => {
      this.phase = "stopped";
    });
  }

  scrub(): string | null {
    return null;
  }

  setScrubRate(): void {
    this.note("setScrubRate");
  }

  peerUp(_nowMs: number, peer: HostId, peerInc: number): void {
    this.note(`peerUp ${peer} ${peerInc}`, () => {
      const hello = new TextEncoder().encode(`hello from ${this.incarnation}`);
      this.ports.streams.send(peer, 0, hello, 0, hello.length);
    });
  }

  peerDown(_nowMs: number, peer: HostId): void {
    this.note(`peerDown ${peer}`);
  }

  peerData(_nowMs: number, peer: HostId, lane: Lane, chunk: Uint8Array): void {
    this.note(`peerData ${peer} ${lane} ${new TextDecoder().decode(chunk)}`);
  }

  peerDrain(): void {
    this.note("peerDrain");
  }

  packet(_nowMs: number, chunk: Uint8Array): void {
    this.note(`packet ${chunk.length}`);
  }

  clientOpen(_nowMs: number, client: number): void {
    this.note(`clientOpen ${client}`);
  }

  clientData(nowMs: number, client: number, chunk: Uint8Array): void {
    this.note(`clientData ${client}`, () => {
      const said = new TextDecoder().decode(chunk);
      if (said === "assert") throw new AssertionError("the test wants it");
      if (said === "close") this.ports.clients.close(client);
      if (said === "later") this.deadlineMs = nowMs + 20;
      this.buffer.set(chunk);
      this.disk?.write(this.answers.length, 0, this.buffer, 0, 4096);
      this.answers.push({ client, bytes: chunk });
    });
  }

  clientDrain(): void {
    this.note("clientDrain");
  }

  clientClosed(_nowMs: number, client: number): void {
    this.note(`clientClosed ${client}`);
  }

  diskDone(_nowMs: number, tag: number, result: number): void {
    this.note(`diskDone ${tag} ${result}`, () => {
      const answer = this.answers[tag];
      if (answer === undefined) return;
      this.ports.clients.send(answer.client, answer.bytes, 0, answer.bytes.length);
    });
  }

  voteDone(_nowMs: number, tag: number, result: number): void {
    this.note(`voteDone ${tag} ${result}`, () => {
      this.incarnation = 5;
      this.phase = "ready";
    });
  }

  settle(): void {
    this.settles += 1;
  }

  expire(nowMs: number): void {
    expect(nowMs).toBeGreaterThanOrEqual(this.deadlineMs);
    this.note("expire", () => {
      this.deadlineMs = Infinity;
    });
  }

  nextDeadlineMs(): number {
    return this.deadlineMs;
  }

  mayRecover(_nowMs: number, force: boolean): string | null {
    return force ? null : "only by force";
  }

  recover(_nowMs: number, disk: Disk, force: boolean): string | null {
    if (!force) return "only by force";
    this.note("recover", () => {
      this.disk = disk;
      this.buffer = disk.allocate(MIB);
    });
    return null;
  }

  status(): HostStatus {
    throw new Error("not asked here");
  }

  leases(): LeaseStatus[] {
    return [];
  }
}

interface Running {
  readonly drive: Drive;
  readonly host: EchoHost;
  readonly trace: Remembered;
  readonly nbd: readonly string[];
  readonly fatals: unknown[];
  isStopped: boolean;
}

let running: Running[] = [];
afterEach(async () => {
  for (const one of running) {
    if (one.isStopped || one.fatals.length > 0) continue;
    one.drive.stop();
    await until("stopped", () => one.isStopped);
  }
  running = [];
});

let names = 0;
async function run(changes: Partial<DriveOptions> = {}): Promise<Running> {
  names += 1;
  const trace = new Remembered();
  const fatals: unknown[] = [];
  let host: EchoHost | null = null;
  let bound: readonly string[] = [];
  const link = `127.0.0.1:${freePort()}`;
  const options: DriveOptions = {
    self: hostId(0),
    clusterName: "lab",
    clusterKey: new Uint8Array(32).fill(3),
    hosts: [{ id: hostId(0), name: "alpha", link, shared: null }],
    store: {
      path: join(directory, `${names}.vsan`),
      sizeBytes: MIB,
      deviceBytesLeast: 0,
      isThin: false,
    },
    strictStore: false,
    statePath: join(directory, `${names}.state`),
    nbd: ["127.0.0.1:0"],
    group: null,
    busyPoll: true,
    control: null,
    trace,
    ...changes,
  };
  const events = {
    ready: (nbd: readonly string[]) => {
      bound = nbd;
    },
    stopped: () => {
      one.isStopped = true;
    },
    fatal: (error: unknown) => fatals.push(error),
  };
  const drive = openDrive(options, {}, events, (ports) => {
    host = new EchoHost(ports);
    return host;
  });
  if (host === null) throw new Error("no host was made");
  await drive.start();
  await until("ready", () => bound.length > 0 || options.nbd.length === 0);
  const one: Running = { drive, host, trace, nbd: bound, fatals, isStopped: false };
  running.push(one);
  return one;
}

async function client(one: Running): Promise<{ say(text: string): void; heard: () => string }> {
  let heard = "";
  const target = parseHostPort(one.nbd[0] ?? "");
  if (target === null) throw new Error("no address");
  const socket = await Bun.connect({
    ...target,
    socket: {
      data(_socket, chunk) {
        heard += chunk.toString();
      },
    },
  });
  return { say: (text) => socket.write(text), heard: () => heard };
}

describe("drive", () => {
  test("a client's bytes go through the disk and back; settle follows the events", async () => {
    const one = await run();
    const talker = await client(one);
    talker.say("ping");
    await until("echo", () => talker.heard() === "ping");
    const { calls } = one.host;
    expect(calls.slice(0, 2)).toEqual(["start", "voteDone 1 0"]);
    expect(calls.slice(2)).toEqual(["clientOpen 1", "clientData 1", "diskDone 0 4096"]);
    expect(one.host.settles).toBeGreaterThanOrEqual(3);
    expect(readFileSync(join(directory, `${names}.vsan`)).toString("utf8", 0, 4)).toBe("ping");
  });

  test("an idle machine is left alone", async () => {
    const one = await run();
    await new Promise<void>((resolve) => setTimeout(resolve, 20));
    const before = one.host.settles;
    await new Promise<void>((resolve) => setTimeout(resolve, 100));
    expect(one.host.settles).toBe(before);
  });

  test("the deadline is met, once", async () => {
    const one = await run();
    const talker = await client(one);
    const startMs = performance.now();
    talker.say("later");
    await until("expired", () => one.host.calls.includes("expire"));
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(19);
    await new Promise<void>((resolve) => setTimeout(resolve, 30));
    expect(one.host.calls.filter((call) => call === "expire").length).toBe(1);
  });

  test("a close from inside the machine is told to it afterwards", async () => {
    const one = await run();
    const talker = await client(one);
    talker.say("close");
    await until("told", () => one.host.calls.includes("clientClosed 1"));
  });

  test("a failed assertion ends the machine: told once, never entered again", async () => {
    const one = await run();
    const talker = await client(one);
    const other = await client(one);
    talker.say("assert");
    await until("fatal", () => one.fatals.length > 0);
    const count = one.host.calls.length;
    other.say("more");
    await new Promise<void>((resolve) => setTimeout(resolve, 20));
    expect(one.fatals.length).toBe(1);
    expect(one.fatals[0]).toBeInstanceOf(AssertionError);
    expect(one.host.calls.length).toBe(count);
    expect(one.drive.run(() => 1)).toBeNull();
  });

  test("stop closes everything: the same files open again, and the vote is there", async () => {
    const one = await run();
    const number = names;
    one.drive.stop();
    await until("stopped", () => one.isStopped);
    const path = join(directory, `${number}`);
    const again = await run({
      store: { path: `${path}.vsan`, sizeBytes: MIB, deviceBytesLeast: 0, isThin: false },
      statePath: `${path}.state`,
    });
    expect(again.host.started?.votes).toEqual(VOTES);
    expect(again.host.started?.disk?.sizeBytes).toBe(MIB);
  });

  test("a voter file that is damaged or another cluster's stops the start", async () => {
    for (const [name, bytes, why] of [
      ["damaged", VOTES.map((byte, at) => (at === 20 ? byte ^ 1 : byte)), "is damaged"],
      ["short", VOTES.slice(0, 10), "wrong length"],
    ] as const) {
      const statePath = join(directory, `${name}.state`);
      writeFileSync(statePath, bytes);
      await expect(run({ statePath })).rejects.toThrow(why);
      expect(new Uint8Array(readFileSync(statePath))).toEqual(bytes);
    }
  });

  test("a disk that cannot be opened is the host's to know; a state file is not", async () => {
    const path = join(directory, "nodisk");
    const one = await run({
      store: { path: "/dev/null", sizeBytes: MIB, deviceBytesLeast: 0, isThin: false },
      statePath: path,
    });
    expect(one.host.started?.disk).toBeNull();
    expect(one.host.started?.diskWhy).toContain("neither a file nor a block device");
    await expect(run({ statePath: path })).rejects.toThrow("in use by another vsan process");
  });

  test("recover: refused keeps the old disk, begun uses the new one", async () => {
    const one = await run();
    const fresh = join(directory, "fresh.vsan");
    const { drive } = one;
    expect(await drive.recover({ path: fresh, force: false })).toBe("only by force");
    expect(await drive.recover({ path: "/dev/null", force: true })).toContain("neither a file");
    expect(await drive.recover({ path: fresh, force: true })).toBeNull();
    const talker = await client(one);
    talker.say("new");
    await until("echo", () => talker.heard() === "new");
    expect(readFileSync(fresh).toString("utf8", 0, 3)).toBe("new");
    // The same path may hold another disk by now: it is opened anew.
    expect(await drive.recover({ path: fresh, force: true })).toBeNull();
    talker.say("again");
    await until("echo", () => talker.heard() === "newagain");
  });

  test("two drives meet with the incarnations their machines know", async () => {
    const hosts = [0, 1].map((id) => {
      const link = `127.0.0.1:${freePort()}`;
      return { id: hostId(id), name: `host${id}`, link, shared: null };
    });
    const left = await run({ self: hostId(0), hosts });
    const right = await run({ self: hostId(1), hosts });
    await until("met", () => left.host.calls.includes("peerData 1 0 hello from 5"));
    await until("met", () => right.host.calls.includes("peerData 0 0 hello from 5"));
    expect(left.host.calls).toContain("peerUp 1 5");
    expect(right.host.calls).toContain("peerUp 0 5");
    right.drive.stop();
    await until("gone", () => left.host.calls.includes("peerDown 1"));
  });
});

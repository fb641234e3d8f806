/**
 * A simulated network between N hosts: the stream and packet ports of every host, with faults.
 * Everything happens through `schedule(delayMs, fn)` and one seeded generator, so a seed decides
 * a run. The simulated links keep the contracts of `core/base/ports.ts`, which
 * `tests/conformance/` checks on them and on the real ones.
 *
 * Streams: bytes of one lane arrive in order; a connection holds at most `bufferBytes` in flight,
 * past which `send` takes less and `peerDrain` follows; a reset loses what is in flight, and
 * each side learns of it in its own time. A one-way cut delays bytes of that direction, as TCP
 * would, until it heals or the connection times out.
 */
import type { Lane, PacketLink, StreamLink } from "../../core/base/ports.ts";
import type { SeededRandom } from "../../core/base/random.ts";
import { type HostId, hostId } from "../../core/base/units.ts";

export interface NetFaults {
  /** Delay of bytes and datagrams, uniform. */
  delayMinMs: number;
  delayMaxMs: number;
  /** Room of one lane in one direction. */
  bufferBytes: number;
  /** Chance that `send` takes only a part although there is room. */
  partialSend: number;
  /** Chance per delivered data-lane chunk that one bit is flipped. */
  streamCorrupt: number;
  /** Chance per delivered chunk that the connection breaks. */
  reset: number;
  /** Per receiver and datagram. */
  packetLoss: number;
  packetDuplicate: number;
  packetReorder: number;
  packetCorrupt: number;
  /** Datagrams only: they wait in a queue that the streams do not have. */
  packetQueueMs: number;
  /** A connection that could not move bytes for this long breaks. */
  stallMs: number;
  /** From both sides knowing it is down to a new connection, uniform from 0. */
  reconnectMs: number;
}

export const CALM: NetFaults = {
  delayMinMs: 0.05,
  delayMaxMs: 0.2,
  bufferBytes: 256 * 1024,
  partialSend: 0,
  streamCorrupt: 0,
  reset: 0,
  packetLoss: 0,
  packetDuplicate: 0,
  packetReorder: 0,
  packetCorrupt: 0,
  packetQueueMs: 0,
  stallMs: 2000,
  reconnectMs: 20,
};

/** What the network tells hosts; `host` is the one it happens to. */
export interface NetEvents {
  peerUp(host: HostId, peer: HostId, peerInc: number): void;
  peerDown(host: HostId, peer: HostId): void;
  peerData(host: HostId, peer: HostId, lane: Lane, chunk: Uint8Array): void;
  peerDrain(host: HostId, peer: HostId, lane: Lane): void;
  packet(host: HostId, chunk: Uint8Array): void;
}

export type Schedule = (delayMs: number, run: () => void) => void;

/** One direction of one lane. */
class Pipe {
  inFlight = 0;
  isFull = false;
  queue: Uint8Array[] = [];
  isPumping = false;
}

/** A connection between two hosts: both lanes, both directions, while it lasts. */
class Session {
  isBroken = false;
  /** Which side has been told that it is up. */
  readonly isUpAt = new Set<HostId>();
  readonly pipes = new Map<string, Pipe>();

  pipe(from: HostId, lane: Lane): Pipe {
    const name = `${from}/${lane}`;
    let pipe = this.pipes.get(name);
    if (pipe === undefined) {
      pipe = new Pipe();
      this.pipes.set(name, pipe);
    }
    return pipe;
  }
}

export class SimNet {
  /** May be changed at any time. */
  faults: NetFaults;
  private readonly alive = new Map<HostId, number>();
  private readonly sessions = new Map<string, Session>();
  /** "from>to": that direction carries nothing. */
  private readonly cuts = new Set<string>();
  private readonly events: NetEvents;
  private readonly random: SeededRandom;
  private readonly schedule: Schedule;

  constructor(
    parts: { random: SeededRandom; schedule: Schedule; faults?: NetFaults },
    events: NetEvents,
  ) {
    this.random = parts.random;
    this.schedule = parts.schedule;
    this.faults = parts.faults ?? { ...CALM };
    this.events = events;
  }

  /** A host is there (again), with this incarnation; connections are made by themselves. */
  start(host: HostId, inc: number): void {
    this.alive.set(host, inc);
    for (const peer of this.alive.keys()) if (peer !== host) this.connectLater(host, peer);
  }

  /** A host is gone: its peers learn so, it itself hears nothing more. */
  stop(host: HostId): void {
    this.alive.delete(host);
    for (const peer of this.alive.keys()) this.reset(host, peer);
  }

  /** Cuts the direction from one host to another. */
  cut(from: HostId, to: HostId): void {
    this.cuts.add(`${from}>${to}`);
    this.watchStall(from, to);
  }

  heal(from: HostId, to: HostId): void {
    this.cuts.delete(`${from}>${to}`);
    this.connectLater(from, to);
  }

  healAll(): void {
    this.cuts.clear();
    for (const one of this.alive.keys()) {
      for (const other of this.alive.keys()) if (one < other) this.connectLater(one, other);
    }
  }

  isCut(from: HostId, to: HostId): boolean {
    return this.cuts.has(`${from}>${to}`);
  }

  /** Breaks the connection between two hosts, whatever it carries. */
  reset(one: HostId, other: HostId): void {
    const session = this.sessions.get(pairName(one, other));
    if (session === undefined || session.isBroken) return;
    session.isBroken = true;
    for (const [host, peer] of [
      [one, other],
      [other, one],
    ] as const) {
      if (!session.isUpAt.has(host)) continue;
      const inc = this.alive.get(host);
      this.schedule(this.delay(), () => {
        session.isUpAt.delete(host);
        // A host that was started anew meanwhile never had this connection.
        if (inc !== undefined && this.alive.get(host) === inc) this.events.peerDown(host, peer);
        this.forget(session, one, other);
      });
    }
    this.forget(session, one, other);
  }

  linkOf(host: HostId): StreamLink {
    return {
      send: (peer, lane, buffer, at, length) => this.send(host, peer, lane, buffer, at, length),
      reset: (peer) => this.reset(host, peer),
    };
  }

  packetsOf(host: HostId): PacketLink {
    return {
      multicast: (buffer, at, length) => {
        for (const peer of this.alive.keys()) {
          if (peer !== host) this.sendPacket(host, peer, buffer.slice(at, at + length));
        }
      },
      unicast: (peer, buffer, at, length) => {
        this.sendPacket(host, peer, buffer.slice(at, at + length));
      },
    };
  }

  /** Delivers any bytes as a datagram, as a stranger on the network could. */
  inject(host: HostId, chunk: Uint8Array): void {
    this.schedule(this.delay(), () => {
      if (this.alive.has(host)) this.events.packet(host, chunk);
    });
  }

  private send(
    from: HostId,
    to: HostId,
    lane: Lane,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): number {
    const session = this.sessions.get(pairName(from, to));
    if (session === undefined || session.isBroken || !session.isUpAt.has(from)) return -1;
    const pipe = session.pipe(from, lane);
    let taken = Math.min(length, Math.max(0, this.faults.bufferBytes - pipe.inFlight));
    if (taken > 1 && this.random.chance(this.faults.partialSend)) {
      taken = 1 + this.random.below(taken);
    }
    if (taken < length) pipe.isFull = true;
    if (taken > 0) {
      pipe.inFlight += taken;
      pipe.queue.push(buffer.slice(at, at + taken));
    }
    // A full pipe has something in flight, or drains at once.
    this.pump(session, from, to, lane, pipe);
    return taken;
  }

  private pump(session: Session, from: HostId, to: HostId, lane: Lane, pipe: Pipe): void {
    if (pipe.isPumping) return;
    pipe.isPumping = true;
    this.schedule(this.delay(), () => this.deliver(session, from, to, lane, pipe));
  }

  private deliver(session: Session, from: HostId, to: HostId, lane: Lane, pipe: Pipe): void {
    pipe.isPumping = false;
    if (session.isBroken) return;
    if (this.isCut(from, to) || !session.isUpAt.has(to)) {
      pipe.isPumping = true;
      this.schedule(5, () => this.deliver(session, from, to, lane, pipe));
      return;
    }
    if (this.random.chance(this.faults.reset)) {
      this.reset(from, to);
      return;
    }
    const chunk = this.takeChunk(pipe);
    if (chunk !== null) {
      pipe.inFlight -= chunk.length;
      if (lane === 1 && this.random.chance(this.faults.streamCorrupt)) this.flip(chunk);
      this.events.peerData(to, from, lane, chunk);
    }
    if (pipe.isFull && !session.isBroken && pipe.inFlight <= this.faults.bufferBytes / 2) {
      pipe.isFull = false;
      this.schedule(this.delay(), () => {
        if (!session.isBroken && session.isUpAt.has(from)) this.events.peerDrain(from, to, lane);
      });
    }
    if (pipe.queue.length > 0) this.pump(session, from, to, lane, pipe);
  }

  /** Sends are merged and split as a network does. */
  private takeChunk(pipe: Pipe): Uint8Array | null {
    const first = pipe.queue.shift();
    if (first === undefined) return null;
    if (pipe.queue.length > 0 && this.random.chance(0.3)) {
      const second = pipe.queue.shift() as Uint8Array;
      const merged = new Uint8Array(first.length + second.length);
      merged.set(first, 0);
      merged.set(second, first.length);
      return merged;
    }
    if (first.length > 1 && this.random.chance(0.3)) {
      const cut = 1 + this.random.below(first.length - 1);
      pipe.queue.unshift(first.subarray(cut));
      return first.slice(0, cut);
    }
    return first;
  }

  private sendPacket(from: HostId, to: HostId, chunk: Uint8Array): void {
    if (this.isCut(from, to) || !this.alive.has(from)) return;
    if (this.random.chance(this.faults.packetLoss)) return;
    const copies = this.random.chance(this.faults.packetDuplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const isLate = this.random.chance(this.faults.packetReorder);
      const lateMs = isLate ? this.random.fraction() * 10 : 0;
      const delayMs = this.delay() + this.faults.packetQueueMs + lateMs;
      const bytes = chunk.slice();
      if (this.random.chance(this.faults.packetCorrupt)) this.flip(bytes);
      this.schedule(delayMs, () => {
        if (this.alive.has(to)) this.events.packet(to, bytes);
      });
    }
  }

  private connectLater(one: HostId, other: HostId): void {
    this.schedule(this.delay() + this.random.fraction() * this.faults.reconnectMs, () => {
      if (!this.alive.has(one) || !this.alive.has(other)) return;
      if (this.isCut(one, other) || this.isCut(other, one)) return;
      if (this.sessions.has(pairName(one, other))) return;
      const session = new Session();
      this.sessions.set(pairName(one, other), session);
      this.bringUp(session, one, other);
      this.bringUp(session, other, one);
    });
  }

  private bringUp(session: Session, host: HostId, peer: HostId): void {
    const peerInc = this.alive.get(peer) ?? 0;
    this.schedule(this.delay(), () => {
      if (session.isBroken || !this.alive.has(host)) return;
      session.isUpAt.add(host);
      this.events.peerUp(host, peer, peerInc);
    });
  }

  /** TCP gives up on a direction that stays cut. */
  private watchStall(from: HostId, to: HostId): void {
    const session = this.sessions.get(pairName(from, to));
    if (session === undefined) return;
    this.schedule(this.faults.stallMs, () => {
      if (!this.isCut(from, to) || session.isBroken) return;
      this.reset(from, to);
    });
  }

  /** A broken connection makes room for a new one when both sides know. */
  private forget(session: Session, one: HostId, other: HostId): void {
    const name = pairName(one, other);
    if (session.isUpAt.size > 0 || this.sessions.get(name) !== session) return;
    this.sessions.delete(name);
    this.connectLater(one, other);
  }

  private flip(chunk: Uint8Array): void {
    const at = this.random.below(chunk.length);
    chunk[at] = chunk[at]! ^ (1 << this.random.below(8));
  }

  private delay(): number {
    const { delayMinMs, delayMaxMs } = this.faults;
    return delayMinMs + this.random.fraction() * (delayMaxMs - delayMinMs);
  }
}

function pairName(one: HostId, other: HostId): string {
  return one < other ? `${one}-${other}` : `${other}-${one}`;
}

/** All host ids below `count`. */
export function hostIds(count: number): HostId[] {
  return Array.from({ length: count }, (_, index) => hostId(index));
}

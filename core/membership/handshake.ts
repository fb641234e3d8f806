/**
 * The link handshake: two hosts prove to each other that they hold the cluster's key, and agree
 * who they are, on which lane and path, and which version they speak. Pure: bytes in, bytes out.
 *
 *   dialer                                   acceptor
 *     | ---- HELLO  (who, to whom, nonce) ----> |   version, cluster
 *     | <--- CHALLENGE (who, nonce, proof) ---- |
 *     | ---- PROVE  (proof) ------------------> |   then identity and roster
 *     | <--- WELCOME (proof) ------------------ |
 *   done                                      done     REFUSE (why) may replace any step
 *
 * Invariants
 *  1. `done` only after the other side's proof over both nonces, both identities, the lane, the
 *     path, the link id, the version and the channel binding was verified; each proof has its own
 *     role byte, so none can be reflected or replayed.
 *  2. Before its proof is verified the other side learns only that this is a vsan host, its id,
 *     incarnation and version, and why it is refused, never anything about the roster.
 *  3. Input is bounded by one frame; any bytes end in `done` or `failed`, none throw.
 */
import { assert } from "../base/assert.ts";
import { crc32Text } from "../base/checksum.ts";
import type { Entropy, Lane, Mac, MacKey } from "../base/ports.ts";
import type { HostId } from "../base/units.ts";
import { decode, encode, Writer } from "../format/codec.ts";
import {
  type Challenge,
  HANDSHAKE_FRAME_HEADER_BYTES,
  HANDSHAKE_MAGIC,
  HANDSHAKE_PAYLOAD_BYTES_MAX,
  type HandshakeMessage,
  HELLO_CODE,
  type Hello,
  handshakeMessage,
  helloPrefix,
  LINK_ID_BYTES,
  NONCE_BYTES,
  PROOF_BYTES,
  REFUSAL_BYTES_MAX,
} from "../format/handshake_wire.ts";

export const LINK_VERSION_MIN = 1;
export const LINK_VERSION_MAX = 1;
/** A handshake that takes longer has failed. */
export const HANDSHAKE_TIMEOUT_MS = 5000;

export const PATH = { dedicated: 0, shared: 1 } as const;
export type Path = (typeof PATH)[keyof typeof PATH];

/** What this host says of itself, the same for every handshake of one start. */
export interface HandshakeSelf {
  readonly self: HostId;
  readonly incarnation: number;
  readonly clusterName: string;
  /** Ids of the roster. */
  readonly hosts: readonly HostId[];
  readonly versionMin: number;
  readonly versionMax: number;
}

/** What a dialer wants; null for an acceptor. */
export interface HandshakeDial {
  readonly peer: HostId;
  readonly lane: Lane;
  readonly path: Path;
  /** `LINK_ID_BYTES` random bytes, the same for both lanes. */
  readonly link: Uint8Array;
}

export interface HandshakeResult {
  readonly peer: HostId;
  readonly peerInc: number;
  readonly lane: Lane;
  readonly path: Path;
  readonly version: number;
  /** The link id in hexadecimal. */
  readonly link: string;
}

const ROLE = { challenge: 1, prove: 2, welcome: 3 } as const;
const NOT_OURS = "the other side does not have this cluster's key";
const encoder = new TextEncoder();

/** The key of all handshakes of a cluster. */
export function handshakeKey(mac: Mac, clusterName: string): MacKey {
  return mac.derive(encoder.encode(`vsan link\0${clusterName}`));
}

export function randomBytes(entropy: Entropy, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes; at += 1) bytes[at] = entropy.u32() >>> 24;
  return bytes;
}

export class Handshake {
  state: "open" | "done" | "failed" = "open";
  /** One sentence when `failed`. */
  why = "";
  /** True when the failure was said by the other side, or told to it. */
  isRefusal = false;
  result: HandshakeResult | null = null;
  readonly deadlineMs: number;
  private readonly me: HandshakeSelf;
  private readonly dial: HandshakeDial | null;
  private readonly key: MacKey;
  private readonly entropy: Entropy;
  /** Bytes that bind the proofs to an outer channel (TLS exporter); empty without one. */
  private readonly binding: Uint8Array;
  private readonly frame = new Uint8Array(
    HANDSHAKE_FRAME_HEADER_BYTES + HANDSHAKE_PAYLOAD_BYTES_MAX,
  );
  private readonly frameView = new DataView(this.frame.buffer);
  private frameBytes = 0;
  private readonly output = new Writer(256);
  private rest: Uint8Array = new Uint8Array(0);
  private hello: Hello | null = null;
  private helloBytes: Uint8Array = new Uint8Array(0);
  private challenge: Challenge | null = null;

  /** A dialer's HELLO is in the output at once. */
  constructor(
    nowMs: number,
    me: HandshakeSelf,
    dial: HandshakeDial | null,
    ports: { readonly key: MacKey; readonly entropy: Entropy; readonly binding?: Uint8Array },
  ) {
    this.me = me;
    this.dial = dial;
    this.key = ports.key;
    this.entropy = ports.entropy;
    this.binding = ports.binding ?? new Uint8Array(0);
    this.deadlineMs = nowMs + HANDSHAKE_TIMEOUT_MS;
    if (dial !== null) this.sayHello(dial);
  }

  /** Takes what arrived; `takeOutput` and `state` tell what follows. Keeps no reference. */
  receive(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && this.state === "open") {
      const wanted = this.frameWanted();
      const count = Math.min(wanted - this.frameBytes, chunk.length - at);
      this.frame.set(chunk.subarray(at, at + count), this.frameBytes);
      this.frameBytes += count;
      at += count;
      this.frameGrew();
    }
    if (this.state === "done") this.rest = chunk.slice(at);
  }

  expire(nowMs: number): void {
    if (this.state === "open" && nowMs >= this.deadlineMs) {
      this.fail("the handshake was not finished in time");
    }
  }

  /** Bytes to send now, or null. */
  takeOutput(): Uint8Array | null {
    if (this.output.length === 0) return null;
    const bytes = this.output.take();
    this.output.reset();
    return bytes;
  }

  /** After `done`: what arrived behind the handshake; the lane's first bytes. */
  takeRest(): Uint8Array {
    const { rest } = this;
    this.rest = new Uint8Array(0);
    return rest;
  }

  private frameWanted(): number {
    if (this.frameBytes < HANDSHAKE_FRAME_HEADER_BYTES) return HANDSHAKE_FRAME_HEADER_BYTES;
    return HANDSHAKE_FRAME_HEADER_BYTES + this.frameView.getUint16(4, true);
  }

  private frameGrew(): void {
    if (this.frameBytes < HANDSHAKE_FRAME_HEADER_BYTES) return;
    const length = this.frameView.getUint16(4, true);
    const wrongMagic = this.frameView.getUint32(0, true) !== HANDSHAKE_MAGIC;
    if (wrongMagic || length === 0 || length > HANDSHAKE_PAYLOAD_BYTES_MAX) {
      this.fail("the other side does not speak vsan's link protocol");
      return;
    }
    if (this.frameBytes < HANDSHAKE_FRAME_HEADER_BYTES + length) return;
    const payload = this.frame.slice(HANDSHAKE_FRAME_HEADER_BYTES, this.frameBytes);
    this.frameBytes = 0;
    this.message(payload);
  }

  private message(payload: Uint8Array): void {
    if (payload[0] === HELLO_CODE && !this.versionsFit(payload)) return;
    const message = decode(handshakeMessage, payload);
    if (message === null) {
      this.fail("the other side sent a malformed handshake");
      return;
    }
    if (message.kind === "refuse") {
      this.isRefusal = true;
      this.fail(`the other side refused: ${printable(message.why)}`);
    } else if (this.dial === null) {
      this.acceptorMessage(message, payload);
    } else {
      this.dialerMessage(message, this.dial);
    }
  }

  /** Checks the part of HELLO that is the same in all versions, before the rest is decoded. */
  private versionsFit(payload: Uint8Array): boolean {
    const prefix = decode(helloPrefix, payload, 0, Math.min(payload.length, 5));
    if (prefix === null) {
      this.fail("the other side sent a malformed handshake");
      return false;
    }
    const { versionMin, versionMax } = this.me;
    if (prefix.versionMin <= versionMax && prefix.versionMax >= versionMin) return true;
    const theirs = `${prefix.versionMin} to ${prefix.versionMax}`;
    this.refuse(`link versions do not fit: ${theirs} there, ${versionMin} to ${versionMax} here`);
    return false;
  }

  private sayHello(dial: HandshakeDial): void {
    assert(dial.link.length === LINK_ID_BYTES, "handshake: link id of wrong length");
    const hello: Hello = {
      kind: "hello",
      versionMin: this.me.versionMin,
      versionMax: this.me.versionMax,
      cluster: crc32Text(this.me.clusterName),
      from: this.me.self,
      to: dial.peer,
      incarnation: this.me.incarnation,
      lane: dial.lane,
      path: dial.path,
      link: dial.link,
      nonce: randomBytes(this.entropy, NONCE_BYTES),
    };
    this.hello = hello;
    this.helloBytes = encode(handshakeMessage, hello);
    this.say(hello);
  }

  private acceptorMessage(message: HandshakeMessage, payload: Uint8Array): void {
    if (message.kind === "hello" && this.hello === null) {
      this.hello = message;
      this.helloBytes = payload;
      this.answerHello(message);
    } else if (message.kind === "prove" && this.hello !== null) {
      if (!this.proofHolds(ROLE.prove, message.proof)) this.refuse(NOT_OURS);
      else this.admit(this.hello);
    } else {
      this.fail("the other side sent its handshake out of order");
    }
  }

  private answerHello(hello: Hello): void {
    if (hello.cluster !== crc32Text(this.me.clusterName)) {
      this.refuse("the hosts belong to clusters of different names");
      return;
    }
    this.challenge = {
      kind: "challenge",
      version: Math.min(hello.versionMax, this.me.versionMax),
      from: this.me.self,
      incarnation: this.me.incarnation,
      nonce: randomBytes(this.entropy, NONCE_BYTES),
      proof: new Uint8Array(PROOF_BYTES),
    };
    this.say({ ...this.challenge, proof: this.proofOf(ROLE.challenge) });
  }

  /** The dialer holds the key; is it the host it should be, and does it want this one? */
  private admit(hello: Hello): void {
    const { self, hosts } = this.me;
    if (hello.from === self) {
      this.refuse(`two processes run as host ${self} of the roster`);
    } else if (!hosts.includes(hello.from)) {
      this.refuse(`host ${hello.from} is not in the roster of host ${self}`);
    } else if (hello.to !== self) {
      this.refuse(`the address of host ${hello.to} is that of host ${self}`);
    } else if (hello.from > self) {
      this.refuse(`host ${hello.from} must not dial: the lower host number does`);
    } else {
      this.say({ kind: "welcome", proof: this.proofOf(ROLE.welcome) });
      this.finish(hello.from, hello.incarnation);
    }
  }

  private dialerMessage(message: HandshakeMessage, dial: HandshakeDial): void {
    if (message.kind === "challenge" && this.challenge === null) {
      this.challenge = { ...message, proof: new Uint8Array(PROOF_BYTES) };
      const { versionMin, versionMax } = this.me;
      if (message.version < versionMin || message.version > versionMax) {
        this.fail("the other side chose a link version that was not offered");
      } else if (!this.proofHolds(ROLE.challenge, message.proof)) {
        this.refuse(NOT_OURS);
      } else if (message.from !== dial.peer) {
        this.refuse(`the address of host ${dial.peer} is that of host ${message.from}`);
      } else {
        this.say({ kind: "prove", proof: this.proofOf(ROLE.prove) });
      }
    } else if (message.kind === "welcome" && this.challenge !== null) {
      if (!this.proofHolds(ROLE.welcome, message.proof)) this.refuse(NOT_OURS);
      else this.finish(dial.peer, this.challenge.incarnation);
    } else {
      this.fail("the other side sent its handshake out of order");
    }
  }

  private finish(peer: HostId, peerInc: number): void {
    const { hello, challenge } = this;
    assert(hello !== null && challenge !== null, "handshake: finished before it began");
    const { lane, path, link } = hello;
    const { version } = challenge;
    this.result = { peer, peerInc, lane, path, version, link: hex(link) };
    this.state = "done";
  }

  private transcript(role: number): Uint8Array {
    assert(this.challenge !== null, "handshake: proof before challenge");
    const writer = new Writer(512);
    writer.u8(role);
    writer.bytes(this.helloBytes);
    handshakeMessage.write(writer, this.challenge);
    writer.bytes(this.binding);
    return writer.take();
  }

  private proofOf(role: number): Uint8Array {
    const said = this.transcript(role);
    const proof = new Uint8Array(PROOF_BYTES);
    this.key.sign(said, 0, said.length, proof, 0);
    return proof;
  }

  private proofHolds(role: number, proof: Uint8Array): boolean {
    const said = this.transcript(role);
    return this.key.verify(said, 0, said.length, proof, 0);
  }

  private say(message: HandshakeMessage): void {
    const payload = encode(handshakeMessage, message);
    assert(payload.length <= HANDSHAKE_PAYLOAD_BYTES_MAX, "handshake: message too long");
    this.output.u32(HANDSHAKE_MAGIC);
    this.output.u16(payload.length);
    this.output.bytes(payload);
  }

  /** Ends the handshake and tells the other side why. */
  private refuse(why: string): void {
    assert(why.length <= REFUSAL_BYTES_MAX, "handshake: refusal too long");
    this.say({ kind: "refuse", why });
    this.isRefusal = true;
    this.fail(why);
  }

  private fail(why: string): void {
    this.state = "failed";
    this.why = why;
  }
}

/** Another's words made fit for a log line: no control characters. */
function printable(text: string): string {
  let safe = "";
  for (const letter of text) safe += letter < " " || letter === "\u007f" ? "?" : letter;
  return safe;
}

function hex(bytes: Uint8Array): string {
  let digits = "";
  for (const byte of bytes) digits += byte.toString(16).padStart(2, "0");
  return digits;
}

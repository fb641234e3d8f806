/**
 * The voter's file: one small document, replaced atomically, that a host must not lose.
 *
 *   +-------+---------+--------+-------+------------------------------+
 *   | magic | version | length | crc32 | body (codec `voterState`)    |
 *   |  u32  |  u32    |  u32   |  u32  | `length` bytes               |
 *   +-------+---------+--------+-------+------------------------------+
 *
 * The checksum covers the body. A document that is damaged, of another version, of another
 * cluster or another host is never taken for a missing one: it is refused by name.
 */
import { crc32 } from "../base/checksum.ts";
import type { HostId } from "../base/units.ts";
import { bool, decode, type Decoded, encode, list, optional, struct, text } from "./codec.ts";
import { Reader, u32, u64, Writer } from "./codec.ts";
import { ballotCodec, BOOT_BYTES_MAX, hostCodec } from "./membership_wire.ts";
import { LIMITS } from "../base/limits.ts";

/** "vsV1" little-endian. */
export const VOTES_MAGIC = 0x31567376;
export const VOTES_VERSION = 1;
const HEADER_BYTES = 16;
/** A larger document is not ours: 16 hosts' vectors and lines stay far below. */
export const VOTES_BYTES_MAX = 64 * 1024;

export const voterState = struct({
  clusterId: u32,
  self: hostCodec,
  /** Incarnation of the host, raised at every start. */
  inc: u32,
  /** The incarnation in which this voter's memory began (R14). */
  voterInc: u32,
  /** False until R14 allowed this voter to vote. */
  voting: bool,
  promised: u64,
  accepted: optional(ballotCodec),
  /** Newest view in which this host was a recipient, and the boot of its machine then. */
  servedEpoch: u64,
  servedBoot: text(BOOT_BYTES_MAX),
  /** The newest life of each other host that this one knows. */
  known: list(
    struct({ host: hostCodec, inc: u32, nonce: u32, voterInc: u32 }),
    LIMITS.hostCountMax,
  ),
});
export type VoterState = Decoded<typeof voterState>;
export type KnownPeer = VoterState["known"][number];

/** The document for `state`; fresh bytes. */
export function encodeVotes(state: VoterState): Uint8Array {
  const body = encode(voterState, state);
  const writer = new Writer(HEADER_BYTES + body.length);
  writer.u32(VOTES_MAGIC);
  writer.u32(VOTES_VERSION);
  writer.u32(body.length);
  writer.u32(crc32(body, 0, body.length));
  writer.bytes(body);
  return writer.take();
}

export type DecodedVotes =
  | { readonly ok: true; readonly state: VoterState }
  | { readonly ok: false; readonly why: string };

/** Reads a document; any bytes at all end in a state or in one sentence why not. */
export function decodeVotes(
  bytes: Uint8Array,
  expected: { readonly clusterId: number; readonly self: HostId },
): DecodedVotes {
  if (bytes.length < HEADER_BYTES || bytes.length > VOTES_BYTES_MAX) {
    return { ok: false, why: "the voter file has a wrong length" };
  }
  const reader = new Reader(bytes);
  if (reader.u32() !== VOTES_MAGIC) return { ok: false, why: "this is not a voter file" };
  const version = reader.u32();
  if (version !== VOTES_VERSION) {
    return { ok: false, why: `the voter file has version ${version}, this program reads 1` };
  }
  const length = reader.u32();
  const check = reader.u32();
  if (length !== bytes.length - HEADER_BYTES) {
    return { ok: false, why: "the voter file is cut short" };
  }
  if (crc32(bytes, HEADER_BYTES, length) !== check) {
    return { ok: false, why: "the voter file is damaged: its checksum is wrong" };
  }
  const state = decode(voterState, bytes, HEADER_BYTES, length);
  if (state === null) return { ok: false, why: "the voter file is damaged" };
  if (state.clusterId !== expected.clusterId) {
    return { ok: false, why: "the voter file belongs to another cluster" };
  }
  if (state.self !== expected.self) {
    return { ok: false, why: "the voter file belongs to another host" };
  }
  return { ok: true, state };
}

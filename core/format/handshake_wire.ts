/**
 * Wire of the link handshake (docs/protocol_link.md). One frame:
 *
 *   +-------+--------+---------------------------+
 *   | magic | length | code, fields (one message) |
 *   |  u32  |  u16   |        length bytes        |
 *   +-------+--------+---------------------------+
 *
 * Little-endian. The frame, HELLO's first three fields and REFUSE never change, whatever the
 * version, so that any two programs can at least tell each other why they do not fit.
 */
import { LIMITS } from "../base/limits.ts";
import type { HostId } from "../base/units.ts";
import {
  blob,
  type Codec,
  type Decoded,
  id,
  struct,
  text,
  u16,
  u32,
  u64,
  u8,
  union,
} from "./codec.ts";

/** "VSLK", little-endian. */
export const HANDSHAKE_MAGIC = 0x4b4c5356;
export const HANDSHAKE_FRAME_HEADER_BYTES = 6;
/** Longest payload; a longer one ends the connection. */
export const HANDSHAKE_PAYLOAD_BYTES_MAX = 512;
export const NONCE_BYTES = 32;
export const PROOF_BYTES = 16;
export const LINK_ID_BYTES = 16;
export const REFUSAL_BYTES_MAX = 240;

const host = id<HostId>(u16, LIMITS.hostCountMax);

/** Bytes of exactly this length. */
function exactly(lengthBytes: number): Codec<Uint8Array> {
  const inner = blob(lengthBytes);
  return {
    write: inner.write,
    read: (reader) => {
      const value = inner.read(reader);
      if (value.length !== lengthBytes) reader.fail();
      return value;
    },
  };
}

/** Codes are append-only. */
export const handshakeMessage = union({
  hello: {
    code: 1,
    body: struct({
      versionMin: u16,
      versionMax: u16,
      /** CRC-32 of the cluster's name: tells clusters apart by accident, proves nothing. */
      cluster: u32,
      from: host,
      to: host,
      incarnation: u64,
      lane: id<0 | 1>(u8, 2),
      path: id<0 | 1>(u8, 2),
      /** Random, the same on both lanes of one link. */
      link: exactly(LINK_ID_BYTES),
      nonce: exactly(NONCE_BYTES),
    }),
  },
  challenge: {
    code: 2,
    body: struct({
      version: u16,
      from: host,
      incarnation: u64,
      nonce: exactly(NONCE_BYTES),
      proof: exactly(PROOF_BYTES),
    }),
  },
  prove: { code: 3, body: struct({ proof: exactly(PROOF_BYTES) }) },
  welcome: { code: 4, body: struct({ proof: exactly(PROOF_BYTES) }) },
  refuse: { code: 5, body: struct({ why: text(REFUSAL_BYTES_MAX) }) },
});
export type HandshakeMessage = Decoded<typeof handshakeMessage>;
export type Hello = Extract<HandshakeMessage, { kind: "hello" }>;
export type Challenge = Extract<HandshakeMessage, { kind: "challenge" }>;

/** The part of HELLO that no version may change, for telling versions apart. */
export const helloPrefix = struct({ code: u8, versionMin: u16, versionMax: u16 });
export const HELLO_CODE = 1;

/**
 * The mirror's datagram on the shared network.
 *
 *   +------------------+--------------------------+-----------+
 *   | header           | piece of the frame       | MAC       |
 *   |       32 B       | stream, 0..1352 B        |   16 B    |
 *   +------------------+--------------------------+-----------+
 *
 * The MAC covers header and payload and is checked before anything but the key's name (epoch and
 * sender) is used. Each sender has a key of its own in each view, so that a member cannot forge
 * another and a datagram of an older view verifies under no key that is still held.
 */
import { LIMITS } from "../base/limits.ts";
import { layout } from "./layout.ts";

/** "vsM1" little-endian. */
export const DATAGRAM_MAGIC = 0x314d7376;
export const DATAGRAM_VERSION = 1;

/** Kinds of datagram. Append only, never reuse. */
export const DATAGRAM_KIND = {
  /** Datagram `number` of the sender's frame stream, from 1 in each epoch. */
  data: 1,
  /** No payload; asks whoever hears it to echo `number` on the control lane. */
  probe: 2,
} as const;

/** Bit 0 of a datagram's flags. */
export const DATAGRAM_FRESH = 1;

export const DATAGRAM = layout(
  "mirror datagram",
  { endian: "little", sizeBytes: 32 },
  {
    magic: "u32",
    version: "u8",
    kind: "u8",
    sender: "u16",
    epoch: "u64",
    number: "u64",
    payloadBytes: "u16",
    /** Bit 0: the payload starts with a frame; what was left of the one before is void. */
    flags: "u16",
    reserved: "u32",
  },
);

export const DATAGRAM_HEADER_BYTES = DATAGRAM.sizeBytes;
export const DATAGRAM_MAC_BYTES = 16;
export const DATAGRAM_PAYLOAD_BYTES_MAX =
  LIMITS.datagramBytesMax - DATAGRAM_HEADER_BYTES - DATAGRAM_MAC_BYTES;

/** What a datagram's header says; reused by hot code. */
export class DatagramHeader {
  kind = 0;
  sender = 0;
  epoch = 0;
  number = 0;
  payloadBytes = 0;
  flags = 0;
}

/** Writes the header at `at`; the payload lies or will lie behind it. */
export function encodeDatagramHeader(view: DataView, at: number, header: DatagramHeader): void {
  DATAGRAM.magic.set(view, at, DATAGRAM_MAGIC);
  DATAGRAM.version.set(view, at, DATAGRAM_VERSION);
  DATAGRAM.kind.set(view, at, header.kind);
  DATAGRAM.sender.set(view, at, header.sender);
  DATAGRAM.epoch.set(view, at, header.epoch);
  DATAGRAM.number.set(view, at, header.number);
  DATAGRAM.payloadBytes.set(view, at, header.payloadBytes);
  DATAGRAM.flags.set(view, at, header.flags);
  DATAGRAM.reserved.set(view, at, 0);
}

/**
 * Decodes the header of a whole datagram of `length` bytes at the view's start. False if it is
 * not one of ours in form; the MAC is the caller's to check, before it uses any field other than
 * `epoch` and `sender`.
 */
export function decodeDatagramHeader(view: DataView, length: number, out: DatagramHeader): boolean {
  if (length < DATAGRAM_HEADER_BYTES + DATAGRAM_MAC_BYTES) return false;
  if (length > LIMITS.datagramBytesMax || DATAGRAM.magic.get(view, 0) !== DATAGRAM_MAGIC) {
    return false;
  }
  if (DATAGRAM.version.get(view, 0) !== DATAGRAM_VERSION) return false;
  out.kind = DATAGRAM.kind.get(view, 0);
  out.sender = DATAGRAM.sender.get(view, 0);
  out.epoch = DATAGRAM.epoch.get(view, 0);
  out.number = DATAGRAM.number.get(view, 0);
  out.payloadBytes = DATAGRAM.payloadBytes.get(view, 0);
  if (out.sender >= LIMITS.hostCountMax || out.epoch < 0 || out.number < 1) return false;
  out.flags = DATAGRAM.flags.get(view, 0);
  if (out.flags > DATAGRAM_FRESH || DATAGRAM.reserved.get(view, 0) !== 0) return false;
  if (out.kind !== DATAGRAM_KIND.data && out.kind !== DATAGRAM_KIND.probe) return false;
  return out.payloadBytes === length - DATAGRAM_HEADER_BYTES - DATAGRAM_MAC_BYTES;
}

/** What a view's multicast key of `sender` is derived from: text, epoch, sender, secret. */
export function multicastKeyLabel(epoch: number, sender: number, secret: Uint8Array): Uint8Array {
  const text = new TextEncoder().encode("vsan mcast");
  const label = new Uint8Array(text.length + 10 + secret.length);
  label.set(text, 0);
  const view = new DataView(label.buffer);
  view.setUint32(text.length, epoch >>> 0, true);
  view.setUint32(text.length + 4, Math.floor(epoch / 4294967296), true);
  view.setUint16(text.length + 8, sender, true);
  label.set(secret, text.length + 10);
  return label;
}

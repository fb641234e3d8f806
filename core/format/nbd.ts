/**
 * Every constant and every fixed structure of the NBD protocol that vsan speaks, as pure data.
 *
 * Source: the NBD project's doc/proto.md (sections "Values" and "Protocol phases"). All integers
 * are big-endian on the wire. 64-bit magics and cookies are kept as two 32-bit halves: a cookie
 * is opaque and only copied back. docs/nbd.md says how each of these is answered.
 */
import { layout } from "./layout.ts";

/** "NBDMAGIC", the first eight bytes of the server's greeting. */
export const GREETING_MAGIC = [0x4e42444d, 0x41474943] as const;
/** "IHAVEOPT": second magic of the greeting, and the first eight bytes of every option. */
export const OPTION_MAGIC = [0x49484156, 0x454f5054] as const;
/** First eight bytes of every option reply. */
export const OPTION_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;

/** "Handshake flags" (server) and "Client flags": the same two bits on both sides. */
export const HANDSHAKE_FLAG = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** "Transmission flags". */
export const EXPORT_FLAG = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  flush: 1 << 2,
  fua: 1 << 3,
  rotational: 1 << 4,
  trim: 1 << 5,
  writeZeroes: 1 << 6,
  df: 1 << 7,
  canMultiConn: 1 << 8,
  resize: 1 << 9,
  cache: 1 << 10,
  fastZero: 1 << 11,
} as const;

/** "Option types". */
export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  peekExport: 4,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** "Option reply types". Errors have bit 31 set. */
export const OPTION_REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errPlatform: 0x80000004,
  errTlsRequired: 0x80000005,
  errUnknown: 0x80000006,
  errShutdown: 0x80000007,
  errBlockSizeRequired: 0x80000008,
  errTooBig: 0x80000009,
} as const;

/** Information types of NBD_REP_INFO. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** "Request types". */
export const COMMAND = {
  read: 0,
  write: 1,
  disc: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
  resize: 8,
} as const;
export type Command = (typeof COMMAND)[keyof typeof COMMAND];

/** "Command flags". */
export const COMMAND_FLAG = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
  payloadLength: 1 << 5,
} as const;

/** "Structured reply flags" and "Structured reply types". Error types have bit 15 set. */
export const CHUNK_FLAG = { done: 1 } as const;
export const CHUNK = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Flags of a `base:allocation` extent. */
export const EXTENT_FLAG = { hole: 1, zero: 2 } as const;

/** "Error values". */
export const NBD_ERROR = {
  ok: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type NbdError = (typeof NBD_ERROR)[keyof typeof NBD_ERROR];

/** Server's first bytes: greeting. */
export const GREETING = layout(
  "nbd greeting",
  { endian: "big", sizeBytes: 18 },
  { magicHigh: "u32", magicLow: "u32", optionHigh: "u32", optionLow: "u32", flags: "u16" },
);

export const CLIENT_FLAGS = layout(
  "nbd client flags",
  { endian: "big", sizeBytes: 4 },
  { flags: "u32" },
);

export const OPTION_HEADER = layout(
  "nbd option",
  { endian: "big", sizeBytes: 16 },
  { magicHigh: "u32", magicLow: "u32", option: "u32", lengthBytes: "u32" },
);

export const OPTION_REPLY_HEADER = layout(
  "nbd option reply",
  { endian: "big", sizeBytes: 20 },
  { magicHigh: "u32", magicLow: "u32", option: "u32", type: "u32", lengthBytes: "u32" },
);

/** Answer to NBD_OPT_EXPORT_NAME; followed by `EXPORT_NAME_ZEROES` zeros unless NO_ZEROES. */
export const EXPORT_REPLY = layout(
  "nbd export reply",
  { endian: "big", sizeBytes: 10 },
  { sizeBytesOfExport: "u64", flags: "u16" },
);
export const EXPORT_NAME_ZEROES = 124;

/** Payload of NBD_REP_INFO with NBD_INFO_EXPORT. */
export const INFO_EXPORT = layout(
  "nbd info export",
  { endian: "big", sizeBytes: 12 },
  { type: "u16", sizeBytesOfExport: "u64", flags: "u16" },
);

/** Payload of NBD_REP_INFO with NBD_INFO_BLOCK_SIZE. */
export const INFO_BLOCK_SIZE = layout(
  "nbd info block size",
  { endian: "big", sizeBytes: 14 },
  { type: "u16", minimum: "u32", preferred: "u32", maximum: "u32" },
);

/** Request header; NBD_CMD_WRITE is followed by `lengthBytes` of payload. */
export const REQUEST = layout(
  "nbd request",
  { endian: "big", sizeBytes: 28 },
  {
    magic: "u32",
    flags: "u16",
    command: "u16",
    cookieHigh: "u32",
    cookieLow: "u32",
    offset: "u64",
    lengthBytes: "u32",
  },
);

export const SIMPLE_REPLY = layout(
  "nbd simple reply",
  { endian: "big", sizeBytes: 16 },
  { magic: "u32", error: "u32", cookieHigh: "u32", cookieLow: "u32" },
);

/** Header of one structured reply chunk. */
export const CHUNK_HEADER = layout(
  "nbd chunk",
  { endian: "big", sizeBytes: 20 },
  {
    magic: "u32",
    flags: "u16",
    type: "u16",
    cookieHigh: "u32",
    cookieLow: "u32",
    lengthBytes: "u32",
  },
);

/** A content chunk of READ: header and the offset of its data, in one go. */
export const DATA_CHUNK = layout(
  "nbd data chunk",
  { endian: "big", sizeBytes: 28 },
  {
    magic: "u32",
    flags: "u16",
    type: "u16",
    cookieHigh: "u32",
    cookieLow: "u32",
    lengthBytes: "u32",
    offset: "u64",
  },
);

/** Payload of an error chunk, before its message. */
export const CHUNK_ERROR = layout(
  "nbd chunk error",
  { endian: "big", sizeBytes: 6 },
  { error: "u32", messageBytes: "u16" },
);

/** One descriptor of NBD_REPLY_TYPE_BLOCK_STATUS. */
export const EXTENT = layout(
  "nbd extent",
  { endian: "big", sizeBytes: 8 },
  { lengthBytes: "u32", flags: "u32" },
);

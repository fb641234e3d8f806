/** Encodes the server's side of the option haggling (proto.md, "Option reply types"). */
import {
  EXPORT_NAME_ZEROES,
  EXPORT_REPLY,
  GREETING,
  GREETING_MAGIC,
  HANDSHAKE_FLAG,
  INFO,
  INFO_BLOCK_SIZE,
  INFO_EXPORT,
  OPTION_MAGIC,
  OPTION_REPLY,
  OPTION_REPLY_HEADER,
  OPTION_REPLY_MAGIC,
} from "../format/nbd.ts";
import { LIMITS } from "../base/limits.ts";
import { BLOCK_BYTES } from "../base/units.ts";
import type { Export } from "./export_table.ts";
import type { Output } from "./output.ts";

const encoder = new TextEncoder();

/** The server speaks first: both magics and the handshake flags. */
export function putGreeting(output: Output): void {
  const at = output.reserve(GREETING.sizeBytes);
  GREETING.magicHigh.set(output.view, at, GREETING_MAGIC[0]);
  GREETING.magicLow.set(output.view, at, GREETING_MAGIC[1]);
  GREETING.optionHigh.set(output.view, at, OPTION_MAGIC[0]);
  GREETING.optionLow.set(output.view, at, OPTION_MAGIC[1]);
  GREETING.flags.set(output.view, at, HANDSHAKE_FLAG.fixedNewstyle | HANDSHAKE_FLAG.noZeroes);
}

export function putAck(output: Output, option: number): void {
  putHeader(output, option, OPTION_REPLY.ack, 0);
}

/** `text` is a sentence for people, at most 4096 bytes. */
export function putOptionError(output: Output, option: number, type: number, text: string): void {
  const message = encoder.encode(text);
  const at = putHeader(output, option, type, message.length);
  output.buffer.set(message, at);
}

/** One line of NBD_OPT_LIST: the name, and the description as the free-form rest. */
export function putServer(output: Output, option: number, entry: Export): void {
  const { nameBytes, descriptionBytes } = entry;
  const length = 4 + nameBytes.length + descriptionBytes.length;
  const at = putHeader(output, option, OPTION_REPLY.server, length);
  output.view.setUint32(at, nameBytes.length);
  output.buffer.set(nameBytes, at + 4);
  output.buffer.set(descriptionBytes, at + 4 + nameBytes.length);
}

export function putInfoExport(output: Output, option: number, entry: Export, flags: number): void {
  const at = putHeader(output, option, OPTION_REPLY.info, INFO_EXPORT.sizeBytes);
  INFO_EXPORT.type.set(output.view, at, INFO.export);
  INFO_EXPORT.sizeBytesOfExport.set(output.view, at, entry.sizeBytes);
  INFO_EXPORT.flags.set(output.view, at, flags);
}

/** Any alignment is accepted, whole blocks are preferred ("Block size constraints"). */
export function putInfoBlockSize(output: Output, option: number): void {
  const at = putHeader(output, option, OPTION_REPLY.info, INFO_BLOCK_SIZE.sizeBytes);
  INFO_BLOCK_SIZE.type.set(output.view, at, INFO.blockSize);
  INFO_BLOCK_SIZE.minimum.set(output.view, at, 1);
  INFO_BLOCK_SIZE.preferred.set(output.view, at, BLOCK_BYTES);
  INFO_BLOCK_SIZE.maximum.set(output.view, at, LIMITS.requestBytesMax);
}

/** NBD_INFO_NAME or NBD_INFO_DESCRIPTION. */
export function putInfoText(output: Output, option: number, type: number, text: Uint8Array): void {
  const at = putHeader(output, option, OPTION_REPLY.info, 2 + text.length);
  output.view.setUint16(at, type);
  output.buffer.set(text, at + 2);
}

export function putMetaContext(
  output: Output,
  option: number,
  contextId: number,
  name: Uint8Array,
): void {
  const at = putHeader(output, option, OPTION_REPLY.metaContext, 4 + name.length);
  output.view.setUint32(at, contextId);
  output.buffer.set(name, at + 4);
}

/** The answer to NBD_OPT_EXPORT_NAME, which has a form of its own. */
export function putExportReply(
  output: Output,
  entry: Export,
  flags: number,
  noZeroes: boolean,
): void {
  const zeroes = noZeroes ? 0 : EXPORT_NAME_ZEROES;
  const at = output.reserve(EXPORT_REPLY.sizeBytes + zeroes);
  EXPORT_REPLY.sizeBytesOfExport.set(output.view, at, entry.sizeBytes);
  EXPORT_REPLY.flags.set(output.view, at, flags);
  const zeroesAt = at + EXPORT_REPLY.sizeBytes;
  output.buffer.fill(0, zeroesAt, zeroesAt + zeroes);
}

/** Returns where in `output.buffer` the payload of `lengthBytes` goes. */
function putHeader(output: Output, option: number, type: number, lengthBytes: number): number {
  const at = output.reserve(OPTION_REPLY_HEADER.sizeBytes + lengthBytes);
  OPTION_REPLY_HEADER.magicHigh.set(output.view, at, OPTION_REPLY_MAGIC[0]);
  OPTION_REPLY_HEADER.magicLow.set(output.view, at, OPTION_REPLY_MAGIC[1]);
  OPTION_REPLY_HEADER.option.set(output.view, at, option);
  OPTION_REPLY_HEADER.type.set(output.view, at, type);
  OPTION_REPLY_HEADER.lengthBytes.set(output.view, at, lengthBytes);
  return at + OPTION_REPLY_HEADER.sizeBytes;
}

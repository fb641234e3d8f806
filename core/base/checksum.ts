/**
 * The one checksum of our own formats: CRC-32 as in IEEE 802.3 (reflected, polynomial
 * 0x04C11DB7, the one of zlib), computed by the runtime's vectorised primitive, a pure function.
 * Not CRC-32C. Measured at 0.2 us per 4 KiB; 64-bit xxHash3 costs the same plus a bigint, and
 * every checked block also carries its own address, so 32 bits are enough (docs/decisions.md).
 */

/**
 * CRC-32 of `buffer[at, at + length)`, continuing from `seed` (the CRC of what came before).
 * Returns an unsigned 32-bit number.
 */
export function crc32(buffer: Uint8Array, at: number, length: number, seed = 0): number {
  return Bun.hash.crc32(buffer.subarray(at, at + length), seed) >>> 0;
}

/** CRC-32 of each byte value: the table of RFC 1952, section 8. */
const TABLE = makeTable();

function makeTable(): Uint32Array {
  const table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte += 1) {
    let rest = byte;
    for (let bit = 0; bit < 8; bit += 1) {
      rest = (rest & 1) === 1 ? 0xedb88320 ^ (rest >>> 1) : rest >>> 1;
    }
    table[byte] = rest;
  }
  return table;
}

/**
 * `crc32` for a few bytes: byte by byte, which for 12 of them costs a quarter of a view and a call
 * of the primitive (25 ns instead of 120).
 */
export function crc32Short(buffer: Uint8Array, at: number, length: number): number {
  let rest = 0xffffffff;
  for (let index = at; index < at + length; index += 1) {
    rest = TABLE[(rest ^ buffer[index]!) & 0xff]! ^ (rest >>> 8);
  }
  return ~rest >>> 0;
}

const encoder = new TextEncoder();

/** CRC-32 of a string's UTF-8 bytes. */
export function crc32Text(text: string): number {
  return Bun.hash.crc32(encoder.encode(text)) >>> 0;
}

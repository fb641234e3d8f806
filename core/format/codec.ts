/**
 * Codecs for messages with variable parts (membership, leases, control): composed from a few
 * combinators, so that a message is declared once and its type, encoder and decoder follow.
 *
 * Decoding never throws and never allocates by an unchecked length: any byte string gives either
 * a value that passed every bound, or null.
 */
import { assert } from "../base/assert.ts";

/** Appends to a growable buffer, little-endian. Reusable: `reset()` keeps the memory. */
export class Writer {
  buffer: Uint8Array;
  length = 0;
  private view: DataView;

  constructor(capacity = 256) {
    this.buffer = new Uint8Array(capacity);
    this.view = new DataView(this.buffer.buffer);
  }

  reset(): void {
    this.length = 0;
  }

  u8(value: number): void {
    this.reserve(1);
    this.view.setUint8(this.length, value);
    this.length += 1;
  }

  u16(value: number): void {
    this.reserve(2);
    this.view.setUint16(this.length, value, true);
    this.length += 2;
  }

  u32(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.length, value, true);
    this.length += 4;
  }

  u64(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, "codec: u64 out of range");
    this.u32(value >>> 0);
    this.u32(Math.floor(value / 4294967296));
  }

  f64(value: number): void {
    this.reserve(8);
    this.view.setFloat64(this.length, value, true);
    this.length += 8;
  }

  bytes(value: Uint8Array): void {
    this.reserve(value.length);
    this.buffer.set(value, this.length);
    this.length += value.length;
  }

  /** A copy of what was written. */
  take(): Uint8Array {
    return this.buffer.slice(0, this.length);
  }

  private reserve(more: number): void {
    if (this.length + more <= this.buffer.length) return;
    const grown = new Uint8Array(Math.max(this.buffer.length * 2, this.length + more));
    grown.set(this.buffer);
    this.buffer = grown;
    this.view = new DataView(grown.buffer);
  }
}

/** Reads little-endian values; past the end it sets `failed` and returns zeros. */
export class Reader {
  failed = false;
  private position: number;
  private readonly end: number;
  private readonly buffer: Uint8Array;
  private readonly view: DataView;

  constructor(buffer: Uint8Array, at = 0, length = buffer.length - at) {
    this.buffer = buffer;
    this.view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    this.position = at;
    this.end = at + length;
  }

  get remaining(): number {
    return this.end - this.position;
  }

  fail(): void {
    this.failed = true;
    this.position = this.end;
  }

  u8(): number {
    return this.take(1) ? this.view.getUint8(this.position - 1) : 0;
  }

  u16(): number {
    return this.take(2) ? this.view.getUint16(this.position - 2, true) : 0;
  }

  u32(): number {
    return this.take(4) ? this.view.getUint32(this.position - 4, true) : 0;
  }

  u64(): number {
    const low = this.u32();
    const high = this.u32();
    if (high > 0x1fffff) this.fail();
    return this.failed ? 0 : high * 4294967296 + low;
  }

  f64(): number {
    return this.take(8) ? this.view.getFloat64(this.position - 8, true) : 0;
  }

  /** A copy of the next `length` bytes. */
  bytes(length: number): Uint8Array {
    if (!this.take(length)) return new Uint8Array(0);
    return this.buffer.slice(this.position - length, this.position);
  }

  private take(length: number): boolean {
    if (this.failed || this.end - this.position < length) {
      this.fail();
      return false;
    }
    this.position += length;
    return true;
  }
}

export interface Codec<T> {
  write(writer: Writer, value: T): void;
  /** On failure marks the reader failed and returns anything of the type. */
  read(reader: Reader): T;
}
export type Decoded<C> = C extends Codec<infer T> ? T : never;

export const u8: Codec<number> = {
  write: (writer, value) => writer.u8(value),
  read: (reader) => reader.u8(),
};
export const u16: Codec<number> = {
  write: (writer, value) => writer.u16(value),
  read: (reader) => reader.u16(),
};
export const u32: Codec<number> = {
  write: (writer, value) => writer.u32(value),
  read: (reader) => reader.u32(),
};
/** An integer below 2^53. */
export const u64: Codec<number> = {
  write: (writer, value) => writer.u64(value),
  read: (reader) => reader.u64(),
};
/** Finite only. */
export const f64: Codec<number> = {
  write: (writer, value) => writer.f64(value),
  read: (reader) => {
    const value = reader.f64();
    if (!Number.isFinite(value)) reader.fail();
    return value;
  },
};
/** 0 or 1; anything else is refused. */
export const bool: Codec<boolean> = {
  write: (writer, value) => writer.u8(value ? 1 : 0),
  read: (reader) => {
    const value = reader.u8();
    if (value > 1) reader.fail();
    return value === 1;
  },
};

/** A branded small integer, checked to be below `bound`. */
export function id<T extends number>(base: Codec<number>, bound: number): Codec<T> {
  return {
    write: (writer, value) => base.write(writer, value),
    read: (reader) => {
      const value = base.read(reader);
      if (value >= bound) reader.fail();
      return value as T;
    },
  };
}

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder("utf-8", { fatal: true });

/** UTF-8 text of at most `maxBytes`. */
export function text(maxBytes: number): Codec<string> {
  return {
    write: (writer, value) => {
      const encoded = textEncoder.encode(value);
      assert(encoded.length <= maxBytes, "codec: text too long");
      writer.u32(encoded.length);
      writer.bytes(encoded);
    },
    read: (reader) => {
      const length = reader.u32();
      if (length > maxBytes) reader.fail();
      const encoded = reader.bytes(reader.failed ? 0 : length);
      try {
        return textDecoder.decode(encoded);
      } catch {
        reader.fail();
        return "";
      }
    },
  };
}

/** Raw bytes of at most `maxBytes`. */
export function blob(maxBytes: number): Codec<Uint8Array> {
  return {
    write: (writer, value) => {
      assert(value.length <= maxBytes, "codec: bytes too long");
      writer.u32(value.length);
      writer.bytes(value);
    },
    read: (reader) => {
      const length = reader.u32();
      if (length > maxBytes) reader.fail();
      return reader.bytes(reader.failed ? 0 : length);
    },
  };
}

/** A list of at most `maxCount` elements. */
export function list<T>(element: Codec<T>, maxCount: number): Codec<T[]> {
  return {
    write: (writer, value) => {
      assert(value.length <= maxCount, "codec: list too long");
      writer.u32(value.length);
      for (const item of value) element.write(writer, item);
    },
    read: (reader) => {
      const count = reader.u32();
      // Every element takes at least one byte, so a lying count cannot cost memory.
      if (count > maxCount || count > reader.remaining) reader.fail();
      const items: T[] = [];
      for (let index = 0; index < count && !reader.failed; index += 1) {
        items.push(element.read(reader));
      }
      return items;
    },
  };
}

/** A value or null. */
export function optional<T>(element: Codec<T>): Codec<T | null> {
  return {
    write: (writer, value) => {
      writer.u8(value === null ? 0 : 1);
      if (value !== null) element.write(writer, value);
    },
    read: (reader) => (bool.read(reader) ? element.read(reader) : null),
  };
}

type StructOf<S> = { [K in keyof S]: Decoded<S[K]> };

/** Named fields in the order declared. */
export function struct<S extends Record<string, Codec<unknown>>>(shape: S): Codec<StructOf<S>> {
  const names = Object.keys(shape);
  const codecs = Object.values(shape) as unknown as Codec<unknown>[];
  return {
    write: (writer, value) => {
      const record = value as Record<string, unknown>;
      for (let index = 0; index < names.length; index += 1) {
        codecs[index]!.write(writer, record[names[index]!]);
      }
    },
    read: (reader) => {
      const record: Record<string, unknown> = {};
      for (let index = 0; index < names.length; index += 1) {
        record[names[index]!] = codecs[index]!.read(reader);
      }
      return record as StructOf<S>;
    },
  };
}

type Variants = Record<string, { readonly code: number; readonly body: Codec<unknown> }>;
type UnionOf<V extends Variants> = {
  [K in keyof V & string]: { kind: K } & Decoded<V[K]["body"]>;
}[keyof V & string];

/**
 * A discriminated union `{kind, ...fields}`: a code byte, then the variant's fields. Codes are
 * part of the protocol: append only, never reuse.
 */
export function union<V extends Variants>(variants: V): Codec<UnionOf<V>> {
  const byCode = new Map<number, { kind: string; body: Codec<unknown> }>();
  for (const [kind, variant] of Object.entries(variants)) {
    assert(!byCode.has(variant.code), "codec: a code is used twice");
    byCode.set(variant.code, { kind, body: variant.body });
  }
  return {
    write: (writer, value) => {
      const variant = variants[value.kind];
      assert(variant !== undefined, "codec: unknown kind");
      writer.u8(variant.code);
      variant.body.write(writer, value as unknown);
    },
    read: (reader) => {
      const variant = byCode.get(reader.u8());
      if (variant === undefined) {
        reader.fail();
        return { kind: "" } as UnionOf<V>;
      }
      return { kind: variant.kind, ...(variant.body.read(reader) as object) } as UnionOf<V>;
    },
  };
}

/** Encodes one value to fresh bytes. */
export function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const writer = new Writer();
  codec.write(writer, value);
  return writer.take();
}

/** Decodes exactly `buffer[at, at+length)`; null if anything is out of bounds or left over. */
export function decode<T>(
  codec: Codec<T>,
  buffer: Uint8Array,
  at = 0,
  length = buffer.length - at,
): T | null {
  const reader = new Reader(buffer, at, length);
  const value = codec.read(reader);
  return reader.failed || reader.remaining !== 0 ? null : value;
}

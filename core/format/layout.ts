/**
 * Fixed layouts, each declared once as a table of fields. Encoder, decoder, size and the diagram
 * in docs/format.md follow from the table; nobody writes an offset by hand.
 *
 * Fields are objects with `get(view, base)` and `set(view, base, value)`, where `base` is the
 * byte position of the structure in the view. Hot code reads `RECORD.epoch.get(view, at)`.
 */
import { assert } from "../base/assert.ts";

/** One field at a fixed offset `at` from its structure's start. */
export interface Field {
  readonly at: number;
  readonly sizeBytes: number;
  get(view: DataView, base: number): number;
  set(view: DataView, base: number, value: number): void;
}

class U8 implements Field {
  readonly sizeBytes = 1;
  readonly at: number;
  constructor(at: number) {
    this.at = at;
  }
  get(view: DataView, base: number): number {
    return view.getUint8(base + this.at);
  }
  set(view: DataView, base: number, value: number): void {
    view.setUint8(base + this.at, value);
  }
}

class U16 implements Field {
  readonly sizeBytes = 2;
  readonly at: number;
  readonly little: boolean;
  constructor(at: number, little: boolean) {
    this.at = at;
    this.little = little;
  }
  get(view: DataView, base: number): number {
    return view.getUint16(base + this.at, this.little);
  }
  set(view: DataView, base: number, value: number): void {
    view.setUint16(base + this.at, value, this.little);
  }
}

class U32 implements Field {
  readonly sizeBytes = 4;
  readonly at: number;
  readonly little: boolean;
  constructor(at: number, little: boolean) {
    this.at = at;
    this.little = little;
  }
  get(view: DataView, base: number): number {
    return view.getUint32(base + this.at, this.little);
  }
  set(view: DataView, base: number, value: number): void {
    view.setUint32(base + this.at, value, this.little);
  }
}

/** 64 bits as a number. `get` returns -1 for values of 2^53 or more, which no field of ours has. */
class U64 implements Field {
  readonly sizeBytes = 8;
  readonly at: number;
  private readonly lowAt: number;
  private readonly highAt: number;
  private readonly little: boolean;
  constructor(at: number, little: boolean) {
    this.at = at;
    this.little = little;
    this.lowAt = little ? at : at + 4;
    this.highAt = little ? at + 4 : at;
  }
  get(view: DataView, base: number): number {
    const high = view.getUint32(base + this.highAt, this.little);
    if (high > 0x1fffff) return -1;
    return high * 4294967296 + view.getUint32(base + this.lowAt, this.little);
  }
  set(view: DataView, base: number, value: number): void {
    view.setUint32(base + this.highAt, Math.floor(value / 4294967296), this.little);
    view.setUint32(base + this.lowAt, value >>> 0, this.little);
  }
}

export type FieldKind = "u8" | "u16" | "u32" | "u64";

/** A declared structure: its name, size and one `Field` per name. */
export type Layout<T extends Record<string, FieldKind>> = {
  readonly layoutName: string;
  readonly sizeBytes: number;
  readonly table: readonly {
    readonly name: string;
    readonly kind: FieldKind;
    readonly at: number;
  }[];
} & { readonly [K in keyof T]: Field };

const SIZES: Record<FieldKind, number> = { u8: 1, u16: 2, u32: 4, u64: 8 };

/**
 * Declares a structure. Fields are packed in the order given; `sizeBytes` is asserted, so that a
 * change of the format never happens by accident.
 */
export function layout<T extends Record<string, FieldKind>>(
  layoutName: string,
  shape: { readonly endian: "little" | "big"; readonly sizeBytes: number },
  fields: T,
): Layout<T> {
  const little = shape.endian === "little";
  const made: Record<string, Field> = {};
  const table: { name: string; kind: FieldKind; at: number }[] = [];
  let at = 0;
  for (const [name, kind] of Object.entries(fields)) {
    made[name] = makeField(kind, at, little);
    table.push({ name, kind, at });
    at += SIZES[kind];
  }
  assert(at === shape.sizeBytes, "layout: declared size differs from the sum of its fields");
  return { layoutName, sizeBytes: shape.sizeBytes, table, ...made } as Layout<T>;
}

function makeField(kind: FieldKind, at: number, little: boolean): Field {
  switch (kind) {
    case "u8":
      return new U8(at);
    case "u16":
      return new U16(at, little);
    case "u32":
      return new U32(at, little);
    case "u64":
      return new U64(at, little);
  }
}

/** A DataView over the same bytes as `buffer`. */
export function viewOf(buffer: Uint8Array): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

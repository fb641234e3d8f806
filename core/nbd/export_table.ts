/**
 * The exports a host offers to NBD clients: one per volume, fixed while the process runs (NBD's
 * baseline has no resize). The default export "" is the first.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import type { VolumeId } from "../base/units.ts";
import { EXPORT_FLAG } from "../format/nbd.ts";

export interface ExportOptions {
  /** What clients ask for; 1 to 4096 bytes of UTF-8 without NUL. Unique. */
  readonly name: string;
  readonly volume: VolumeId;
  /** Above 0, below 2^53. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** For people; may be empty. */
  readonly description: string;
}

export interface Export extends ExportOptions {
  readonly nameBytes: Uint8Array;
  readonly descriptionBytes: Uint8Array;
}

const encoder = new TextEncoder();

export class ExportTable {
  readonly list: readonly Export[];
  private readonly byName = new Map<string, Export>();

  constructor(options: readonly ExportOptions[]) {
    assert(options.length <= LIMITS.volumeCountMax, "nbd: too many exports");
    this.list = options.map(makeExport);
    for (const entry of this.list) {
      assert(!this.byName.has(entry.name), "nbd: an export name is used twice");
      this.byName.set(entry.name, entry);
    }
  }

  /** The export of that name, the first for "", null if there is none. */
  find(name: string): Export | null {
    if (name === "") return this.list[0] ?? null;
    return this.byName.get(name) ?? null;
  }
}

/**
 * The transmission flags ("Transmission flags"): only what works. CAN_MULTI_CONN holds across
 * hosts, since a FLUSH covers what any host acknowledged (G2) and reads are linearizable (G3).
 * Not ROTATIONAL: the log makes writes sequential. SEND_DF only with structured replies.
 */
export function transmissionFlags(entry: Export, structured: boolean): number {
  let flags =
    EXPORT_FLAG.hasFlags |
    EXPORT_FLAG.flush |
    EXPORT_FLAG.fua |
    EXPORT_FLAG.canMultiConn |
    EXPORT_FLAG.cache;
  if (structured) flags |= EXPORT_FLAG.df;
  if (entry.readOnly) return flags | EXPORT_FLAG.readOnly;
  return flags | EXPORT_FLAG.trim | EXPORT_FLAG.writeZeroes | EXPORT_FLAG.fastZero;
}

function makeExport(options: ExportOptions): Export {
  const nameBytes = encoder.encode(options.name);
  const descriptionBytes = encoder.encode(options.description);
  assert(nameBytes.length > 0, "nbd: an export needs a name");
  assert(nameBytes.length <= LIMITS.stringBytesMax, "nbd: export name too long");
  assert(descriptionBytes.length <= LIMITS.stringBytesMax, "nbd: export description too long");
  assert(!options.name.includes("\0"), "nbd: export name holds a NUL");
  assert(Number.isSafeInteger(options.sizeBytes), "nbd: export size out of range");
  assert(options.sizeBytes > 0, "nbd: export is empty");
  return { ...options, nameBytes, descriptionBytes };
}

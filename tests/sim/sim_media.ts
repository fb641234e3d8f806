/**
 * The medium of a simulated disk: what survives the machine. Bytes are in three states: durable,
 * written but not synced, and (in `SimDisk`) in flight. A power cut keeps of every sector that
 * was not synced any one of the versions it had since, independently of its neighbours: torn
 * writes, reordered writes and lost writes in one.
 */
import type { SeededRandom } from "../../core/base/random.ts";

const CHUNK = 65536;
export const SECTOR = 512;
const PAGE = 4096;

/** Versions of one sector since the last sync; the first is the durable one. */
interface DirtySector {
  readonly versions: Uint8Array[];
  /** Order of each version among all writes; 0 for the durable one. */
  readonly stamps: number[];
}

/**
 * What a power cut keeps of the writes that no sync covers:
 *
 *   none       nothing
 *   all        everything
 *   newest     only the newest write: it overtook all others
 *   butNewest  everything but the newest write
 *   oldest     a prefix: everything before some write
 *   writes     each write or not, at random
 *   sectors    of each sector any version, at random: torn
 *   garbled    the same, and some sectors that were to be written hold neither: rubbish
 */
export const CUTS = [
  "none",
  "newest",
  "all",
  "butNewest",
  "oldest",
  "writes",
  "sectors",
  "garbled",
] as const;
export type Cut = (typeof CUTS)[number];

export class SimMedia {
  sizeBytes: number;
  /** Number of the newest write. */
  stamp = 0;
  /** On a thin disk: pages with room below, and how many more there is room for. */
  readonly reserved = new Set<number>();
  roomPages = Number.POSITIVE_INFINITY;
  private readonly chunks = new Map<number, Uint8Array>();
  /** Chunks that a clone has, too: copied before they are changed. */
  private readonly shared = new Set<number>();
  private readonly dirty = new Map<number, DirtySector>();
  /** Bytes that rotted under a copy in the page cache: offset -> bits inverted on the medium. */
  private readonly rotten = new Map<number, number>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  /** What a read sees: the newest version of everything. */
  read(offset: number, out: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length; ) {
      const position = offset + done;
      const inChunk = position % CHUNK;
      const count = Math.min(length - done, CHUNK - inChunk);
      const chunk = this.chunks.get((position - inChunk) / CHUNK);
      if (chunk === undefined) out.fill(0, at + done, at + done + count);
      else out.set(chunk.subarray(inChunk, inChunk + count), at + done);
      done += count;
    }
  }

  /** Bytes straight onto the medium, durable at once: for tests that prepare or damage. */
  poke(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const position = offset + done;
      const inChunk = position % CHUNK;
      const count = Math.min(bytes.length - done, CHUNK - inChunk);
      this.chunk((position - inChunk) / CHUNK).set(bytes.subarray(done, done + count), inChunk);
      done += count;
    }
  }

  peek(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    this.read(offset, out, 0, length);
    return out;
  }

  /** Inverts bits of one byte. */
  flip(offset: number, mask: number): void {
    const byte = this.peek(offset, 1);
    byte[0] = byte[0]! ^ mask;
    this.poke(offset, byte);
  }

  /**
   * Inverts bits of one byte on the medium alone: reads through the page cache see the good copy
   * until it is dropped, a read of the medium sees the rot.
   */
  rot(offset: number, mask: number): void {
    this.rotten.set(offset, (this.rotten.get(offset) ?? 0) ^ mask);
  }

  /** What a read past the page cache sees. */
  readMedium(offset: number, out: Uint8Array, at: number, length: number): void {
    this.read(offset, out, at, length);
    for (const [place, mask] of this.rotten) {
      if (place < offset || place >= offset + length) continue;
      const index = at + place - offset;
      out[index] = out[index]! ^ mask;
    }
  }

  /** The page cache is gone (a restart of the machine): rot under it shows from now on. */
  dropCache(): void {
    for (const [place, mask] of this.rotten) this.flip(place, mask);
    this.rotten.clear();
  }

  /** A write that reached the device's cache. Whole sectors; `bytes` is kept, do not change it. */
  write(offset: number, bytes: Uint8Array): void {
    for (const place of this.rotten.keys()) {
      if (place >= offset && place < offset + bytes.length) this.rotten.delete(place);
    }
    this.stamp += 1;
    const first = Math.floor(offset / SECTOR);
    for (let index = 0; index * SECTOR < bytes.length; index += 1) {
      const sector = first + index;
      let entry = this.dirty.get(sector);
      if (entry === undefined) {
        entry = { versions: [this.peek(sector * SECTOR, SECTOR)], stamps: [0] };
        this.dirty.set(sector, entry);
      }
      entry.versions.push(bytes.subarray(index * SECTOR, (index + 1) * SECTOR));
      entry.stamps.push(this.stamp);
    }
    this.poke(offset, bytes);
  }

  /** Everything written up to `stamp` is durable. */
  sync(stamp: number): void {
    for (const [sector, entry] of this.dirty) {
      let last = 0;
      while (last + 1 < entry.stamps.length && entry.stamps[last + 1]! <= stamp) last += 1;
      entry.versions.splice(0, last);
      entry.stamps.splice(0, last);
      if (entry.versions.length === 1) this.dirty.delete(sector);
      else entry.stamps[0] = 0;
    }
  }

  /** The power goes: of every unsynced sector one version stays. */
  powerCut(random: SeededRandom, cut: Cut = "sectors"): void {
    const keeps = this.keeper(random, cut);
    for (const [sector, entry] of this.dirty) {
      const isRubbish = cut === "garbled" && random.chance(0.2);
      const kept = isRubbish ? rubbish(random) : (entry.versions[keeps(entry)] as Uint8Array);
      this.poke(sector * SECTOR, kept);
    }
    this.dirty.clear();
    this.dropCache();
  }

  /** Tells which version of a sector a cut keeps. */
  private keeper(random: SeededRandom, cut: Cut): (entry: DirtySector) => number {
    if (cut === "sectors" || cut === "garbled") {
      // Sometimes the cache was almost written back, sometimes hardly; not always half and half.
      const share = random.fraction();
      return ({ versions }) =>
        random.chance(share) ? versions.length - 1 : random.below(versions.length);
    }
    const coins = new Map<number, boolean>();
    const stamps = new Set<number>();
    for (const entry of this.dirty.values()) for (const stamp of entry.stamps) stamps.add(stamp);
    const ordered = [...stamps].sort((left, right) => left - right);
    const last = ordered[random.below(Math.max(1, ordered.length))] ?? 0;
    const share = random.fraction();
    for (const stamp of ordered) coins.set(stamp, random.chance(share));
    const isKept = (stamp: number): boolean => {
      if (stamp === 0 || cut === "all") return true;
      if (cut === "none") return false;
      if (cut === "newest") return stamp === this.stamp;
      if (cut === "butNewest") return stamp !== this.stamp;
      return cut === "oldest" ? stamp < last : coins.get(stamp) === true;
    };
    return ({ stamps: own }) => own.findLastIndex(isKept);
  }

  /** Sectors that a power cut could still take back. */
  get dirtyCount(): number {
    return this.dirty.size;
  }

  /** Takes room for the pages of a range that have none yet; false if there is not enough. */
  reserve(offset: number, length: number): boolean {
    const missing: number[] = [];
    for (let page = offset / PAGE; page < (offset + length) / PAGE; page += 1) {
      if (!this.reserved.has(page)) missing.push(page);
    }
    if (missing.length > this.roomPages) return false;
    this.roomPages -= missing.length;
    for (const page of missing) this.reserved.add(page);
    return true;
  }

  /** Gives the room of a range back. */
  release(offset: number, length: number): void {
    for (let page = offset / PAGE; page < (offset + length) / PAGE; page += 1) {
      if (this.reserved.delete(page)) this.roomPages += 1;
    }
  }

  /** An independent copy of the durable and the volatile state. */
  clone(): SimMedia {
    const copy = new SimMedia(this.sizeBytes);
    copy.stamp = this.stamp;
    copy.roomPages = this.roomPages;
    for (const page of this.reserved) copy.reserved.add(page);
    for (const [place, mask] of this.rotten) copy.rotten.set(place, mask);
    for (const [number, chunk] of this.chunks) {
      copy.chunks.set(number, chunk);
      copy.shared.add(number);
      this.shared.add(number);
    }
    for (const [sector, entry] of this.dirty) {
      copy.dirty.set(sector, { versions: [...entry.versions], stamps: [...entry.stamps] });
    }
    return copy;
  }

  private chunk(number: number): Uint8Array {
    let chunk = this.chunks.get(number);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK);
      this.chunks.set(number, chunk);
    } else if (this.shared.delete(number)) {
      chunk = chunk.slice();
      this.chunks.set(number, chunk);
    }
    return chunk;
  }
}

function rubbish(random: SeededRandom): Uint8Array {
  const words = new Uint32Array(SECTOR / 4);
  for (let index = 0; index < words.length; index += 1) words[index] = random.u32();
  return new Uint8Array(words.buffer);
}

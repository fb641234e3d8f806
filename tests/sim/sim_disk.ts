/**
 * The Disk port, simulated on a `SimMedia`. Latencies are seeded; completions are delivered by
 * the owner's scheduler; faults are switched at run time.
 *
 * A killed process is `crash` (what the operating system has stays), a power cut is `powerCut`.
 * After either nothing of before completes any more, and the disk is ready for the next life.
 */
import { assert } from "../../core/base/assert.ts";
import {
  type Disk,
  ERRNO,
  MEDIUM_ALIGN,
  READ_PAIRS_MAX,
  type ReadPairs,
} from "../../core/base/ports.ts";
import { SeededRandom } from "../../core/base/random.ts";
import { type Cut, SECTOR, SimMedia } from "./sim_media.ts";

export interface SimDiskOptions {
  /** The medium, if it was there before; else a blank one of `sizeBytes` is made. */
  readonly media?: SimMedia;
  readonly sizeBytes?: number;
  readonly seed: number;
  /** Runs `fn` after `delayMs` of simulated time; never at once. */
  readonly schedule: (delayMs: number, fn: () => void) => void;
  /** Receives completions. */
  readonly done: (tag: number, result: number) => void;
  /** Latency of an operation: uniform between these (milliseconds). Default 0.05 to 0.5. */
  readonly latencyMs?: readonly [number, number];
  /** Latency of a sync, if it is another: then much goes on while one is under way. */
  readonly syncMs?: readonly [number, number];
  /** Share of `readNow` calls that find their data in the page cache. Default 0.5. */
  readonly cacheHits?: number;
  readonly sectorBytes?: number;
  /** A file with holes: writes find room only where it was reserved (`media.roomPages`). */
  readonly isThin?: boolean;
}

/** Faults, each off by default; change them at any time. */
export class DiskFaults {
  /** Reads overlapping `[from, to)` fail with EIO. */
  readErrors: { from: number; to: number }[] = [];
  /** So many of the next writes fail with EIO, are cut short, are lost, or go astray by `by`. */
  failWrites = 0;
  shortWrites = 0;
  loseWrites = 0;
  misdirectWrites = 0;
  misdirectBy = 4096;
  /** So many of the next syncs fail with EIO (their data may be gone). */
  failSyncs = 0;
  /** Syncs answer at once without doing anything. */
  lyingSyncs = false;
  /** Operations do not complete until this is false again. */
  hang = false;
  /** Every operation fails with EIO. */
  dead = false;
  /** Operations take up to so much longer. */
  slowMs = 0;
}

interface WriteInFlight {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly buffer: Uint8Array;
  readonly at: number;
}

export class SimDisk implements Disk {
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly isThin: boolean;
  readonly readsMedium = true;
  readonly faults = new DiskFaults();
  /** Operations begun; the power can be cut at the N-th write or sync. */
  writeCount = 0;
  syncCount = 0;
  readCount = 0;
  mediumCount = 0;
  bytesWritten = 0;
  /** Times it said that a range was never written. */
  unwrittenCount = 0;
  /** Sees every write as it is started. */
  onWrite: ((offset: number, length: number) => void) | null = null;
  /** Called when a write or a sync has begun, and when a sync was answered: moments for a cut. */
  onMoment: ((what: "write" | "sync" | "synced") => void) | null = null;
  readonly media: SimMedia;
  private readonly options: SimDiskOptions;
  private readonly random: SeededRandom;
  private readonly writes = new Set<WriteInFlight>();
  private readonly hung: (() => void)[] = [];
  /** Counts lives of the machine; completions of a former one are dropped. */
  private life = 1;

  constructor(options: SimDiskOptions) {
    this.options = options;
    this.media = options.media ?? new SimMedia(options.sizeBytes ?? 0);
    this.sizeBytes = this.media.sizeBytes;
    this.sectorBytes = options.sectorBytes ?? SECTOR;
    this.isThin = options.isThin ?? false;
    this.random = new SeededRandom(options.seed);
  }

  isUnwritten(offset: number, length: number): boolean {
    const isBlank = this.media.peek(offset, length).every((byte) => byte === 0);
    if (isBlank) this.unwrittenCount += 1;
    return isBlank;
  }

  allocate(lengthBytes: number): Uint8Array {
    return new Uint8Array(lengthBytes);
  }

  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number {
    this.check(offset, buffer, at, length);
    if (!this.random.chance(this.options.cacheHits ?? 0.5)) return -ERRNO.EAGAIN;
    if (this.faults.hang) return -ERRNO.EAGAIN;
    return this.readResult(offset, buffer, at, length);
  }

  /** A miss may begin anywhere: what lies before it is read, as from a real page cache. */
  readPairsNow(offset: number, pairs: ReadPairs): number {
    const { count, headBytes, bodyBytes, heads, bodies, bodiesAt } = pairs;
    assert(count > 0 && count <= READ_PAIRS_MAX, "sim disk: pairs");
    const length = count * (headBytes + bodyBytes);
    const bytes = new Uint8Array(length);
    assert(count * headBytes <= heads.length, "sim disk: heads past their buffer");
    assert(
      bodiesAt >= 0 && bodiesAt + count * bodyBytes <= bodies.length,
      "sim disk: bodies past their buffer",
    );
    const result = this.readNow(offset, bytes, 0, length);
    if (result < 0) return result;
    const hits = this.options.cacheHits ?? 0.5;
    const got = this.random.chance(hits) ? length : 1 + this.random.below(length);
    for (let done = 0; done < got; ) {
      const pair = Math.floor(done / (headBytes + bodyBytes));
      const within = done % (headBytes + bodyBytes);
      const isHead = within < headBytes;
      const end = Math.min(got, done - within + (isHead ? headBytes : headBytes + bodyBytes));
      const piece = bytes.subarray(done, end);
      if (isHead) heads.set(piece, pair * headBytes + within);
      else bodies.set(piece, bodiesAt + pair * bodyBytes + within - headBytes);
      done = end;
    }
    return got;
  }

  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.check(offset, buffer, at, length);
    this.readCount += 1;
    this.complete(() => {
      this.options.done(tag, this.readResult(offset, buffer, at, length));
    });
  }

  readMedium(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.check(offset, buffer, at, length);
    const isAligned = offset % MEDIUM_ALIGN === 0 && (at | length) % MEDIUM_ALIGN === 0;
    assert(isAligned, "sim disk: unaligned read of the medium");
    this.mediumCount += 1;
    this.complete(() => {
      const result = this.readResult(offset, buffer, at, length);
      if (result > 0) this.media.readMedium(offset, buffer, at, length);
      this.options.done(tag, result);
    });
  }

  private readResult(offset: number, buffer: Uint8Array, at: number, length: number): number {
    const { faults } = this;
    if (faults.dead) return -ERRNO.EIO;
    for (const range of faults.readErrors) {
      if (offset < range.to && offset + length > range.from) return -ERRNO.EIO;
    }
    this.media.read(offset, buffer, at, length);
    return length;
  }

  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.check(offset, buffer, at, length);
    assert(offset % SECTOR === 0 && length % SECTOR === 0, "sim disk: unaligned write");
    this.writeCount += 1;
    this.onWrite?.(offset, length);
    this.bytesWritten += length;
    const bytes = buffer.slice(at, at + length);
    const inFlight: WriteInFlight = { offset, bytes, buffer, at };
    this.writes.add(inFlight);
    this.onMoment?.("write");
    this.complete(() => {
      this.writes.delete(inFlight);
      for (let index = 0; index < length; index += 1) {
        if (buffer[at + index] === bytes[index]) continue;
        assert(false, "sim disk: buffer changed while its write was in flight");
      }
      this.options.done(tag, this.writeResult(offset, bytes));
    });
  }

  private writeResult(offset: number, bytes: Uint8Array): number {
    const { faults, media } = this;
    if (faults.dead) return -ERRNO.EIO;
    if (this.isThin && !media.reserve(offset, bytes.length)) return -ERRNO.ENOSPC;
    if (faults.failWrites > 0) {
      faults.failWrites -= 1;
      return -ERRNO.EIO;
    }
    if (faults.shortWrites > 0) {
      faults.shortWrites -= 1;
      const half = Math.floor(bytes.length / SECTOR / 2) * SECTOR;
      media.write(offset, bytes.subarray(0, half));
      return half;
    }
    if (faults.loseWrites > 0) {
      faults.loseWrites -= 1;
      return bytes.length;
    }
    if (faults.misdirectWrites > 0) {
      faults.misdirectWrites -= 1;
      media.write(offset + faults.misdirectBy, bytes);
      return bytes.length;
    }
    media.write(offset, bytes);
    return bytes.length;
  }

  sync(tag: number): void {
    this.syncCount += 1;
    const { stamp } = this.media;
    this.onMoment?.("sync");
    this.complete(() => {
      const { faults } = this;
      if (faults.dead) {
        this.options.done(tag, -ERRNO.EIO);
      } else if (faults.failSyncs > 0) {
        faults.failSyncs -= 1;
        this.options.done(tag, -ERRNO.EIO);
      } else {
        if (!faults.lyingSyncs) this.media.sync(stamp);
        this.options.done(tag, 0);
        this.onMoment?.("synced");
      }
    }, this.options.syncMs);
  }

  discard(tag: number, offset: number, length: number): void {
    assert(offset + length <= this.sizeBytes, "sim disk: discard past the end");
    this.complete(() => {
      if (!this.faults.dead) {
        this.media.write(offset, new Uint8Array(length));
        this.media.release(offset, length);
      }
      this.options.done(tag, this.faults.dead ? -ERRNO.EIO : 0);
    });
  }

  reserve(tag: number, offset: number, length: number): void {
    this.complete(() => {
      const isThere = this.media.reserve(offset, length);
      this.options.done(tag, isThere ? 0 : -ERRNO.ENOSPC);
    });
  }

  private complete(fn: () => void, latencyMs = this.options.latencyMs): void {
    const [least, most] = latencyMs ?? [0.05, 0.5];
    const span = least + this.random.fraction() * (most - least);
    const { life } = this;
    this.options.schedule(span + this.faults.slowMs * this.random.fraction(), () => {
      if (this.life !== life) return;
      if (this.faults.hang) this.hung.push(fn);
      else fn();
    });
  }

  /** Ends a hang: what waited completes in order. */
  release(): void {
    this.faults.hang = false;
    const { life } = this;
    for (const fn of this.hung.splice(0)) {
      this.options.schedule(0, () => {
        if (this.life === life) fn();
      });
    }
  }

  /** Every write or every sync fails from now on. */
  fail(what: "write" | "sync"): void {
    if (what === "write") this.faults.failWrites = Number.POSITIVE_INFINITY;
    else this.faults.failSyncs = Number.POSITIVE_INFINITY;
  }

  /** Ends all faults (bytes already damaged stay damaged). */
  heal(): void {
    Object.assign(this.faults, new DiskFaults());
    this.release();
  }

  /** Operations take up to so much longer. */
  slow(extraMs: number): void {
    this.faults.slowMs = extraMs;
  }

  /** The process died: what was in flight happened or did not, as a whole. */
  crash(): void {
    this.life += 1;
    for (const write of this.writes) {
      if (this.random.chance(0.5)) this.media.write(write.offset, write.bytes);
    }
    this.writes.clear();
    this.hung.length = 0;
  }

  /** The power went: of what was in flight or not synced any sectors stay. */
  powerCut(): void {
    this.life += 1;
    for (const write of this.writes) {
      for (let at = 0; at < write.bytes.length; at += SECTOR) {
        if (!this.random.chance(0.5)) continue;
        this.media.write(write.offset + at, write.bytes.subarray(at, at + SECTOR));
      }
    }
    this.writes.clear();
    this.hung.length = 0;
    this.media.powerCut(this.random);
  }

  /** What would be on the medium if the power went now; the disk itself goes on. */
  imageAfterCut(random: SeededRandom, cut: Cut): SimMedia {
    const image = this.media.clone();
    for (const write of this.writes) image.write(write.offset, write.bytes);
    image.powerCut(random, cut);
    return image;
  }

  private check(offset: number, buffer: Uint8Array, at: number, length: number): void {
    assert(offset >= 0 && length > 0, "sim disk: bad range");
    assert(offset + length <= this.sizeBytes, "sim disk: range past the end");
    assert(at >= 0 && at + length <= buffer.length, "sim disk: range past its buffer");
  }
}

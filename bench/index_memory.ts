/**
 * A fully written volume of 1 TiB with little memory for its index: how long a start takes, how
 * much memory the process has, what reads cost whose index is in memory, and others. The index is
 * written, the data is not (but for the blocks that are read): 2.2 GiB in a temporary file. Each
 * row is a process of its own. About two minutes:
 *
 *   bun bench/index_memory.ts [--directory DIR]
 */
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { assert } from "../core/base/assert.ts";
import { OUTCOME } from "../core/base/outcome.ts";
import { type Disk, READ_PAIRS_MAX, type ReadPairs } from "../core/base/ports.ts";
import { SeededRandom } from "../core/base/random.ts";
import { ALL_RULES } from "../core/base/rules.ts";
import { BLOCK_BYTES, GIB, hostId, MIB, REGION_BLOCKS, volumeId } from "../core/base/units.ts";
import { RECORD_TYPE, RecordHeader, STORED_BLOCK_BYTES } from "../core/format/record.ts";
import { STORED_BLOCK_PLACES } from "../core/store/apply.ts";
import type { StoreSink } from "../core/store/contract.ts";
import { DiskOps, OP } from "../core/store/disk_ops.ts";
import { type LiveStore, Recovery } from "../core/store/recovery.ts";
import { SEGMENT } from "../core/store/segment_table.ts";
import type { Refusal } from "../core/store/superblocks.ts";
import { Store } from "../core/store/store.ts";
import { type Task, TaskIo, WAIT } from "../core/store/task.ts";

const VOLUME = volumeId(7);
const VOLUME_BLOCKS = (1024 * GIB) / BLOCK_BYTES;
const STORE_BYTES = 1200 * GIB;
const SEGMENT_BYTES = 32 * MIB;
/** Blocks that are read, each in a region of its own: 160 MiB of the index. */
const HOT_BLOCKS = 40_000;
const READS = 400_000;
const IDENTITY = { clusterId: 1, hostId: hostId(0), storeId: [1, 2] as const };

/** A file, every operation at once; completions wait until they are taken. */
class PlainDisk implements Disk {
  readonly sizeBytes = STORE_BYTES;
  readonly sectorBytes = 512;
  readonly keepsSpace = true;
  readonly readsMedium = false;
  readonly isThin = false;
  done: (tag: number, result: number) => void = () => {};
  private readonly descriptor: number;
  private readonly waiting: [number, number][] = [];
  private readonly pairs = new Uint8Array(READ_PAIRS_MAX * STORED_BLOCK_BYTES);

  constructor(path: string) {
    this.descriptor = openSync(path, "r+");
  }
  allocate(lengthBytes: number): Uint8Array {
    return new Uint8Array(lengthBytes);
  }
  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number {
    return readSync(this.descriptor, buffer, at, length, offset);
  }
  readPairsNow(offset: number, pairs: ReadPairs): number {
    const { count, headBytes, bodyBytes, heads, bodies, bodiesAt } = pairs;
    const each = headBytes + bodyBytes;
    const got = this.readNow(offset, this.pairs, 0, count * each);
    for (let index = 0; index < count; index += 1) {
      const at = index * each;
      heads.set(this.pairs.subarray(at, at + headBytes), index * headBytes);
      const body = this.pairs.subarray(at + headBytes, at + each);
      bodies.set(body, bodiesAt + index * bodyBytes);
    }
    return got;
  }
  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.waiting.push([tag, this.readNow(offset, buffer, at, length)]);
  }
  readMedium(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.read(tag, offset, buffer, at, length);
  }
  write(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.waiting.push([tag, writeSync(this.descriptor, buffer, at, length, offset)]);
  }
  sync(tag: number): void {
    fsyncSync(this.descriptor);
    this.waiting.push([tag, 0]);
  }
  discard(tag: number): void {
    this.waiting.push([tag, 0]);
  }
  reserve(tag: number): void {
    this.waiting.push([tag, 0]);
  }
  /** Delivers what completed. */
  deliver(): void {
    for (let next = this.waiting.shift(); next !== undefined; next = this.waiting.shift()) {
      this.done(next[0], next[1]);
    }
  }
  close(): void {
    closeSync(this.descriptor);
  }
}

/** Runs a task of the store's to its end, with the log's completions carried to its writer. */
function drive<T>(disk: PlainDisk, ops: DiskOps, io: TaskIo, recovery: Recovery, task: Task<T>): T {
  disk.done = (tag, result) => {
    if (!ops.finish(tag)) return;
    if (ops.kind === OP.task) io.result = result;
    else if (ops.kind === OP.write) recovery.writer?.written(ops.subject);
    else if (ops.kind === OP.sync) recovery.writer?.synced();
  };
  for (;;) {
    const step = task.next();
    if (step.done === true) return step.value;
    for (;;) {
      disk.deliver();
      const { writer } = recovery;
      if (writer === null) break;
      const isRoom = step.value !== WAIT.room || writer.cold.room(io.roomBytes, 0) === 0;
      if (isRoom && (step.value !== WAIT.durable || writer.taskIsDurable())) break;
      writer.submit(true);
    }
  }
}

/** A store whose index says that all blocks of the volume are there. */
function build(path: string): void {
  ftruncateSync(openSync(path, "w"), STORE_BYTES);
  const disk = new PlainDisk(path);
  const ops = new DiskOps();
  const io = new TaskIo(disk, ops);
  const volumes = [{ id: VOLUME, blocks: VOLUME_BLOCKS }];
  const options = {
    segmentBytes: SEGMENT_BYTES,
    volumes,
    diskTimeoutMs: 1e9,
    indexBytes: 256 * MIB,
  };
  const recovery = new Recovery(options, disk, ops, io);
  const made = drive<LiveStore | Refusal>(disk, ops, io, recovery, recovery.format(IDENTITY));
  assert(made.ok, "bench: the store was not made");
  const { state, checkpointer } = made;
  const { segments, geometry, pool } = state;
  const perSegment = Math.floor((SEGMENT_BYTES - 8192) / STORED_BLOCK_BYTES);
  const volume = state.volume(VOLUME);
  assert(volume !== undefined, "bench: no volume");
  let segment = -1;
  for (let lba = 0; lba < VOLUME_BLOCKS; lba += 1) {
    const inSegment = lba % perSegment;
    if (inSegment === 0) {
      if (segment >= 0) segments.seal(segment);
      segment = segments.allocate();
      segments.lastSeq[segment] = 0;
      assert(segments.state[segment] === SEGMENT.open, "bench: no segment");
    }
    const first = geometry.offsetOf(segment) / 16 + 5;
    volume.set(lba, first + inSegment * STORED_BLOCK_PLACES, lba & 0xffff);
    if (lba % REGION_BLOCKS === REGION_BLOCKS - 1 && pool.clock.wantsCheckpoint) {
      assert(drive(disk, ops, io, recovery, checkpointer.run(false, true)), "bench: checkpoint");
    }
  }
  segments.seal(segment);
  assert(drive(disk, ops, io, recovery, checkpointer.run(true, true)), "bench: checkpoint");
  disk.close();
}

class Rig implements StoreSink {
  isOpen = false;
  isClosed = false;
  answered = 0;
  readonly store: Store;
  private readonly disk: PlainDisk;

  constructor(disk: PlainDisk, indexBytes: number) {
    this.disk = disk;
    const volumes = [{ id: VOLUME, blocks: VOLUME_BLOCKS }];
    const options = { segmentBytes: SEGMENT_BYTES, volumes, diskTimeoutMs: 1e9, indexBytes };
    this.store = new Store(options, disk, this, { event() {} }, ALL_RULES);
    disk.done = (tag, result) => this.store.diskDone(performance.now(), tag, result);
  }
  storeOpened(result: { ok: boolean }): void {
    assert(result.ok, "bench: the store did not open");
    this.isOpen = true;
  }
  storeClosed(): void {
    this.isClosed = true;
  }
  logged(): void {}
  synced(): void {}
  readDone(): void {
    this.answered += 1;
  }
  badBlock(): void {
    assert(false, "bench: a bad block");
  }
  storeWritable(): void {}
  storeFailed(): void {
    assert(false, "bench: the store failed");
  }
  /** Milliseconds until the store is open. */
  open(): number {
    const startMs = performance.now();
    this.store.open(startMs, IDENTITY);
    while (!this.isOpen) this.turn();
    return performance.now() - startMs;
  }
  turn(): void {
    this.store.settle(performance.now());
    this.disk.deliver();
  }
  write(lba: number, data: Uint8Array): void {
    const header = new RecordHeader();
    header.type = RECORD_TYPE.write;
    header.volume = VOLUME;
    header.lba = lba;
    header.blockCount = 1;
    for (;;) {
      const ready = this.store.prepare(VOLUME, lba, 1);
      if (ready === OUTCOME.ok && this.store.admit(80 + 4112, "overwrite") === OUTCOME.ok) break;
      this.turn();
    }
    this.store.appendWrite(header, data, 0);
  }
}

function percentile(sorted: Float64Array, share: number): string {
  return (sorted[Math.floor(sorted.length * share)]! * 1000).toFixed(1);
}

/** Starts after the row before, which ended without a close; closes in order. */
function restart(path: string, indexBytes: number): string {
  const rig = new Rig(new PlainDisk(path), indexBytes);
  const openMs = rig.open();
  rig.store.close(performance.now());
  while (!rig.isClosed) rig.turn();
  return ` ${openMs.toFixed(0)} ms |`;
}

/** One row: a start, hot reads, cold writes; as Markdown. Ends like a killed process. */
function measure(path: string, indexBytes: number, isAllThere: boolean): string {
  const disk = new PlainDisk(path);
  const rig = new Rig(disk, indexBytes);
  const { store } = rig;
  const openMs = rig.open();
  const random = new SeededRandom(5);
  const data = new Uint8Array(BLOCK_BYTES).fill(3);
  const hot = new Float64Array(HOT_BLOCKS);
  const step = Math.floor(VOLUME_BLOCKS / HOT_BLOCKS);
  for (let index = 0; index < HOT_BLOCKS; index += 1) {
    hot[index] = index * step + random.below(REGION_BLOCKS);
    rig.write(hot[index]!, data);
    if (index % 32 === 0) rig.turn();
  }
  for (let turns = 0; turns < 1000; turns += 1) rig.turn();
  if (isAllThere) {
    for (let lba = 0; lba < VOLUME_BLOCKS; lba += REGION_BLOCKS) store.placeOf(VOLUME, lba);
  }
  const out = new Uint8Array(BLOCK_BYTES);
  const read = (count: number): Float64Array => {
    const latencies = new Float64Array(count);
    for (let index = 0; index < count; index += 1) {
      const lba = hot[random.below(HOT_BLOCKS)]!;
      const before = performance.now();
      if (store.read(1, VOLUME, lba, 1, out, 0) !== OUTCOME.ok) {
        for (const had = rig.answered; rig.answered === had; ) rig.turn();
      }
      latencies[index] = performance.now() - before;
    }
    return latencies.sort();
  };
  read(READS / 4);
  const missesBefore = store.stats().indexMisses;
  const latencies = read(READS);
  const misses = store.stats().indexMisses - missesBefore;
  const writes = 40_000;
  const writesMs = performance.now();
  for (let index = 0; index < writes; index += 1) {
    rig.write(random.below(VOLUME_BLOCKS), data);
    if (index % 32 === 0) rig.turn();
  }
  const writeUs = ((performance.now() - writesMs) * 1000) / writes;
  const { indexBytes: used } = store.stats();
  const row = [
    `${Math.round(indexBytes / MIB)} MiB`,
    `${openMs.toFixed(0)} ms`,
    `${percentile(latencies, 0.5)} / ${percentile(latencies, 0.99)}`,
    misses,
    writeUs.toFixed(0),
    `${Math.round(used / MIB)} MiB`,
    `${Math.round(process.memoryUsage().rss / MIB)} MiB`,
  ];
  return `| ${row.join(" | ")} |`;
}

function child(...args: string[]): string {
  const [script] = Bun.argv.slice(1) as [string];
  const run = Bun.spawnSync([process.execPath, script, ...args], { stderr: "inherit" });
  assert(run.exitCode === 0, "bench: a row failed");
  return run.stdout.toString();
}

const { values, positionals } = parseArgs({
  args: Bun.argv.slice(2),
  options: { directory: { type: "string", default: tmpdir() } },
  allowPositionals: true,
});
const [kind, path, bytes] = positionals;
if (kind === "build" && path !== undefined) {
  build(path);
} else if (kind === "restart" && path !== undefined) {
  console.log(restart(path, Number(bytes)));
} else if (kind !== undefined && path !== undefined && bytes !== undefined) {
  console.log(measure(path, Number(bytes), kind === "all"));
} else {
  const file = join(values.directory, `vsan-index-${process.pid}.vsan`);
  try {
    child("build", file);
    const head =
      "| index_memory | start | hot read p50 / p99, us | misses | cold write, us | index |";
    console.log(`${head} process | start after that |`);
    console.log("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (const size of [4096, 384, 256, 64]) {
      const sizeBytes = String(size * MIB);
      const row = child(size === 4096 ? "all" : "some", file, sizeBytes).trimEnd();
      process.stdout.write(`${row}${child("restart", file, sizeBytes)}`);
    }
  } finally {
    rmSync(file, { force: true });
  }
}

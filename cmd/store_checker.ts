/**
 * Runs the offline check or the repair of a store (`core/store/check.ts`, `repair.ts`) on a real
 * disk, and turns what it says into the document of `vsan recover check --json`.
 */
import { statSync } from "node:fs";
import { crc32Text } from "../core/base/checksum.ts";
import type { Trace } from "../core/base/ports.ts";
import { ALL_RULES } from "../core/base/rules.ts";
import { BLOCK_BYTES, hostId } from "../core/base/units.ts";
import { StoreCheck } from "../core/store/check.ts";
import { type CheckReport, RANGES_MAX } from "../core/store/check_report.ts";
import { type RepairReport, StoreRepair } from "../core/store/repair.ts";
import type { Refusal } from "../core/store/superblocks.ts";
import { BootClock } from "../transports/clock.ts";
import { type OpenDisk, openDisk } from "../transports/disk_open.ts";
import type { Config } from "./config.ts";
import { failure, refusal } from "./exit.ts";
import { hostOptions } from "./host_options.ts";
import type { Progress } from "./progress.ts";

/** What a check or repair needs of the options does not depend on the machine. */
const NO_FACTS = { bootId: "", wallOffsetMs: 0, memoryBytes: 0 };

/** Bytes of a volume that cannot be read. */
export interface DamagedRange {
  readonly volume: string;
  readonly startByte: number;
  readonly endByte: number;
  readonly why: string;
}

/** Damage of the store's own structures; the volume and its bytes where it is about some. */
export interface DamagedStructure extends DamagedRange {
  readonly kind: string;
  readonly segment: number;
}

export interface CheckDocument {
  readonly store: string;
  readonly checkedBytes: number;
  /** Log records that nobody can read any more: blocks that they held may be old. */
  readonly lostRecords: number;
  readonly damaged: readonly DamagedRange[];
  readonly structure: readonly DamagedStructure[];
  /** More were found than are listed. */
  readonly isCut: boolean;
  readonly segments: { readonly total: number; readonly free: number; readonly dead: number };
  /** Why the store does not open at all; "" when it does. */
  readonly why: string;
  /** What a repair found; the rest of the document is what it left. Null without one. */
  readonly repaired: null | {
    readonly damaged: readonly DamagedRange[];
    readonly structure: readonly DamagedStructure[];
  };
}

interface Machine {
  readonly result: CheckReport | RepairReport | Refusal | null;
  /** The check that runs. */
  readonly check: StoreCheck;
  settle(nowMs: number): void;
  diskDone(nowMs: number, tag: number, result: number): void;
  nextDeadlineMs(): number;
}

const TICK_MS = 100;
const SILENT: Trace = { event() {} };

/** Checks, or repairs, the store at `path` as this host's. Rejects if it cannot be looked at. */
export async function checkStore(
  config: Config,
  path: string,
  how: { readonly repair: boolean; readonly progress: Progress },
): Promise<CheckDocument> {
  const run = new CheckRun(how.progress);
  const opened = await openDisk({ path, sizeBytes: 0, isReadOnly: !how.repair }, run);
  if (!opened.ok) {
    if (opened.isInUse) throw refusal(`${opened.why}; stop its vsan serve first`);
    // Cut to almost nothing is damage; without a file there is nothing that could be checked.
    const isRest = statSync(path, { throwIfNoEntry: false })?.isFile() === true;
    if (!isRest || statSync(path).size >= BLOCK_BYTES) throw failure(opened.why);
    return nothing(path, opened.why);
  }
  const { disk } = opened;
  try {
    const result = await run.run(disk, machineOf(config, disk, how.repair));
    const names = new Map(hostOptions(config, NO_FACTS).volumes.map(({ id, name }) => [id, name]));
    return documentOf(path, names, result);
  } finally {
    await disk.close();
  }
}

function machineOf(config: Config, disk: OpenDisk, isRepair: boolean): Machine {
  const { clusterName, self, timing } = hostOptions(config, NO_FACTS);
  const identity = { clusterId: crc32Text(clusterName), hostId: hostId(self) };
  if (isRepair) {
    const { diskTimeoutMs } = timing;
    return new StoreRepair({ ...identity, diskTimeoutMs }, disk, SILENT, ALL_RULES);
  }
  const check = new StoreCheck(disk, identity);
  return {
    get result() {
      return check.result;
    },
    check,
    settle: () => check.settle(),
    diskDone: (_nowMs, tag, result) => check.diskDone(tag, result),
    nextDeadlineMs: () => Number.POSITIVE_INFINITY,
  };
}

/** Carries the disk's events to the machine until it has a result. */
class CheckRun {
  private readonly clock = new BootClock();
  private readonly progress: Progress;
  private readonly finished = Promise.withResolvers<NonNullable<Machine["result"]>>();
  private machine: Machine | null = null;
  private disk: OpenDisk | null = null;
  private beganMs = 0;
  private shown: StoreCheck | null = null;

  constructor(progress: Progress) {
    this.progress = progress;
  }

  async run(disk: OpenDisk, machine: Machine): Promise<NonNullable<Machine["result"]>> {
    this.disk = disk;
    this.machine = machine;
    this.settle();
    const ticker = setInterval(() => this.tick(), TICK_MS);
    try {
      return await this.finished.promise;
    } finally {
      clearInterval(ticker);
      this.progress.finish();
    }
  }

  done(tag: number, result: number): void {
    this.machine?.diskDone(this.clock.nowMs(), tag, result);
  }

  batch(): void {
    this.settle();
  }

  private settle(): void {
    const { machine } = this;
    if (machine === null) return;
    machine.settle(this.clock.nowMs());
    if (machine.result !== null) {
      this.machine = null;
      this.finished.resolve(machine.result);
      return;
    }
    this.disk?.submit();
    setImmediate(() => {
      if (this.machine !== null && this.disk?.deliver() === true) this.settle();
    });
  }

  /** Deadlines of a repair, and the progress. */
  private tick(): void {
    const { machine } = this;
    if (machine === null) return;
    const { check } = machine;
    if (check !== this.shown) {
      this.shown = check;
      this.beganMs = this.clock.nowMs();
    }
    if (check.blocksTotal > 0) this.show(check.blocksChecked, check.blocksTotal);
    this.settle();
  }

  private show(checked: number, total: number): void {
    const bytesPerSecond = (checked * BLOCK_BYTES * 1000) / (this.clock.nowMs() - this.beganMs + 1);
    const totalBytes = Math.max(checked, total) * BLOCK_BYTES;
    const doneBytes = checked * BLOCK_BYTES;
    const etaSeconds = (totalBytes - doneBytes) / Math.max(1, bytesPerSecond);
    this.progress.show({ doneBytes, totalBytes, bytesPerSecond, etaSeconds });
  }
}

function nothing(store: string, why: string): CheckDocument {
  return {
    store,
    checkedBytes: 0,
    lostRecords: 0,
    damaged: [],
    structure: [],
    isCut: false,
    segments: { total: 0, free: 0, dead: 0 },
    why,
    repaired: null,
  };
}

function documentOf(
  store: string,
  names: ReadonlyMap<number, string>,
  result: NonNullable<Machine["result"]>,
): CheckDocument {
  if (!result.ok) return nothing(store, result.why);
  const report = "after" in result ? result.after : result;
  return {
    store,
    checkedBytes: report.blocksChecked * BLOCK_BYTES,
    lostRecords: report.lostRecords,
    ...listsOf(names, report),
    isCut: report.isCut || report.damageCount > RANGES_MAX,
    segments: {
      total: report.segmentsTotal,
      free: report.segmentsFree,
      dead: report.segmentsDead,
    },
    why: "",
    repaired: "before" in result ? listsOf(names, result.before) : null,
  };
}

function listsOf(
  names: ReadonlyMap<number, string>,
  report: CheckReport,
): { damaged: DamagedRange[]; structure: DamagedStructure[] } {
  const rangeOf = (row: { volume: number; lba: number; count: number; why: string }) => ({
    volume: row.volume === 0 ? "" : (names.get(row.volume) ?? `(number ${row.volume})`),
    startByte: row.lba * BLOCK_BYTES,
    endByte: (row.lba + row.count) * BLOCK_BYTES,
    why: row.why,
  });
  return {
    damaged: report.ranges.map(rangeOf),
    structure: report.damage.map((row) => ({
      kind: row.kind,
      ...rangeOf(row),
      segment: row.segment,
    })),
  };
}

/**
 * Drives the offline check and the repair on a simulated disk until they are done, or until the
 * power goes at a chosen write. Everything is bounded: what does not end fails.
 */
import type { Trace } from "../../../core/base/ports.ts";
import { ALL_RULES } from "../../../core/base/rules.ts";
import { StoreCheck } from "../../../core/store/check.ts";
import type { CheckReport } from "../../../core/store/check_report.ts";
import { type RepairReport, StoreRepair } from "../../../core/store/repair.ts";
import type { Refusal } from "../../../core/store/superblocks.ts";
import { type DiskFaults, SimDisk } from "../../sim/sim_disk.ts";
import type { SimMedia } from "../../sim/sim_media.ts";
import { IDENTITY } from "./store_rig.ts";

const EVENTS_MAX = 200_000;
const SILENT: Trace = { event() {} };

export interface DriveOptions {
  readonly seed?: number;
  /** The power goes as soon as so many writes were started. */
  readonly cutAtWrite?: number;
  readonly faults?: Partial<DiskFaults>;
}

interface Machine<T> {
  readonly result: T | null;
  settle(nowMs: number): void;
  diskDone(nowMs: number, tag: number, result: number): void;
  nextDeadlineMs(): number;
}

/** Runs a machine to its result; null if the power went before. */
function drive<T>(media: SimMedia, options: DriveOptions, make: (disk: SimDisk) => Machine<T>) {
  const queue: (() => void)[] = [];
  let nowMs = 1000;
  const done = (tag: number, result: number): void => machine.diskDone(nowMs, tag, result);
  const disk = new SimDisk({
    media,
    seed: options.seed ?? 1,
    schedule: (_delayMs, fn) => queue.push(fn),
    done,
  });
  Object.assign(disk.faults, options.faults);
  const machine = make(disk);
  for (let event = 0; machine.result === null; event += 1) {
    if (event > EVENTS_MAX) throw new Error("it does not come to an end");
    machine.settle(nowMs);
    if (options.cutAtWrite !== undefined && disk.writeCount >= options.cutAtWrite) {
      disk.powerCut();
      return { result: null, disk };
    }
    const next = queue.shift();
    if (next !== undefined) next();
    else if (machine.result === null) nowMs = Math.max(nowMs + 1, machine.nextDeadlineMs());
    if (nowMs === Number.POSITIVE_INFINITY) throw new Error("it waits for nothing");
  }
  return { result: machine.result, disk };
}

/** The offline check; not a byte is written. */
export function check(media: SimMedia, options: DriveOptions = {}): CheckReport | Refusal {
  const { result, disk } = drive(media, options, (simDisk) => {
    const machine = new StoreCheck(simDisk, IDENTITY);
    return {
      get result() {
        return machine.result;
      },
      settle: () => machine.settle(),
      diskDone: (_nowMs: number, tag: number, value: number) => machine.diskDone(tag, value),
      nextDeadlineMs: () => Number.POSITIVE_INFINITY,
    };
  });
  if (disk.writeCount > 0) throw new Error("the check has written");
  return result as CheckReport | Refusal;
}

/** The repair; null if the power went at the chosen write. `writes`: how many it started. */
export function repair(
  media: SimMedia,
  options: DriveOptions = {},
): { readonly result: RepairReport | Refusal | null; readonly writes: number } {
  const { result, disk } = drive(
    media,
    options,
    (simDisk) =>
      new StoreRepair({ ...IDENTITY, diskTimeoutMs: 20_000 }, simDisk, SILENT, ALL_RULES),
  );
  return { result, writes: disk.writeCount };
}

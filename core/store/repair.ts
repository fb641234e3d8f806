/**
 * Offline repair of a store (`vsan recover check --repair`): makes what is left consistent, and
 * says what is not.
 *
 *   checking --> opening --> losing --> closing --> proving --> done
 *      |                        ^                      |
 *      +--> done (nothing to    +----------------------+ more bad blocks than one round takes
 *           repair, or refused)
 *
 * Opening the store is most of it: recovery believes nothing that does not verify, and its
 * checkpoint writes whatever it loaded, in segments that were free. What remains are blocks whose
 * bytes are bad: they become lost, so that the next check and the cleaner find nothing there. No
 * zeros and no older version ever take their place. A power cut leaves either the old checkpoint
 * or the new one (`recovery.ts`), so a repair that was cut is simply begun again.
 */
import { OUTCOME } from "../base/outcome.ts";
import type { Disk, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import { type HostId, type VolumeId, volumeId } from "../base/units.ts";
import { SEGMENT_BYTES_MIN } from "./geometry.ts";
import { StoreCheck } from "./check.ts";
import type { BadBlock, CheckReport } from "./check_report.ts";
import type { StoreOpened, StoreSink } from "./contract.ts";
import { Store } from "./store.ts";
import { type Refusal, refuse } from "./superblocks.ts";

/** Each gives up at least 2^20 blocks (4 GiB), unless there are fewer. */
const ROUNDS_MAX = 64;

export interface RepairReport {
  readonly ok: true;
  /** As it was found, and as it is now; the same if there was nothing to repair. */
  readonly before: CheckReport;
  readonly after: CheckReport;
  /** Blocks that were bad and are lost now. */
  readonly blocksLost: number;
}

export interface RepairOptions {
  readonly clusterId: number;
  readonly hostId: HostId;
  readonly diskTimeoutMs: number;
}

type Phase = "checking" | "opening" | "losing" | "closing" | "proving" | "done";

export class StoreRepair implements StoreSink {
  result: RepairReport | Refusal | null = null;
  phase: Phase = "checking";
  /** The check that runs or ran last, for its progress. */
  check: StoreCheck;
  private readonly disk: Disk;
  private readonly options: RepairOptions;
  private readonly trace: Trace;
  private readonly rules: Rules;
  private store: Store | null = null;
  private before: CheckReport | null = null;
  private latest: CheckReport | null = null;
  private blocksLost = 0;
  /** Of `latest.badBlocks`: the next one to give up. */
  private nextBad = 0;
  private rounds = 0;
  private isClosed = false;

  constructor(options: RepairOptions, disk: Disk, trace: Trace, rules: Rules) {
    this.options = options;
    this.disk = disk;
    this.trace = trace;
    this.rules = rules;
    this.check = new StoreCheck(disk, options);
  }

  settle(nowMs: number): void {
    this.check.settle();
    if (this.phase === "checking" || this.phase === "proving") this.judge(nowMs);
    if (this.phase === "losing") this.lose(nowMs);
    this.store?.settle(nowMs);
    this.prove();
  }

  diskDone(nowMs: number, tag: number, result: number): void {
    if (this.store === null) this.check.diskDone(tag, result);
    else this.store.diskDone(nowMs, tag, result);
  }

  nextDeadlineMs(): number {
    return this.store?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
  }

  private judge(nowMs: number): void {
    const report = this.check.result;
    if (report === null) return;
    if (!report.ok) {
      this.end(report);
      return;
    }
    this.before ??= report;
    this.latest = report;
    const isDamaged = report.damageCount > 0 || report.badCount > 0;
    if (!isDamaged || this.rounds === ROUNDS_MAX) {
      this.end({ ok: true, before: this.before, after: report, blocksLost: this.blocksLost });
      return;
    }
    this.rounds += 1;
    this.nextBad = 0;
    this.phase = "opening";
    const options = {
      segmentBytes: SEGMENT_BYTES_MIN,
      volumes: [],
      diskTimeoutMs: this.options.diskTimeoutMs,
      indexBytes: Number.POSITIVE_INFINITY,
      recount: true,
    };
    this.store = new Store(options, this.disk, this, this.trace, this.rules);
    this.store.open(nowMs, this.options);
  }

  private lose(nowMs: number): void {
    const store = this.store as Store;
    const bad = this.latest?.badBlocks ?? [];
    for (; this.nextBad < bad.length; this.nextBad += 1) {
      const { volume, lba, place } = bad[this.nextBad] as BadBlock;
      const outcome = store.lose(volumeId(volume), lba, place);
      if (outcome === OUTCOME.pending) return;
      if (outcome === OUTCOME.ok) this.blocksLost += 1;
    }
    this.phase = "closing";
    store.close(nowMs);
  }

  /** The next check begins when no completion can be taken for one of its own. */
  private prove(): void {
    if (this.phase !== "closing" || !this.isClosed) return;
    if (this.store === null || this.store.operationsInFlight > 0) return;
    this.isClosed = false;
    this.phase = "proving";
    this.store = null;
    this.check = new StoreCheck(this.disk, this.options);
    this.check.settle();
  }

  private end(result: RepairReport | Refusal): void {
    this.phase = "done";
    this.store = null;
    this.result = result;
  }

  storeOpened(result: StoreOpened): void {
    if (result.ok) this.phase = "losing";
    else this.end(refuse(result.code, result.why));
  }

  storeClosed(): void {
    this.isClosed = true;
  }

  storeFailed(why: string): void {
    this.end(refuse("io", why));
  }

  /** The check has found them all already. */
  badBlock(_volume: VolumeId, _lba: number, _why: string): void {}
  logged(): void {}
  synced(): void {}
  readDone(): void {}
  storeWritable(): void {}
}

/** The parts of a store that is open, and how they are put together. */
import type { Disk, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import { Background } from "./background.ts";
import type { Checkpointer } from "./checkpointer.ts";
import { Cleaner } from "./cleaner.ts";
import type { StoreOptions } from "./contract.ts";
import type { DiskOps } from "./disk_ops.ts";
import type { LogWriter } from "./log_writer.ts";
import { PageCache } from "./page_cache.ts";
import type { PageLost } from "./page_loader.ts";
import { type ReadEvents, StoreReader } from "./reader.ts";
import type { LiveStore } from "./recovery.ts";
import { Scrubber } from "./scrubber.ts";
import { SpaceBelow } from "./space_below.ts";
import type { StoreState } from "./state.ts";
import type { TaskIo } from "./task.ts";

const READ_SLOTS_DEFAULT = 64;
/** With pages, writes, a sync, a task and a discard fewer operations than DiskOps has room for. */
const READ_SLOTS_MAX = 128;

export interface Live {
  readonly state: StoreState;
  readonly writer: LogWriter;
  readonly checkpointer: Checkpointer;
  readonly cache: PageCache;
  readonly reader: StoreReader;
  readonly cleaner: Cleaner;
  readonly background: Background;
  readonly below: SpaceBelow;
  readonly scrubber: Scrubber | null;
}

interface Surroundings {
  readonly options: StoreOptions;
  readonly disk: Disk;
  readonly ops: DiskOps;
  readonly io: TaskIo;
  readonly rules: Rules;
  readonly trace: Trace;
  readonly events: ReadEvents;
  readonly pageLost: PageLost;
  saveScrub(bytes: Uint8Array): void;
}

export function assemble(store: LiveStore, around: Surroundings): Live {
  const { state, writer, checkpointer } = store;
  const { options, disk, ops, io, rules, trace, events, saveScrub: save } = around;
  const report = events.badBlock;
  const cache = new PageCache(disk, ops, state, writer, around.pageLost);
  const cleaner = new Cleaner(io, state, writer, cache, rules.verifyReads, report);
  const interval = options.checkpointBytes;
  const background = new Background(state, writer, checkpointer, cleaner, cache, interval);
  const slotCount = Math.min(options.readSlots ?? READ_SLOTS_DEFAULT, READ_SLOTS_MAX);
  const slots = StoreReader.allocate(disk, slotCount);
  const reader = new StoreReader(disk, ops, state, writer, cache, rules, events, slots);
  const below = new SpaceBelow(disk, ops, trace, state, background);
  const scrubParts = { disk, ops, state, writer, checkpointer, cache, trace, report, save };
  const scrubber = Scrubber.of(scrubParts, options);
  return { state, writer, checkpointer, cache, reader, cleaner, background, below, scrubber };
}

/** The log-structured block store. */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import type { Disk, Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Lsn, Point, Seq, VolumeId } from "../base/units.ts";
import type { RecordHeader } from "../format/record.ts";
import type { RegionTag, StoreIdentity, StoreOptions, StoreSink, StoreStats } from "./contract.ts";

export class Store {
  lastBuffer: Uint8Array = new Uint8Array(0);
  lastAt = 0;
  lastLength = 0;
  lastLsn: Lsn = 0;
  loggedLsn: Lsn = 0;
  durableLsn: Lsn = 0;
  streamEpoch: Epoch = 0;
  readonly options: StoreOptions;
  readonly disk: Disk;
  readonly sink: StoreSink;
  readonly trace: Trace;
  readonly rules: Rules;
  constructor(options: StoreOptions, disk: Disk, sink: StoreSink, trace: Trace, rules: Rules) {
    this.options = options;
    this.disk = disk;
    this.sink = sink;
    this.trace = trace;
    this.rules = rules;
  }
  format(_nowMs: number, _identity: StoreIdentity): void {}
  open(_nowMs: number, _expected: { clusterId: number; hostId: HostId }): void {}
  close(_nowMs: number): void {}
  admit(_bytes: number): Outcome {
    return OUTCOME.ok;
  }
  appendWrite(_header: RecordHeader, _data: Uint8Array, _dataAt: number): void {}
  appendRecord(_header: RecordHeader, _buffer: Uint8Array, _at: number, _length: number): void {}
  appendEmpty(_header: RecordHeader): void {}
  putMeta(_slot: number, _bytes: Uint8Array): void {}
  getMeta(_slot: number): Uint8Array | null {
    return null;
  }
  read(
    _token: number,
    _volume: VolumeId,
    _lba: number,
    _blockCount: number,
    _out: Uint8Array,
    _outAt: number,
  ): Outcome {
    return OUTCOME.ok;
  }
  extents(
    _volume: VolumeId,
    _lba: number,
    _blockCount: number,
    _visit: (blockCount: number, isData: boolean) => void,
  ): void {}
  /** Where the block lies (0 a hole, 1 lost): compare before and after to see it change. */
  placeOf(_volume: VolumeId, _lba: number): number {
    return 0;
  }
  heal(
    _volume: VolumeId,
    _lba: number,
    _place: number,
    _data: Uint8Array,
    _dataAt: number,
  ): Outcome {
    return OUTCOME.ok;
  }
  sync(_token: number): void {}
  nextRegion(_volume: VolumeId, _from: number): number {
    return -1;
  }
  regionTag(_volume: VolumeId, _region: number, _out: RegionTag): void {}
  setRegionTag(_volume: VolumeId, _region: number, _epoch: Epoch, _point: Point): void {}
  streamSeq(_sender: HostId): Seq {
    return 0;
  }
  volumeUsedBytes(_volume: VolumeId): number {
    return 0;
  }
  stats(): StoreStats {
    return {
      sizeBytes: 0,
      usedBytes: 0,
      segmentsFree: 0,
      segmentsTotal: 0,
      writeAmplification: 1,
      badBlocks: 0,
      healedBlocks: 0,
      bytesWritten: 0,
      recordBytes: 0,
      checkpoints: 0,
      segmentsCleaned: 0,
      syncs: 0,
    };
  }
  settle(_nowMs: number): void {}
  diskDone(_nowMs: number, _tag: number, _result: number): void {}
  expire(_nowMs: number): void {}
  nextDeadlineMs(): number {
    return Number.POSITIVE_INFINITY;
  }
}

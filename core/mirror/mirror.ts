/** The mirror engine: streams of records between the hosts of a view (R2, R5, R6, R8, R16). */
import { assert } from "../base/assert.ts";
import type { Trace } from "../base/ports.ts";
import type { Rules } from "../base/rules.ts";
import type { Epoch, HostId, Lsn, Seq } from "../base/units.ts";
import type { MirrorMessage } from "../format/mirror_wire.ts";
import type { RecordHeader } from "../format/record.ts";
import {
  MirrorCounters,
  type MirrorOptions,
  type MirrorPorts,
  type MirrorSink,
  type MirrorStatus,
  type MulticastKey,
  type StreamPosition,
} from "./mirror_sink.ts";

export class Mirror {
  readonly counters = new MirrorCounters();
  constructor(
    options: MirrorOptions,
    ports: MirrorPorts,
    sink: MirrorSink,
    trace: Trace,
    rules: Rules,
  ) {
    assert(options !== undefined && ports !== undefined, "mirror: options missing");
    assert(
      sink !== undefined && trace !== undefined && rules !== undefined,
      "mirror: parts missing",
    );
  }
  seal(): void {}
  begin(
    _nowMs: number,
    _epoch: Epoch,
    _recipients: readonly HostId[],
    _members: readonly HostId[],
    _multicastKeys: readonly MulticastKey[],
  ): void {}
  learnKey(_host: HostId, _key: Uint8Array): void {}
  opened(_nowMs: number): void {}
  get vectorEpoch(): Epoch {
    return 0;
  }
  vector(): StreamPosition[] {
    return [];
  }
  resend(_nowMs: number, _to: HostId, _sender: HostId, _fromSeq: Seq, _toSeq: Seq): void {}
  windowFree(_recordBytes: number): boolean {
    return false;
  }
  nextSeq(): Seq {
    return 1;
  }
  sent(
    _header: RecordHeader,
    _buffer: Uint8Array,
    _at: number,
    _length: number,
    _lsn: Lsn,
    _viaShared: boolean,
  ): void {}
  retryHeld(_nowMs: number): void {}
  logged(_nowMs: number, _lsn: Lsn): void {}
  durable(_nowMs: number, _lsn: Lsn): void {}
  barrier(_nowMs: number, _token: number): void {}
  takeBarriers(): number[] {
    return [];
  }
  syncDone(_nowMs: number, _token: number, _ok: boolean): void {}
  peerUp(_nowMs: number, _peer: HostId): void {}
  peerDown(_nowMs: number, _peer: HostId): void {}
  peerData(_nowMs: number, _peer: HostId, _chunk: Uint8Array): void {}
  peerDrain(_nowMs: number, _peer: HostId): void {}
  packet(_nowMs: number, _chunk: Uint8Array): void {}
  control(_nowMs: number, _from: HostId, _message: MirrorMessage): void {}
  sendBulk(_nowMs: number, _to: HostId, _bytes: Uint8Array): boolean {
    return false;
  }
  committedOf(_sender: HostId): Seq {
    return 0;
  }
  appendedOf(_sender: HostId): Seq {
    return 0;
  }
  owing(_nowMs: number, _boundMs: number): HostId | null {
    return null;
  }
  settle(_nowMs: number): void {}
  expire(_nowMs: number): void {}
  nextDeadlineMs(): number {
    return Infinity;
  }
  status(): MirrorStatus {
    return {
      epoch: 0,
      sealed: false,
      open: false,
      appended: 0,
      committed: 0,
      windowBytes: 0,
      windowRecords: 0,
      heldBytes: 0,
      retainedBytes: 0,
      peers: [],
      counters: this.counters,
    };
  }
}

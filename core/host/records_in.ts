/**
 * Records of other members' streams (R6, receiver): checked against the lease table, appended
 * verbatim, noted as uncommitted. And reconciled records (R5), which the sealed epoch owed us.
 */
import { OUTCOME } from "../base/outcome.ts";
import { volumeId, type HostId } from "../base/units.ts";
import { RECORD_TYPE, type RecordHeader } from "../format/record.ts";
import { CHECK } from "../lease/policing.ts";
import { RECEIVE, type Receive } from "../mirror/mirror_sink.ts";
import type { AdmitClass } from "../store/contract.ts";
import type { Store } from "../store/store.ts";
import type { CopyTarget } from "./copy_target.ts";
import type { Parts } from "./parts.ts";

export class RecordsIn {
  private readonly parts: Parts;
  private readonly target: CopyTarget;
  private readonly marked: (sender: HostId, point: number) => void;
  /** End in the log of the record appended last. */
  appendedLsn = 0;

  constructor(parts: Parts, target: CopyTarget, marked: (sender: HostId, point: number) => void) {
    this.parts = parts;
    this.target = target;
    this.marked = marked;
  }

  record(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): Receive {
    const { store, policing, volumes } = this.parts;
    // Without a store nothing is ever acknowledged; the view will go on without us.
    if (store === null) return RECEIVE.full;
    const volume = volumeId(header.volume);
    if (header.type !== RECORD_TYPE.mark) {
      const known = volumes.get(volume);
      if (known === undefined || !isStream(header.type)) return RECEIVE.refuse;
      const end = header.lba + header.blockCount;
      if (end * 4096 > known.sizeBytes) return RECEIVE.refuse;
      const check = policing.check(sender, volume, header.lba, end, header.grant);
      if (check === CHECK.behind) return RECEIVE.hold;
      if (check === CHECK.refuse) return RECEIVE.refuse;
    }
    if (!hasRoom(store, header, length)) return RECEIVE.full;
    this.append(sender, header, buffer, at, length);
    return RECEIVE.appended;
  }

  reconciled(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): boolean {
    const { store } = this.parts;
    if (store === null || !hasRoom(store, header, length)) return false;
    this.append(sender, header, buffer, at, length);
    return true;
  }

  private append(
    sender: HostId,
    header: RecordHeader,
    buffer: Uint8Array,
    at: number,
    length: number,
  ): void {
    const { store, uncommitted, recent } = this.parts;
    if (store === null) return;
    store.appendRecord(header, buffer, at, length);
    this.appendedLsn = store.lastLsn;
    uncommitted[sender]!.push(header.seq, header.volume, header.lba, header.blockCount);
    if (header.type === RECORD_TYPE.mark) {
      this.marked(sender, header.tagPoint);
      return;
    }
    recent.note(header.origin, header.originInc, header.request);
    if (this.target.isActive) {
      this.target.live.mark(header.volume, header.lba, header.blockCount);
    }
  }
}

/** What carries no data gives space back, and goes on in a store that is full. */
function classOf(type: number): AdmitClass {
  return type === RECORD_TYPE.write ? "mirror" : "reserve";
}

function isStream(type: number): boolean {
  return type === RECORD_TYPE.write || type === RECORD_TYPE.zero;
}

function hasRoom(store: Store, header: RecordHeader, length: number): boolean {
  if (header.type !== RECORD_TYPE.mark) {
    const volume = volumeId(header.volume);
    if (store.prepare(volume, header.lba, header.blockCount) !== OUTCOME.ok) return false;
  }
  return store.admit(length, classOf(header.type)) === OUTCOME.ok;
}

/**
 * Resync, the member's side (R11): sends a joining host every region from its cursor on, whole,
 * with holes and tags, committed values only, in order, as far as the joiner's credits go. The
 * values are had by ordinary reads (reads.ts), so they are committed by construction.
 */
import { OUTCOME, type Outcome } from "../base/outcome.ts";
import {
  BLOCK_BYTES,
  type Epoch,
  type HostId,
  REGION_BLOCKS,
  type VolumeId,
  volumeId,
} from "../base/units.ts";
import { BULK, COPY } from "../format/host_wire.ts";
import { viewOf } from "../format/layout.ts";
import { COMMAND } from "../format/nbd.ts";
import type { Store } from "../store/store.ts";
import type { Op } from "./op.ts";
import type { Parts } from "./parts.ts";

/** Blocks in one copy frame: 256 KiB, so that live records are never long behind one. */
const FRAME_BLOCKS = 64;
/** Regions sent per turn and joiner: bounds the time one turn takes. */
const REGIONS_PER_TURN = 2;

interface Run {
  readonly lba: number;
  readonly blockCount: number;
  readonly isData: boolean;
}

interface Session {
  readonly joiner: HostId;
  readonly session: number;
  readonly epoch: Epoch;
  volumeIndex: number;
  /** Next region to send. */
  region: number;
  credits: number;
  /** What is left of the region at hand; null between regions. */
  runs: Run[] | null;
  isReading: boolean;
  /** A frame that found the data lane full. */
  unsent: Uint8Array | null;
  isDone: boolean;
}

export class CopySource {
  private readonly parts: Parts;
  private readonly isLost: (volume: VolumeId, lba: number) => boolean;
  private readonly sessions = new Map<HostId, Session>();
  private readonly tag = { epoch: 0, point: 0 };

  /** `isLost`: the block is bad here, and no member has a good copy. */
  constructor(parts: Parts, isLost: (volume: VolumeId, lba: number) => boolean) {
    this.parts = parts;
    this.isLost = isLost;
  }

  /** A joiner asks for everything from (volume, region) on; replaces its former session. */
  begin(
    joiner: HostId,
    ask: { session: number; epoch: Epoch; volume: number; region: number; credits: number },
  ): boolean {
    if (!this.parts.serving || ask.epoch !== this.parts.epoch) return false;
    const volumeIndex = this.parts.options.volumes.findIndex((each) => each.id === ask.volume);
    if (volumeIndex < 0) return false;
    this.sessions.set(joiner, {
      joiner,
      session: ask.session,
      epoch: ask.epoch,
      volumeIndex,
      region: ask.region,
      credits: ask.credits,
      runs: null,
      isReading: false,
      unsent: null,
      isDone: false,
    });
    return true;
  }

  credit(joiner: HostId, session: number, credits: number): void {
    const found = this.sessions.get(joiner);
    if (found !== undefined && found.session === session) found.credits += credits;
  }

  end(joiner: HostId): void {
    this.sessions.delete(joiner);
  }

  /** The view changed: joiners ask anew. */
  endAll(): void {
    this.sessions.clear();
  }

  /** Sends what credits and the data lanes allow. */
  pump(): void {
    for (const session of this.sessions.values()) {
      for (let turn = 0; turn < REGIONS_PER_TURN; turn += 1) {
        if (!this.advance(session)) break;
      }
    }
  }

  /** Goes on with one region; true if it was finished. */
  private advance(session: Session): boolean {
    if (session.isReading || session.isDone) return false;
    if (session.unsent !== null && !this.flush(session)) return false;
    if (session.runs === null && !this.nextRegion(session)) return false;
    const runs = session.runs;
    if (runs === null) return false;
    while (runs.length > 0) {
      const run = runs[0]!;
      if (run.isData) {
        const count = Math.min(run.blockCount, FRAME_BLOCKS);
        const rest = run.blockCount - count;
        if (rest === 0) runs.shift();
        else runs[0] = { lba: run.lba + count, blockCount: rest, isData: true };
        if (!this.readFrame(session, run.lba, count)) return false;
      } else {
        runs.shift();
        if (!this.send(session, this.frame(session, BULK.copyHole, run.lba, run.blockCount))) {
          return false;
        }
      }
    }
    return this.finishRegion(session);
  }

  private finishRegion(session: Session): boolean {
    const { volumes } = this.parts.options;
    session.runs = null;
    session.region += 1;
    session.credits -= 1;
    const regions = Math.ceil(volumes[session.volumeIndex]!.sizeBytes / regionBytes);
    const isVolumeDone = session.region >= regions;
    const isLast = isVolumeDone && session.volumeIndex === volumes.length - 1;
    const lba = session.region * REGION_BLOCKS;
    const frame = this.frame(session, BULK.copyRegion, lba, 0);
    COPY.last.set(viewOf(frame), 0, isLast ? 1 : 0);
    if (isVolumeDone) {
      session.volumeIndex += 1;
      session.region = 0;
    }
    session.isDone = isLast;
    return this.send(session, frame);
  }

  /** Chooses the next region with data or tag; what lies between is one hole. */
  private nextRegion(session: Session): boolean {
    const store = this.parts.store;
    if (session.credits <= 0 || store === null) return false;
    const volume = this.parts.options.volumes[session.volumeIndex]!;
    const regions = Math.ceil(volume.sizeBytes / regionBytes);
    const following = store.nextRegion(volume.id, session.region);
    const next = following < 0 ? regions - 1 : following;
    const blocks = volume.sizeBytes / BLOCK_BYTES;
    const end = next * REGION_BLOCKS;
    const found = this.runsOf(store, volume.id, end, Math.min(REGION_BLOCKS, blocks - end));
    if (found === null) return false;
    session.runs = [];
    // At most 2^31 blocks a hole, so that counts fit the frame and the record.
    let lba = session.region * REGION_BLOCKS;
    while (lba < end) {
      const count = Math.min(end - lba, 2 ** 31);
      session.runs.push({ lba, blockCount: count, isData: false });
      lba += count;
    }
    session.region = next;
    session.runs.push(...found);
    return true;
  }

  /** Data and holes of a region; null while its page of the index is on its way into memory. */
  private runsOf(store: Store, volume: VolumeId, lba: number, blockCount: number): Run[] | null {
    const runs: Run[] = [];
    let at = lba;
    const told = store.extents(volume, lba, blockCount, (count, isData) => {
      runs.push({ lba: at, blockCount: count, isData });
      at += count;
    });
    return told === blockCount ? runs : null;
  }

  private readFrame(session: Session, lba: number, blockCount: number): boolean {
    const op = this.parts.ops.take();
    if (op === null) {
      session.runs?.unshift({ lba, blockCount, isData: true });
      return false;
    }
    op.command = COMMAND.read;
    op.localOnly = true;
    op.volume = this.parts.options.volumes[session.volumeIndex]!.id;
    op.offset = lba * BLOCK_BYTES;
    op.lengthBytes = blockCount * BLOCK_BYTES;
    op.span();
    let isSent = true;
    session.isReading = true;
    op.internal = (done, outcome) => {
      session.isReading = false;
      isSent = this.frameRead(session, done, outcome);
    };
    this.parts.dispatch(op);
    return isSent && !session.isReading;
  }

  private frameRead(session: Session, op: Op, outcome: Outcome): boolean {
    if (this.sessions.get(session.joiner) !== session) return false;
    const blockCount = op.endLba - op.startLba;
    if (outcome !== OUTCOME.ok) {
      return this.withoutCopy(session, outcome, op.startLba, blockCount);
    }
    const frame = this.frame(session, BULK.copy, op.startLba, blockCount);
    const bytes = blockCount * BLOCK_BYTES;
    frame.set(op.buffer.subarray(op.bufferAt, op.bufferAt + bytes), COPY.sizeBytes);
    return this.send(session, frame);
  }

  /**
   * The blocks, or one of them, cannot be read here. True if they were dealt with. As long as some
   * member may have a good copy the session ends: our healer asks for it, and so does the joiner.
   */
  private withoutCopy(
    session: Session,
    outcome: Outcome,
    lba: number,
    blockCount: number,
  ): boolean {
    if (blockCount > 1) {
      for (let each = lba + blockCount - 1; each >= lba; each -= 1) {
        session.runs?.unshift({ lba: each, blockCount: 1, isData: true });
      }
      return true;
    }
    const volume = this.parts.options.volumes[session.volumeIndex]!;
    if (outcome === OUTCOME.io && this.isLost(volume.id, lba)) {
      return this.send(session, this.frame(session, BULK.copyLost, lba, 1));
    }
    this.sessions.delete(session.joiner);
    return false;
  }

  private frame(session: Session, kind: number, lba: number, blockCount: number): Uint8Array {
    const volume = this.parts.options.volumes[session.volumeIndex]!;
    const dataBytes = kind === BULK.copy ? blockCount * BLOCK_BYTES : 0;
    const frame = new Uint8Array(COPY.sizeBytes + dataBytes);
    const view = viewOf(frame);
    const region = Math.floor(lba / REGION_BLOCKS) - (kind === BULK.copyRegion ? 1 : 0);
    this.tag.epoch = 0;
    this.tag.point = 0;
    this.parts.store?.regionTag(volumeId(volume.id), Math.max(0, region), this.tag);
    COPY.kind.set(view, 0, kind);
    COPY.session.set(view, 0, session.session);
    COPY.volume.set(view, 0, volume.id);
    COPY.blockCount.set(view, 0, blockCount);
    COPY.lba.set(view, 0, lba);
    COPY.tagEpoch.set(view, 0, this.tag.epoch);
    COPY.tagPoint.set(view, 0, this.tag.point);
    return frame;
  }

  private send(session: Session, frame: Uint8Array): boolean {
    session.unsent = frame;
    return this.flush(session);
  }

  private flush(session: Session): boolean {
    const { mirror, nowMs } = this.parts;
    if (session.unsent === null) return true;
    if (!mirror.sendBulk(nowMs, session.joiner, session.unsent)) return false;
    session.unsent = null;
    return true;
  }
}

const regionBytes = REGION_BLOCKS * BLOCK_BYTES;

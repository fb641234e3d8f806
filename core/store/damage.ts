/** What was found damaged: a bounded list for people, and a count that is always right. */

export type DamageKind =
  /** A copy of the superblock. */
  | "superblock"
  /** A copy of the root of a checkpoint. */
  | "root"
  /** A node of the index: 256 regions. */
  | "node"
  /** A page of the index: 512 blocks. */
  | "page"
  /** A segment of which another number of blocks is live than the store has counted. */
  | "segment"
  /** A batch of the log: its header or directory. */
  | "batch"
  /** A record of the log whose header is gone. */
  | "record"
  /** A block of data. */
  | "block";

export interface DamageRow {
  readonly kind: DamageKind;
  /** Volume concerned, 0 = none or unknown. */
  readonly volume: number;
  readonly lba: number;
  /** Blocks concerned. */
  readonly count: number;
  readonly segment: number;
  readonly why: string;
}

const ROWS_MAX = 10_000;

export class Damage {
  readonly rows: DamageRow[] = [];
  /** All that was found, listed or not. */
  count = 0;
  /** Of them blocks of data. */
  blockCount = 0;
  /** Records of which nobody can say any more what they were. */
  lostRecords = 0;

  add(
    kind: DamageKind,
    volume: number,
    lba: number,
    count: number,
    segment: number,
    why: string,
  ): void {
    this.count += 1;
    if (kind === "block") this.blockCount += 1;
    if (this.rows.length < ROWS_MAX) this.rows.push({ kind, volume, lba, count, segment, why });
  }
}

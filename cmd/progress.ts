/**
 * Progress of a resync or a check on stderr: one line redrawn in place on a terminal, otherwise a
 * line per ten per cent, so that a log of it stays short.
 */
import { humanBytes, humanSeconds } from "./quantity.ts";

const BAR_COLUMNS = 30;

/** `[#####.....]  50 %`; `share` is clamped to 0..1. */
export function barText(share: number, columns: number): string {
  const clamped = Number.isFinite(share) ? Math.min(1, Math.max(0, share)) : 0;
  const filled = Math.floor(clamped * columns);
  const percent = String(Math.floor(clamped * 100)).padStart(3);
  return `[${"#".repeat(filled)}${".".repeat(columns - filled)}] ${percent} %`;
}

/** How far it is. */
export interface ProgressEntry {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
  readonly etaSeconds: number;
}

export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

export class Progress {
  private readonly stream: ProgressStream;
  private shownTenth = -1;
  private shownNote = "";
  private drawn = false;

  constructor(stream: ProgressStream) {
    this.stream = stream;
  }

  /** Shows how far the copy is. */
  show(entry: ProgressEntry): void {
    const share = entry.totalBytes === 0 ? 1 : entry.doneBytes / entry.totalBytes;
    const line =
      `${barText(share, BAR_COLUMNS)}  ` +
      `${humanBytes(entry.doneBytes)} of ${humanBytes(entry.totalBytes)}  ` +
      `${humanBytes(entry.bytesPerSecond)}/s  ${humanSeconds(entry.etaSeconds)} left`;
    if (this.stream.isTTY === true) {
      this.stream.write(`\r\u001b[K${line}`);
      this.drawn = true;
      return;
    }
    const tenth = Math.floor(share * 10);
    if (tenth === this.shownTenth) return;
    this.shownTenth = tenth;
    this.stream.write(`${line}\n`);
  }

  /** Says what is waited for; the same note is said once. */
  note(text: string): void {
    if (text === this.shownNote) return;
    this.finish();
    this.shownNote = text;
    this.stream.write(`${text}\n`);
  }

  /** Ends a line that was redrawn in place. */
  finish(): void {
    if (this.drawn) this.stream.write("\n");
    this.drawn = false;
  }
}

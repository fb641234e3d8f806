/**
 * R13: the line of opened views that a host remembers, and whether another host stands on it.
 *
 * Each entry says with which union (`cut`) of which earlier epoch (`from`) its view opened: what
 * of `from` is beyond the cut never happened, and nothing of an epoch between `from` and the
 * entry was ever committed. So a host is *behind* if what it knows committed lies within the
 * first entry after its own epoch; if it lies beyond, the two hold different disks.
 */
import type { Epoch } from "../base/units.ts";
import { LINE_MAX, type Position, type ViewRecord } from "../format/membership_wire.ts";

/** Where a host stands: its newest epoch, that view's id (0 = unknown), what is committed there. */
export interface Stand {
  readonly newestOpen: Epoch;
  readonly newestId: number;
  readonly committed: readonly Position[];
  /** Newest forced view in its history; 0 = none. */
  readonly forced: Epoch;
}

/** `unknown`: the line is too short to tell; without forced views that means behind or ahead. */
export type Verdict = "same" | "behind" | "diverged" | "unknown";

/** Judges `theirs` against the line of one who may be ahead of it. */
export function judge(theirs: Stand, line: readonly ViewRecord[]): Verdict {
  if (!knowsForced(theirs.forced, line)) return "diverged";
  if (theirs.newestOpen === 0) return "behind";
  let own: ViewRecord | null = null;
  let child: ViewRecord | null = null;
  for (const record of line) {
    if (record.epoch === theirs.newestOpen) own = record;
    if (record.epoch > theirs.newestOpen && child === null) child = record;
  }
  if (own !== null && theirs.newestId !== 0 && own.id !== theirs.newestId) return "diverged";
  if (child === null) return own === null ? "unknown" : "same";
  if (child.from > theirs.newestOpen) return "unknown";
  const cut = child.from === theirs.newestOpen ? child.cut : [];
  for (const position of theirs.committed) {
    if (position.seq > seqIn(cut, position.sender)) return "diverged";
  }
  return "behind";
}

/** The line with `record` at its end, kept within its bound. */
export function extend(line: readonly ViewRecord[], record: ViewRecord): ViewRecord[] {
  const kept = line.filter((entry) => entry.epoch < record.epoch);
  kept.push(record);
  return kept.slice(-LINE_MAX);
}

/** The newest forced view of a line; 0 = none. */
export function newestForced(line: readonly ViewRecord[]): Epoch {
  let newest = 0;
  for (const record of line) if (record.forced) newest = record.epoch;
  return newest;
}

/** The sequence number of `sender` in a vector; 0 if it is not there. */
export function seqIn(vector: readonly Position[], sender: number): number {
  for (const position of vector) if (position.sender === sender) return position.seq;
  return 0;
}

function knowsForced(forced: Epoch, line: readonly ViewRecord[]): boolean {
  if (forced === 0) return true;
  const oldest = line[0];
  if (line.length === LINE_MAX && oldest !== undefined && oldest.epoch > forced) return true;
  return line.some((record) => record.forced && record.epoch === forced);
}

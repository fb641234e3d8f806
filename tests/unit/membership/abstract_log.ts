/**
 * A log without bytes: per epoch and sender how many records of that stream it has, which is all
 * that the rules about views can see of it.
 */
import { LIMITS } from "../../../core/base/limits.ts";
import type { Epoch } from "../../../core/base/units.ts";
import type { Position, ViewRecord } from "../../../core/format/membership_wire.ts";

export class AbstractLog {
  readonly epochs = new Map<Epoch, number[]>();
  line: ViewRecord[] = [];

  clone(): AbstractLog {
    const copy = new AbstractLog();
    for (const [epoch, counts] of this.epochs) copy.epochs.set(epoch, [...counts]);
    copy.line = this.line;
    return copy;
  }

  count(epoch: Epoch, sender: number): number {
    return this.epochs.get(epoch)?.[sender] ?? 0;
  }

  /** Raises (never lowers) the count of one stream. */
  reach(epoch: Epoch, sender: number, count: number): void {
    let counts = this.epochs.get(epoch);
    if (counts === undefined) {
      counts = new Array<number>(LIMITS.hostCountMax).fill(0);
      this.epochs.set(epoch, counts);
    }
    if (counts[sender]! < count) counts[sender] = count;
  }

  /** What of `from` is beyond `cut`, and everything of epochs between it and `below`, goes. */
  trim(from: Epoch, cut: readonly Position[], below: Epoch): void {
    for (const [epoch, counts] of this.epochs) {
      if (epoch > from && epoch < below) this.epochs.delete(epoch);
      if (epoch !== from) continue;
      for (let sender = 0; sender < counts.length; sender += 1) {
        const bound = cut.find((position) => position.sender === sender)?.seq ?? 0;
        counts[sender] = Math.min(counts[sender]!, bound);
      }
    }
  }

  /** Newest epoch of which there is a record or an opened view. */
  newest(): Epoch {
    let newest = this.line.at(-1)?.epoch ?? 0;
    for (const [epoch, counts] of this.epochs) {
      if (epoch > newest && counts.some((count) => count > 0)) newest = epoch;
    }
    return newest;
  }

  /** The first stream in which this log has less than `other` below `epoch`, or null. */
  lacks(other: AbstractLog, epoch: Epoch): string | null {
    for (const [at, counts] of other.epochs) {
      if (at >= epoch) continue;
      for (let sender = 0; sender < counts.length; sender += 1) {
        if (this.count(at, sender) < counts[sender]!) {
          return `epoch ${at} sender ${sender}: ${this.count(at, sender)} of ${counts[sender]}`;
        }
      }
    }
    return null;
  }

  /** Everything below `epoch` as text, for comparing two logs. */
  below(epoch: Epoch): string {
    const parts: string[] = [];
    for (const [at, counts] of this.epochs) {
      if (at < epoch && counts.some((count) => count > 0)) parts.push(`${at}:${counts.join(",")}`);
    }
    return parts.sort().join(" ");
  }

  /** A power cut: every stream keeps something between what is durable and what was written. */
  tear(durable: AbstractLog, fraction: () => number): AbstractLog {
    const left = durable.clone();
    for (const [epoch, counts] of this.epochs) {
      for (let sender = 0; sender < counts.length; sender += 1) {
        const safe = durable.count(epoch, sender);
        const kept = safe + Math.floor((counts[sender]! - safe + 1) * fraction());
        if (kept > 0) left.reach(epoch, sender, Math.min(kept, counts[sender]!));
      }
    }
    return left;
  }
}

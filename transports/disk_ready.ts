/** Results of operations that needed no waiting, kept until the loop delivers them. */
import type { DiskEvents } from "./disk_file.ts";

export class ReadyQueue {
  private tags: number[] = [];
  private results: number[] = [];
  private otherTags: number[] = [];
  private otherResults: number[] = [];

  push(tag: number, result: number): void {
    this.tags.push(tag);
    this.results.push(result);
  }

  /** Delivers what is there now (not what that causes); its count. No `batch` call. */
  drain(events: DiskEvents): number {
    const { tags, results } = this;
    const count = tags.length;
    if (count === 0) return 0;
    this.tags = this.otherTags;
    this.results = this.otherResults;
    for (let index = 0; index < count; index += 1) events.done(tags[index]!, results[index]!);
    tags.length = 0;
    results.length = 0;
    this.otherTags = tags;
    this.otherResults = results;
    return count;
  }
}

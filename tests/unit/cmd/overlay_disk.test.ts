/** The overlay: reads see what was written, and the disk below is never written. */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import type { Disk } from "../../../core/base/ports.ts";
import { OverlayDisk } from "../../../cmd/overlay_disk.ts";

const SIZE = 64 * 4096;

/** Memory as a disk; any write to it is a failure of the test. */
class MemoryDisk implements Disk {
  readonly sizeBytes = SIZE;
  readonly sectorBytes = 512;
  readonly bytes: Uint8Array;
  readonly started: { tag: number; length: number }[] = [];

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  allocate(lengthBytes: number): Uint8Array {
    return new Uint8Array(lengthBytes);
  }

  readNow(offset: number, buffer: Uint8Array, at: number, length: number): number {
    buffer.set(this.bytes.subarray(offset, offset + length), at);
    return length;
  }

  read(tag: number, offset: number, buffer: Uint8Array, at: number, length: number): void {
    this.readNow(offset, buffer, at, length);
    this.started.push({ tag, length });
  }

  write(): void {
    throw new Error("the disk below was written");
  }

  sync(): void {
    throw new Error("the disk below was synced");
  }

  discard(): void {
    throw new Error("the disk below was discarded");
  }
}

test("random reads and writes agree with memory, and nothing reaches the disk below", () => {
  const random = new SeededRandom(7);
  const original = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; at++) original[at] = random.below(256);
  const below = new MemoryDisk(original.slice());
  const model = original.slice();
  const completions: [number, number][] = [];
  const overlay = new OverlayDisk(below, (tag, result) => completions.push([tag, result]));
  for (let round = 0; round < 500; round++) {
    const length = 512 * (1 + random.below(40));
    const offset = 512 * random.below((SIZE - length) / 512);
    const buffer = new Uint8Array(length + 64);
    const action = random.below(4);
    if (action < 2) {
      for (let at = 0; at < length; at++) buffer[64 + at] = random.below(256);
      overlay.write(round, offset, buffer, 64, length);
      model.set(buffer.subarray(64), offset);
      expect(completions.pop()).toEqual([round, length]);
    } else if (action === 2) {
      expect(overlay.readNow(offset, buffer, 64, length)).toBe(length);
      expect(buffer.subarray(64)).toEqual(model.subarray(offset, offset + length));
    } else {
      overlay.read(round, offset, buffer, 64, length);
      const started = below.started.pop() as { tag: number; length: number };
      overlay.readDone(started.tag, started.length);
      expect(buffer.subarray(64)).toEqual(model.subarray(offset, offset + length));
    }
  }
  overlay.sync(1);
  overlay.discard(2, 0, 4096);
  expect(completions).toEqual([
    [1, 0],
    [2, 0],
  ]);
  expect(below.bytes).toEqual(original);
});

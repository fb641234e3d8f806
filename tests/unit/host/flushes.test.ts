/** A write whose durability a view change interrupts begins again at its first record (R15). */
import { expect, test } from "bun:test";
import { BLOCK_BYTES, volumeId } from "../../../core/base/units.ts";
import { COMMAND } from "../../../core/format/nbd.ts";
import { Flushes } from "../../../core/host/flushes.ts";
import { OpTable } from "../../../core/host/op.ts";
import type { Parts } from "../../../core/host/parts.ts";
import { nextPiece, Piece } from "../../../core/host/pieces.ts";

test("its records keep their numbers: none is executed twice under another", () => {
  const ops = new OpTable();
  const op = ops.take()!;
  op.command = COMMAND.write;
  op.volume = volumeId(1);
  op.offset = 510 * BLOCK_BYTES;
  op.lengthBytes = 4 * BLOCK_BYTES;
  op.requestBase = 100;
  op.span();
  const dispatched: (typeof op)[] = [];
  const mirror = { barrier: () => {}, takeBarriers: () => [] };
  const parts = { mirror, nowMs: 0, dispatch: (each: typeof op) => dispatched.push(each) };
  const flushes = new Flushes(parts as unknown as Parts);
  // Both records were appended here, then a barrier was asked for.
  const piece = new Piece();
  const numbers = (): [number, number][] => {
    const all: [number, number][] = [];
    while (op.cursorLba < op.endLba) {
      nextPiece(op, piece);
      all.push([op.requestBase + op.pieces, piece.lba]);
      op.cursorLba += piece.blockCount;
      op.pieces += 1;
    }
    return all;
  };
  const first = numbers();
  expect(first).toEqual([
    [100, 510],
    [101, 512],
  ]);
  op.sentBytes = 2 * BLOCK_BYTES;
  flushes.start(op);
  flushes.restart();
  expect(dispatched).toEqual([op]);
  expect(op.retry).toBe(true);
  expect(op.sentBytes).toBe(0);
  expect(numbers()).toEqual(first);
  ops.free(op);
  expect(ops.take()!.wasRewound).toBe(false);
});

/**
 * FLUSH by what is known or by a barrier (R8); a write whose durability a view change interrupts
 * begins again at its first record (R15).
 */
import { describe, expect, test } from "bun:test";
import { FlushForecast } from "../../../core/base/flush_forecast.ts";
import { OUTCOME, type Outcome } from "../../../core/base/outcome.ts";
import { BLOCK_BYTES, volumeId } from "../../../core/base/units.ts";
import { COMMAND } from "../../../core/format/nbd.ts";
import { Flushes } from "../../../core/host/flushes.ts";
import { type Op, OpTable } from "../../../core/host/op.ts";
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

describe("a FLUSH", () => {
  function rig(flushSeq: number | null, mayRead = true) {
    const ops = new OpTable();
    const answered: Outcome[] = [];
    const barriers: number[] = [];
    const known = { flushSeq, mayRead };
    const parts = {
      nowMs: 0,
      forecast: new FlushForecast(),
      membership: { mayRead: () => known.mayRead },
      mirror: {
        flushSeq: () => known.flushSeq,
        barrier: (_nowMs: number, token: number) => barriers.push(token),
        takeBarriers: () => [],
      },
      finish: (_op: Op, outcome: Outcome) => answered.push(outcome),
      dispatch: () => {},
    };
    const flushes = new Flushes(parts as unknown as Parts);
    const start = (): Op => {
      const op = ops.take()!;
      op.command = COMMAND.flush;
      flushes.start(op);
      return op;
    };
    return { flushes, start, known, answered, barriers };
  }

  test("is answered at once when all is known durable everywhere", () => {
    const { start, answered, barriers } = rig(0);
    start();
    expect(answered).toEqual([OUTCOME.ok]);
    expect(barriers).toEqual([]);
  });

  test("follows the syncs of the own stream when they run", () => {
    const { flushes, start, answered, known } = rig(7);
    start();
    known.flushSeq = 9;
    start();
    flushes.durable(6);
    expect(answered.length).toBe(0);
    flushes.durable(8);
    expect(answered.length).toBe(1);
    flushes.durable(9);
    expect(answered.length).toBe(2);
  });

  test("takes a barrier where more is to be made durable than the own stream", () => {
    const { flushes, start, answered, barriers } = rig(null);
    const op = start();
    expect(barriers).toEqual([op.index]);
    flushes.done(op, true);
    expect(answered).toEqual([OUTCOME.ok]);
  });

  test("takes a barrier without read grants: a newer view may have written (R7)", () => {
    const { start, barriers } = rig(0, false);
    const op = start();
    expect(barriers).toEqual([op.index]);
  });

  test("takes a barrier when the grants ran out while it waited", () => {
    const { flushes, start, answered, barriers, known } = rig(7);
    const op = start();
    known.mayRead = false;
    flushes.durable(7);
    expect(answered).toEqual([]);
    expect(barriers).toEqual([op.index]);
  });
});

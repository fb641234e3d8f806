/**
 * How a request is cut into records. The cut depends on the request's bytes alone, never on who
 * executes it or when, so that record n of a request has the same number everywhere (R15):
 * a partly written first block, whole blocks up to each 512 KiB boundary of the volume, a partly
 * written last block. Zeroes and trims of whole blocks are one piece, whatever their length.
 */
import { BLOCK_BYTES } from "../base/units.ts";
import { COMMAND } from "../format/nbd.ts";
import type { Op } from "./op.ts";

const PIECE_BLOCKS = 128;

export class Piece {
  lba = 0;
  blockCount = 0;
  /** The request covers only a part of this (single) block. */
  isPartial = false;
}

/** The piece at `op.cursorLba`, which must lie before `op.endLba`. Fills and returns `out`. */
export function nextPiece(op: Op, out: Piece): Piece {
  const lba = op.cursorLba;
  out.lba = lba;
  const endByte = op.offset + op.lengthBytes;
  const startsInside = op.offset > lba * BLOCK_BYTES;
  const endsInside = endByte < (lba + 1) * BLOCK_BYTES;
  out.isPartial = startsInside || endsInside;
  if (out.isPartial) {
    out.blockCount = 1;
    return out;
  }
  const wholeEnd = Math.floor(endByte / BLOCK_BYTES);
  if (makesHole(op)) {
    out.blockCount = wholeEnd - lba;
    return out;
  }
  const boundary = (Math.floor(lba / PIECE_BLOCKS) + 1) * PIECE_BLOCKS;
  out.blockCount = Math.min(wholeEnd, boundary) - lba;
  return out;
}

/** True if whole blocks of this request become holes. */
export function makesHole(op: Op): boolean {
  return op.command === COMMAND.trim || (op.command === COMMAND.writeZeroes && !op.noHole);
}

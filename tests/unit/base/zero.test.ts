/** All zero, or not: at every alignment, length and place of the one byte that is not. */
import { expect, test } from "bun:test";
import { isZero } from "../../../core/base/zero.ts";

test("one byte anywhere is found, and bytes around the range do not matter", () => {
  for (let at = 1; at <= 9; at += 1) {
    for (let length = 4; length <= 24; length += 1) {
      const buffer = new Uint8Array(64);
      buffer[at - 1] = 1;
      buffer[at + length] = 1;
      expect(isZero(buffer, at, length)).toBe(true);
      for (let place = 0; place < length; place += 1) {
        buffer[at + place] = 128;
        expect(isZero(buffer, at, length)).toBe(false);
        buffer[at + place] = 0;
      }
    }
  }
});

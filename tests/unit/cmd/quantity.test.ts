/** Sizes and durations: what is read, what is refused, and that what is written is read back. */
import { describe, expect, test } from "bun:test";
import {
  durationText,
  humanBytes,
  humanSeconds,
  parseDuration,
  parseSize,
  sizeText,
} from "../../../cmd/quantity.ts";

describe("sizes", () => {
  test.each([
    ["0", 0],
    ["512", 512],
    ["4K", 4096],
    ["20M", 20 * 1024 ** 2],
    ["10G", 10 * 1024 ** 3],
    ["1T", 1024 ** 4],
    ["7P", 7 * 1024 ** 5],
  ])("%s", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each(["", "K", "4k", "4 K", "4KB", "4KiB", "-1", "1.5G", "0x10", "1e3", " 1", "8192P"])(
    "%p is refused",
    (text) => {
      expect(parseSize(text)).toBeNull();
    },
  );

  test("the written form is read back", () => {
    for (const bytes of [0, 1, 512, 1023, 1024, 4096, 1536, 3 * 1024 ** 3, 2 ** 50, 2 ** 52 + 4]) {
      expect(parseSize(sizeText(bytes))).toBe(bytes);
    }
    expect(sizeText(10 * 1024 ** 3)).toBe("10G");
    expect(sizeText(1536)).toBe("1536");
  });

  test("for people", () => {
    expect(humanBytes(0)).toBe("0 B");
    expect(humanBytes(1023)).toBe("1023 B");
    expect(humanBytes(1536)).toBe("1.50 KiB");
    expect(humanBytes(20 * 1024 ** 3)).toBe("20.0 GiB");
    expect(humanBytes(512 * 1024 ** 2)).toBe("512 MiB");
  });
});

describe("durations", () => {
  test.each([
    ["250ms", 250],
    ["10s", 10_000],
    ["5m", 300_000],
    ["2h", 7_200_000],
    ["0s", 0],
  ])("%s", (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  test.each(["", "10", "s", "10 s", "-1s", "1.5s", "1d", "10S", "999999999999h"])(
    "%p is refused",
    (text) => {
      expect(parseDuration(text)).toBeNull();
    },
  );

  test("the written form is read back", () => {
    for (const milliseconds of [0, 1, 250, 1000, 1500, 60_000, 90_000, 7_200_000]) {
      expect(parseDuration(durationText(milliseconds))).toBe(milliseconds);
    }
    expect(durationText(300_000)).toBe("5m");
  });

  test("for people", () => {
    expect(humanSeconds(0.4)).toBe("0s");
    expect(humanSeconds(75)).toBe("1m15s");
    expect(humanSeconds(4000)).toBe("1h06m");
    expect(humanSeconds(-1)).toBe("0s");
  });
});

/** "Did you mean". */
import { describe, expect, test } from "bun:test";
import { editDistance, nearest, suggestion } from "../../../cmd/nearest.ts";

describe("distance", () => {
  test.each([
    ["", "", 0],
    ["abc", "", 3],
    ["status", "status", 0],
    ["statsu", "status", 1],
    ["stauts", "status", 1],
    ["statu", "status", 1],
    ["kitten", "sitting", 3],
  ])("%s and %s", (source, target, distance) => {
    expect(editDistance(source, target)).toBe(distance);
    expect(editDistance(target, source)).toBe(distance);
  });
});

test("the nearest is the nearest", () => {
  expect(nearest("hots", ["host", "hosts", "json"])).toBe("host");
  expect(nearest("x", [])).toBeNull();
});

test("a near word is meant, others are listed or the nearest is named", () => {
  expect(suggestion("statu", ["status", "events"])).toBe("; did you mean status?");
  expect(suggestion("zzz", ["status", "events"], "--")).toBe("; known: --status, --events");
  const many = ["size", "init", "hosts", "volume", "link", "shared", "store"];
  expect(suggestion("bogus", many, "--")).toMatch(/^; the nearest known is --[a-z]+$/);
  expect(suggestion("x", [])).toBe("");
});

test("a very long word costs little", () => {
  const started = performance.now();
  suggestion("x".repeat(1_000_000), ["status"]);
  expect(performance.now() - started).toBeLessThan(500);
});

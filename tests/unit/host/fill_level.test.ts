/** The steps at which people hear that a store fills up. */
import { expect, test } from "bun:test";
import { FillLevel } from "../../../core/host/fill_level.ts";

const NEVER = Number.POSITIVE_INFINITY;

test("80, 90 and 95 % are told once on the way up, and only 2 % below on the way down", () => {
  const level = new FillLevel();
  const told: string[] = [];
  const at = (percent: number): void => {
    if (level.note(percent, 100, NEVER)) told.push(`${percent}: ${level.percent}`);
  };
  for (let percent = 0; percent <= 100; percent += 1) at(percent);
  expect(told.splice(0)).toEqual(["80: 80", "90: 90", "95: 95"]);
  for (const percent of [94, 95, 94, 93.5]) at(percent);
  expect(told).toEqual([]);
  for (let percent = 93; percent >= 70; percent -= 1) at(percent);
  expect(told).toEqual(["92: 90", "87: 80", "77: 0"]);
});

test("full is when a write was refused, until 10 s passed and there is room", () => {
  const level = new FillLevel();
  expect(level.note(99, 100, NEVER)).toBe(true);
  expect(level.isFull).toBe(false);
  expect(level.note(99, 100, 500)).toBe(true);
  expect(level.isFull).toBe(true);
  expect(level.note(99, 100, 60_000)).toBe(false);
  expect(level.note(94, 100, 9_000)).toBe(false);
  expect(level.isFull).toBe(true);
  expect(level.note(94, 100, 10_001)).toBe(true);
  expect(level.isFull).toBe(false);
  expect(level.percent).toBe(95);
});

test("without a store there is nothing to tell", () => {
  const level = new FillLevel();
  expect(level.note(0, 0, NEVER)).toBe(false);
  expect([level.percent, level.isFull]).toEqual([0, false]);
});

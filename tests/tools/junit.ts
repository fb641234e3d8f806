/** True counts of a test run, from the JUnit report that `bun test` writes. */
import { existsSync, readFileSync } from "node:fs";

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/**
 * Counts the `<testcase>` elements of a report. A run that ended badly without a failed test (a
 * crash, a file that does not load, a time limit) counts as one failure more, so that it can
 * never look like a success.
 */
export function countsOfJunit(path: string, exitCode: number): Counts {
  const counts = existsSync(path)
    ? countCases(readFileSync(path, "utf8"))
    : { passed: 0, failed: 0, skipped: 0 };
  if (exitCode === 0 || counts.failed > 0) return counts;
  return { ...counts, failed: 1 };
}

/** An element with or without a body; attributes may contain ">". */
const TEST_CASE = /<testcase\b(?:[^>"]|"[^"]*")*?(\/>|>([\s\S]*?)<\/testcase>)/g;

/** Counts in the text of a report. */
export function countCases(xml: string): Counts {
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for (const match of xml.matchAll(TEST_CASE)) {
    const body = match[2] ?? "";
    if (/<(failure|error)\b/.test(body)) failed += 1;
    else if (/<skipped\b/.test(body)) skipped += 1;
    else passed += 1;
  }
  return { passed, failed, skipped };
}

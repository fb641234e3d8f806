/** The tools that tests rely on: true counts of a run, ports. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "../../tools/cluster.ts";
import { countCases, countsOfJunit } from "../../tools/junit.ts";

test("every test case counts once, as what it was", () => {
  const xml = `<testsuites tests="9"><testsuite>
    <testcase name="a > b" file="x" />
    <testcase name="b"></testcase>
    <testcase name="c"><failure type="AssertionError" /></testcase>
    <testcase name="d"><error>boom</error></testcase>
    <testcase name="e"><skipped /></testcase>
    <testcase name="f"/>
  </testsuite></testsuites>`;
  expect(countCases(xml)).toEqual({ passed: 3, failed: 2, skipped: 1 });
});

test("a run that ended badly never looks like a success", () => {
  const directory = mkdtempSync(join(tmpdir(), "vsan-junit-"));
  const report = join(directory, "junit.xml");
  expect(countsOfJunit(report, 0).failed).toBe(0);
  expect(countsOfJunit(report, 137)).toEqual({ passed: 0, failed: 1, skipped: 0 });
  writeFileSync(report, '<testcase name="a" />');
  expect(countsOfJunit(report, 1)).toEqual({ passed: 1, failed: 1, skipped: 0 });
  writeFileSync(report, '<testcase name="a"><failure/></testcase>');
  expect(countsOfJunit(report, 1)).toEqual({ passed: 0, failed: 1, skipped: 0 });
  rmSync(directory, { recursive: true, force: true });
});

test("free ports differ and are not ephemeral ones", async () => {
  const ports = await freePorts(30);
  expect(new Set(ports).size).toBe(30);
  for (const port of ports) expect(port).toBeLessThan(32_768);
});

/**
 * The documents say what is there: links lead somewhere, files that are named exist, every file of
 * the host and of the transports has its line, layouts are shown as declared, and whatever number
 * of a rule, guarantee or check the code cites can be looked up.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { COPY, FORWARD, FORWARD_REPLY } from "../../core/format/host_wire.ts";

const ROOT = resolve(import.meta.dir, "../..");
const DOCS = [
  "README.md",
  "CHANGELOG.md",
  "packaging/README.md",
  ...[...new Bun.Glob("docs/**/*.md").scanSync({ cwd: ROOT })].sort(),
];

function text(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

/** The anchors of a document's headings, as GitHub makes them. */
function anchorsOf(path: string): string[] {
  return [...text(path).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^a-z0-9 _-]/g, "")
      .replaceAll(" ", "-"),
  );
}

/** What is wrong with the links of a document. */
function brokenLinks(path: string): string[] {
  const broken: string[] = [];
  for (const [, target = ""] of text(path).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https?:/.test(target)) continue;
    const [file = "", anchor] = target.split("#");
    const full = file === "" ? path : join(dirname(path), file);
    if (!existsSync(join(ROOT, full))) broken.push(`${path}: ${target}`);
    else if (anchor !== undefined && !anchorsOf(full).includes(anchor)) {
      broken.push(`${path}: no heading for ${target}`);
    }
  }
  return broken;
}

/** Paths in backticks that begin at a directory of the tree and are not there. */
function missingFiles(path: string): string[] {
  const named = text(path).matchAll(/`((?:core|cmd|transports|tests|bench|docs)\/[\w./-]*)`/g);
  return [...named]
    .map(([, file = ""]) => file)
    .filter((file) => !existsSync(join(ROOT, file)))
    .map((file) => `${path}: ${file}`);
}

/** Rows of testing.md's table of faults whose file has no test named after them. */
function faultsWithoutTest(): string[] {
  const rows = [...text("docs/testing.md").matchAll(/^\| (\d+) \|.*\| `(tests\/[\w./]+)` \|$/gm)];
  expect(rows.length).toBeGreaterThan(16);
  return rows
    .filter(([, number, file = ""]) => !text(file).includes(`fault ${number}: `))
    .map(([row]) => row);
}

/** The numbers with `letter` that source files cite, such as R9 of `R9b`. */
function cited(letter: string): number[] {
  const found = new Set<number>();
  const pattern = new RegExp(`(?:^|[ (])${letter}([0-9]{1,2})[a-d]?(?=[ ,.;:)]|$)`, "gm");
  for (const file of new Bun.Glob("{core,transports,cmd,tests}/**/*.ts").scanSync({ cwd: ROOT })) {
    if (basename(file) === basename(import.meta.path)) continue;
    const comments = text(file).match(/\/\*\*[\s\S]*?\*\/|\/\/.*$/gm) ?? [];
    for (const comment of comments) {
      for (const [, number] of comment.matchAll(pattern)) found.add(Number(number));
    }
  }
  return [...found].sort((a, b) => a - b);
}

/** The numbers with `letter` that a document defines: at the head of a table's row or in bold. */
function defined(path: string, letter: string): number[] {
  const pattern = new RegExp(`^(?:\\| |\\*\\*)${letter}([0-9]{1,2})\\b`, "gm");
  return [...text(path).matchAll(pattern)].map(([, number]) => Number(number));
}

function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}

describe("the documents", () => {
  test("lead somewhere", () => {
    expect(DOCS.flatMap(brokenLinks)).toEqual([]);
  });

  test("name files that exist", () => {
    expect(DOCS.flatMap(missingFiles)).toEqual([]);
  });

  test("name a test after each fault", () => {
    expect(faultsWithoutTest()).toEqual([]);
  });

  test.each([
    ["core/host", ".ts"],
    ["transports", ".ts"],
  ])("docs/architecture.md has a line for every file of %s", (directory, ending) => {
    const files = readdirSync(join(ROOT, directory)).filter((file) => file.endsWith(ending));
    const page = text("docs/architecture.md");
    expect(files.filter((file) => !page.includes(`\`${file}\``))).toEqual([]);
  });

  test.each([FORWARD, FORWARD_REPLY, COPY])("show the layout %#", (layout) => {
    const rows = layout.table.map(({ name, kind, at }) => `| ${at} | ${kind} | ${name} |`);
    const head = `${layout.layoutName}, ${layout.sizeBytes} bytes:`;
    const shown = [head, "", "| at | type | field |", "| --- | --- | --- |", ...rows].join("\n");
    expect(text("docs/protocol_host.md")).toContain(`${shown}\n\n`);
  });

  test.each([
    ["docs/protocol.md", "R", 16],
    ["docs/guarantees.md", "G", 9],
    ["docs/guarantees.md", "V", 14],
  ] as const)("%s defines every %s that is cited", (path, letter, last) => {
    expect(defined(path, letter)).toEqual(upTo(last));
    const numbers = cited(letter);
    expect(numbers.length).toBeGreaterThan(4);
    expect(numbers.filter((number) => !upTo(last).includes(number))).toEqual([]);
  });
});

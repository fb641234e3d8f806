/**
 * The shape of the tree, as a test: floors, no effects in core/, lengths, names, dead files,
 * pinned dependencies. First that each detector notices a sample, then that the tree is clean.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import {
  barrelComplaints,
  blankedCode,
  deadFiles,
  effectComplaints,
  floorComplaints,
  formComplaints,
  functionComplaints,
  functionsOf,
  importsOf,
  type SourceFile,
} from "../tools/tidy.ts";

const ROOT = resolve(import.meta.dir, "../..");

function load(pattern: string): SourceFile[] {
  const paths = [...new Bun.Glob(pattern).scanSync({ cwd: ROOT })].sort();
  return paths.map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }));
}

const core = load("core/**/*.ts");
const product = [...core, ...load("transports/**/*.ts"), ...load("cmd/**/*.ts")];
const others = [...load("tests/**/*.ts"), ...load("bench/**/*.ts")];
const all = [...product, ...others];

function file(path: string, text: string): SourceFile {
  return { path, text };
}

describe("the detectors notice", () => {
  test("imports of every form", () => {
    const text = `import a from "./a.ts";
import type { B } from "./b.ts";
import {
  c,
  type D,
} from "./c.ts";
export { e } from "./e.ts";
const f = await import("./f.ts");
console.log(a, c, f);`;
    expect(importsOf(text).sort()).toEqual(["./a.ts", "./b.ts", "./c.ts", "./e.ts", "./f.ts"]);
  });

  test.each([
    ["core/base/x.ts", `import type { A } from "../format/a.ts";`, "floor above"],
    ["core/store/x.ts", `import { A } from "../mirror/a.ts"; A();`, "sibling"],
    ["core/host/x.ts", `import { A } from "node:fs"; A();`, "core imports node:fs"],
    ["core/nbd/x.ts", `import { A } from "valibot"; A();`, "core imports valibot"],
    ["transports/x.ts", `import { A } from "citty"; A();`, "may not import the package"],
    ["transports/x.ts", `import { A } from "../cmd/a.ts"; A();`, "floor above"],
    ["cmd/x.ts", `import { A } from "left-pad"; A();`, "may not import the package"],
    ["cmd/x.ts", `import { A } from "../tests/a.ts"; A();`, "on no floor"],
    ["cmd/x.ts", `import { A } from "./a"; A();`, "no extension"],
  ])("%s: %s", (path, text, complaint) => {
    expect(floorComplaints(file(path, text)).join("\n")).toContain(complaint);
  });

  test("a floor's own imports are fine", () => {
    const text = `import { A } from "../base/a.ts"; import { B } from "./b.ts"; A(B);`;
    expect(floorComplaints(file("core/format/x.ts", text))).toEqual([]);
  });

  test.each([
    "const now = Date.now();",
    "const r = Math.random();",
    "setTimeout(f, 1);",
    "console.log(1);",
    "process.exit(1);",
    "async function f() {}",
    "let p: Promise<void>;",
    "Bun.write(a, b);",
    "performance.now();",
  ])("effect in core: %s", (text) => {
    expect(effectComplaints(file("core/base/x.ts", text))).toHaveLength(1);
  });

  test("words in comments and strings are no effects", () => {
    const text = `/** Date and await. */\nconst a = "Promise"; // setTimeout\nconst b = /console/;`;
    expect(effectComplaints(file("core/base/x.ts", text))).toEqual([]);
    expect(blankedCode(text)).not.toContain("Promise");
    expect(blankedCode(text).split("\n")).toHaveLength(2 + 1);
  });

  test.each([
    ["x.ts", `/** a */\n${"a();\n".repeat(451)}`, "452 lines"],
    ["x.ts", `/** a */\n// ${"a".repeat(98)}\n`, "101 columns"],
    ["camelCase.ts", "/** a */\n", "snake_case"],
    ["x.ts", "/** a */\nconst a = b as any;\n", "any"],
    ["x.ts", "/** a */\nfunction f(a: any) {}\n", "any"],
    ["x.ts", "/** a */\nexport default f;\n", "default export"],
    ["x.ts", `/** a */\n// @ts-${"ignore"}\n`, "type check"],
    ["x.ts", `/** a */\n// ${"TO"}DO\n`, "unfinished"],
    ["x.ts", "const a = 1;\n", "header"],
  ])("form: %s %p", (path, text, complaint) => {
    expect(formComplaints(file(path, text)).join("\n")).toContain(complaint);
  });

  test("long functions of every kind", () => {
    const body = "  a();\n".repeat(70);
    for (const head of [
      "function f(a: number): void {",
      "const f = (a) => {",
      "class A {\n  method(a: { b: number }): Map<string, number> {",
      "function f(): { ok: boolean } {",
      "  async g(a, b) {",
    ]) {
      const close = head.startsWith("class") ? "}\n}\n" : "}\n";
      const found = functionComplaints(file("x.ts", `${head}\n${body}${close}`));
      expect(found.join("\n")).toContain("a function of 72 lines");
    }
  });

  test("classes, objects and control flow are no functions", () => {
    const body = "  a();\n".repeat(80);
    const text = `class A {\n${body}}\nconst o = {\n${body}};\nif (a) {\n${body}}\n`;
    expect(functionsOf(text)).toEqual([]);
  });

  test("barrels", () => {
    expect(barrelComplaints(file("x.ts", `export * from "./a.ts";`))).toHaveLength(1);
    expect(barrelComplaints(file("x.ts", `export { a } from "./a.ts";`))).toHaveLength(1);
    expect(barrelComplaints(file("x.ts", "export const a = 1;"))).toEqual([]);
  });

  test("dead files", () => {
    const files = [
      file("a.ts", `import { b } from "./b.ts"; b();`),
      file("b.ts", "export function b() {}"),
      file("c.ts", `import { b } from "./b.ts"; b();`),
    ];
    expect(deadFiles(files, ["a.ts"])).toEqual(["c.ts"]);
  });
});

describe("the tree", () => {
  test("has files on every floor", () => {
    expect(product.length).toBeGreaterThan(40);
  });

  test("imports only downwards", () => {
    expect(product.flatMap(floorComplaints)).toEqual([]);
  });

  test("has no effects in core/", () => {
    expect(core.flatMap(effectComplaints)).toEqual([]);
  });

  test("keeps to lengths, widths and names", () => {
    expect(all.flatMap(formComplaints)).toEqual([]);
  });

  test("has no long function", () => {
    // Suites are one arrow around many small tests; what they share is not too long a function.
    const files = all.filter(({ path }) => !/(\.test|_suite)\.ts$/.test(path));
    expect(files.flatMap(functionComplaints)).toEqual([]);
  });

  test("has no barrels in core/", () => {
    expect(core.flatMap(barrelComplaints)).toEqual([]);
  });

  test("has no dead files", () => {
    const scripts = Object.values(scriptsOf(manifest()))
      .map((command) => /^bun (\S+\.ts)/.exec(command)?.[1])
      .filter((path) => path !== undefined);
    const suites = others.map(({ path }) => path).filter((path) => path.endsWith(".test.ts"));
    const benches = others.map(({ path }) => path).filter((path) => path.startsWith("bench/"));
    const workers = product.map(({ path }) => path).filter((path) => path.endsWith("_worker.ts"));
    const entries = ["cmd/main.ts", ...workers, ...scripts, ...suites, ...benches];
    expect(deadFiles(all, entries)).toEqual([]);
  });

  test("has only the directories of docs/architecture.md", () => {
    const allowed = ["bench", "cmd", "core", "docs", "packaging", "tests", "transports"];
    const found = readdirSync(ROOT, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
      .map((entry) => entry.name)
      .filter((name) => !["node_modules", "dist", "vsan-data"].includes(name));
    expect(found.filter((name) => !allowed.includes(name))).toEqual([]);
  });

  test("pins every dependency, and uses the prescribed ones only", () => {
    const { dependencies, devDependencies } = manifest();
    for (const version of Object.values({ ...dependencies, ...devDependencies })) {
      expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    }
    expect(Object.keys(dependencies)).toEqual(["citty", "consola", "smol-toml", "valibot"]);
    expect(manifest().packageManager).toBe(`bun@${devDependencies.bun}`);
  });
});

interface Manifest {
  readonly packageManager: string;
  readonly scripts: Record<string, string>;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
}

function manifest(): Manifest {
  return JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
}

function scriptsOf(value: Manifest): Record<string, string> {
  return value.scripts;
}

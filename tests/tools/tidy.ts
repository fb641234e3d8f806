/**
 * Detectors of what docs/architecture.md and the style rules forbid. Each takes text and answers
 * complaints, so that `tests/spec/tidy.test.ts` can show on samples that it would notice.
 */
import { dirname, join, normalize } from "node:path";

/** One source file, its path relative to the root. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

export const FILE_LINES_MAX = 450;
export const FUNCTION_LINES_MAX = 70;
export const COLUMNS_MAX = 100;

/** Floors of core/, lowest first; those in one inner list are siblings. */
const FLOORS: readonly (readonly string[])[] = [
  ["core/base"],
  ["core/format"],
  ["core/store", "core/mirror", "core/membership", "core/lease", "core/nbd"],
  ["core/host"],
  ["transports"],
  ["cmd"],
];
/** Packages of the operator's side. */
const CMD_PACKAGES = ["citty", "consola", "consola/utils", "valibot", "smol-toml"];

/** What every import statement names, `import type` included. */
export function importsOf(text: string): string[] {
  const found = new Bun.Transpiler({ loader: "ts" }).scanImports(text).map(({ path }) => path);
  // scanImports leaves out imports that are only types; floors hold for these as well.
  const statement = /(?:^|\n)\s*(?:import|export)\b[^;"']*?\bfrom\s*["']([^"']+)["']/g;
  const dynamic = /\bimport\(\s*["']([^"']+)["']\s*\)/g;
  for (const pattern of [statement, dynamic]) {
    for (const match of text.matchAll(pattern)) found.push(match[1] as string);
  }
  return [...new Set(found)];
}

/** The path, relative to the root, that an import of `from` means; null for a package. */
export function resolveImport(from: string, name: string): string | null {
  return name.startsWith(".") ? normalize(join(dirname(from), name)) : null;
}

function floorOf(path: string): number {
  return FLOORS.findIndex((floor) => floor.some((prefix) => path.startsWith(`${prefix}/`)));
}

/** Imports that go up a floor, to a sibling, out of the source tree, or to a foreign package. */
export function floorComplaints({ path, text }: SourceFile): string[] {
  const own = floorOf(path);
  if (own < 0) return [`${path}: is on no floor`];
  const complaints: string[] = [];
  for (const name of importsOf(text)) {
    const target = resolveImport(path, name);
    if (target === null) {
      const isBuiltin = name.startsWith("node:") || name === "bun" || name.startsWith("bun:");
      if (path.startsWith("core/")) complaints.push(`${path}: core imports ${name}`);
      else if (!isBuiltin && !(path.startsWith("cmd/") && CMD_PACKAGES.includes(name))) {
        complaints.push(`${path}: may not import the package ${name}`);
      }
      continue;
    }
    if (target === "package.json" && path.startsWith("cmd/")) continue;
    const other = floorOf(target);
    const sameDirectory = dirname(target) === dirname(path);
    if (other < 0) complaints.push(`${path}: imports ${target}, which is on no floor`);
    else if (other > own) complaints.push(`${path}: imports ${target} from a floor above`);
    else if (other === own && !sameDirectory) {
      complaints.push(`${path}: imports its sibling ${target}`);
    }
    if (!/\.(ts|json)$/.test(name)) complaints.push(`${path}: ${name} has no extension`);
  }
  return complaints;
}

const EFFECTS: readonly [RegExp, string][] = [
  [/\bDate\b/, "Date"],
  [/\bMath\.random\b/, "Math.random"],
  [/\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/, "a timer"],
  [/\bconsole\b/, "console"],
  [/\bprocess\b/, "process"],
  [/\b(performance|crypto|globalThis|fetch|WebSocket|Worker|Atomics)\b\s*[.(]/, "a global"],
  [/\bPromise\b|\basync\b|\bawait\b/, "a promise"],
];

/** Effects inside core/ (the law of docs/architecture.md). */
export function effectComplaints({ path, text }: SourceFile): string[] {
  const code = blankedCode(text);
  const complaints: string[] = [];
  for (const [pattern, what] of EFFECTS) {
    if (pattern.test(code)) complaints.push(`${path}: core uses ${what}`);
  }
  // The one pure function of the runtime that core may use, in the one file that wraps it.
  const withoutChecksum =
    path === "core/base/checksum.ts" ? code.replaceAll("Bun.hash.crc32", "") : code;
  if (/\bBun\b/.test(withoutChecksum)) complaints.push(`${path}: core uses Bun`);
  return complaints;
}

/** Brackets keep this file from finding itself. */
const UNFINISHED = /\b(TO[D]O|FIX[M]E|X[X]X)\b/;

/** Lengths, widths, names and forbidden words of one file. */
export function formComplaints({ path, text }: SourceFile): string[] {
  const complaints: string[] = [];
  const lines = text.split("\n");
  if (lines.length - 1 > FILE_LINES_MAX) complaints.push(`${path}: ${lines.length - 1} lines`);
  for (const [index, line] of lines.entries()) {
    const columns = [...line].length;
    if (columns > COLUMNS_MAX) complaints.push(`${path}:${index + 1}: ${columns} columns`);
  }
  const name = path.split("/").at(-1) as string;
  if (!/^[a-z0-9]+(_[a-z0-9]+)*(\.test|\.d)?\.ts$/.test(name)) {
    complaints.push(`${path}: the name is not snake_case`);
  }
  const code = blankedCode(text);
  if (/\bas any\b|:\s*any\b|<any>/.test(code)) complaints.push(`${path}: any`);
  if (/^\s*export default\b/m.test(code)) complaints.push(`${path}: a default export`);
  if (/@ts-(ignore|nocheck)/.test(text)) complaints.push(`${path}: switches the type check off`);
  if (UNFINISHED.test(text)) complaints.push(`${path}: unfinished words`);
  if (!/^(#![^\n]*\n)?\/\*\*/.test(text)) complaints.push(`${path}: no header comment`);
  return complaints;
}

/** A file of core/ that only passes on what others export. */
export function barrelComplaints({ path, text }: SourceFile): string[] {
  const code = blankedCode(text);
  if (/^\s*export\s+\*\s+from/m.test(code)) return [`${path}: export * makes a barrel`];
  const statements = code.split(";").map((statement) => statement.trim());
  const words = statements.filter((statement) => statement !== "");
  const isBarrel = words.length > 0 && words.every((word) => /^export\b.*\bfrom\b/s.test(word));
  return isBarrel ? [`${path}: is a barrel`] : [];
}

/** Functions longer than the limit. */
export function functionComplaints({ path, text }: SourceFile): string[] {
  const complaints: string[] = [];
  for (const { line, lines } of functionsOf(text)) {
    if (lines > FUNCTION_LINES_MAX) {
      complaints.push(`${path}:${line}: a function of ${lines} lines`);
    }
  }
  return complaints;
}

/** Every function body: the line it begins on, and how many lines it spans. */
export function functionsOf(text: string): { line: number; lines: number }[] {
  const code = blankedCode(text);
  const found: { line: number; lines: number }[] = [];
  const stack: { line: number; isFunction: boolean; head: string }[] = [];
  let line = 1;
  let head = "";
  let parentheses = 0;
  for (const character of code) {
    if (character === "\n") line += 1;
    if (character === "(") parentheses += 1;
    if (character === ")") parentheses -= 1;
    if (character === "{") {
      stack.push({ line, isFunction: opensFunction(head), head });
      head = "";
    } else if (character === "}") {
      const opened = stack.pop();
      if (opened?.isFunction) found.push({ line: opened.line, lines: line - opened.line + 1 });
      // A type or a pattern in braces is a part of the head that goes on after it.
      const goesOn = opened !== undefined && /[:(,|<&]\s*$/.test(opened.head);
      head = goesOn ? `${opened.head} ` : "";
    } else if (character === ";" && parentheses === 0) {
      head = "";
    } else {
      head += character;
    }
  }
  return found;
}

/** True if the text before a brace is the head of a function, a method or an arrow. */
function opensFunction(head: string): boolean {
  const text = head.trim();
  if (/=>$/.test(text)) return true;
  if (/^(\}\s*)?(else\s+)?(if|for|while|switch|catch|do|else|try|finally|with)\b/.test(text)) {
    return false;
  }
  if (/\b(class|interface|enum|namespace)\b[^()]*$/.test(text)) return false;
  return /\)\s*(:[^=]*)?$/.test(text) && !/=\s*$/.test(text);
}

/** The code with comments and the insides of strings blanked, line breaks kept. */
export function blankedCode(text: string): string {
  let out = "";
  let at = 0;
  while (at < text.length) {
    const two = text.slice(at, at + 2);
    let end = at;
    if (two === "//") end = endOf(text, at, "\n", 0);
    else if (two === "/*") end = endOf(text, at + 2, "*/", 2);
    else if (text[at] === "/" && startsPattern(out)) end = endOfPattern(text, at);
    else if (text[at] === '"' || text[at] === "'" || text[at] === "`") end = endOfString(text, at);
    if (end === at) {
      out += text[at];
      at += 1;
      continue;
    }
    const isQuoted = two[0] !== "/" || (two !== "//" && two !== "/*");
    const blank = text.slice(at, end).replace(/[^\n]/g, " ");
    out += isQuoted ? `"${blank.slice(2)}"` : blank;
    at = end;
  }
  return out;
}

function endOf(text: string, from: number, mark: string, length: number): number {
  const found = text.indexOf(mark, from);
  return found < 0 ? text.length : found + length;
}

function endOfString(text: string, from: number): number {
  const quote = text[from];
  for (let at = from + 1; at < text.length; at++) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === quote) return at + 1;
    else if (quote === "`" && text.startsWith("${", at)) at = endOfHole(text, at + 2);
  }
  return text.length;
}

/** The index of the brace that closes a template's hole. */
function endOfHole(text: string, from: number): number {
  let depth = 1;
  for (let at = from; at < text.length; at++) {
    if (text[at] === "{") depth += 1;
    else if (text[at] === "}") depth -= 1;
    else if (text[at] === '"' || text[at] === "'" || text[at] === "`") {
      at = endOfString(text, at) - 1;
    }
    if (depth === 0) return at;
  }
  return text.length;
}

/** True if a slash after this code begins a regular expression, not a division. */
function startsPattern(before: string): boolean {
  return /(^|[=(,:;!&|?{}[\n]|\breturn|=>)\s*$/.test(before.slice(-40));
}

function endOfPattern(text: string, from: number): number {
  let isClass = false;
  for (let at = from + 1; at < text.length && text[at] !== "\n"; at++) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "[") isClass = true;
    else if (text[at] === "]") isClass = false;
    else if (text[at] === "/" && !isClass) return at + 1;
  }
  return from;
}

/** Files of `all` that no entry point reaches. */
export function deadFiles(all: readonly SourceFile[], entries: readonly string[]): string[] {
  const byPath = new Map(all.map((file) => [file.path, file]));
  const reached = new Set<string>();
  const waiting = entries.filter((path) => byPath.has(path));
  while (waiting.length > 0) {
    const path = waiting.pop() as string;
    if (reached.has(path)) continue;
    reached.add(path);
    for (const name of importsOf(byPath.get(path)?.text ?? "")) {
      const target = resolveImport(path, name);
      if (target !== null && byPath.has(target)) waiting.push(target);
    }
  }
  return all.map((file) => file.path).filter((path) => !reached.has(path));
}

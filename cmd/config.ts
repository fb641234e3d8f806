/**
 * Finding, reading and checking the config. Every defect is one sentence with file, line, key and
 * what was expected, thrown as a usage error (exit 2) before anything is changed.
 */
import { existsSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { findProblem, type Problem } from "./config_check.ts";
import { type ConfigDocument, configSchema, type HostSection, knownKeys } from "./config_schema.ts";
import { messageOf, usageError } from "./exit.ts";
import { suggestion } from "./nearest.ts";
import { TomlLines } from "./toml_lines.ts";

/** A checked config and which of its hosts this process is. */
export interface Config {
  /** The file, absolute; null for the single host that runs without one. */
  readonly file: string | null;
  readonly document: ConfigDocument;
  readonly selfIndex: number;
  readonly self: HostSection & { readonly control: string; readonly state: string };
}

/** Values of one host's section given as flags: they win over the file (docs/cli.md). */
export type HostFlags = Readonly<Record<string, unknown>>;

export interface ConfigRequest {
  /** `--config`, if given. */
  readonly file?: string | undefined;
  /** `--host`, if given. */
  readonly host?: string | undefined;
  /** `--size`: only for a run without a file. */
  readonly size?: string | undefined;
  readonly flags?: HostFlags | undefined;
}

type Raw = Record<string, unknown>;

/** Where the single host without a config file keeps everything. */
export const SINGLE_DIRECTORY = "vsan-data";

/** The config file that applies, or null when there is none. */
export function findConfigFile(flag: string | undefined): string | null {
  const explicit = flag ?? (process.env.VSAN_CONFIG || undefined);
  if (explicit !== undefined) return resolve(explicit);
  const found = ["vsan.toml", "/etc/vsan/vsan.toml"].find((path) => existsSync(path));
  return found === undefined ? null : resolve(found);
}

/** Reads, checks and completes the config for this host. Throws usage errors. */
export function loadConfig(request: ConfigRequest): Config {
  const file = findConfigFile(request.file);
  if (file === null) {
    const raw = singleHost(request.host, request.size);
    return checkedConfig(null, raw, new TomlLines(""), request);
  }
  if (request.size !== undefined) {
    throw usageError(`--size is for a run without a config file; ${file} names the volumes`);
  }
  const text = readConfigText(file);
  try {
    return checkedConfig(file, parse(text) as Raw, new TomlLines(text), request);
  } catch (thrown) {
    if (!(thrown instanceof TomlError)) throw thrown;
    const reason = (thrown.message.split("\n")[0] ?? "").replace(/^Invalid TOML document: /, "");
    throw usageError(`${file}:${thrown.line}: not TOML: ${reason}`);
  }
}

function readConfigText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (thrown) {
    throw usageError(`cannot read the config: ${messageOf(thrown)}`);
  }
}

/** The config of a host alone, as if it had been written to a file. */
function singleHost(name: string | undefined, size: string | undefined): Raw {
  const directory = SINGLE_DIRECTORY;
  return {
    cluster: { name: "single" },
    host: [
      {
        name: name ?? "local",
        store: join(directory, "store.vsan"),
        nbd: ["127.0.0.1:10809"],
        control: join(directory, "control.sock"),
        state: join(directory, "state"),
      },
    ],
    volume: [{ name: "vol0", size: size ?? "1G" }],
  };
}

function checkedConfig(
  file: string | null,
  raw: Raw,
  lines: TomlLines,
  request: ConfigRequest,
): Config {
  const flags = request.flags ?? {};
  const selfIndex = selfOf(file, raw, request.host);
  const section = Array.isArray(raw.host) ? (raw.host[selfIndex] as unknown) : undefined;
  if (typeof section === "object" && section !== null) Object.assign(section, flags);
  const explain = (problem: Problem): string => {
    const [table, index, key] = problem.path;
    if (table === "volume" && key === "size" && file === null) return `--size: ${problem.message}`;
    if (table === "host" && index === selfIndex && typeof key === "string" && key in flags) {
      return `--${key.replaceAll("_", "-")}: ${problem.message}`;
    }
    const named = problem.needsName ? `${dotted(problem.path)}: ` : "";
    if (file === null) return named + problem.message;
    return `${file}:${lines.lineOf(problem.path)}: ${named}${problem.message}`;
  };
  const parsed = v.safeParse(configSchema, raw, { abortPipeEarly: true });
  if (!parsed.success) {
    const problems = parsed.issues.map(problemOf);
    problems.sort((first, second) => lines.lineOf(first.path) - lines.lineOf(second.path));
    throw usageError(explain(problems[0] as Problem));
  }
  const document = parsed.output;
  const directory = file === null ? process.cwd() : dirname(file);
  for (const host of document.host) completePaths(host, directory);
  document.cluster.key_file = absolute(document.cluster.key_file, directory);
  const problem = findProblem(document);
  if (problem !== null) throw usageError(explain(problem));
  return { file, document, selfIndex, self: document.host[selfIndex] as Config["self"] };
}

function selfOf(file: string | null, raw: Raw, wanted: string | undefined): number {
  const sections: unknown[] = Array.isArray(raw.host) ? raw.host : [];
  const names = sections.map((section) => String((section as Raw | null)?.name));
  if (wanted !== undefined && names.length > 0) {
    const index = names.indexOf(wanted);
    if (index >= 0) return index;
    throw usageError(`--host: ${file} has no host ${wanted}${suggestion(wanted, names)}`);
  }
  if (names.length <= 1) return 0;
  const machine = hostname();
  const index = names.findIndex((name) => name === machine || name === machine.split(".")[0]);
  if (index >= 0) return index;
  const roster = names.join(", ");
  throw usageError(`--host NAME is needed: this machine, ${machine}, is none of ${roster}`);
}

function problemOf(issue: v.BaseIssue<unknown>): Problem {
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  const key = String(path.at(-1) ?? "");
  if (issue.type === "strict_object" && issue.expected === "never") {
    const parents = path.slice(0, -1);
    return { path, message: `unknown key ${key}${suggestion(key, knownKeys(parents))}` };
  }
  if (issue.received === "undefined") return { path, message: `missing key ${key}` };
  return { path, message: issue.message, needsName: true };
}

/** `volume[1].size`, counted from 0 as the sections stand in the file. */
function dotted(path: readonly (string | number)[]): string {
  const parts = path.map((part, index) =>
    typeof part === "number" ? `[${part}]` : index ? `.${part}` : part,
  );
  return parts.join("");
}

/** Fills in the defaults that depend on the name; relative paths are relative to the file. */
function completePaths(host: HostSection, directory: string): void {
  host.control = absolute(host.control ?? `/run/vsan/${host.name}.sock`, directory);
  const besideControl = join(dirname(host.control), `${host.name}.state`);
  host.state = absolute(host.state ?? besideControl, directory);
  if (host.store !== undefined) host.store = absolute(host.store, directory);
  host.nbd = host.nbd.map((text) =>
    text.startsWith("unix:") ? `unix:${absolute(text.slice(5), directory)}` : text,
  );
}

function absolute(path: string, directory: string): string {
  return isAbsolute(path) ? path : join(directory, path);
}

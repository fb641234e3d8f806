/**
 * Strict reading of the command line, before citty sees it.
 *
 * citty 0.2.2 silently accepts unknown flags, gives "" for a flag without its value, lets the
 * last of two flags win and ignores surplus words (measured). Here each of these is refused by
 * name, so that a mistyped flag never runs a command with its default.
 */
import type { ArgDef, ArgsDef, SubCommandsDef } from "citty";
import { usageError } from "./exit.ts";
import { suggestion } from "./nearest.ts";

/** Any command, whatever its arguments; ours are plain objects, never promises or functions. */
export type Command = Exclude<SubCommandsDef[string], Promise<unknown> | (() => unknown)>;

/** A command found on the command line, with the words that belong to it. */
export interface Chosen {
  readonly path: readonly string[];
  readonly command: Command;
  readonly rest: readonly string[];
}

/** Options that every command has. */
export const COMMON_ARGS = {
  config: { type: "string", valueHint: "FILE", description: "the configuration file" },
  host: { type: "string", valueHint: "NAME", description: "this host's name in the roster" },
  json: { type: "boolean", description: "one JSON document on stdout" },
} as const satisfies ArgsDef;

const HELP = ["--help", "-h"];

/** True if the words ask for help. */
export function wantsHelp(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  return words.slice(0, end < 0 ? words.length : end).some((word) => HELP.includes(word));
}

function subCommandsOf(command: Command): SubCommandsDef {
  return (command.subCommands ?? {}) as SubCommandsDef;
}

/** Walks from `root` down the subcommands that the first words name. */
export function choose(root: Command, words: readonly string[]): Chosen {
  const path: string[] = [];
  let command = root;
  let rest = words;
  for (;;) {
    const subCommands = subCommandsOf(command);
    const names = Object.keys(subCommands);
    const word = rest[0];
    if (names.length === 0 || word === undefined || HELP.includes(word)) break;
    const found = Object.hasOwn(subCommands, word) ? subCommands[word] : undefined;
    if (found === undefined) {
      const mayRun = command.run !== undefined && word.startsWith("-");
      if (mayRun) break;
      const what = ["vsan", ...path].join(" ");
      if (word.startsWith("-")) {
        throw usageError(`${what}: a command comes before ${word}; known: ${names.join(", ")}`);
      }
      throw usageError(`${what}: unknown command ${word}${suggestion(word, names)}`);
    }
    path.push(word);
    command = found as Command;
    rest = rest.slice(1);
  }
  return { path, command, rest };
}

/** Refuses whatever citty would let pass. Throws a usage error that names the word. */
export function checkWords(chosen: Chosen): void {
  const definitions = (chosen.command.args ?? {}) as ArgsDef;
  const what = ["vsan", ...chosen.path].join(" ");
  const flags = Object.entries(definitions).filter(([, arg]) => arg.type !== "positional");
  const positionals = Object.entries(definitions).filter(([, arg]) => arg.type === "positional");
  const given = new Set<string>();
  const surplus: string[] = [];
  let positionalCount = 0;
  for (let index = 0; index < chosen.rest.length; index++) {
    const word = chosen.rest[index] as string;
    if (!word.startsWith("-") || word === "-") {
      if (positionalCount < positionals.length) positionalCount += 1;
      else surplus.push(word);
      continue;
    }
    const [name, inline] = splitFlag(word);
    const definition = flags.find(([flag]) => `--${flag}` === name);
    if (definition === undefined) {
      const known = flags.map(([flag]) => flag);
      const hint = suggestion(name.replace(/^-+/, ""), [...known, "help"], "--");
      throw usageError(`${what}: unknown flag ${name}${hint}`);
    }
    if (given.has(name)) throw usageError(`${what}: ${name} is given twice`);
    given.add(name);
    if (checkValue(what, name, definition[1], inline, chosen.rest[index + 1])) index += 1;
  }
  if (surplus.length > 0) {
    throw usageError(`${what}: surplus argument ${surplus[0]}`);
  }
  for (const [name, definition] of positionals.slice(positionalCount)) {
    if (definition.required !== false) {
      throw usageError(`${what}: missing argument ${name.toUpperCase()}`);
    }
  }
}

function splitFlag(word: string): [string, string | null] {
  const equals = word.indexOf("=");
  return equals < 0 ? [word, null] : [word.slice(0, equals), word.slice(equals + 1)];
}

/** Checks one flag's value; true if the following word is that value. */
function checkValue(
  what: string,
  name: string,
  definition: ArgDef,
  inline: string | null,
  next: string | undefined,
): boolean {
  if (definition.type === "boolean") {
    if (inline !== null) throw usageError(`${what}: ${name} takes no value`);
    return false;
  }
  const value = inline ?? next;
  if (value === undefined || value === "" || (inline === null && value.startsWith("--"))) {
    const hint = "valueHint" in definition ? definition.valueHint : undefined;
    throw usageError(`${what}: ${name} needs a value${hint === undefined ? "" : ` (${hint})`}`);
  }
  return inline === null;
}

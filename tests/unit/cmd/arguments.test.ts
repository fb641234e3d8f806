/** The command line: what citty 0.2.2 lets pass is refused, by name, before anything runs. */
import { describe, expect, test } from "bun:test";
import { defineCommand, runCommand } from "citty";
import { checkWords, choose, wantsHelp } from "../../../cmd/arguments.ts";
import { CommandError, EXIT } from "../../../cmd/exit.ts";

const leaf = defineCommand({
  meta: { name: "leaf" },
  args: {
    volume: { type: "positional", required: true },
    note: { type: "positional", required: false },
    size: { type: "string", valueHint: "SIZE" },
    "store-size": { type: "string" },
    watch: { type: "boolean" },
  },
  run: () => 0,
});
const both = defineCommand({
  meta: { name: "both" },
  args: { force: { type: "boolean" }, store: { type: "string" } },
  subCommands: { leaf },
  run: () => 0,
});
const root = defineCommand({ meta: { name: "root" }, subCommands: { leaf, both } });

/** The refusal of `words`, or "" when they are taken. */
function refusal(...words: string[]): string {
  try {
    checkWords(choose(root, words));
    return "";
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(CommandError);
    expect((thrown as CommandError).code).toBe(EXIT.usage);
    return (thrown as CommandError).message;
  }
}

describe("refused by name", () => {
  test.each([
    [["leaf", "v", "--siz", "4K"], "unknown flag --siz; did you mean --size?"],
    [["leaf", "v", "--bogus"], "unknown flag --bogus"],
    [["leaf", "v", "-w"], "unknown flag -w"],
    [["leaf", "v", "--no-watch"], "unknown flag --no-watch; did you mean --watch?"],
    [["leaf", "v", "--storeSize", "4K"], "unknown flag --storeSize; did you mean --store-size?"],
    [["leaf", "v", "--size"], "--size needs a value (SIZE)"],
    [["leaf", "v", "--size="], "--size needs a value (SIZE)"],
    [["leaf", "v", "--size", ""], "--size needs a value (SIZE)"],
    [["leaf", "v", "--size", "--watch"], "--size needs a value (SIZE)"],
    [["leaf", "v", "--watch=yes"], "--watch takes no value"],
    [["leaf", "v", "--watch", "--watch"], "--watch is given twice"],
    [["leaf", "v", "--size=4K", "--size", "8K"], "--size is given twice"],
    [["leaf", "v", "n", "surplus"], "surplus argument surplus"],
    [["leaf"], "missing argument VOLUME"],
    [["leaf", "--", "v"], "unknown flag --"],
    [["laef"], "unknown command laef; did you mean leaf?"],
    [["both", "lefa"], "unknown command lefa; did you mean leaf?"],
    [["--watch", "leaf"], "a command comes before --watch"],
    [["both", "--store", "x", "leaf"], "surplus argument leaf"],
    [["constructor"], "unknown command constructor"],
  ])("%p", (words, complaint) => {
    expect(refusal(...words)).toContain(complaint);
  });
});

describe("taken", () => {
  test.each([
    [["leaf", "v"]],
    [["leaf", "v", "n", "--watch", "--size", "4K"]],
    [["leaf", "--size=4K", "v", "--store-size", "1G"]],
    [["both"]],
    [["both", "--store", "leaf"]],
    [["both", "leaf", "v"]],
  ])("%p", (words) => {
    expect(refusal(...words)).toBe("");
  });
});

test("what is taken is what citty then gives", async () => {
  const seen: unknown[] = [];
  const command = defineCommand({
    args: { name: { type: "positional" }, size: { type: "string" }, watch: { type: "boolean" } },
    run: ({ args }) => {
      seen.push(args.name, args.size, args.watch);
      return 7;
    },
  });
  const words = ["n", "--size", "-5", "--watch"];
  checkWords({ path: ["x"], command, rest: words });
  const { result } = await runCommand(command, { rawArgs: words });
  expect(seen).toEqual(["n", "-5", true]);
  expect(result).toBe(7);
});

test("help is asked for anywhere, but not after --", () => {
  expect(wantsHelp(["leaf", "--help"])).toBe(true);
  expect(wantsHelp(["-h"])).toBe(true);
  expect(wantsHelp(["leaf", "--", "--help"])).toBe(false);
});

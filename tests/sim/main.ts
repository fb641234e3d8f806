/** `bun run sim [--seed N] [--seeds COUNT] [--from N]`: replays one seed, or runs many. */
import { runSeed } from "./run_seed.ts";

const args = process.argv.slice(2);
function value(name: string): number | null {
  const at = args.indexOf(name);
  if (at < 0) return null;
  const number = Number(args[at + 1]);
  if (!Number.isInteger(number) || number < 0) {
    console.error(`${name} needs a whole number`);
    process.exit(2);
  }
  return number;
}
const known = new Set(["--seed", "--seeds", "--from"]);
const unknown = args.find((each) => each.startsWith("--") && !known.has(each));
if (unknown !== undefined) {
  console.error(`unknown flag ${unknown}; known: --seed N, --seeds COUNT, --from N`);
  process.exit(2);
}

const one = value("--seed");
if (one !== null) {
  const result = runSeed(one, { log: (line) => console.log(line) });
  const again = runSeed(one);
  console.log(`seed ${one}: trace hash ${result.hash.toString(16)}, ${result.events} events,`);
  console.log(`  ${result.completed} requests, ${result.opens} views, ${result.errors} errors`);
  console.log(`  replayed: ${again.hash === result.hash ? "the same hash" : "ANOTHER HASH"}`);
  console.log(result.violation === null ? "  no violation" : `  VIOLATION ${result.violation}`);
  const failed = result.violation !== null || again.hash !== result.hash;
  console.log(failed ? "0 passed, 1 failed" : "1 passed, 0 failed");
  process.exit(failed ? 1 : 0);
}

const from = value("--from") ?? 1;
const count = value("--seeds") ?? 100;
let failed = 0;
let completed = 0;
for (let seed = from; seed < from + count; seed += 1) {
  const result = runSeed(seed);
  completed += result.completed;
  if (result.violation === null) continue;
  failed += 1;
  console.log(`seed ${seed}: ${result.violation.split("\n").slice(0, 3).join(" | ")}`);
}
console.log(`${completed} requests answered`);
console.log(`${count - failed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);

/**
 * `bun run bench [--peers LIST] [--seconds N] [--json]`: the program from outside, over NBD on this
 * machine's loopback. Prints a Markdown table, or JSON with `--json`.
 *
 * Peers are other servers measured in the same way, in the same run, so that ratios mean
 * something on any machine: `nbdkit-memory`, `nbdkit-file`, `qemu-nbd`. Those not installed are
 * named and left out.
 */
import { parseArgs } from "node:util";
import { measure, type Result, WORKLOADS } from "./workload.ts";
import { PEERS, type Subject, startSubject } from "./subject.ts";

const OWN = ["vsan-1", "vsan-3"];

interface Row {
  readonly subject: string;
  readonly results: readonly Result[];
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      peers: { type: "string", default: "" },
      seconds: { type: "string", default: "3" },
      json: { type: "boolean", default: false },
    },
  });
  const seconds = Number(values.seconds);
  const peers = values.peers === "" ? [] : values.peers.split(",");
  const unknown = peers.find((name) => !PEERS.includes(name));
  if (unknown !== undefined || !(seconds > 0)) {
    process.stderr.write(
      `usage: bun run bench [--peers ${PEERS.join(",")}] [--seconds N] [--json]\n`,
    );
    return 2;
  }
  const rows: Row[] = [];
  for (const name of [...OWN, ...peers]) {
    const subject = await startSubject(name);
    if (subject === null) {
      process.stderr.write(`${name} is not installed and left out\n`);
      continue;
    }
    rows.push(await rowOf(subject, seconds));
  }
  process.stdout.write(values.json ? `${JSON.stringify(rows, null, 2)}\n` : markdown(rows));
  return 0;
}

async function rowOf(subject: Subject, seconds: number): Promise<Row> {
  const results: Result[] = [];
  try {
    for (const workload of WORKLOADS) {
      process.stderr.write(`${subject.name}: ${workload.name}\n`);
      results.push(await measure(subject.uri, workload, seconds));
    }
  } finally {
    await subject.stop();
  }
  return { subject: subject.name, results };
}

/** One line per workload, one column per subject: operations a second, p50 and p99. */
function markdown(rows: readonly Row[]): string {
  const head = ["operations/s (p50, p99 in ms)", ...rows.map(({ subject }) => subject)];
  const lines = WORKLOADS.map(({ name }, index) => {
    const cells = rows.map(({ results }) => {
      const { operationsPerSecond, p50Ms, p99Ms } = results[index] as Result;
      return `${Math.round(operationsPerSecond)} (${p50Ms.toFixed(2)}, ${p99Ms.toFixed(2)})`;
    });
    return [name, ...cells];
  });
  const dashes = head.map((_, column) => (column === 0 ? "---" : "---:"));
  return [head, dashes, ...lines].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

process.exitCode = await main();

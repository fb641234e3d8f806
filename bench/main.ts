/**
 * `bun run bench`: ours and other NBD servers side by side, on this machine's loopback. Prints a
 * Markdown table, or JSON with `--json`. fio is the load.
 *
 * All subjects stay up during the whole run; each row is measured on every subject in turn, and
 * that several times over, so that what disturbs the machine disturbs all of them alike. Numbers
 * are medians; compare ratios within one run, not numbers of two runs.
 *
 *   --peers LIST     others to measure (subject.ts); those not installed are named and left out
 *   --baseline FILE  another vsan executable, measured too, to see what a change brought
 *   --rows TEXT      only workloads whose name contains TEXT
 *   --quick          half a second per measurement instead of three
 */
import { parseArgs } from "node:util";
import { type Cell, markdown, medianOf } from "./report.ts";
import { DEFAULT_PEERS, PEERS, type Subject, startCluster, startPeer } from "./subject.ts";
import { measure, prepare, type Result, WORKLOADS, type Workload } from "./workload.ts";

const REPETITIONS = 3;
const SECONDS = 3;
const SECONDS_QUICK = 0.5;

interface Plan {
  readonly peers: readonly string[];
  readonly baseline: string | undefined;
  readonly workloads: readonly Workload[];
  readonly seconds: number;
  readonly isJson: boolean;
}

function usage(): number {
  process.stderr.write(
    `usage: bun run bench [--peers ${PEERS.join(",")}] [--baseline FILE] [--rows TEXT] ` +
      "[--seconds N] [--quick] [--json]\n",
  );
  return 2;
}

/** Null if the arguments make no sense. */
function planOf(): Plan | null {
  const { values } = parseArgs({
    options: {
      peers: { type: "string", default: DEFAULT_PEERS.join(",") },
      baseline: { type: "string" },
      rows: { type: "string", default: "" },
      seconds: { type: "string" },
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
    },
  });
  const seconds = Number(values.seconds ?? (values.quick ? SECONDS_QUICK : SECONDS));
  const peers = values.peers === "" ? [] : values.peers.split(",");
  const workloads = WORKLOADS.filter(({ name }) => name.includes(values.rows));
  const isKnown = peers.every((name) => PEERS.includes(name));
  if (!isKnown || !(seconds > 0) || workloads.length === 0) return null;
  return { peers, baseline: values.baseline, workloads, seconds, isJson: values.json };
}

async function main(): Promise<number> {
  const plan = planOf();
  if (plan === null) return usage();
  if (Bun.which("fio") === null) {
    process.stderr.write("fio is not installed\n");
    return 1;
  }
  const subjects: Subject[] = [];
  try {
    await startAll(plan, subjects);
    const cells = await measureAll(plan, subjects);
    const names = subjects.map(({ name }) => name);
    const text = plan.isJson
      ? `${JSON.stringify(cells, null, 2)}\n`
      : markdown(
          names,
          plan.workloads.map(({ name }) => name),
          cells,
        );
    process.stdout.write(text);
  } finally {
    await Promise.all(subjects.map((subject) => subject.stop()));
  }
  return 0;
}

async function startAll(plan: Plan, subjects: Subject[]): Promise<void> {
  subjects.push(await startCluster("vsan one host", 1));
  subjects.push(await startCluster("vsan two hosts", 2));
  if (plan.baseline !== undefined) {
    subjects.push(await startCluster("baseline one host", 1, plan.baseline));
    subjects.push(await startCluster("baseline two hosts", 2, plan.baseline));
  }
  for (const name of plan.peers) {
    const subject = await startPeer(name);
    if (subject !== null) subjects.push(subject);
    else process.stderr.write(`${name} is not installed and left out\n`);
  }
  for (const subject of subjects) await prepare(subject);
}

async function measureAll(plan: Plan, subjects: readonly Subject[]): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const workload of plan.workloads) {
    const results: Result[][] = subjects.map(() => []);
    for (let repetition = 0; repetition < REPETITIONS; repetition += 1) {
      for (const [index, subject] of subjects.entries()) {
        progress(`${workload.name}, ${subject.name}, ${repetition + 1} of ${REPETITIONS}`);
        results[index]?.push(await measure(subject, workload, plan.seconds));
      }
    }
    for (const [index, { name }] of subjects.entries()) {
      cells.push({ workload: workload.name, subject: name, ...medianOf(results[index] ?? []) });
    }
  }
  progress("");
  return cells;
}

/** One line that is written over, on a terminal only. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

process.exitCode = await main();

/** Medians, and the table of a run. */
import type { Result } from "./workload.ts";

/** One workload on one subject. */
export interface Cell extends Result {
  readonly workload: string;
  readonly subject: string;
}

/** The median of each figure by itself. */
export function medianOf(results: readonly Result[]): Result {
  const middle = (values: number[]): number =>
    values.sort((first, second) => first - second)[Math.floor(values.length / 2)] ?? 0;
  return {
    operationsPerSecond: middle(results.map((result) => result.operationsPerSecond)),
    p50Micros: middle(results.map((result) => result.p50Micros)),
    p99Micros: middle(results.map((result) => result.p99Micros)),
    p999Micros: middle(results.map((result) => result.p999Micros)),
    cpuMicros: middle(results.map((result) => result.cpuMicros)),
  };
}

/** One line per workload, one column per subject; ratios to the peers of ours at the end. */
export function markdown(
  subjects: readonly string[],
  workloads: readonly string[],
  cells: readonly Cell[],
): string {
  const find = (workload: string, subject: string): Cell | undefined =>
    cells.find((cell) => cell.workload === workload && cell.subject === subject);
  const ratios = [
    ["vsan one host", "nbdkit-file"],
    ["vsan two hosts", "qemu-quorum"],
    ["vsan one host", "baseline one host"],
    ["vsan two hosts", "baseline two hosts"],
  ].filter((pair) => pair.every((name) => subjects.includes(name))) as [string, string][];
  const title = "op/s (p50/p99/p99.9 us, CPU us/op)";
  const head = [title, ...subjects, ...ratios.map(([own, other]) => `${own} : ${other}`)];
  const lines = workloads.map((workload) => [
    workload,
    ...subjects.map((subject) => cellText(find(workload, subject))),
    ...ratios.map(([own, other]) => {
      const above = find(workload, own)?.operationsPerSecond ?? 0;
      return (above / (find(workload, other)?.operationsPerSecond ?? 0)).toFixed(2);
    }),
  ]);
  const dashes = head.map((_, column) => (column === 0 ? "---" : "---:"));
  return [head, dashes, ...lines].map((words) => `| ${words.join(" | ")} |\n`).join("");
}

function cellText(cell: Cell | undefined): string {
  if (cell === undefined) return "";
  const { operationsPerSecond, p50Micros, p99Micros, p999Micros, cpuMicros } = cell;
  const latency = [p50Micros, p99Micros, p999Micros].map(Math.round).join("/");
  return `${Math.round(operationsPerSecond)} (${latency}, ${Math.round(cpuMicros)})`;
}

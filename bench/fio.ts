/** Runs fio, the load of every benchmark here, and reads its report. */

/** The rest of a fio run beside its measured time. */
const FIO_EXTRA_MS = 20_000;

interface FioSide {
  readonly iops: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

export interface FioJob {
  readonly error: number;
  readonly read: FioSide;
  readonly write: FioSide;
}

/**
 * One fio job of 4 KiB blocks or what `words` say; for `seconds`, or once over its size if that is
 * 0. Rejects with fio's words if it fails.
 */
export async function runFio(words: readonly string[], seconds: number): Promise<FioJob> {
  const time = seconds > 0 ? ["--time_based", `--runtime=${seconds * 1000}ms`] : [];
  const common = ["--name=bench", "--bs=4k", "--randrepeat=0", "--norandommap"];
  const child = Bun.spawn(["fio", ...common, "--output-format=json", ...words, ...time], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: seconds * 1000 + FIO_EXTRA_MS,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const start = stdout.indexOf("{");
  const job =
    code === 0 && start >= 0
      ? (JSON.parse(stdout.slice(start)) as { jobs: FioJob[] }).jobs[0]
      : undefined;
  if (job === undefined || job.error !== 0) {
    throw new Error(`fio ${words.join(" ")} failed (${code}):\n${stderr}${stdout}`);
  }
  return job;
}

/** System calls of a running process that fail on demand: strace, attached and detached. */
import { until } from "./lab.ts";

export const canTrace = process.getuid?.() === 0 && Bun.which("strace") !== null;

export class SyscallFault {
  private readonly child: Bun.Subprocess;

  private constructor(child: Bun.Subprocess) {
    this.child = child;
  }

  /** `injections` as of strace's -e inject=: "fdatasync:error=EIO:when=1". All threads. */
  static async attach(pid: number, injections: readonly string[]): Promise<SyscallFault> {
    const names = injections.map((each) => each.slice(0, each.indexOf(":")));
    const words = injections.flatMap((each) => ["-e", `inject=${each}`]);
    const child = Bun.spawn(
      ["strace", "-f", "-qq", "-e", `trace=${names.join(",")}`, ...words, "-p", String(pid)],
      { stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    const tracer = `/proc/${pid}/status`;
    await until("strace is attached", async () => {
      if (child.exitCode !== null) throw new Error(`strace ended with ${child.exitCode}`);
      return (await Bun.file(tracer).text()).includes(`TracerPid:\t${child.pid}\n`);
    });
    return new SyscallFault(child);
  }

  /** From now on the calls work again. */
  async detach(): Promise<void> {
    this.child.kill("SIGINT");
    await this.child.exited;
  }
}

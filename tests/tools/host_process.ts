/** One `vsan serve` as a process: started, paused, killed and asked, always by its own pid. */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { readStatus, type StatusDocument } from "../../cmd/status_document.ts";

export interface HostProcessOptions {
  readonly name: string;
  readonly kind: "data" | "witness" | "client";
  readonly directory: string;
  readonly configFile: string;
  readonly executable: string;
  /** Words before the executable, e.g. a network namespace's. */
  readonly wrapper: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** URI for clients; "" for a witness. */
  readonly nbd: string;
  /** The store's path, if it is not NAME.vsan in the directory. */
  readonly store?: string;
}

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How long an orderly stop may take before the process is killed. */
const STOP_LIMIT_MS = 20_000;

export class HostProcess {
  readonly name: string;
  readonly kind: HostProcessOptions["kind"];
  readonly nbd: string;
  readonly store: string;
  readonly state: string;
  readonly control: string;
  readonly logFile: string;
  private readonly options: HostProcessOptions;
  private child: Bun.Subprocess<"ignore", "pipe", number> | null = null;

  constructor(options: HostProcessOptions) {
    const { name, directory } = options;
    this.options = options;
    this.name = name;
    this.kind = options.kind;
    this.nbd = options.nbd;
    this.store = options.store ?? join(directory, `${name}.vsan`);
    this.state = join(directory, `${name}.state`);
    this.control = join(directory, `${name}.sock`);
    this.logFile = join(directory, `${name}.log`);
  }

  get isRunning(): boolean {
    return this.child !== null && this.child.exitCode === null && this.child.signalCode === null;
  }

  get pid(): number {
    if (this.child === null) throw new Error(`${this.name} is not running`);
    return this.child.pid;
  }

  /** Starts the host and waits for its ready line, which is returned. */
  async start(timeoutMs = 20_000, flags: readonly string[] = []): Promise<string> {
    this.spawn(flags);
    const child = this.child as Bun.Subprocess<"ignore", "pipe", number>;
    const timeout = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      timeout.reject(new Error(`${this.name} was not ready within ${timeoutMs} ms`));
    }, timeoutMs);
    try {
      return await Promise.race([this.readyLine(child), timeout.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Starts the host without waiting for anything. */
  spawn(flags: readonly string[] = []): void {
    if (this.isRunning) throw new Error(`${this.name} is running`);
    const { wrapper, executable, configFile, environment, directory } = this.options;
    const words = ["serve", "--config", configFile, "--host", this.name, ...flags];
    const log = openSync(this.logFile, "a");
    this.child = Bun.spawn([...wrapper, executable, ...words], {
      cwd: directory,
      env: { ...process.env, ...environment },
      stdin: "ignore",
      stdout: "pipe",
      stderr: log,
    });
    closeSync(log);
  }

  /** SIGTERM, and the exit code of the orderly end. */
  async stop(): Promise<number> {
    const child = this.child;
    if (child === null || !this.isRunning) return child?.exitCode ?? 0;
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT_MS);
    const code = await child.exited;
    clearTimeout(timer);
    return code;
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    if (!this.isRunning) return;
    this.child?.kill("SIGKILL");
    await this.child?.exited;
  }

  signal(name: NodeJS.Signals): void {
    this.child?.kill(name);
  }

  /** Stops it from running at all, as a machine that hangs. */
  pause(): void {
    this.signal("SIGSTOP");
  }

  resume(): void {
    this.signal("SIGCONT");
  }

  async restart(timeoutMs = 20_000): Promise<string> {
    await this.stop();
    return await this.start(timeoutMs);
  }

  /** Runs a command of the executable with this host's config. */
  async run(words: readonly string[], timeoutMs = 60_000): Promise<Finished> {
    const { executable, configFile, directory, environment } = this.options;
    const common = ["--config", configFile, "--host", this.name];
    const child = Bun.spawn([executable, ...words, ...common], {
      cwd: directory,
      env: { ...process.env, ...environment },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: timeoutMs,
      killSignal: "SIGKILL",
    });
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { code, stdout, stderr };
  }

  /** `vsan mirror status --json`, straight from the control socket. */
  async status(): Promise<StatusDocument> {
    const answer = await fetch("http://vsan/status", {
      unix: this.control,
      signal: AbortSignal.timeout(5000),
    });
    if (!answer.ok) throw new Error(`${this.name}: status ${answer.status}`);
    return readStatus(await answer.json());
  }

  /** Begins a pass of the scrub now. */
  async scrub(): Promise<void> {
    const answer = await fetch("http://vsan/scrub", { unix: this.control, method: "POST" });
    if (!answer.ok) throw new Error(`${this.name}: scrub ${answer.status} ${await answer.text()}`);
  }

  private async readyLine(child: Bun.Subprocess<"ignore", "pipe", number>): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of child.stdout) {
      text += decoder.decode(chunk, { stream: true });
      const line = text.split("\n").find((candidate) => candidate.includes("ready"));
      if (line !== undefined && text.includes("\n")) return line;
    }
    throw new Error(`${this.name} ended with code ${await child.exited} before it was ready`);
  }
}

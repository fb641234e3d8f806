/** Asks the running `vsan serve` of this host, over HTTP on its control socket. */
import type { Config } from "./config.ts";
import { failure, messageOf, refusal } from "./exit.ts";

/** A status answer must come within this; the control socket is local. */
const ANSWER_TIMEOUT_MS = 10_000;

export class ControlClient {
  readonly socketPath: string;
  private readonly host: string;

  constructor(config: Config) {
    this.socketPath = config.self.control;
    this.host = config.self.name;
  }

  /** True if a `vsan serve` of this host answers. */
  async isRunning(): Promise<boolean> {
    try {
      const answer = await this.send("GET", "/health", null, AbortSignal.timeout(2000));
      return answer.ok;
    } catch {
      return false;
    }
  }

  /** The JSON answer to GET. */
  async get(path: string): Promise<unknown> {
    return await this.json("GET", path, null);
  }

  /** The JSON answer to POST with a JSON body. */
  async post(path: string, body: object): Promise<unknown> {
    return await this.json("POST", path, body);
  }

  /** The body of GET as text, chunk by chunk, without an end while the server keeps it open. */
  async *stream(path: string): AsyncGenerator<string> {
    const response = await this.ask("GET", path, null, null);
    const decoder = new TextDecoder();
    const reader = (response.body ?? new Blob([]).stream()).getReader();
    for (;;) {
      const next = await reader.read().catch((): never => {
        throw failure(`the vsan serve of ${this.host} has stopped`);
      });
      if (next.done) return;
      yield decoder.decode(next.value, { stream: true });
    }
  }

  private async json(method: string, path: string, body: object | null): Promise<unknown> {
    const timeout = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const response = await this.ask(method, path, body, timeout);
    return await response.json().catch((thrown: unknown): never => {
      throw failure(`the vsan serve of ${this.host} broke off its answer: ${reasonOf(thrown)}`);
    });
  }

  private async ask(
    method: string,
    path: string,
    body: object | null,
    signal: AbortSignal | null,
  ): Promise<Response> {
    let response: Response;
    try {
      response = await this.send(method, path, body, signal);
    } catch (thrown) {
      throw failure(`no vsan serve of ${this.host} at ${this.socketPath}: ${reasonOf(thrown)}`);
    }
    if (response.ok) return response;
    const why = (await response.text()).trim() || `HTTP status ${response.status}`;
    throw response.status === 409 ? refusal(why) : failure(why);
  }

  private send(
    method: string,
    path: string,
    body: object | null,
    signal: AbortSignal | null,
  ): Promise<Response> {
    return fetch(`http://vsan${path}`, {
      unix: this.socketPath,
      method,
      signal,
      body: body === null ? null : JSON.stringify(body),
    });
  }
}

/** No socket there, or a file that nobody serves (any more). */
const NOBODY: readonly string[] = ["FailedToOpenSocket", "ENOENT", "ECONNREFUSED"];

function reasonOf(thrown: unknown): string {
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  if (NOBODY.includes(code)) return "nothing listens there";
  if (code === "ECONNRESET") return "it broke off the connection";
  if (code === "EACCES" || code === "EPERM") return "permission denied";
  if (thrown instanceof Error && thrown.name === "TimeoutError") return "it does not answer";
  // Bun's text of a socket error is about URLs and ports, of which there are none here.
  return /^E[A-Z]+$/.test(code) ? code : messageOf(thrown);
}

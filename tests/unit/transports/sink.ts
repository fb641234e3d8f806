/** What the tests of the transports share: a trace that remembers, and waiting for a fact. */
import type { Trace } from "../../../core/base/ports.ts";

export class Remembered implements Trace {
  readonly lines: string[] = [];

  event(_level: string, code: string, text: string): void {
    this.lines.push(`${code}: ${text}`);
  }

  has(part: string): boolean {
    return this.lines.some((line) => line.includes(part));
  }
}

/** Waits until `fact` holds; fails with `what` after five seconds. */
export async function until(what: string, fact: () => boolean): Promise<void> {
  const endMs = performance.now() + 5000;
  while (!fact()) {
    if (performance.now() > endMs) throw new Error(`never happened: ${what}`);
    await new Promise<void>((resolve) => setTimeout(resolve, 2));
  }
}

/** A TCP port nobody uses now. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

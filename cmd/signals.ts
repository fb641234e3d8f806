/** Signals of a running host: the orderly end, the quick end, and reading the config again. */
import { notifySystemd } from "../transports/notify.ts";
import { EXIT, messageOf } from "./exit.ts";
import type { Runtime } from "./runtime.ts";

/**
 * Waits until the host has stopped. SIGTERM and SIGINT end it in order (exit 0); a second one
 * ends the process at once. `reload` runs at each SIGHUP.
 */
export async function runUntilSignal(
  runtime: Runtime,
  reload: () => void,
  whenAsked: () => void = () => {},
): Promise<number> {
  let stopping = false;
  const end = (name: string): void => {
    if (stopping) process.exit(EXIT.failed);
    stopping = true;
    runtime.events.event("info", "serve.stopping", `${name}: stopping in order`);
    notifySystemd("STOPPING=1");
    whenAsked();
    runtime.drive.stop();
  };
  const onTerm = (): void => end("SIGTERM");
  const onInt = (): void => end("SIGINT");
  process.on("SIGTERM", onTerm);
  process.on("SIGINT", onInt);
  process.on("SIGHUP", reload);
  try {
    await runtime.stopped;
    return EXIT.done;
  } catch (thrown) {
    // A failed assertion: the state in memory cannot be trusted, so nothing more is written.
    // Anything else is the world's doing, such as an NBD port that is in use.
    const isDefect =
      thrown instanceof Error && /^(Assertion|Type|Range|Reference)/.test(thrown.name);
    const text = isDefect ? `defect, the host stops here: ${thrown.stack}` : messageOf(thrown);
    process.stderr.write(`vsan: ${text}\n`);
    process.exit(EXIT.failed);
  } finally {
    process.off("SIGTERM", onTerm);
    process.off("SIGINT", onInt);
    process.off("SIGHUP", reload);
  }
}

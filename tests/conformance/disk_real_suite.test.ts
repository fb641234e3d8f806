/** The suite of every Disk, on both backends of the real one. */
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MIB } from "../../core/base/units.ts";
import { openDisk } from "../../transports/disk_open.ts";
import { type DiskRig, diskSuite } from "./disk_suite.ts";

/** Longest wait for something that must happen. */
const BOUND_MS = 10_000;

const directory = mkdtempSync(join(tmpdir(), "vsan-disk-suite-"));
afterAll(() => rmSync(directory, { recursive: true }));
let files = 0;

async function open(backend: "auto" | "fs"): Promise<DiskRig> {
  files += 1;
  const completions: { tag: number; result: number }[] = [];
  let wake: (() => void) | null = null;
  const opened = await openDisk(
    { path: join(directory, `disk-${files}`), sizeBytes: 8 * MIB, backend },
    { done: (tag, result) => completions.push({ tag, result }), batch: () => wake?.() },
  );
  if (!opened.ok) throw new Error(opened.why);
  const { disk } = opened;
  const until = async (isDone: () => boolean): Promise<boolean> => {
    const deadline = performance.now() + BOUND_MS;
    for (;;) {
      disk.submit();
      disk.deliver();
      if (isDone()) return true;
      if (performance.now() > deadline) return false;
      // A batch may have come before we began to wait for it: look again now and then.
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      const timer = setTimeout(resolve, 5);
      await promise;
      clearTimeout(timer);
      wake = null;
    }
  };
  return { disk, completions, until, close: () => disk.close() };
}

diskSuite("io_uring", () => open("auto"));
diskSuite("fs callbacks", () => open("fs"));

/** The vote file: atomic, durable, one owner; killed at any moment it is old or new, whole. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ERRNO } from "../../../core/base/ports.ts";
import { DiskVoteFile } from "../../../transports/vote_file.ts";
import { until } from "./sink.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-vote-"));
afterAll(() => rmSync(directory, { recursive: true }));

function open(path: string) {
  const done: [number, number][] = [];
  const opened = DiskVoteFile.open(path, { done: (tag, result) => done.push([tag, result]) });
  if (!opened.ok) throw new Error(opened.why);
  return { file: opened.file, bytes: opened.bytes, done };
}

describe("vote file", () => {
  test("is absent at first, then what was written last", async () => {
    const path = join(directory, "deep", "alpha.state");
    const first = open(path);
    expect(first.bytes).toBeNull();
    const bytes = Uint8Array.of(1, 2, 3);
    first.file.write(7, bytes);
    bytes.fill(9); // The caller's buffer is free at once.
    first.file.write(8, Uint8Array.of(4, 5));
    expect(first.done).toEqual([]);
    await until("both done", () => first.done.length === 2);
    expect(first.done).toEqual([
      [7, 0],
      [8, 0],
    ]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await first.file.close();
    const second = open(path);
    expect(second.bytes).toEqual(Uint8Array.of(4, 5));
    await second.file.close();
  });

  test("belongs to one process", async () => {
    const path = join(directory, "beta.state");
    const { file } = open(path);
    const second = DiskVoteFile.open(path, { done() {} });
    expect(second).toEqual({ ok: false, why: `${path} is in use by another vsan process` });
    await file.close();
    await open(path).file.close();
  });

  test("a half-written successor is forgotten, the old document stays", async () => {
    const path = join(directory, "gamma.state");
    writeFileSync(path, "old");
    writeFileSync(`${path}.new`, "ha");
    const { file, bytes } = open(path);
    expect(new TextDecoder().decode(bytes ?? new Uint8Array(0))).toBe("old");
    expect(existsSync(`${path}.new`)).toBe(false);
    await file.close();
  });

  test("a failure is answered with its errno, and the next write tries anew", async () => {
    const inner = join(directory, "gone");
    const path = join(inner, "delta.state");
    const { file, done } = open(path);
    rmSync(inner, { recursive: true });
    file.write(1, Uint8Array.of(1));
    await until("answered", () => done.length === 1);
    expect(done[0]).toEqual([1, -2]);
    await file.close();
  });

  test("more than may wait is refused, not kept", async () => {
    const { file, done } = open(join(directory, "epsilon.state"));
    for (let tag = 0; tag < 300; tag += 1) file.write(tag, Uint8Array.of(tag));
    await until("all answered", () => done.length === 300);
    const refused = done.filter(([, result]) => result === -ERRNO.EAGAIN);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThan(50);
    await file.close();
  });

  test("killed while writing: the document is one of those written, whole", async () => {
    const path = join(directory, "zeta.state");
    const program = join(directory, "writer.ts");
    const source = join(import.meta.dir, "../../../transports/vote_file.ts");
    writeFileSync(
      program,
      `import { DiskVoteFile } from ${JSON.stringify(source)};
       let next = 0;
       const opened = DiskVoteFile.open(${JSON.stringify(path)}, { done: () => write() });
       function write() {
         next += 1;
         console.log(next);
         opened.file.write(next, new Uint8Array(20000).fill(next % 256));
       }
       write();`,
    );
    for (let run = 0; run < 5; run += 1) {
      const child = Bun.spawn([process.execPath, program], { stdout: "pipe", stderr: "inherit" });
      const reader = child.stdout.getReader();
      await reader.read();
      await new Promise<void>((resolve) => setTimeout(resolve, 5 + run * 13));
      child.kill("SIGKILL");
      await child.exited;
      const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(20000);
      expect(bytes.length).toBe(20000);
      expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
    }
  });
});

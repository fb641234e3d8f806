/** The key file: made for its owner only, and refused when it is anything else. */
import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomKey, readClusterKey, writeClusterKey } from "../../../cmd/cluster_key.ts";
import { EXIT } from "../../../cmd/exit.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-key-"));
const file = join(directory, "cluster.key");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function written(text: string, mode = 0o600): string {
  rmSync(file, { force: true });
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

test("a fresh key is read back, is private and is never the same", () => {
  rmSync(file, { force: true });
  writeClusterKey(file);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const key = readClusterKey(file);
  expect(Buffer.from(key).toString("base64")).toBe(readFileSync(file, "utf8").trim());
  expect(() => writeClusterKey(file)).toThrow("EEXIST");
  expect(Buffer.from(readClusterKey(file)).equals(key)).toBe(true);
  expect(Buffer.from(randomKey()).equals(randomKey())).toBe(false);
});

const base64 = (length: number): string => Buffer.alloc(length, 7).toString("base64");

test.each([
  ["too short", base64(31), 0o600, "the key has 31 bytes, expected 32"],
  ["too long", base64(33), 0o600, "the key has 33 bytes, expected 32"],
  ["empty", "", 0o600, "expected 32 bytes in base64"],
  ["not base64", "=".repeat(44), 0o600, "expected 32 bytes in base64"],
  ["two lines", `${base64(32)}\n${base64(32)}`, 0o600, "expected 32 bytes in base64"],
  ["a large file", "A".repeat(5000), 0o600, "expected a file with 32 bytes"],
  ["readable by the group", base64(32), 0o640, "mode is 0640"],
  ["readable by all", base64(32), 0o604, "mode is 0604"],
])("%s is refused", (_, text, mode, complaint) => {
  let code = -1;
  try {
    readClusterKey(written(text, mode));
  } catch (thrown) {
    expect(String(thrown)).toContain(complaint);
    code = (thrown as { code: number }).code;
  }
  expect(code).toBe(EXIT.usage);
});

test("a missing file and a directory are refused", () => {
  expect(() => readClusterKey(join(directory, "none"))).toThrow("cannot read the cluster key");
  expect(() => readClusterKey(directory)).toThrow("expected a file");
});

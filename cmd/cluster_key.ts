/**
 * The cluster key: 32 random bytes in base64, in a file that only its owner can read. Whoever has
 * it is a host of the cluster (G9), so a file that others could read is refused, not used.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { messageOf, usageError } from "./exit.ts";

export const KEY_BYTES = 32;

/** Reads and checks the key file. Throws a usage error in one sentence. */
export function readClusterKey(file: string): Uint8Array {
  const { mode, text } = readKeyFile(file);
  if ((mode & 0o077) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, "0");
    throw usageError(`${file}: mode is ${octal}, so others can use the key; chmod 0600 it`);
  }
  const trimmed = text.trim();
  const isBase64 = /^[A-Za-z0-9+/]+={0,2}$/.test(trimmed) && trimmed.length % 4 === 0;
  if (!isBase64) throw usageError(`${file}: expected ${KEY_BYTES} bytes in base64 on one line`);
  const key = new Uint8Array(Buffer.from(trimmed, "base64"));
  if (key.length !== KEY_BYTES) {
    throw usageError(`${file}: the key has ${key.length} bytes, expected ${KEY_BYTES}`);
  }
  return key;
}

function readKeyFile(file: string): { mode: number; text: string } {
  try {
    const info = statSync(file);
    if (!info.isFile() || info.size > 4096) {
      throw usageError(`${file}: expected a file with ${KEY_BYTES} bytes in base64`);
    }
    return { mode: info.mode, text: readFileSync(file, "utf8") };
  } catch (thrown) {
    if (thrown instanceof Error && "code" in thrown && typeof thrown.code === "string") {
      throw usageError(`cannot read the cluster key: ${messageOf(thrown)}`);
    }
    throw thrown;
  }
}

/** A key for a host alone, which nobody else needs to know. */
export function randomKey(): Uint8Array {
  return new Uint8Array(randomBytes(KEY_BYTES));
}

/** Writes a fresh key with mode 0600; throws if the file exists. */
export function writeClusterKey(file: string): void {
  const text = `${randomBytes(KEY_BYTES).toString("base64")}\n`;
  writeFileSync(file, text, { mode: 0o600, flag: "wx", flush: true });
}

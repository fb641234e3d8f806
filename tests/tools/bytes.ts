/** Comparing and writing larger pieces of a volume. */
import { expect } from "bun:test";
import type { NbdClient } from "./nbd_client.ts";

const MIB = 1024 * 1024;

/** Writes `data` in requests of 1 MiB, all at once. */
export async function writeAll(client: NbdClient, offset: number, data: Uint8Array): Promise<void> {
  const writes: Promise<void>[] = [];
  for (let at = 0; at < data.length; at += MIB) {
    writes.push(client.write(offset + at, data.subarray(at, at + MIB)));
  }
  await Promise.all(writes);
}

/** Reads in requests of 1 MiB, all at once. */
export async function readAll(
  client: NbdClient,
  offset: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  const reads: Promise<Uint8Array>[] = [];
  for (let at = 0; at < lengthBytes; at += MIB) {
    reads.push(client.read(offset + at, Math.min(MIB, lengthBytes - at)));
  }
  return Buffer.concat(await Promise.all(reads));
}

/** Fails with the first block that differs, not with megabytes of bytes. */
export function expectEqual(found: Uint8Array, wanted: Uint8Array): void {
  expect(found.length).toBe(wanted.length);
  if (Buffer.compare(found, wanted) === 0) return;
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  const text = (bytes: Uint8Array): string =>
    Buffer.from(bytes.subarray(at, at + 16)).toString("hex");
  throw new Error(`bytes differ from ${at} on: ${text(found)} instead of ${text(wanted)}`);
}

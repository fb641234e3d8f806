/** What a volume holds, as one digest: to compare what hosts in sync read from their own disks. */
import type { NbdClient } from "./nbd_client.ts";

const CHUNK_BYTES = 4 * 1024 * 1024;

export async function contentsOf(client: NbdClient): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for (let at = 0; at < client.sizeBytes; at += CHUNK_BYTES) {
    hasher.update(await client.read(at, Math.min(CHUNK_BYTES, client.sizeBytes - at)));
  }
  return hasher.digest("hex");
}

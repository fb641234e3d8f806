/** The test client against a server that is not ours, so that both are not wrong together. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FLAG, NbdClient, type NbdError } from "../tools/nbd_client.ts";

const hasNbdkit = Bun.which("nbdkit") !== null;
const directory = mkdtempSync(join(tmpdir(), "vsan-nbdkit-"));
const socket = join(directory, "nbd.sock");
const uri = `nbd+unix:///?socket=${socket}`;
let server: Bun.Subprocess | null = null;

beforeAll(async () => {
  if (!hasNbdkit) return;
  server = Bun.spawn(["nbdkit", "-f", "-U", socket, "--filter=error", "memory", "64M"]);
  for (let tries = 0; tries < 200; tries++) {
    const client = await NbdClient.connect({ uri }).catch(() => null);
    client?.close();
    if (client !== null) return;
    await Bun.sleep(20);
  }
});

afterAll(async () => {
  server?.kill();
  await server?.exited;
  rmSync(directory, { recursive: true, force: true });
});

test.skipIf(!hasNbdkit)("reads back what it wrote, many requests at once", async () => {
  const client = await NbdClient.connect({ uri });
  expect(client.sizeBytes).toBe(64 * 1024 * 1024);
  const writes = Array.from({ length: 64 }, (_, index) =>
    client.write(index * 65536, new Uint8Array(65536).fill(index + 1), index % 2 ? FLAG.fua : 0),
  );
  await Promise.all(writes);
  await client.flush();
  const all = await client.read(0, 64 * 65536);
  for (let index = 0; index < 64; index++) {
    expect(all[index * 65536]).toBe(index + 1);
    expect(all[index * 65536 + 65535]).toBe(index + 1);
  }
  await client.zero(0, 65536);
  await client.trim(65536, 65536);
  expect((await client.read(0, 65536)).every((byte) => byte === 0)).toBe(true);
  client.close();
});

test.skipIf(!hasNbdkit)("an error is the server's errno, and the connection goes on", async () => {
  const client = await NbdClient.connect({ uri });
  const past = client.read(64 * 1024 * 1024, 4096);
  expect(await past.catch((error) => (error as NbdError).errno)).toBe(22);
  expect(await client.read(0, 1)).toHaveLength(1);
  client.close();
});

test.skipIf(!hasNbdkit)("whatever waits fails when the connection is gone", async () => {
  const client = await NbdClient.connect({ uri });
  client.abort();
  await expect(client.read(0, 4096)).rejects.toThrow("aborted");
});

test("a server that is not there is refused", async () => {
  const missing = `nbd+unix:///?socket=${join(directory, "none.sock")}`;
  await expect(NbdClient.connect({ uri: missing })).rejects.toThrow();
});

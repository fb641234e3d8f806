/** The file tree of the demo, as an image, and its way in and out of a volume over NBD. */
import {
  closeSync,
  mkdirSync,
  openSync,
  readSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { NbdClient } from "./nbd_client.ts";

const CHUNK_BYTES = 1024 * 1024;
/** Requests in flight of our own client; nbdcopy uses 64. */
const DEPTH = 16;

/** Makes files below `directory` and an image of them at `image`; says what it is. */
export async function makeTree(
  directory: string,
  image: string,
  imageBytes: number,
): Promise<string> {
  let count = 0;
  for (let folder = 0; folder < 20; folder++) {
    const path = join(directory, `folder-${folder}`);
    mkdirSync(path, { recursive: true });
    for (let index = 0; index < 10; index++) {
      const text = `file ${index} of folder ${folder}\n`.repeat(1 + ((folder * index) % 97) * 200);
      writeFileSync(join(path, `file-${index}.txt`), text);
      count += 1;
    }
  }
  const mke2fs = findProgram("mke2fs");
  if (mke2fs !== null) {
    writeFileSync(image, "");
    truncateSync(image, imageBytes);
    const words = ["-q", "-F", "-t", "ext4", "-d", directory, image];
    if (Bun.spawnSync([mke2fs, ...words]).success) return `${count} files in an ext4 image`;
  }
  return plainImage(image, imageBytes, count);
}

/** Without mke2fs: bytes that are different everywhere. */
function plainImage(image: string, imageBytes: number, count: number): string {
  const chunk = new Uint8Array(CHUNK_BYTES);
  const descriptor = openSync(image, "w");
  for (let at = 0; at < imageBytes; at += CHUNK_BYTES) {
    for (let index = 0; index < CHUNK_BYTES; index += 65536) {
      crypto.getRandomValues(chunk.subarray(index, index + 65536));
    }
    writeSync(descriptor, chunk);
  }
  closeSync(descriptor);
  return `a plain image (no mke2fs here; ${count} files left out)`;
}

/** Copies an image to the beginning of the volume at `uri`; says how. */
export async function copyIn(image: string, uri: string): Promise<string> {
  if (nbdcopy(["--flush", "--destination-is-zero", image, uri])) return "copied with nbdcopy";
  const client = await NbdClient.connect({ uri });
  const size = Bun.file(image).size;
  const descriptor = openSync(image, "r");
  await inParallel(size, async (at, length) => {
    const data = new Uint8Array(length);
    readSync(descriptor, data, 0, length, at);
    await client.write(at, data);
  });
  closeSync(descriptor);
  await client.flush();
  client.close();
  return "copied with our own NBD client";
}

/** Copies the first `lengthBytes` of the volume at `uri` to `file`. */
export async function copyOut(uri: string, file: string, lengthBytes: number): Promise<void> {
  if (nbdcopy([uri, file])) {
    truncateSync(file, lengthBytes);
    return;
  }
  const client = await NbdClient.connect({ uri });
  const descriptor = openSync(file, "w");
  await inParallel(lengthBytes, async (at, length) => {
    writeSync(descriptor, await client.read(at, length), 0, length, at);
  });
  closeSync(descriptor);
  client.close();
}

function nbdcopy(words: readonly string[]): boolean {
  const program = findProgram("nbdcopy");
  return program !== null && Bun.spawnSync([program, ...words], { timeout: 60_000 }).success;
}

/** Calls `work` for each chunk of `[0, lengthBytes)`, some at a time. */
async function inParallel(
  lengthBytes: number,
  work: (at: number, length: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < lengthBytes) {
      const at = next;
      next += CHUNK_BYTES;
      await work(at, Math.min(CHUNK_BYTES, lengthBytes - at));
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, worker));
}

function findProgram(name: string): string | null {
  return Bun.which(name, { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin` });
}

/** Unix socket paths: a file left behind by a dead process is removed, a live one is respected. */
import { lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";

/** sockaddr_un holds 108 bytes with the final zero. */
const PATH_BYTES_MAX = 107;

/** Makes `path` free to listen on; throws one sentence if it is not ours to take. */
export async function freeSocketPath(path: string): Promise<void> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw new Error(`${path} is too long for a socket (${PATH_BYTES_MAX} bytes at most)`);
  }
  mkdirSync(dirname(path), { recursive: true });
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new Error(`${path} exists and is not a socket`);
  if (await answers(path)) throw new Error(`${path} is in use by another process`);
  unlinkSync(path);
}

async function answers(path: string): Promise<boolean> {
  try {
    const socket = await Bun.connect({ unix: path, socket: { data() {} } });
    socket.terminate();
    return true;
  } catch {
    return false;
  }
}

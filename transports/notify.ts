/** sd_notify(3): tells systemd that the service is ready or stopping. Nothing without systemd. */
import { libc, scratchMemory } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const PATH_BYTES_MAX = 107;

/** Sends `state` ("READY=1") to `socketPath` ($NOTIFY_SOCKET); true if it was taken. */
export function notifySystemd(
  state: string,
  socketPath: string | undefined = process.env.NOTIFY_SOCKET,
): boolean {
  if (socketPath === undefined || socketPath === "") return false;
  const path = new TextEncoder().encode(socketPath);
  const text = new TextEncoder().encode(state);
  if (path.length > PATH_BYTES_MAX || text.length > 2048) return false;
  const memory = scratchMemory();
  new DataView(memory.bytes.buffer).setUint16(0, AF_UNIX, true);
  memory.bytes.fill(0, 2, 128);
  memory.bytes.set(path, 2);
  // An abstract socket's name starts with a zero byte, written "@".
  if (socketPath.startsWith("@")) memory.bytes[2] = 0;
  memory.bytes.set(text, 1024);
  const fd = libc().socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) return false;
  const { address } = memory;
  const sent = libc().sendto(fd, address + 1024, text.length, 0, address, 2 + path.length);
  libc().close(fd);
  return Number(sent) === text.length;
}

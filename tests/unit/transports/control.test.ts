/** The control socket: routes, refusals, stale and live socket files, any bytes. */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ControlRoutes, ControlSocket } from "../../../transports/control.ts";
import { until } from "./sink.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-control-"));
const path = join(directory, "run", "alpha.sock");
let socket: ControlSocket | null = null;
afterEach(async () => {
  await socket?.stop();
  socket = null;
});
afterAll(() => rmSync(directory, { recursive: true }));

const ROUTES: ControlRoutes = {
  "GET /status": () => Response.json({ fine: true }),
  "POST /echo": async (request, url) =>
    new Response(`${url.searchParams.get("x")} ${await request.text()}`),
  "GET /broken": () => {
    throw new Error("it broke");
  },
};

async function ask(route: string, init: RequestInit = {}): Promise<string> {
  const answer = await fetch(`http://localhost${route}`, { ...init, unix: path });
  return `${answer.status} ${(await answer.text()).trim()}`;
}

describe("control socket", () => {
  test("answers its routes, for its owner only, and leaves nothing behind", async () => {
    socket = await ControlSocket.listen(path, ROUTES);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await ask("/status")).toBe('200 {"fine":true}');
    expect(await ask("/echo?x=1", { method: "POST", body: "hi" })).toBe("200 1 hi");
    expect(await ask("/nothing")).toBe("404 no such path");
    expect(await ask("/constructor")).toBe("404 no such path");
    expect(await ask("/echo")).toBe("405 not by this method");
    expect(await ask("/broken")).toBe("500 it broke");
    expect(await ask("/status")).toBe('200 {"fine":true}');
    await socket.stop();
    expect(existsSync(path)).toBe(false);
  });

  test("too large a body is refused", async () => {
    socket = await ControlSocket.listen(path, ROUTES);
    const body = "x".repeat(65 * 1024);
    expect(await ask("/echo", { method: "POST", body })).toStartWith("413");
  });

  test("bytes that are not HTTP end that connection and nothing else", async () => {
    socket = await ControlSocket.listen(path, ROUTES);
    let closed = 0;
    for (const garbage of ["\u0000\u0001\u0002\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "{}\n\n"]) {
      const before = closed;
      const raw = await Bun.connect({
        unix: path,
        socket: {
          data() {},
          close() {
            closed += 1;
          },
        },
      });
      raw.write(garbage);
      await until("closed", () => closed > before);
    }
    expect(await ask("/status")).toBe('200 {"fine":true}');
  });

  test("a stale socket file is replaced, a live one and other files are not", async () => {
    socket = await ControlSocket.listen(path, ROUTES);
    await expect(ControlSocket.listen(path, ROUTES)).rejects.toThrow("in use by another process");
    expect(await ask("/status")).toBe('200 {"fine":true}');
    await socket.stop();
    const stale = Bun.spawn([
      process.execPath,
      "-e",
      `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } }); console.log(1);`,
    ]);
    await until("made", () => existsSync(path));
    stale.kill("SIGKILL");
    await stale.exited;
    expect(existsSync(path)).toBe(true);
    socket = await ControlSocket.listen(path, ROUTES);
    expect(await ask("/status")).toBe('200 {"fine":true}');
    const plain = join(directory, "plain");
    writeFileSync(plain, "mine");
    await expect(ControlSocket.listen(plain, ROUTES)).rejects.toThrow("is not a socket");
    await expect(ControlSocket.listen(`/tmp/${"x".repeat(120)}`, ROUTES)).rejects.toThrow(
      "too long for a socket",
    );
  });
});

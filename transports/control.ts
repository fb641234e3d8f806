/**
 * HTTP on a Unix socket for the other commands (docs/cli.md). The socket's mode is 0600: who may
 * open it may do everything. Any bytes on it end that request and nothing else.
 */
import { chmodSync } from "node:fs";
import { KIB } from "../core/base/units.ts";
import { freeSocketPath } from "./unix_socket.ts";

const SOCKET_MODE = 0o600;
const BODY_BYTES_MAX = 64 * KIB;

/** Answers one request. Anything thrown ends that request with 500 and one sentence. */
export type ControlRoute = (request: Request, url: URL) => Response | Promise<Response>;

/** Routes by "METHOD /path". */
export type ControlRoutes = Readonly<Record<string, ControlRoute>>;

export class ControlSocket {
  private readonly server: Bun.Server<undefined>;

  private constructor(server: Bun.Server<undefined>) {
    this.server = server;
  }

  /** Listens at `path`; rejects with one sentence. A stale socket file is replaced. */
  static async listen(path: string, routes: ControlRoutes): Promise<ControlSocket> {
    await freeSocketPath(path);
    const mask = process.umask(0o177);
    try {
      const server = Bun.serve({
        unix: path,
        maxRequestBodySize: BODY_BYTES_MAX,
        fetch: (request, own) => {
          // Event streams are silent for as long as nothing happens.
          own.timeout(request, 0);
          return answer(routes, request);
        },
        error: (error) => sentence(500, error.message),
      });
      chmodSync(path, SOCKET_MODE);
      return new ControlSocket(server);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`cannot open the control socket ${path}: ${why}`);
    } finally {
      process.umask(mask);
    }
  }

  /** Ends every request and removes the socket file. */
  async stop(): Promise<void> {
    await this.server.stop(true);
  }
}

async function answer(routes: ControlRoutes, request: Request): Promise<Response> {
  try {
    const url = new URL(request.url);
    const key = `${request.method} ${url.pathname}`;
    const route = Object.hasOwn(routes, key) ? routes[key] : undefined;
    if (route !== undefined) return await route(request, url);
    const isKnown = Object.keys(routes).some((name) => name.endsWith(` ${url.pathname}`));
    return isKnown ? sentence(405, "not by this method") : sentence(404, "no such path");
  } catch (error) {
    return sentence(500, error instanceof Error ? error.message : String(error));
  }
}

function sentence(status: number, text: string): Response {
  return new Response(`${text}\n`, { status });
}

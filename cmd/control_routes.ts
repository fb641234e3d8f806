/**
 * What the control socket answers (docs/cli.md): status, leases, events, and the start of a
 * recovery. Errors are one sentence of plain text; 409 means "not now".
 */
import type { ControlRoutes, Drive } from "../transports/drive.ts";
import type { HostOptions } from "../core/host/machine.ts";
import * as v from "valibot";
import type { EventLog } from "./event_log.ts";
import { statusDocument } from "./status_document.ts";

const recoverSchema = v.strictObject({
  path: v.nullable(v.pipe(v.string(), v.startsWith("/"))),
  force: v.boolean(),
});

/** `drive` is asked for at each request: the routes exist before it does. */
export function controlRoutes(
  options: HostOptions,
  events: EventLog,
  drive: () => Drive,
): ControlRoutes {
  return {
    "GET /health": () => Response.json({ phase: drive().host.phase }),
    "GET /status": () => {
      const { host } = drive();
      const status = host.status(drive().nowMs());
      return Response.json(statusDocument(status, drive().paths(), options.roster));
    },
    "GET /leases": () => Response.json(drive().host.leases()),
    "GET /events": (request, url) => eventsResponse(events, request, url),
    "POST /scrub": () => {
      const refused = drive().run((host, nowMs) => ({ why: host.scrub(nowMs) }));
      const why = refused === null ? "the host has stopped" : refused.why;
      return why === null ? Response.json({}) : sentence(409, why);
    },
    "POST /recover": async (request) => {
      const body = v.safeParse(recoverSchema, await request.json().catch(() => null));
      if (!body.success) return sentence(400, "expected {path: an absolute path or null, force}");
      const refused = await drive().recover(body.output);
      return refused === null ? Response.json({}) : sentence(409, refused);
    },
  };
}

function sentence(status: number, text: string): Response {
  return new Response(`${text}\n`, { status });
}

function eventsResponse(events: EventLog, request: Request, url: URL): Response {
  const headers = { "content-type": "application/x-ndjson" };
  if (url.searchParams.get("follow") !== "1") {
    return new Response(events.recent().join(""), { headers });
  }
  const encoder = new TextEncoder();
  const follower = events.follow(request.signal);
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await follower.next();
      if (next.done === true) controller.close();
      else controller.enqueue(encoder.encode(next.value));
    },
    async cancel() {
      await follower.return(undefined);
    },
  });
  return new Response(body, { headers });
}

/** `vsan mirror`: how the cluster is, and what happens in it. */
import { defineCommand } from "citty";
import { COMMON_ARGS } from "./arguments.ts";
import { clientOf, laterCommand, printJson } from "./command.ts";
import type { ControlClient } from "./control_client.ts";
import { readStatus } from "./status_document.ts";
import { statusText } from "./status_view.ts";
import { showsColors } from "./table.ts";

const WATCH_INTERVAL_MS = 1000;
/** Cursor to the top left, erase to the end (ECMA-48, CUP and ED). */
const REDRAW = "\u001b[H\u001b[J";
const CLEAR = "\u001b[2J";

const statusCommand = defineCommand({
  meta: { name: "status", description: "cluster, view, hosts, volumes, links, resync progress" },
  args: {
    watch: { type: "boolean", description: "redraw in place every second" },
    ...COMMON_ARGS,
  },
  async run({ args }) {
    const client = clientOf(args);
    if (args.watch === true) return await watchStatus(client, args.json === true);
    const status = readStatus(await client.get("/status"));
    if (args.json === true) printJson(status);
    else process.stdout.write(statusText(status, showsColors(process.stdout)));
  },
});

/** Until interrupted, or until the host that answers is gone. */
async function watchStatus(client: ControlClient, json: boolean): Promise<void> {
  const inPlace = process.stdout.isTTY === true && !json;
  if (inPlace) process.stdout.write(CLEAR);
  for (;;) {
    const status = readStatus(await client.get("/status"));
    const text = json
      ? `${JSON.stringify(status)}\n`
      : statusText(status, showsColors(process.stdout));
    process.stdout.write(inPlace ? REDRAW + text : text);
    await Bun.sleep(WATCH_INTERVAL_MS);
  }
}

const eventsCommand = defineCommand({
  meta: { name: "events", description: "the event stream, one JSON object a line" },
  args: {
    follow: { type: "boolean", description: "go on with new events as they happen" },
    ...COMMON_ARGS,
  },
  async run({ args }) {
    const path = args.follow === true ? "/events?follow=1" : "/events";
    for await (const text of clientOf(args).stream(path)) process.stdout.write(text);
  },
});

const HOST_ARG = {
  host_name: { type: "positional", description: "the host resynced to" },
} as const;

export const mirrorCommand = defineCommand({
  meta: { name: "mirror", description: "the copies: status, events, verify, resync" },
  subCommands: {
    status: statusCommand,
    events: eventsCommand,
    verify: laterCommand("mirror verify", "compare all members' blocks online", {
      volume: { type: "positional", required: false, description: "only this volume" },
      repair: { type: "boolean", description: "rewrite what is wrong from a good copy" },
    }),
    pause: laterCommand("mirror pause", "stop resync to a host", HOST_ARG),
    resume: laterCommand("mirror resume", "restart resync to a host", HOST_ARG),
    throttle: laterCommand("mirror throttle", "bound the rate of resync and verify", {
      rate: { type: "positional", description: "bytes a second, such as 40M" },
    }),
  },
});

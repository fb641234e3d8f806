/** The event stream: kept, followed, bounded. */
import { expect, test } from "bun:test";
import { EVENTS_KEPT, EventLog, eventLine } from "../../../cmd/event_log.ts";

function log(): EventLog {
  return new EventLog("alpha", () => {});
}

function texts(lines: string): string[] {
  const parsed = lines.trim().split("\n");
  return parsed.map((line) => JSON.parse(line).text);
}

test("an event is one line of JSON, and its fields cannot hide the fixed keys", () => {
  const line = eventLine({
    time: "t",
    host: "alpha",
    level: "info",
    code: "view.opened",
    text: "two\nlines",
    fields: { epoch: 7, code: "fake" },
  });
  expect(line.split("\n")).toHaveLength(2);
  const event = JSON.parse(line);
  expect(event).toEqual({
    time: "t",
    host: "alpha",
    level: "info",
    code: "view.opened",
    text: "two\nlines",
    epoch: 7,
  });
});

test("the newest are kept, oldest first; debug is only printed", () => {
  const printed: string[] = [];
  const events = new EventLog("alpha", ({ text }) => printed.push(text));
  events.event("debug", "a", "noise");
  for (let index = 0; index < EVENTS_KEPT + 10; index++) events.event("info", "a", `e${index}`);
  const kept = texts(events.recent().join(""));
  expect(kept).toHaveLength(EVENTS_KEPT);
  expect(kept[0]).toBe("e10");
  expect(kept.at(-1)).toBe(`e${EVENTS_KEPT + 9}`);
  expect(printed).toHaveLength(EVENTS_KEPT + 11);
});

test("a follower gets what was and what comes, then ends", async () => {
  const events = log();
  events.event("info", "a", "before");
  const abort = new AbortController();
  const follower = events.follow(abort.signal);
  expect(texts((await follower.next()).value as string)).toEqual(["before"]);
  const waiting = follower.next();
  events.event("warn", "a", "after");
  expect(texts((await waiting).value as string)).toEqual(["after"]);
  const last = follower.next();
  abort.abort();
  expect((await last).done).toBe(true);
});

test("a follower that does not read loses the oldest and is told", async () => {
  const events = log();
  const abort = new AbortController();
  const follower = events.follow(abort.signal);
  events.event("info", "a", "first");
  await follower.next();
  for (let index = 0; index < 5000; index++) events.event("info", "a", `e${index}`);
  const lines = texts((await follower.next()).value as string);
  expect(lines.length).toBeLessThanOrEqual(1025);
  expect(lines[0]).toContain("lost 3976 events");
  expect(lines.at(-1)).toBe("e4999");
  abort.abort();
  await follower.return(undefined);
});

/** SIGHUP: what is applied, what waits for the next start; a bad config changes nothing. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadConfig } from "../../../cmd/config.ts";
import { EventLog } from "../../../cmd/event_log.ts";
import { MetricsServer, metricsText } from "../../../cmd/metrics.ts";
import { changedKeys, Reloader } from "../../../cmd/reload.ts";
import type { HostStatus } from "../../../core/host/machine.ts";
import { freePorts } from "../../tools/cluster.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-reload-"));
const file = join(directory, "vsan.toml");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const status: HostStatus = {
  cluster: "c",
  host: 'al"pha',
  view: { epoch: 7, members: [], joining: [], majority: true, open: false, why: "" },
  hosts: [
    {
      name: 'al"pha',
      kind: "data",
      connected: true,
      state: "in-sync",
      disk: "ok",
      why: "",
      store: {
        sizeBytes: 100,
        usedBytes: 7,
        segmentsFree: 3,
        writeAmplification: 1.5,
        badBlocksHealed: 0,
        badBlocksWaiting: 4,
        indexBytes: 1024,
        indexMisses: 7,
        scrub: {
          bytesPerSecond: 1048576,
          isRunning: true,
          share: 0.25,
          passes: 3,
          endedMs: 1_800_000_000_000,
          checkedBlocks: 1000,
          badBlocks: 5,
          readsMedium: true,
        },
      },
    },
  ],
  volumes: [],
  resync: [],
  reads: { local: 3, remote: 1 },
};

function configWith(lines: string): void {
  const text = `[[host]]\nname = "a"\nstore = "s"\n${lines}\n[[volume]]\nname = "v"\nsize = "1G"\n`;
  writeFileSync(file, text);
}

test("changed keys are named with their place", () => {
  expect(changedKeys({ a: 1, b: [{ c: 1 }] }, { a: 1, b: [{ c: 2 }, { c: 3 }] })).toEqual([
    "b[0].c",
    "b[1]",
  ]);
  expect(changedKeys({ a: { b: 1 } }, { a: { b: 1 } })).toEqual([]);
  expect(changedKeys({ a: { b: 1 } }, {})).toEqual(["a"]);
});

test("http moves at once, other keys wait, a defect changes nothing", async () => {
  const [first, second] = (await freePorts(2)) as [number, number];
  configWith(`http = "127.0.0.1:${first}"`);
  const seen: string[] = [];
  const events = new EventLog("a", ({ code, text }) => seen.push(`${code} ${text}`));
  const metrics = new MetricsServer(() => status, events);
  const config = loadConfig({ file });
  metrics.listen(config.self.http ?? null);
  const rates: (number | null)[] = [];
  const setScrubRate = (rate: number | null): number => rates.push(rate);
  const reloader = new Reloader(config, { file }, events, { metrics, setScrubRate });
  const answers = async (port: number): Promise<boolean> =>
    await fetch(`http://127.0.0.1:${port}/metrics`).then(
      (answer) => answer.ok,
      () => false,
    );
  try {
    expect(await answers(first)).toBe(true);
    reloader.reload();
    expect(seen.splice(0)).toEqual(["config.same the config is as it was"]);
    configWith(`http = "127.0.0.1:${second}"\npriority = 5`);
    reloader.reload();
    expect(seen.splice(0)).toEqual([
      "config.applied http is changed",
      "config.waiting host[0].priority changes at the next start",
    ]);
    expect(await answers(first)).toBe(false);
    expect(await answers(second)).toBe(true);
    configWith(`http = "127.0.0.1:${second}"\nscrub = "2M"`);
    reloader.reload();
    configWith(`http = "127.0.0.1:${second}"\nscrub = "off"`);
    reloader.reload();
    configWith(`http = "127.0.0.1:${second}"`);
    reloader.reload();
    expect(rates).toEqual([2 * 1024 * 1024, 0, null]);
    expect(seen.splice(0)).toEqual(Array(3).fill("config.applied scrub is changed"));
    configWith("priority = 9");
    reloader.reload();
    expect(seen.splice(0)[0]).toContain("config.refused the config was not taken: ");
    expect(await answers(second)).toBe(true);
  } finally {
    metrics.listen(null);
  }
});

test("metrics are in the exposition format", () => {
  const text = metricsText(status);
  expect(text).toContain("# TYPE vsan_view_epoch gauge\nvsan_view_epoch 7\n");
  expect(text).toContain('vsan_host_in_sync{host="al\\"pha"} 1\n');
  expect(text).toContain("vsan_store_write_amplification 1.5\n");
  expect(text).toContain("vsan_view_open 0\n");
  expect(text).toContain("vsan_store_bad_blocks 4\n");
  expect(text).toContain("vsan_scrub_share 0.25\n");
  expect(text).toContain("vsan_scrub_ended_seconds 1800000000\n");
  for (const line of text.trimEnd().split("\n")) {
    expect(line).toMatch(/^(# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z]+=".*"\})? [0-9.]+)$/);
  }
});

/** Prometheus metrics of this host over HTTP, at the address of `http` (text format 0.0.4). */
import type { HostStatus } from "../core/host/machine.ts";
import { parseTcpAddress } from "./address.ts";
import type { EventLog } from "./event_log.ts";
import { messageOf } from "./exit.ts";

const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export class MetricsServer {
  private readonly status: () => HostStatus;
  private readonly events: EventLog;
  private server: { stop(force: boolean): unknown } | null = null;

  constructor(status: () => HostStatus, events: EventLog) {
    this.status = status;
    this.events = events;
  }

  /** Moves to `address`, or closes for null. An address that cannot be had is an event. */
  listen(address: string | null): void {
    this.server?.stop(true);
    this.server = null;
    if (address === null) return;
    const parsed = parseTcpAddress(address);
    try {
      this.server = Bun.serve({
        hostname: parsed?.host ?? address,
        port: parsed?.port ?? 0,
        fetch: (request) => this.answer(request),
      });
    } catch (thrown) {
      const why = `metrics cannot be served at ${address}: ${messageOf(thrown)}`;
      this.events.event("error", "metrics.listen", why);
    }
  }

  private answer(request: Request): Response {
    if (new URL(request.url).pathname !== "/metrics") {
      return new Response("the metrics are at /metrics\n", { status: 404 });
    }
    return new Response(metricsText(this.status()), { headers: { "content-type": CONTENT_TYPE } });
  }
}

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

/** One metric of several samples, in the exposition format. */
function metric(name: string, type: "gauge" | "counter", help: string, samples: Sample[]): string {
  const lines = samples.map(([labels, value]) => {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`);
    return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

/** The status as metrics: states are samples of 0 or 1, sizes are in bytes. */
export function metricsText({ host, view, hosts, volumes, resync, reads }: HostStatus): string {
  const store = hosts.find((entry) => entry.name === host)?.store ?? null;
  const flag = (value: boolean): number => (value ? 1 : 0);
  const parts = [
    metric("vsan_view_epoch", "gauge", "Number of the view.", [[{}, view.epoch]]),
    metric("vsan_view_open", "gauge", "1 while I/O is possible.", [[{}, flag(view.open)]]),
    metric("vsan_view_majority", "gauge", "1 with a majority.", [[{}, flag(view.majority)]]),
    metric(
      "vsan_host_connected",
      "gauge",
      "1 if this host reaches it.",
      hosts.map((entry) => [{ host: entry.name }, flag(entry.connected)]),
    ),
    metric(
      "vsan_host_in_sync",
      "gauge",
      "1 if it holds every committed write.",
      hosts.map((entry) => [{ host: entry.name }, flag(entry.state === "in-sync")]),
    ),
    metric(
      "vsan_volume_ok",
      "gauge",
      "1 if the volume takes reads and writes.",
      volumes.map((entry) => [{ volume: entry.name }, flag(entry.io === "ok")]),
    ),
    metric(
      "vsan_volume_clients",
      "gauge",
      "NBD clients of the volume at this host.",
      volumes.map((entry) => [{ volume: entry.name }, entry.clients]),
    ),
    metric(
      "vsan_resync_left_bytes",
      "gauge",
      "Bytes a joining host still lacks.",
      resync.map((entry) => [{ to: entry.to }, Math.max(0, entry.totalBytes - entry.doneBytes)]),
    ),
    metric("vsan_reads_total", "counter", "Reads of this host's clients, by who had the data.", [
      [{ where: "local" }, reads.local],
      [{ where: "remote" }, reads.remote],
    ]),
  ];
  if (store !== null) parts.push(...storeMetrics(store));
  return parts.join("");
}

function storeMetrics(store: NonNullable<HostStatus["hosts"][number]["store"]>): string[] {
  return [
    metric("vsan_store_bytes", "gauge", "Room in the store.", [[{}, store.sizeBytes]]),
    metric("vsan_store_used_bytes", "gauge", "Room taken.", [[{}, store.usedBytes]]),
    metric("vsan_store_segments_free", "gauge", "Free segments.", [[{}, store.segmentsFree]]),
    metric("vsan_store_write_amplification", "gauge", "Disk bytes per record byte.", [
      [{}, store.writeAmplification],
    ]),
    metric("vsan_store_healed_blocks_total", "counter", "Blocks rewritten from a mirror.", [
      [{}, store.badBlocksHealed],
    ]),
    metric("vsan_store_bad_blocks", "gauge", "Bad blocks that wait for a good copy.", [
      [{}, store.badBlocksWaiting],
    ]),
    metric("vsan_index_bytes", "gauge", "Memory that the index takes.", [[{}, store.indexBytes]]),
    metric("vsan_index_misses_total", "counter", "Index pages read again.", [
      [{}, store.indexMisses],
    ]),
    metric("vsan_scrub_share", "gauge", "Done of the scrub's pass at hand, 0 to 1.", [
      [{}, store.scrub.share],
    ]),
    metric("vsan_scrub_passes_total", "counter", "Whole passes of the scrub.", [
      [{}, store.scrub.passes],
    ]),
    metric("vsan_scrub_ended_seconds", "gauge", "End of the last pass, Unix time.", [
      [{}, Math.round(store.scrub.endedMs / 1000)],
    ]),
    metric("vsan_scrub_blocks_total", "counter", "Blocks that the scrub verified.", [
      [{}, store.scrub.checkedBlocks],
    ]),
    metric("vsan_scrub_bad_blocks_total", "counter", "Bad blocks that the scrub found.", [
      [{}, store.scrub.badBlocks],
    ]),
  ];
}

/**
 * SIGHUP: reads the config again, applies what can change while the host runs and says what
 * cannot. A config with a defect changes nothing.
 */
import type { EventLog } from "./event_log.ts";
import { type Config, type ConfigRequest, loadConfig } from "./config.ts";
import { configValues } from "./config_text.ts";
import { messageOf } from "./exit.ts";
import { scrubRateOf } from "./host_options.ts";
import type { MetricsServer } from "./metrics.ts";

/** What can change while the host runs. */
export interface Adjustable {
  readonly metrics: MetricsServer;
  setScrubRate(bytesPerSecond: number | null): void;
}

export class Reloader {
  private readonly running: Config;
  private readonly request: ConfigRequest;
  private readonly events: EventLog;
  private readonly host: Adjustable;
  private http: string | null;
  private scrub: number | null;

  constructor(config: Config, request: ConfigRequest, events: EventLog, host: Adjustable) {
    this.running = config;
    this.request = { ...request, host: config.self.name };
    this.events = events;
    this.host = host;
    this.http = config.self.http ?? null;
    this.scrub = scrubRateOf(config);
  }

  /** Never throws: a running host is not ended by a bad config. */
  reload(): void {
    let config: Config;
    try {
      config = loadConfig(this.request);
    } catch (thrown) {
      const why = `the config was not taken: ${messageOf(thrown)}`;
      this.events.event("error", "config.refused", why);
      return;
    }
    const applied = [...this.applyHttp(config), ...this.applyScrub(config)];
    const own = ["http", "scrub"].map((key) => `host[${config.selfIndex}].${key}`);
    const before = configValues(this.running.document);
    const waiting = changedKeys(before, configValues(config.document)).filter(
      (key) => !own.includes(key),
    );
    for (const key of applied) {
      this.events.event("info", "config.applied", `${key} is changed`, { key });
    }
    for (const key of waiting) {
      this.events.event("warn", "config.waiting", `${key} changes at the next start`, { key });
    }
    if (applied.length + waiting.length === 0) {
      this.events.event("info", "config.same", "the config is as it was");
    }
  }

  private applyHttp(config: Config): string[] {
    const wanted = config.self.http ?? null;
    if (wanted === this.http) return [];
    this.host.metrics.listen(wanted);
    this.http = wanted;
    return ["http"];
  }

  private applyScrub(config: Config): string[] {
    const wanted = scrubRateOf(config);
    if (wanted === this.scrub) return [];
    this.host.setScrubRate(wanted);
    this.scrub = wanted;
    return ["scrub"];
  }
}

/** Keys whose values differ between two configs: "host[0].http". */
export function changedKeys(before: unknown, after: unknown, path = ""): string[] {
  if (!isObject(before) || !isObject(after)) return before === after ? [] : [path];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.flatMap((key) => {
    const named = path === "" ? key : `${path}.${key}`;
    const inner = Array.isArray(before) || Array.isArray(after) ? `${path}[${key}]` : named;
    return changedKeys(before[key], after[key], inner);
  });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** `vsan mirror status` for people: tables that a terminal of 100 columns holds. */
import { humanBytes, humanSeconds } from "./quantity.ts";
import type { ScrubDocument, StatusDocument, StatusHost } from "./status_document.ts";
import { type Cell, table } from "./table.ts";
import { barText } from "./progress.ts";

/** Values that need nobody's attention. */
const GOOD = ["in-sync", "ok"];
const BAD = ["failed", "frozen", "offline", "diverged"];

function valued(text: string): Cell {
  const tone = GOOD.includes(text) ? "good" : BAD.includes(text) ? "bad" : "doubtful";
  return { text, tone };
}

/** The whole status as lines, ending in a newline. */
export function statusText(status: StatusDocument, colors: boolean): string {
  const parts = [headText(status), hostsText(status, colors), volumesText(status, colors)];
  if (status.resync.length > 0) parts.push(resyncText(status));
  return `${parts.join("\n\n")}\n`;
}

function headText({ cluster, host, version, view }: StatusDocument): string {
  const members = view.members.length === 0 ? "nobody" : view.members.join(", ");
  const joining = view.joining.length === 0 ? "" : `; joining: ${view.joining.join(", ")}`;
  const majority = view.majority ? "majority" : "no majority";
  const state = view.open ? "open" : "not open";
  const why = view.why === "" ? "" : `\n  ${view.why}`;
  return (
    `cluster ${cluster}, seen by ${host} (vsan ${version})\n` +
    `view ${view.epoch}, ${state}, ${majority}: ${members}${joining}${why}`
  );
}

function hostsText(status: StatusDocument, colors: boolean): string {
  const rows: Cell[][] = [];
  const notes: string[] = [];
  for (const host of status.hosts) {
    const role = host.kind === "data" ? "" : ` (${host.kind})`;
    const disk = host.kind === "data" ? valued(host.disk) : { text: "-" };
    rows.push([{ text: host.name + role }, valued(host.state), disk, { text: storeText(host) }]);
    rows[rows.length - 1]?.push({ text: pathText(status, host) });
    if (host.why !== "") notes.push(`  ${host.name}: ${host.why}`);
    for (const note of storeNotes(host)) notes.push(`  ${host.name}: ${note}`);
  }
  const head = ["HOST", "STATE", "DISK", "STORE", "PATH"];
  return [table(head, rows, colors), ...notes].join("\n");
}

/** What happened to the blocks of a host's store, and how far its scrub is. */
function storeNotes({ store }: StatusHost): string[] {
  if (store === null) return [];
  const { badBlocksHealed, badBlocksWaiting, scrub } = store;
  const notes: string[] = [];
  if (badBlocksHealed > 0) notes.push(`${badBlocksHealed} bad blocks were healed from a mirror`);
  if (badBlocksWaiting > 0) notes.push(`${badBlocksWaiting} bad blocks wait for a good copy`);
  if (scrub.isRunning) {
    const rate = `${humanBytes(scrub.bytesPerSecond)}/s`;
    notes.push(`scrub at ${Math.floor(100 * scrub.share)} %, ${rate}; ${scrubbedText(scrub)}`);
  } else if (scrub.bytesPerSecond === 0) {
    notes.push(`scrub is off; ${scrubbedText(scrub)}`);
  } else if (scrub.passes > 0) {
    notes.push(scrubbedText(scrub));
  }
  return notes;
}

function scrubbedText({ passes, endedAt, badBlocks }: ScrubDocument): string {
  if (passes === 0) return "never scrubbed whole";
  return `scrubbed whole ${endedAt.slice(0, 16).replace("T", " ")}, ${badBlocks} bad found so far`;
}

function storeText({ store }: StatusHost): string {
  if (store === null) return "-";
  const share = store.sizeBytes === 0 ? 0 : Math.round((100 * store.usedBytes) / store.sizeBytes);
  return `${humanBytes(store.usedBytes)} of ${humanBytes(store.sizeBytes)} (${share} %)`;
}

/** How the host that answers reaches this one. */
function pathText(status: StatusDocument, host: StatusHost): string {
  if (host.name === status.host) return "(this host)";
  const own = status.hosts.find((entry) => entry.name === status.host);
  const paths = (own?.paths ?? []).filter((path) => path.to === host.name);
  if (paths.length === 0) return host.connected ? "connected" : "not connected";
  return paths
    .map((path) => `${path.via} ${path.up ? roundTrip(path.rttMicros) : "down"}`)
    .join(", ");
}

function roundTrip(micros: number): string {
  if (micros < 0) return "up";
  return micros < 1000 ? `${Math.round(micros)} µs` : `${(micros / 1000).toFixed(1)} ms`;
}

function volumesText(status: StatusDocument, colors: boolean): string {
  const rows = status.volumes.map((volume): Cell[] => [
    { text: volume.name },
    { text: humanBytes(volume.sizeBytes) },
    { text: humanBytes(volume.usedBytes) },
    valued(volume.io),
    { text: String(volume.clients) },
  ]);
  const notes = status.volumes
    .filter((volume) => volume.why !== "")
    .map((volume) => `  ${volume.name}: ${volume.why}`);
  return [table(["VOLUME", "SIZE", "USED", "IO", "CLIENTS"], rows, colors), ...notes].join("\n");
}

function resyncText(status: StatusDocument): string {
  const lines = status.resync.map((entry) => {
    const share = entry.totalBytes === 0 ? 1 : entry.doneBytes / entry.totalBytes;
    const done = `${humanBytes(entry.doneBytes)} of ${humanBytes(entry.totalBytes)}`;
    const rate = `${humanBytes(entry.bytesPerSecond)}/s`;
    const left = entry.etaSeconds > 0 ? `, ${humanSeconds(entry.etaSeconds)} left` : "";
    return `  ${entry.to} from ${entry.from}  ${barText(share, 24)}  ${done}, ${rate}${left}`;
  });
  return ["RESYNC", ...lines].join("\n");
}

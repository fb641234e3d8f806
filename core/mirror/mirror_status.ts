/** The mirror's part of `vsan mirror status`. Cold path: allocates freely. */
import type { HostId } from "../base/units.ts";
import type { Generation } from "./generation.ts";
import type { MirrorCounters, MirrorStatus } from "./mirror_sink.ts";
import type { Outbox } from "./outbox.ts";

export function statusOf(
  self: HostId,
  view: Generation | null,
  outbox: Outbox,
  counters: MirrorCounters,
): MirrorStatus {
  const out = view?.out ?? null;
  const ins = view?.ins ?? [];
  const peers = (view?.recipients ?? []).filter((peer) => peer !== self);
  return {
    epoch: view?.epoch ?? 0,
    sealed: view?.sealed ?? false,
    open: view?.opened ?? false,
    appended: out?.appended ?? 0,
    committed: out?.committed ?? 0,
    windowBytes: out?.ring.liveBytes ?? 0,
    windowRecords: out?.ring.count ?? 0,
    heldBytes: sum(ins.map((stream) => stream?.heldBytes ?? 0)),
    retainedBytes: sum(ins.map((stream) => stream?.retained.liveBytes ?? 0)),
    peers: peers.map((peer) => ({
      peer,
      up: outbox.lane(peer).up,
      path: outbox.paths?.isShared(peer) === true ? "shared" : "dedicated",
      received: out?.receivedBy(peer) ?? 0,
      bulkBytes: outbox.lane(peer).bulkBytes,
    })),
    counters,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

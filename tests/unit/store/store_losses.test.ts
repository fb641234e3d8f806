/**
 * Records that were durable and are lost: the store says so at every open, whatever happened
 * between, until its host has made good what they held.
 */
import { expect, test } from "bun:test";
import { RECORD_HEADER_BYTES } from "../../../core/format/record.ts";
import { BATCH_HEADER_BYTES } from "../../../core/format/segment.ts";
import { StoreRig } from "./store_rig.ts";

/** A store one of whose durable records rotted, in both places that name it. */
function rigWithLoss(): StoreRig {
  const rig = new StoreRig({ cacheHits: 1 });
  rig.format();
  rig.write(1, 1);
  rig.sync();
  let lostAt = 0;
  rig.disk.onWrite = (offset) => {
    lostAt = offset;
  };
  rig.zero(1, 1);
  rig.sync();
  rig.disk.onWrite = null;
  // Later batches prove that it was durable.
  for (let lba = 10; lba < 13; lba += 1) {
    rig.write(lba, 2);
    rig.sync();
  }
  rig.crash();
  const rot = new Uint8Array(RECORD_HEADER_BYTES + 16).fill(0x5a);
  rig.disk.media.poke(lostAt + BATCH_HEADER_BYTES, rot);
  return rig;
}

test("a loss is said again after a cut at any moment, until it is made good", () => {
  const rig = rigWithLoss();
  expect(rig.open()).toMatchObject({ ok: true, lostRecords: 1 });
  // The stale block that makes it matter: it was trimmed.
  expect(rig.valueAt(1)).toBe(1);
  rig.powerCut();
  expect(rig.open()).toMatchObject({ ok: true, lostRecords: 1 });
  rig.close();
  expect(rig.open()).toMatchObject({ ok: true, clean: true, lostRecords: 1 });
  rig.store.forgetLosses();
  rig.powerCut();
  expect(rig.open()).toMatchObject({ ok: true, lostRecords: 1 });
  rig.store.forgetLosses();
  rig.close();
  expect(rig.open()).toMatchObject({ ok: true, lostRecords: 0 });
});

test("a recovery that is cut does not count a loss twice", () => {
  const rig = rigWithLoss();
  for (let cutAt = 1; cutAt < 12; cutAt += 1) {
    const before = rig.disk.writeCount;
    rig.beginOpen();
    while (rig.opened === null && rig.disk.writeCount - before < cutAt) rig.step(rig.nowMs + 5);
    rig.powerCut();
  }
  expect(rig.open()).toMatchObject({ ok: true, lostRecords: 1 });
});

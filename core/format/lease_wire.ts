/**
 * Messages of the policing protocol and of sync points (R9, R10; docs/protocol_leases.md).
 *
 *   any recipient  -- submit -->  sequencer      what it asks to be numbered, and its progress
 *   sequencer      -- events -->  recipients     the numbered sequence, the same for all
 *   any recipient  -- want   -->  sequencer      "send again from here": a link was made anew
 *   sequencer      -- hello  -->  recipients     "I number in this epoch": submit again
 *   any recipient  -- synced -->  sequencer      sync point k is durable here
 *
 * Every message carries its epoch; one of another epoch is ignored. Codes are part of the
 * protocol: append only, never reuse.
 */
import { LIMITS } from "../base/limits.ts";
import type { HostId, VolumeId } from "../base/units.ts";
import { type Decoded, id, list, struct, u8, u16, u32, u64, union } from "./codec.ts";

/** End of the largest volume any format can name, in blocks. */
export const VOLUME_BLOCKS_MAX = 2 ** 40;
/** Events or submissions in one message: keeps it under `LIMITS.controlFrameBytesMax`. */
export const LEASE_BATCH_MAX = 256;
/** Requests raised by one AGE event. */
export const AGE_BATCH_MAX = 64;

const host = id<HostId>(u16, LIMITS.hostCountMax);
const volume = id<VolumeId>(u32, 2 ** 32);
const block = id<number>(u64, VOLUME_BLOCKS_MAX + 1);
const priority = id<number>(u8, 8);

/** A lease is asked for: `[start, end)` it must have, `[wishStart, wishEnd)` it would like. */
const request = struct({
  volume,
  start: block,
  end: block,
  wishStart: block,
  wishEnd: block,
  priority,
});
/** The host no longer wants its submission number `request`. */
const cancel = struct({ request: u64 });
/** The holder gives back exactly this range; all its records there are committed. */
const free = struct({ volume, start: block, end: block });

const submission = union({
  request: { code: 1, body: request },
  cancel: { code: 2, body: cancel },
  free: { code: 3, body: free },
});
/**
 * What a host asks the sequencer to number. Its submissions count from 1 in each epoch, so that
 * one sent again after a link was made anew is recognised.
 */
export type Submission = Decoded<typeof submission>;

const event = union({
  /** Submission number `submitted` of `host`. */
  host: { code: 1, body: struct({ host, submitted: u64, what: submission }) },
  /** Each of these waiting requests, named by their event numbers, rises by one class. */
  age: { code: 2, body: struct({ requests: list(u64, AGE_BATCH_MAX) }) },
  /** From now on records are tagged with `point`. */
  tag: { code: 3, body: struct({ point: u32 }) },
  /** Everything tagged below `point` is durable and equal on every recipient. */
  point: { code: 4, body: struct({ point: u32 }) },
});
/** One event of the sequence; its number is its position, from 1 in each epoch. */
export type LeaseEvent = Decoded<typeof event>;

export const leaseMessage = union({
  /**
   * `items[i]` is the sender's submission number `first + i`; `applied` is the last event the
   * sender has applied. With no items it only tells progress.
   */
  submit: {
    code: 1,
    body: struct({
      epoch: u64,
      applied: u64,
      first: u64,
      items: list(submission, LEASE_BATCH_MAX),
    }),
  },
  /** `items[i]` is event number `first + i`. */
  events: {
    code: 2,
    body: struct({ epoch: u64, first: u64, items: list(event, LEASE_BATCH_MAX) }),
  },
  /** Ask for all events from number `from` on. */
  want: { code: 3, body: struct({ epoch: u64, from: u64 }) },
  /** The sequencer began; `last` is the number of its newest event. */
  hello: { code: 4, body: struct({ epoch: u64, last: u64 }) },
  /** R10: everything tagged below `point` is durable at the sender of this message. */
  synced: { code: 5, body: struct({ epoch: u64, point: u32 }) },
});
export type LeaseMessage = Decoded<typeof leaseMessage>;

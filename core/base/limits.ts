/** Every bound in one place (G7). Each says what happens at the bound. */
import { KIB, MIB } from "./units.ts";

export const LIMITS = {
  /** Roster size; a config with more is refused. Epochs leave room for 64 proposers. */
  hostCountMax: 16,
  /** Volumes per cluster; a config with more is refused. */
  volumeCountMax: 256,
  /** Volume size: 2^40 blocks would fit the formats; config refuses more than this. */
  volumeBytesMax: 2 ** 50,
  /** Blocks in one record; larger requests are split into several records. */
  recordBlocksMax: 256,
  /** Bytes of a META record's body; asserted by its writers, refused by its readers. */
  metaBytesMax: 4 * KIB,
  /** One NBD request; larger is answered EINVAL after its payload was skipped. */
  requestBytesMax: 32 * MIB,
  /** NBD option data; larger ends the connection. */
  optionBytesMax: 64 * KIB,
  /** NBD names and strings (proto.md, "String values"). */
  stringBytesMax: 4096,
  /** Requests one client may have in flight; past it the client's socket is not read. */
  clientRequestsMax: 256,
  /** Payload bytes one client may have in flight (one largest request always fits). */
  clientBytesMax: 64 * MIB,
  /** Clients per host; a further connection is closed at once. */
  clientCountMax: 1024,
  /** One control-lane frame; larger is a protocol error and ends the link. */
  controlFrameBytesMax: 256 * KIB,
  /** One data-lane frame: header + the largest record, with slack. */
  dataFrameBytesMax: 2 * MIB,
  /** Control bytes queued to one peer; past it the link is reset (the peer is stuck). */
  controlQueueBytesMax: 8 * MIB,
  /** A sender's window: records sent but not committed. Past it new writes wait. */
  windowBytes: 32 * MIB,
  windowRecordsMax: 8192,
  /** Records a receiver holds out of order or behind its lease table, per sender. */
  heldBytesMax: 40 * MIB,
  /** Requests waiting in a host for a lease, a view or a window. Past it a client gets EIO. */
  waitingRequestsMax: 16384,
  /** Lease table entries per volume; past it ranges are coarsened. */
  leaseRangesMax: 4096,
  leaseRequestsMax: 4096,
  /** Datagram payload at MTU 1500: 1500 - 20 (IP) - 8 (UDP), kept lower for tunnels. */
  datagramBytesMax: 1400,
} as const;

/** Units, brands and the few conversions between them. Pure arithmetic, no state. */

declare const brand: unique symbol;
/** A number that must not be mixed with other numbers; the brand exists only in the types. */
export type Brand<Name extends string> = number & { readonly [brand]: Name };

/** Index of a host in the roster, 0 to `LIMITS.hostCountMax - 1`. The same on every host. */
export type HostId = Brand<"HostId">;
/** Identifies a volume on every host: crc32 of its name. Never 0. */
export type VolumeId = Brand<"VolumeId">;
/** Block number inside a volume (byte offset / 4096), below 2^40. */
export type Lba = number;
/** Number of a view: `counter * 64 + proposer`. Only ever grows. 0 = before any view. */
export type Epoch = number;
/** Position of a record in a stream (epoch, sender), from 1. */
export type Seq = number;
/** Byte position in a store's log, ever growing over the life of the store. */
export type Lsn = number;
/** Number of a sync point within an epoch; 0 = before the first. */
export type Point = number;

export const KIB = 1024;
export const MIB = 1024 * 1024;
export const GIB = 1024 * 1024 * 1024;

export const BLOCK_BYTES = 4096;
/** Blocks a region (= one index page) covers: 512 blocks, 2 MiB of volume. */
export const REGION_BLOCKS = 512;

export function hostId(value: number): HostId {
  return value as HostId;
}

export function volumeId(value: number): VolumeId {
  return value as VolumeId;
}

/** Rounds up to a multiple of `unit` (any positive integer). Exact below 2^53. */
export function roundUp(value: number, unit: number): number {
  const rest = value % unit;
  return rest === 0 ? value : value + unit - rest;
}

/** Rounds down to a multiple of `unit`. */
export function roundDown(value: number, unit: number): number {
  return value - (value % unit);
}

/** The host that proposed the view of this epoch (an epoch has one proposer, hence one value). */
export function proposerOf(epoch: Epoch): HostId {
  return hostId(epoch % 64);
}

/** The smallest epoch of `proposer` greater than `epoch`. */
export function nextEpoch(epoch: Epoch, proposer: HostId): Epoch {
  return (Math.floor(epoch / 64) + 1) * 64 + proposer;
}

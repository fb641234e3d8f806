/** One thing that is wrong with the image of a store, and the simplest ways to make it so. */
import type { StoreRefusal } from "../../core/store/contract.ts";
import type { DamageKind } from "../../core/store/damage.ts";

export interface Wanted {
  /** How the store opens. */
  readonly open: "ok" | StoreRefusal;
  /** Rows of the check by kind; blocks that cannot be read any more; records lost. */
  readonly kinds?: Partial<Record<DamageKind, number>>;
  readonly unreadable?: number;
  readonly lostRecords?: number;
  /** The log ends earlier: nothing tells the damage from an end that was never durable. */
  readonly isShorter?: boolean;
}

export interface ImageDamage {
  readonly name: string;
  /** Of which golden image. */
  readonly of: string;
  /** Changes the image in place; or gives a shorter one. */
  readonly damage: (image: Uint8Array) => Uint8Array | undefined;
  readonly wanted: Wanted;
}

/** One bit. */
export function flip(image: Uint8Array, at: number): void {
  image[at] = image[at]! ^ 0x10;
}

/** So many bytes. */
export function rot(image: Uint8Array, at: number, length: number): void {
  for (let index = 0; index < length; index += 1) image[at + index] = 0xa5 ^ (index & 0xff);
}

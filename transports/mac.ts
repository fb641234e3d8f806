/**
 * HMAC-SHA-256 truncated to 16 bytes (RFC 2104, section 5). Keys are derived from the cluster key
 * by HMAC of a label, so that a tag made for one purpose is never valid for another.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from "node:crypto";
import { assert } from "../core/base/assert.ts";
import type { Mac, MacKey } from "../core/base/ports.ts";

export const MAC_BYTES = 16;

class HmacKey implements MacKey {
  private readonly key: KeyObject;

  constructor(key: KeyObject) {
    this.key = key;
  }

  sign(buffer: Uint8Array, at: number, length: number, out: Uint8Array, outAt: number): void {
    assert(outAt + MAC_BYTES <= out.length, "mac: no room for the tag");
    const full = createHmac("sha256", this.key)
      .update(buffer.subarray(at, at + length))
      .digest();
    out.set(full.subarray(0, MAC_BYTES), outAt);
  }

  verify(buffer: Uint8Array, at: number, length: number, out: Uint8Array, outAt: number): boolean {
    if (outAt + MAC_BYTES > out.length || at + length > buffer.length) return false;
    const full = createHmac("sha256", this.key)
      .update(buffer.subarray(at, at + length))
      .digest();
    return timingSafeEqual(full.subarray(0, MAC_BYTES), out.subarray(outAt, outAt + MAC_BYTES));
  }
}

export class HmacMac implements Mac {
  private readonly clusterKey: KeyObject;

  /** `clusterKey`: at least 16 bytes; the caller may wipe its copy afterwards. */
  constructor(clusterKey: Uint8Array) {
    assert(clusterKey.length >= 16, "mac: cluster key too short");
    this.clusterKey = createSecretKey(Buffer.from(clusterKey));
  }

  derive(label: Uint8Array): MacKey {
    const derived = createHmac("sha256", this.clusterKey).update(label).digest();
    return new HmacKey(createSecretKey(derived));
  }
}

/** The small ports: clock, entropy, MAC, the log gate and sd_notify. */
import { CString, dlopen, FFIType, type Pointer } from "bun:ffi";
import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BootClock, readBootId } from "../../../transports/clock.ts";
import { SystemEntropy } from "../../../transports/entropy.ts";
import { libc, mapMemory } from "../../../transports/libc.ts";
import { LogGate } from "../../../transports/log_gate.ts";
import { HmacMac } from "../../../transports/mac.ts";
import { notifySystemd } from "../../../transports/notify.ts";
import { parseHostPort } from "../../../transports/tcp.ts";

describe("clock", () => {
  test("is the time since boot and never goes back", () => {
    const clock = new BootClock();
    const uptimeMs = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000;
    expect(Math.abs(clock.nowMs() - uptimeMs)).toBeLessThan(1000);
    let before = clock.nowMs();
    for (let round = 0; round < 10_000; round += 1) {
      const now = clock.nowMs();
      expect(now >= before).toBe(true);
      before = now;
    }
  });

  test("a boot has an id", () => {
    expect(readBootId()).toMatch(/^[0-9a-f-]{36}$/);
    expect(readBootId()).toBe(readBootId());
  });
});

test("entropy: no word is given twice, all bits are used", () => {
  const entropy = new SystemEntropy();
  const words = new Set<number>();
  let ones = 0;
  let zeros = 0xffffffff;
  for (let round = 0; round < 3000; round += 1) {
    const word = entropy.u32();
    words.add(word);
    ones = (ones | word) >>> 0;
    zeros = (zeros & word) >>> 0;
  }
  expect(words.size).toBeGreaterThan(2990);
  expect(ones).toBe(0xffffffff);
  expect(zeros).toBe(0);
});

describe("mac", () => {
  const secret = new Uint8Array(32).fill(1);
  const label = new TextEncoder().encode("label");
  const key = new HmacMac(secret).derive(label);
  const message = Uint8Array.of(0, 1, 2, 3, 0);

  test("is HMAC-SHA-256 under a derived key, cut to 16 bytes", () => {
    const out = new Uint8Array(20);
    key.sign(message, 1, 3, out, 2);
    const derived = createHmac("sha256", secret).update(label).digest();
    const full = createHmac("sha256", derived)
      .update(Uint8Array.of(1, 2, 3))
      .digest();
    expect(Buffer.from(out.subarray(2, 18))).toEqual(full.subarray(0, 16));
    expect([out[0], out[1], out[18], out[19]]).toEqual([0, 0, 0, 0]);
    expect(key.verify(message, 1, 3, out, 2)).toBe(true);
  });

  test("any changed bit, another label or too few bytes do not verify", () => {
    const out = new Uint8Array(16);
    key.sign(message, 0, 5, out, 0);
    for (let bit = 0; bit < 128; bit += 1) {
      const changed = out.slice();
      changed[bit >> 3] = changed[bit >> 3]! ^ (1 << (bit & 7));
      expect(key.verify(message, 0, 5, changed, 0)).toBe(false);
    }
    const other = new HmacMac(secret).derive(Uint8Array.of(1));
    expect(other.verify(message, 0, 5, out, 0)).toBe(false);
    expect(key.verify(message, 0, 5, out, 1)).toBe(false);
    expect(key.verify(message, 0, 6, out, 0)).toBe(false);
  });
});

test("log gate: each key once per interval, and bounded memory", () => {
  const gate = new LogGate(100);
  expect(gate.pass(0, "a")).toBe(true);
  expect(gate.pass(99, "a")).toBe(false);
  expect(gate.pass(99, "b")).toBe(true);
  expect(gate.pass(100, "a")).toBe(true);
  for (let index = 0; index < 1000; index += 1) gate.pass(150, `key ${index}`);
  expect(gate.pass(160, "a")).toBe(true); // Forgotten: the oldest of too many.
});

test("addresses", () => {
  expect(parseHostPort("10.0.0.1:80")).toEqual({ hostname: "10.0.0.1", port: 80 });
  expect(parseHostPort("[::1]:80")).toEqual({ hostname: "::1", port: 80 });
  for (const bad of ["", "host", ":80", "a:b", "::1:80", "host:70000", "host:80 "]) {
    expect(parseHostPort(bad)).toBeNull();
  }
});

describe("notify", () => {
  test("reaches the socket of the service manager", () => {
    const directory = mkdtempSync(join(tmpdir(), "vsan-notify-"));
    const path = join(directory, "notify");
    const { symbols } = dlopen("libc.so.6", {
      bind: { args: [FFIType.i32, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
      recv: {
        args: [FFIType.i32, FFIType.u64, FFIType.u64, FFIType.i32],
        returns: FFIType.i64_fast,
      },
    });
    const memory = mapMemory(4096);
    memory.bytes[0] = 1;
    memory.bytes.set(new TextEncoder().encode(path), 2);
    const fd = libc().socket(1, 2, 0);
    expect(symbols.bind(fd, memory.address, 2 + path.length)).toBe(0);
    expect(notifySystemd("READY=1", path)).toBe(true);
    expect(symbols.recv(fd, memory.address + 1024, 100, 0x40)).toBe(7);
    const said = new CString((memory.address + 1024) as Pointer);
    expect(said.toString()).toBe("READY=1");
    libc().close(fd);
    rmSync(directory, { recursive: true });
  });

  test("is nothing without one", () => {
    expect(notifySystemd("READY=1", undefined)).toBe(false);
    expect(notifySystemd("READY=1", "/nonexistent/socket")).toBe(false);
    expect(notifySystemd("READY=1", "x".repeat(200))).toBe(false);
  });
});

/**
 * What the transports rely on in Bun 1.4.5 without a promise from its documentation. A failure
 * here after an upgrade names the assumption that no longer holds.
 */
import { describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, read, rmSync, write } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addressOf, errno, libc, mapMemory } from "../../transports/libc.ts";
import { Ring, Submission, URING_OP } from "../../transports/ring.ts";

describe("ffi_memory", () => {
  test("mapped memory never moves, whatever the garbage collector does", () => {
    const memory = mapMemory(65536);
    const view = memory.bytes.subarray(4096, 8192);
    expect(addressOf(memory.bytes)).toBe(memory.address);
    for (let round = 0; round < 5; round += 1) {
      Bun.gc(true);
      expect(addressOf(memory.bytes)).toBe(memory.address);
      expect(addressOf(view)).toBe(memory.address + 4096);
    }
  });

  test("the kernel's writes are seen through the typed array", () => {
    const memory = mapMemory(4096);
    expect(libc().clock_gettime(7, memory.address)).toBe(0);
    expect(memory.bytes.subarray(0, 16).some((byte) => byte !== 0)).toBe(true);
  });

  test("errno is the last call's", () => {
    expect(libc().close(-1)).toBe(-1);
    expect(errno()).toBe(9);
  });

  test("numbers, not bigints, come back from 64-bit calls", () => {
    const memory = mapMemory(4096);
    expect(typeof libc().pwrite(-1, memory.address, 1, 0)).toBe("number");
  });
});

describe("eventfd_stream", () => {
  test("a stream over an eventfd wakes for each completion, and lets the fd go", async () => {
    let woken: (() => void) | null = null;
    const seen: number[] = [];
    const ring = new Ring(
      8,
      (userData) => seen.push(userData),
      () => woken?.(),
    );
    const submission = new Submission();
    submission.opcode = URING_OP.nop;
    for (let round = 1; round <= 50; round += 1) {
      const next = new Promise<void>((resolve) => {
        woken = resolve;
      });
      submission.userData = round;
      expect(ring.push(submission)).toBe(true);
      expect(ring.submit()).toBe(true);
      await next;
      expect(seen.length).toBe(round);
      expect(seen[round - 1]).toBe(round);
    }
    ring.close();
  });

  test("a full ring says so, and goes on after completions", async () => {
    const seen: number[] = [];
    const ring = new Ring(
      4,
      (userData) => seen.push(userData),
      () => {},
    );
    const submission = new Submission();
    submission.opcode = URING_OP.nop;
    for (let index = 0; index < 4; index += 1) {
      submission.userData = index;
      expect(ring.push(submission)).toBe(true);
    }
    expect(ring.push(submission)).toBe(false);
    ring.submit();
    ring.reap();
    expect(seen).toEqual([0, 1, 2, 3]);
    expect(ring.push(submission)).toBe(true);
    ring.close();
  });
});

describe("fs_callbacks", () => {
  test("work on mapped memory and give a negative errno", async () => {
    const directory = mkdtempSync(join(tmpdir(), "vsan-canary-"));
    const fd = openSync(join(directory, "file"), "w+");
    const memory = mapMemory(8192);
    memory.bytes.fill(7, 0, 4096);
    const wrote = await new Promise<number>((resolve) => {
      write(fd, memory.bytes, 0, 4096, 0, (_error, count) => resolve(count));
    });
    expect(wrote).toBe(4096);
    const got = await new Promise<number>((resolve) => {
      read(fd, memory.bytes, 4096, 4096, 0, (_error, count) => resolve(count));
    });
    expect(got).toBe(4096);
    expect(memory.bytes[8191]).toBe(7);
    closeSync(fd);
    const code = await new Promise<number | undefined>((resolve) => {
      read(999_999, memory.bytes, 0, 1, 0, (error) => resolve(error?.errno));
    });
    expect(code).toBe(-9);
    rmSync(directory, { recursive: true });
  });
});

describe("crc32", () => {
  test("is IEEE 802.3's, chains through the seed", () => {
    const bytes = new TextEncoder().encode("123456789");
    expect(Bun.hash.crc32(bytes) >>> 0).toBe(0xcbf43926);
    const first = Bun.hash.crc32(bytes.subarray(0, 4));
    expect(Bun.hash.crc32(bytes.subarray(4), first) >>> 0).toBe(0xcbf43926);
  });
});

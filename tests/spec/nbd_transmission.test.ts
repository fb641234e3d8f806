/** NBD proto.md, the transmission phase, clause by clause. */
import { describe, expect, test } from "bun:test";
import { OUTCOME, type Outcome } from "../../core/base/outcome.ts";
import {
  ALPHA_BYTES,
  chunk,
  Client,
  join,
  ODD_BYTES,
  parseReplies,
  request,
  simpleReply,
  wire,
} from "./nbd_kit.ts";

const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const ZEROES = 6;
const FUA = 1;
const NO_HOLE = 2;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;
const EPERM = 1;
const EIO = 5;
const EINVAL = 22;
const ENOSPC = 28;
const ENOTSUP = 95;
const ESHUTDOWN = 108;
const MAX = 32 * 1024 * 1024;

function payload(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_unused, index) => (index * 31 + seed) & 0xff);
}

/** The error of the only reply. */
function errorOf(client: Client, ...parts: Uint8Array[]): number {
  const replies = parseReplies(client.send(...parts));
  expect(replies).toHaveLength(1);
  return replies[0]!.error;
}

describe("NBD_CMD_READ", () => {
  test("simple: header and the data of the request", () => {
    const client = new Client().transmit();
    const bytes = client.send(request(READ, 0x0102030405060708n, 4096, 512));
    const data = client.host.disk.slice(4096, 4608);
    expect(bytes).toEqual(join(simpleReply(0x0102030405060708n, 0), data));
  });

  test("structured: one OFFSET_DATA chunk with DONE, since nothing can fail any more", () => {
    const client = new Client().transmit({ structured: true });
    const bytes = client.send(request(READ, 7, 4096, 512));
    const data = client.host.disk.slice(4096, 4608);
    expect(bytes).toEqual(chunk(1, 7, join(wire().u64(4096).done(), data)));
  });

  test.each([
    [0, 1],
    [1, 1],
    [4095, 2],
    [511, 8193],
    [ALPHA_BYTES - 1, 1],
    [3, 40_000],
    [8192, 65536],
    [0, ALPHA_BYTES],
  ])("any byte alignment: offset %p, length %p, small and large", (offset, length) => {
    for (const structured of [false, true]) {
      const client = new Client().transmit({ structured });
      const bytes = client.send(request(READ, 3, offset, length));
      const head = structured ? 28 : 16;
      expect(bytes).toHaveLength(head + length);
      expect(Buffer.from(bytes).subarray(head)).toEqual(
        Buffer.from(client.host.disk.subarray(offset, offset + length)),
      );
      expect(client.pool.outstanding).toBe(0);
    }
  });

  test("data from a foreign buffer (a forwarded read), small and large", () => {
    for (const length of [100, 70_000]) {
      const client = new Client().transmit({ structured: true });
      client.host.deferred = true;
      client.send(request(READ, 3, 5, length));
      const open = client.host.open.pop()!;
      const foreign = payload(length + 10);
      client.session.replyRead(open, OUTCOME.ok, foreign, 10);
      const expected = join(wire().u64(5).done(), foreign.subarray(10));
      expect(client.settle()).toEqual(chunk(1, 3, expected));
      expect(client.pool.outstanding).toBe(0);
    }
  });

  test("DF: requests of 64 KiB and of 32 MiB are served in one chunk (MUST up to 64 KiB)", () => {
    const client = new Client({ diskBytes: MAX }).transmit({ structured: true });
    for (const length of [65536, MAX]) {
      const replies = parseReplies(client.send(request(READ, 1, 0, length, DF)));
      expect(replies).toHaveLength(1);
      expect([replies[0]?.type, replies[0]?.flags]).toEqual([1, 1]);
      expect(replies[0]?.payload.length).toBe(8 + length);
    }
  });

  test("DF without structured replies was not offered: EINVAL", () => {
    const client = new Client().transmit();
    expect(errorOf(client, request(READ, 1, 0, 512, DF))).toBe(EINVAL);
  });

  test("an error: simple header without payload; structured error chunk with DONE and text", () => {
    const simple = new Client().transmit();
    simple.host.outcome = OUTCOME.io;
    expect(simple.send(request(READ, 1, 0, 4096))).toEqual(simpleReply(1, EIO));
    const client = new Client().transmit({ structured: true });
    client.host.outcome = OUTCOME.io;
    const reply = parseReplies(client.send(request(READ, 1, 0, 4096)))[0];
    expect([reply?.type, reply?.flags, reply?.error]).toEqual([0x8001, 1, EIO]);
    expect(reply?.message).toBe("no good copy could be read or written");
  });

  test("an error after the buffer was reserved leaks nothing and sends no data", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(READ, 1, 0, 100_000));
    const open = client.host.open.pop()!;
    client.session.reserveRead(open);
    client.session.replyRead(open, OUTCOME.io, open.readBuffer, open.readAt);
    expect(client.settle()).toEqual(simpleReply(1, EIO));
    expect(client.pool.outstanding).toBe(0);
  });

  test("structured: early EINVAL is structured too, never a simple reply (MUST)", () => {
    const client = new Client().transmit({ structured: true });
    const bad = [
      request(READ, 1, ALPHA_BYTES, 1),
      request(READ, 1, 0, 0),
      request(READ, 1, 0, 512, REQ_ONE),
      request(READ, 1, 0, MAX + 1),
      request(99, 1, 0, 1),
    ];
    for (const bytes of bad) {
      const reply = parseReplies(client.send(bytes))[0];
      expect([reply?.simple, reply?.error, reply?.flags]).toEqual([false, EINVAL, 1]);
    }
  });
});

describe("NBD_CMD_WRITE", () => {
  test.each([1, 512, 4096, 4097, 100_000])("%p bytes are there when read back", (length) => {
    const client = new Client().transmit();
    const data = payload(length);
    expect(errorOf(client, request(WRITE, 1, 777, length, 0, data))).toBe(0);
    expect<Uint8Array>(client.host.disk.slice(777, 777 + length)).toEqual(data);
  });

  test("a payload in one chunk is referred to in place; in pieces it is put together", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    const bytes = request(WRITE, 1, 0, 4096, 0, payload(4096));
    client.session.receive(0, bytes);
    expect(client.host.open[0]?.data).toBe(bytes);
    expect(client.host.open[0]?.dataAt).toBe(28);
    client.session.receive(0, bytes.subarray(0, 2000));
    client.session.receive(0, bytes.subarray(2000, 2001));
    client.session.receive(0, bytes.subarray(2001));
    const second = client.host.open[1]!;
    expect<Uint8Array>(second.data.slice(second.dataAt, second.dataAt + 4096)).toEqual(
      payload(4096),
    );
    client.host.answerAll();
    client.settle();
    expect(client.pool.outstanding).toBe(0);
  });

  test("32 MiB in one request", () => {
    const client = new Client({ diskBytes: MAX }).transmit();
    const data = new Uint8Array(MAX).fill(9);
    expect(errorOf(client, request(WRITE, 1, 0, MAX), data)).toBe(0);
    expect(client.host.disk.every((byte) => byte === 9)).toBe(true);
  });

  test.each([
    ["past the end: ENOSPC", "alpha", ALPHA_BYTES - 10, 11, 0, ENOSPC],
    ["far past the end: ENOSPC", "alpha", 2 ** 60, 100, 0, ENOSPC],
    ["read-only: EPERM", "beta", 0, 512, 0, EPERM],
    ["too long: EINVAL", "alpha", 0, MAX + 1, 0, EINVAL],
    ["unknown flag: EINVAL", "alpha", 0, 700, 0x8000, EINVAL],
    ["a flag of another command: EINVAL", "alpha", 0, 700, NO_HOLE, EINVAL],
  ])(
    "%s; the payload is consumed and the next request served",
    (_w, name, at, length, flags, error) => {
      const client = new Client().transmit({ name });
      const bytes = request(WRITE, 1, BigInt(at), length, flags);
      const junk = new Uint8Array(length).fill(0x25);
      const replies = parseReplies(client.send(bytes, junk, request(FLUSH, 2, 0, 0)));
      expect(replies.map((reply) => [reply.cookie, reply.error])).toEqual([
        [1, error],
        [2, 0],
      ]);
      expect(client.host.requests).toEqual(["3 0 0"]);
      expect(client.pool.outstanding).toBe(0);
    },
  );
});

describe("NBD_CMD_FLUSH, TRIM, CACHE, WRITE_ZEROES", () => {
  test("each goes to the host with its flags and is answered when the host answers", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    const sent = client.send(
      request(FLUSH, 1, 0, 0),
      request(TRIM, 2, 4096, 8192, FUA),
      request(CACHE, 3, 5, 6),
      request(ZEROES, 4, 0, 512, FUA | NO_HOLE),
      request(ZEROES, 5, 0, 512, FAST_ZERO),
    );
    expect(sent).toHaveLength(0);
    expect(client.host.requests).toEqual([
      "3 0 0",
      "4 4096 8192 fua",
      "5 5 6",
      "6 0 512 fua noHole",
      "6 0 512 fastZero",
    ]);
    client.host.open.reverse();
    client.host.answerAll();
    expect(parseReplies(client.settle()).map((reply) => reply.cookie)).toEqual([5, 4, 3, 2, 1]);
  });

  test("FUA is accepted on every command if advertised (MUST)", () => {
    const client = new Client().transmit({ context: true });
    for (const command of [READ, TRIM, CACHE, ZEROES, 7]) {
      expect(errorOf(client, request(command, 1, 0, 512, FUA))).toBe(0);
    }
    expect(errorOf(client, request(FLUSH, 1, 0, 0, FUA))).toBe(0);
    expect(errorOf(client, request(WRITE, 1, 0, 4, FUA, payload(4)))).toBe(0);
    expect(client.host.requests.every((line) => line.endsWith(" fua"))).toBe(true);
  });

  test("FLUSH with offset or length: EINVAL", () => {
    const client = new Client().transmit();
    expect(errorOf(client, request(FLUSH, 1, 1, 0))).toBe(EINVAL);
    expect(errorOf(client, request(FLUSH, 1, 0, 1))).toBe(EINVAL);
  });

  test("FLUSH and CACHE work on a read-only export, what modifies is EPERM", () => {
    const client = new Client().transmit({ name: "beta" });
    expect(errorOf(client, request(FLUSH, 1, 0, 0))).toBe(0);
    expect(errorOf(client, request(CACHE, 1, 0, 512))).toBe(0);
    expect(errorOf(client, request(TRIM, 1, 0, 512))).toBe(EPERM);
    expect(errorOf(client, request(ZEROES, 1, 0, 512))).toBe(EPERM);
    expect(errorOf(client, request(ZEROES, 1, 0, 512, FAST_ZERO))).toBe(EPERM);
  });

  test("WRITE_ZEROES reads back zero (MUST)", () => {
    const client = new Client().transmit();
    client.send(request(ZEROES, 1, 100, 5000));
    const bytes = client.send(request(READ, 2, 100, 5000));
    expect(bytes.subarray(16).every((byte) => byte === 0)).toBe(true);
  });

  test("FAST_ZERO that cannot be fast: ENOTSUP; without FAST_ZERO never ENOTSUP (MUST)", () => {
    const client = new Client().transmit();
    expect(errorOf(client, request(ZEROES, 1, 0, 512, FAST_ZERO | NO_HOLE))).toBe(ENOTSUP);
    expect(client.host.requests).toHaveLength(0);
    client.host.outcome = OUTCOME.unsupported;
    expect(errorOf(client, request(ZEROES, 1, 0, 512, FAST_ZERO))).toBe(ENOTSUP);
    expect(errorOf(client, request(ZEROES, 1, 0, 512))).toBe(EINVAL);
  });

  test("commands without payload may be longer than 32 MiB", () => {
    const client = new Client({ diskBytes: MAX + 4096 }).transmit();
    client.host.deferred = true;
    for (const command of [TRIM, CACHE, ZEROES]) {
      client.send(request(command, 1, 0, MAX + 4096));
    }
    expect(client.host.requests).toEqual(["4 0 33558528", "5 0 33558528", "6 0 33558528"]);
  });

  test("past the end: TRIM and CACHE EINVAL, WRITE_ZEROES ENOSPC", () => {
    const client = new Client().transmit({ name: "odd" });
    expect(errorOf(client, request(TRIM, 1, ODD_BYTES, 1))).toBe(EINVAL);
    expect(errorOf(client, request(CACHE, 1, ODD_BYTES - 1, 2))).toBe(EINVAL);
    expect(errorOf(client, request(ZEROES, 1, ODD_BYTES, 1))).toBe(ENOSPC);
    expect(errorOf(client, request(ZEROES, 1, ODD_BYTES - 1, 1))).toBe(0);
    expect(errorOf(client, request(READ, 1, 0xffffffffffffffffn, 1))).toBe(EINVAL);
    expect(errorOf(client, request(READ, 1, 2n ** 53n, 0xffff))).toBe(EINVAL);
  });

  test("zero bytes: an error, never a disconnect (SHOULD NOT)", () => {
    const client = new Client().transmit({ context: true });
    for (const command of [READ, WRITE, TRIM, CACHE, ZEROES, 7]) {
      expect(errorOf(client, request(command, 1, 0, 0))).toBe(EINVAL);
    }
    expect(client.link.isClosed).toBe(false);
  });
});

describe("Error values", () => {
  test("an unknown command or flag: EINVAL, also RESIZE (8)", () => {
    const client = new Client().transmit();
    for (const command of [8, 9, 255, 65535]) {
      expect(errorOf(client, request(command, 1, 0, 512))).toBe(EINVAL);
    }
    for (const command of [READ, TRIM, CACHE, ZEROES]) {
      for (const flag of [0x20, 0x4000]) {
        expect(errorOf(client, request(command, 1, 0, 512, flag))).toBe(EINVAL);
      }
    }
    expect(errorOf(client, request(CACHE, 1, 0, 512, NO_HOLE))).toBe(EINVAL);
    expect(client.host.requests).toHaveLength(0);
  });

  const map: [Outcome, number][] = [
    [OUTCOME.io, EIO],
    [OUTCOME.full, ENOSPC],
    [OUTCOME.refused, EPERM],
    [OUTCOME.invalid, EINVAL],
    [OUTCOME.shutdown, ESHUTDOWN],
    [OUTCOME.unsupported, EINVAL],
  ];
  test.each(map)("outcome %p of the host is NBD error %p", (outcome, error) => {
    for (const structured of [false, true]) {
      const client = new Client().transmit({ structured });
      client.host.outcome = outcome;
      expect(errorOf(client, request(WRITE, 1, 0, 4, 0, payload(4)))).toBe(error);
    }
  });

  test("a request without its magic ends the connection; open requests are still answered", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(FLUSH, 1, 0, 0));
    const bad = request(READ, 2, 0, 512);
    bad[0] = 0;
    expect(client.send(bad)).toHaveLength(0);
    expect(client.link.isClosed).toBe(true);
    expect(client.host.endedCount).toBe(0);
    client.host.answerAll();
    expect(client.settle()).toHaveLength(0);
    expect(client.host.endedCount).toBe(1);
  });
});

describe("Replies", () => {
  test("the cookie is echoed, opaque, all 64 bits", () => {
    const client = new Client().transmit();
    for (const cookie of [0n, 0xffffffffffffffffn, 0x8000000000000001n, 0x25609513n]) {
      expect(client.send(request(FLUSH, cookie, 0, 0))).toEqual(simpleReply(cookie, 0));
    }
  });

  test("equal cookies in flight are answered one by one", () => {
    const client = new Client().transmit();
    const sent = client.send(request(FLUSH, 1, 0, 0), request(FLUSH, 1, 0, 0));
    expect(sent).toEqual(join(simpleReply(1, 0), simpleReply(1, 0)));
  });

  test("structured: success without payload is a simple reply (allowed for all but READ)", () => {
    const client = new Client().transmit({ structured: true });
    expect(client.send(request(FLUSH, 1, 0, 0))).toEqual(simpleReply(1, 0));
  });

  test("many replies of one turn leave in one send", () => {
    const client = new Client().transmit({ structured: true });
    const before = client.link.sendCount;
    const reads = Array.from({ length: 32 }, (_u, index) =>
      request(READ, index, index * 4096, 4096),
    );
    const replies = parseReplies(client.send(...reads));
    expect(replies.map((reply) => reply.cookie)).toEqual([...Array(32).keys()]);
    expect(client.link.sendCount - before).toBe(1);
  });

  test("small and large replies keep their order", () => {
    const client = new Client().transmit({ structured: true });
    const sizes = [512, 100_000, 16, 60_000, 40_000, 1, 300_000, 30_000, 30_000];
    const reads = sizes.map((size, index) => request(READ, index, index, size));
    const replies = parseReplies(client.send(...reads, request(FLUSH, 99, 0, 0)));
    expect(replies.map((reply) => reply.cookie)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 99]);
    for (const [index, size] of sizes.entries()) {
      const data = Buffer.from(replies[index]!.payload.subarray(8));
      expect(data).toEqual(Buffer.from(client.host.disk.subarray(index, index + size)));
    }
    expect(client.pool.outstanding).toBe(0);
  });
});

describe("Terminating the transmission phase", () => {
  test("DISC: open requests are finished, no reply to it, then close", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(FLUSH, 1, 0, 0), request(WRITE, 2, 0, 4, 0, payload(4)));
    expect(client.send(request(DISC, 3, 0, 0), request(FLUSH, 4, 0, 0))).toHaveLength(0);
    expect(client.link.isClosed).toBe(false);
    client.host.answer(client.host.open.pop()!);
    expect(client.settle()).toEqual(simpleReply(2, 0));
    expect(client.link.isClosed).toBe(false);
    client.host.answerAll();
    expect(client.settle()).toEqual(simpleReply(1, 0));
    expect(client.link.isClosed).toBe(true);
    expect(client.host.endedCount).toBe(1);
    expect(client.host.requests).toHaveLength(2);
    expect(client.session.why).toBe("the client disconnected");
  });

  test("DISC with flags, offset and length is DISC all the same", () => {
    const client = new Client().transmit();
    expect(client.send(request(DISC, 3, 5, 6, 7))).toHaveLength(0);
    expect(client.link.isClosed).toBe(true);
  });

  test("server shutdown: open requests finish, new ones get ESHUTDOWN, then close", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(WRITE, 1, 0, 4, 0, payload(4)));
    client.session.shutdown(client.nowMs);
    const late = [request(READ, 2, 0, 512), request(WRITE, 3, 0, 4, 0, payload(4))];
    expect(client.send(...late)).toEqual(
      join(simpleReply(2, ESHUTDOWN), simpleReply(3, ESHUTDOWN)),
    );
    expect(client.link.isClosed).toBe(false);
    client.host.answerAll();
    expect(client.settle()).toEqual(simpleReply(1, 0));
    expect(client.link.isClosed).toBe(true);
    expect(client.host.endedCount).toBe(1);
  });

  test("shutdown of an idle session closes it at once; half a WRITE does not hold it", () => {
    const idle = new Client().transmit();
    idle.session.shutdown(idle.nowMs);
    idle.settle();
    expect(idle.link.isClosed).toBe(true);
    const half = new Client().transmit();
    half.send(request(WRITE, 1, 0, 9999, 0, payload(100)));
    half.session.shutdown(half.nowMs);
    half.settle();
    expect(half.link.isClosed).toBe(true);
    expect(half.host.endedCount).toBe(1);
    expect(half.pool.outstanding).toBe(0);
  });
});

/**
 * The session's bounds and backpressure (G7, G9), and that its output depends on the bytes it
 * received and not on how they were cut.
 */
import { describe, expect, test } from "bun:test";
import {
  chunk,
  Client,
  clientFlags,
  contextOption,
  goOption,
  haggling,
  join,
  option,
  parseReplies,
  request,
  simpleReply,
  wire,
} from "./nbd_kit.ts";

const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const KIB = 1024;

/** Everything a client can say, ended by DISC. */
function script(structured: boolean): Uint8Array {
  const data = new Uint8Array(300).fill(0x5a);
  return join(
    clientFlags(3),
    option(99, wire().text("whatever").done()),
    option(3),
    goOption(7, "nope", [1]),
    ...(structured ? [option(8), contextOption(10, "alpha", ["base:allocation", "x:y"])] : []),
    goOption(6, "alpha", [0, 1, 2, 3]),
    goOption(7, "alpha", [3]),
    request(WRITE, 1, 100, 300, 0, data),
    request(READ, 2, 90, 333),
    request(WRITE, 3, 0, 40, 0x20, data.subarray(0, 40)),
    request(7, 4, 0, 8192),
    request(6, 5, 200, 100, 1),
    request(READ, 6, 90, 333),
    request(READ, 7, 0, 0),
    request(77, 8, 1, 2),
    request(FLUSH, 9, 0, 0),
    request(DISC, 10, 0, 0),
    wire().text("left over").done(),
  );
}

describe("Large payloads are pulled from the connection", () => {
  const SIZE = 256 * KIB;
  const payload = (seed: number): Uint8Array =>
    Uint8Array.from({ length: SIZE }, (_, index) => (index * seed + (index >>> 8)) & 0xff);

  /** Two writes and a flush, of which the link delivers `cut` bytes as a chunk. */
  function sent(cut: number, capacity: number): Client {
    const client = new Client().transmit();
    const bytes = join(
      request(WRITE, 1, 0, SIZE, 0, payload(3)),
      request(WRITE, 2, SIZE, SIZE, 0, payload(5)),
      request(FLUSH, 3, 0, 0),
    );
    client.link.undelivered = bytes.slice(cut);
    client.link.receiveMax = capacity;
    client.session.receive(client.nowMs, bytes.slice(0, cut));
    return client;
  }

  test.each([28, 29, 4096, 28 + SIZE - 64 * KIB])("whatever came as a chunk first: %p", (cut) => {
    const client = sent(cut, Number.POSITIVE_INFINITY);
    client.session.flush();
    const replies = parseReplies(join(client.link.take(), client.settle()));
    expect(client.link.undelivered.length).toBe(0);
    expect(replies.map(({ cookie, error }) => [cookie, error])).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
    ]);
    expect(client.host.disk.subarray(0, SIZE)).toEqual(payload(3));
    expect(client.host.disk.subarray(SIZE, 2 * SIZE)).toEqual(payload(5));
    expect(client.pool.outstanding).toBe(0);
  });

  test("what the connection does not have yet comes as a chunk, in order", () => {
    const client = sent(1000, Number.POSITIVE_INFINITY);
    const whole = sent(1000, 0);
    expect(client.host.requests.length).toBe(3);
    expect(whole.host.requests.length).toBe(0);
    // The same bytes in pieces, some by chunk and some pulled.
    const rest = whole.link.undelivered;
    for (let at = 0; at < rest.length; ) {
      const end = Math.min(rest.length, at + 50_001);
      whole.link.undelivered = rest.slice(at + 20_000, end);
      whole.link.receiveMax = Number.POSITIVE_INFINITY;
      whole.session.receive(whole.nowMs, rest.slice(at, Math.min(at + 20_000, end)));
      at = end - whole.link.undelivered.length;
    }
    expect(whole.host.requests).toEqual(client.host.requests);
    expect(whole.host.disk).toEqual(client.host.disk);
    expect(whole.settle()).toEqual(client.settle());
  });

  test("one client is not pulled without end", () => {
    const client = new Client({ diskBytes: 2 * 1024 * KIB }).transmit();
    const one = request(WRITE, 1, 0, SIZE, 0, payload(7));
    const all = join(...Array.from({ length: 64 }, () => one));
    client.link.undelivered = all.slice(28);
    client.session.receive(client.nowMs, all.slice(0, 28));
    const pulled = (): number => all.length - 28 - client.link.undelivered.length;
    expect(pulled()).toBeGreaterThanOrEqual(512 * KIB);
    expect(pulled()).toBeLessThan(512 * KIB + SIZE);
    // What came is executed first: nothing more is taken in the settle of the same turn.
    let before = pulled();
    client.settle();
    expect(pulled()).toBe(before);
    // Then it goes on, a bit per turn, until nothing is there.
    for (client.session.flush(); client.session.mayPull; client.session.flush()) {
      expect(client.session.needsSettle).toBe(false);
      client.settle();
      expect(pulled() - before).toBeLessThan(512 * KIB + SIZE);
      before = pulled();
    }
    expect(client.link.undelivered.length).toBe(0);
    expect(client.host.requests.length).toBe(64);
  });

  test("a client that goes away in mid-payload leaves nothing behind", () => {
    const client = sent(28, 100_000);
    expect(client.host.requests.length).toBe(0);
    client.session.closed(client.nowMs);
    client.session.settle(client.nowMs);
    expect(client.host.endedCount).toBe(1);
    expect(client.pool.outstanding).toBe(0);
  });
});

describe("How the bytes are cut makes no difference", () => {
  test.each([false, true])("split at every byte boundary (structured: %p)", (structured) => {
    const bytes = script(structured);
    const whole = new Client();
    const expected = join(whole.link.take(), whole.send(bytes));
    expect(whole.link.isClosed).toBe(true);
    expect(whole.host.endedCount).toBe(1);
    for (let at = 0; at <= bytes.length; at += 1) {
      const client = new Client();
      client.session.receive(0, bytes.slice(0, at));
      client.session.receive(0, bytes.slice(at));
      if (!Buffer.from(client.settle()).equals(Buffer.from(expected))) {
        throw new Error(`the output differs when split at ${at}`);
      }
      expect(client.pool.outstanding).toBe(0);
    }
  });

  test.each([1, 2, 3, 7, 27, 28, 29])("in pieces of %p bytes", (size) => {
    const bytes = script(true);
    const whole = new Client();
    const expected = join(whole.link.take(), whole.send(bytes));
    const client = new Client();
    const parts = [client.link.take()];
    for (let at = 0; at < bytes.length; at += size) {
      parts.push(client.send(bytes.slice(at, at + size)));
    }
    expect(Buffer.from(join(...parts)).equals(Buffer.from(expected))).toBe(true);
  });
});

describe("Requests in flight", () => {
  test("the bound pauses the client; answers resume it; nothing is lost", () => {
    const client = new Client({ limits: { requestsMax: 4 } }).transmit();
    client.host.deferred = true;
    const reads = Array.from({ length: 10 }, (_u, index) => request(READ, index, index, 1));
    client.send(...reads);
    expect(client.host.open).toHaveLength(4);
    expect(client.link.isPaused).toBe(true);
    client.host.answer(client.host.open.shift()!);
    expect(client.session.needsSettle).toBe(true);
    client.settle();
    expect(client.host.open).toHaveLength(4);
    expect(client.link.isPaused).toBe(true);
    for (let round = 0; round < 3; round += 1) {
      client.host.answerAll();
      client.settle();
    }
    expect(client.host.requests).toHaveLength(10);
    expect(client.link.isPaused).toBe(false);
    expect(client.session.heldBytes).toBe(0);
  });

  test("the payload bound holds a request back, but one request always fits", () => {
    const limits = { payloadBytesMax: 1000 };
    const client = new Client({ limits }).transmit();
    client.host.deferred = true;
    const big = request(WRITE, 1, 0, 5000, 0, new Uint8Array(5000));
    client.send(big, request(READ, 2, 0, 600), request(READ, 3, 0, 600), request(FLUSH, 4, 0, 0));
    expect(client.host.requests).toEqual(["1 0 5000"]);
    client.host.answerAll();
    client.settle();
    expect(client.host.requests).toEqual(["1 0 5000", "0 0 600"]);
    expect(client.link.isPaused).toBe(true);
    client.host.answerAll();
    client.settle();
    expect(client.host.requests.slice(2)).toEqual(["0 0 600", "3 0 0"]);
    expect(client.link.isPaused).toBe(false);
  });

  test("flush tells when held input could go on", () => {
    const client = new Client({ limits: { requestsMax: 1 } }).transmit();
    client.host.deferred = true;
    client.send(request(FLUSH, 1, 0, 0), request(FLUSH, 2, 0, 0));
    client.session.flush();
    expect(client.session.needsSettle).toBe(false);
    client.host.answerAll();
    client.session.flush();
    expect(client.link.take()).toEqual(simpleReply(1, 0));
    expect(client.session.needsSettle).toBe(true);
    client.settle();
    expect(client.host.open).toHaveLength(1);
  });

  test("a client that sends on while held back is cut off at the bound", () => {
    const limits = { requestsMax: 1, heldBytesMax: 10_000 };
    const client = new Client({ limits }).transmit();
    client.host.deferred = true;
    const flood = join(...Array.from({ length: 100 }, () => request(FLUSH, 1, 0, 0)));
    for (let round = 0; round < 3; round += 1) client.session.receive(0, flood);
    expect(client.session.heldBytes).toBeLessThanOrEqual(10_000);
    for (let round = 0; round < 3; round += 1) client.session.receive(0, flood);
    client.settle();
    expect(client.link.isClosed).toBe(true);
    expect(client.session.heldBytes).toBe(0);
    client.host.answerAll();
    client.settle();
    expect(client.host.endedCount).toBe(1);
  });

  test("a WRITE header alone costs no more than its own length, and goes with the client", () => {
    const client = new Client({ diskBytes: 32 * KIB * KIB }).transmit();
    client.send(request(WRITE, 1, 0, 32 * KIB * KIB));
    expect(client.pool.outstanding).toBe(1);
    client.session.closed(client.nowMs);
    client.settle();
    expect(client.pool.outstanding).toBe(0);
    expect(client.host.endedCount).toBe(1);
  });
});

describe("Large replies", () => {
  test("leave when they are made, with all that was answered before; small ones at the end", () => {
    const client = new Client().transmit({ structured: true });
    client.host.deferred = true;
    client.send(
      request(FLUSH, 1, 0, 0),
      request(READ, 2, 0, 100_000),
      request(READ, 3, 0, 100_000),
      request(FLUSH, 4, 0, 0),
    );
    const [flush, first, second, last] = client.host.open.splice(0);
    client.host.answer(flush!);
    expect(client.link.take()).toHaveLength(0);
    client.host.answer(first!);
    expect(parseReplies(client.link.take()).map(({ cookie }) => cookie)).toEqual([1, 2]);
    client.host.answer(second!);
    client.host.answer(last!);
    expect(parseReplies(client.link.take()).map(({ cookie }) => cookie)).toEqual([3]);
    client.session.flush();
    expect(parseReplies(client.link.take()).map(({ cookie }) => cookie)).toEqual([4]);
    expect(client.pool.outstanding).toBe(0);
  });
});

describe("A slow reader", () => {
  test("its output is bounded: past the high-water mark it is not read", () => {
    const limits = { outputBytesHigh: 64 * KIB };
    const client = new Client({ limits }).transmit();
    client.link.capacity = 0;
    for (let index = 0; index < 200; index += 1) {
      client.session.receive(0, request(READ, index, 0, 4096));
      client.settle();
    }
    expect(client.link.isPaused).toBe(true);
    expect(client.session.outputBytes).toBeLessThanOrEqual(64 * KIB + 4096 + 16);
    expect(client.host.requests.length).toBeLessThan(20);
    client.link.capacity = Number.POSITIVE_INFINITY;
    client.session.drained(0);
    const lengths = new Map(Array.from({ length: 200 }, (_u, index) => [index, 4096]));
    const replies = parseReplies(client.settle(), lengths);
    expect(replies.map((reply) => reply.cookie)).toEqual([...Array(200).keys()]);
    expect(client.link.isPaused).toBe(false);
    expect(client.pool.outstanding).toBe(0);
  });

  test("in the handshake too: LIST after LIST is held back", () => {
    const client = haggling({ limits: { outputBytesHigh: 4 * KIB } });
    client.link.capacity = 0;
    client.send(...Array.from({ length: 1000 }, () => option(3)));
    expect(client.session.outputBytes).toBeLessThan(4 * KIB + 200);
    expect(client.link.isPaused).toBe(true);
  });

  test.each([1, 7, 1000, 50_000])("that takes %p bytes at a time gets the same bytes", (step) => {
    const bytes = join(
      request(READ, 1, 0, 100_000),
      request(FLUSH, 2, 0, 0),
      request(READ, 3, 5, 40_000),
      request(READ, 4, 9, 10),
    );
    const whole = new Client().transmit({ structured: true });
    const expected = whole.send(bytes);
    const client = new Client().transmit({ structured: true });
    client.link.capacity = 0;
    const parts = [client.send(bytes)];
    let turns = 0;
    while (client.session.outputBytes > 0) {
      client.link.capacity = step === 1 && turns > 2000 ? 100_000 : step;
      client.session.drained(0);
      parts.push(client.settle());
      turns += 1;
    }
    expect(Buffer.from(join(...parts)).equals(Buffer.from(expected))).toBe(true);
    expect(client.pool.outstanding).toBe(0);
  });

  test("DISC with a reader that takes nothing: the rest is dropped after the linger time", () => {
    const client = new Client().transmit();
    client.link.capacity = 0;
    client.send(request(READ, 1, 0, 100_000), request(DISC, 2, 0, 0));
    expect(client.link.isClosed).toBe(false);
    expect(client.session.nextDeadlineMs()).toBe(2000);
    client.settle();
    client.session.expire(2000);
    client.settle();
    expect(client.link.isClosed).toBe(true);
    expect(client.host.endedCount).toBe(1);
    expect(client.pool.outstanding).toBe(0);
  });

  test("DISC with a reader that comes back in time gets its data", () => {
    const client = new Client().transmit();
    client.link.capacity = 5;
    const first = client.send(request(READ, 1, 0, 100_000), request(DISC, 2, 0, 0));
    client.link.capacity = Number.POSITIVE_INFINITY;
    client.session.drained(0);
    expect(first.length + client.settle().length).toBe(100_016);
    expect(client.link.isClosed).toBe(true);
  });
});

describe("The transport closes", () => {
  test("open requests are still answered, to nobody; ended once, after the last", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(READ, 1, 0, 100_000), request(READ, 2, 0, 1), request(FLUSH, 3, 0, 0));
    client.session.closed(client.nowMs);
    client.settle();
    expect(client.host.endedCount).toBe(0);
    expect(client.session.openCount).toBe(3);
    client.host.answerAll();
    expect(client.host.endedCount).toBe(0);
    expect(client.settle()).toHaveLength(0);
    expect(client.host.endedCount).toBe(1);
    client.session.closed(client.nowMs);
    client.settle();
    expect(client.host.endedCount).toBe(1);
    expect(client.pool.outstanding).toBe(0);
  });

  test("a send that finds it closed drops the output; the close event follows", () => {
    const client = new Client().transmit();
    client.link.isClosed = true;
    client.send(request(READ, 1, 0, 4096));
    expect(client.session.outputBytes).toBe(0);
    client.send(request(READ, 2, 0, 4096));
    client.session.closed(client.nowMs);
    client.settle();
    expect(client.host.endedCount).toBe(1);
    expect(client.pool.outstanding).toBe(0);
  });

  test("bytes after the end are not looked at", () => {
    const client = new Client().transmit();
    client.session.closed(client.nowMs);
    client.session.receive(client.nowMs, request(FLUSH, 1, 0, 0));
    expect(client.host.requests).toHaveLength(0);
  });
});

describe("Contract with the host", () => {
  test("a request is answered once: a second answer is our own bug", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(FLUSH, 1, 0, 0));
    const open = client.host.open[0]!;
    client.session.replyDone(open, 0);
    expect(() => client.session.replyDone(open, 0)).toThrow("answered twice");
  });

  test("the scratch fields are clean for every request, and slots are reused", () => {
    const client = new Client().transmit();
    client.host.deferred = true;
    client.send(request(FLUSH, 1, 0, 0));
    const first = client.host.open[0]!;
    first.hostSlot = 7;
    first.hostState = "mine";
    client.host.answerAll();
    client.send(request(FLUSH, 2, 0, 0));
    const second = client.host.open[0]!;
    expect(second).toBe(first);
    expect([second.hostSlot, second.hostState, second.slot]).toEqual([0, null, 0]);
  });

  test("neighbouring answers are exact to the byte", () => {
    const client = new Client().transmit({ structured: true });
    const bytes = client.send(request(READ, 1, 4096, 1), request(READ, 2, 4097, 1));
    const one = (cookie: number, at: number): Uint8Array =>
      chunk(1, cookie, join(wire().u64(at).done(), client.host.disk.slice(at, at + 1)));
    expect(bytes).toEqual(join(one(1, 4096), one(2, 4097)));
  });
});

/** NBD proto.md, the handshake phase, clause by clause. */
import { describe, expect, test } from "bun:test";
import {
  ALPHA_BYTES,
  Client,
  clientFlags,
  GREETING,
  goOption,
  haggling,
  ODD_BYTES,
  option,
  optionReply,
  parseOptionReplies,
  request,
  simpleReply,
  wire,
} from "./nbd_kit.ts";
import { ExportTable } from "../../core/nbd/export_table.ts";

const ACK = 1;
const ERR_UNSUP = 0x80000001;
const ERR_INVALID = 0x80000003;
const ERR_UNKNOWN = 0x80000006;
const ERR_SHUTDOWN = 0x80000007;
const ERR_TOO_BIG = 0x80000009;

/** HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN, CACHE, FAST_ZERO. */
const FLAGS = 0x1 | 0x4 | 0x8 | 0x20 | 0x40 | 0x100 | 0x400 | 0x800;
const FLAG_DF = 0x80;
/** HAS_FLAGS, READ_ONLY, FLUSH, FUA, CAN_MULTI_CONN, CACHE. */
const FLAGS_READ_ONLY = 0x1 | 0x2 | 0x4 | 0x8 | 0x100 | 0x400;

function infoExport(code: number, size: number, flags: number): Uint8Array {
  return optionReply(code, 3, wire().u16(0).u64(size).u16(flags).done());
}

function codes(client: Client, ...parts: Uint8Array[]): number[] {
  return client.haggle(...parts).map((reply) => reply.type);
}

describe("Newstyle negotiation", () => {
  test("the server greets with NBDMAGIC, IHAVEOPT and FIXED_NEWSTYLE | NO_ZEROES only", () => {
    const client = new Client();
    expect(client.link.take()).toEqual(GREETING);
  });

  test.each([4, 8, 0x80000000, 7])(
    "client flags %p that were not offered: dropped (MUST)",
    (bad) => {
      const client = new Client();
      client.link.take();
      expect(client.send(clientFlags(bad))).toHaveLength(0);
      expect(client.link.isClosed).toBe(true);
      expect(client.session.why).toContain("handshake flag");
    },
  );

  test.each([0, 1, 2, 3])("client flags %p are accepted", (flags) => {
    const client = new Client();
    client.link.take();
    expect(codes(client, clientFlags(flags), option(3))).toEqual([2, 2, 2, ACK]);
  });

  test("an option without its magic ends the connection", () => {
    const client = haggling();
    const bytes = option(3);
    bytes[0] = 0;
    expect(client.send(bytes)).toHaveLength(0);
    expect(client.link.isClosed).toBe(true);
    expect(client.host.endedCount).toBe(1);
  });
});

describe("Unknown options", () => {
  test.each([0, 4, 11, 12, 99, 0xffffffff])(
    "option %p: ERR_UNSUP, its data skipped, the next one still parsed (MUST)",
    (code) => {
      const client = haggling();
      const replies = client.haggle(option(code, wire().text("IHAVEOPT junk").done()), option(8));
      expect(replies.map((reply) => [reply.option, reply.type])).toEqual([
        [code, ERR_UNSUP],
        [8, ACK],
      ]);
      expect(client.link.isClosed).toBe(false);
    },
  );

  test("64 KiB of option data are skipped, more ends the connection (denial of service)", () => {
    const client = haggling();
    expect(codes(client, option(77, new Uint8Array(65536)))).toEqual([ERR_UNSUP]);
    const header = wire().text("IHAVEOPT").u32(77).u32(65537).done();
    expect(client.send(header)).toHaveLength(0);
    expect(client.link.isClosed).toBe(true);
  });

  test("a 4 GiB option length ends the connection and allocates nothing", () => {
    const client = haggling();
    client.send(wire().text("IHAVEOPT").u32(7).u32(0xffffffff).done());
    expect(client.link.isClosed).toBe(true);
    expect(client.session.why).toContain("64 KiB");
    expect(client.pool.outstanding).toBe(0);
  });

  test("EXTENDED_HEADERS (11): ERR_UNSUP", () => {
    expect(codes(haggling(), option(11))).toEqual([ERR_UNSUP]);
  });
});

describe("NBD_OPT_ABORT", () => {
  test("ACK, then the connection is closed", () => {
    const client = haggling();
    expect(client.send(option(2))).toEqual(optionReply(2, ACK));
    expect(client.link.isClosed).toBe(true);
    expect(client.host.endedCount).toBe(1);
  });

  test("data with it is ignored, and nothing after it is looked at", () => {
    const client = haggling();
    const bytes = client.send(option(2, new Uint8Array(9)), option(3));
    expect(bytes).toEqual(optionReply(2, ACK));
  });
});

describe("NBD_OPT_EXPORT_NAME", () => {
  const reply = wire().u64(ALPHA_BYTES).u16(FLAGS);

  test("10 bytes and 124 zeroes without NO_ZEROES", () => {
    const client = new Client();
    client.send(clientFlags(1));
    const bytes = client.send(option(1, wire().text("alpha").done()));
    expect(bytes).toHaveLength(134);
    expect(bytes.subarray(0, 10)).toEqual(reply.done());
    expect(bytes.subarray(10).every((byte) => byte === 0)).toBe(true);
  });

  test("10 bytes with NO_ZEROES, then transmission at once", () => {
    const client = haggling();
    expect(client.send(option(1, wire().text("alpha").done()))).toEqual(reply.done());
    expect(client.send(request(3, 5, 0, 0))).toEqual(simpleReply(5, 0));
  });

  test("an unknown export closes the connection, since there is no error reply", () => {
    const client = haggling();
    expect(client.send(option(1, wire().text("nope").done()))).toHaveLength(0);
    expect(client.link.isClosed).toBe(true);
  });

  test.each([
    ["longer than 4096 bytes", new Uint8Array(4097).fill(97)],
    ["a NUL", Uint8Array.of(97, 0, 98)],
    ["not UTF-8", Uint8Array.of(0xff, 0xfe)],
  ])("a name that is %s closes the connection", (_what, name) => {
    const client = haggling();
    expect(client.send(option(1, name))).toHaveLength(0);
    expect(client.link.isClosed).toBe(true);
  });

  test("the empty name is the default export, the first", () => {
    const client = haggling();
    expect(client.send(option(1))).toEqual(reply.done());
    expect(client.session.chosen?.name).toBe("alpha");
  });
});

describe("NBD_OPT_LIST", () => {
  test("one SERVER reply per export with name and description, then ACK", () => {
    const client = haggling();
    const expected = [
      optionReply(3, 2, wire().u32(5).text("alphafirst").done()),
      optionReply(3, 2, wire().u32(4).text("beta").done()),
      optionReply(3, 2, wire().u32(3).text("oddü").done()),
      optionReply(3, ACK),
    ];
    expect(client.send(option(3))).toEqual(Uint8Array.from(expected.flatMap((e) => [...e])));
  });

  test("name length is at most the reply length - 4 (MUST)", () => {
    for (const reply of haggling().haggle(option(3)).slice(0, -1)) {
      const nameBytes = new DataView(reply.data.buffer).getUint32(0);
      expect(nameBytes).toBeLessThanOrEqual(reply.data.length - 4);
    }
  });

  test("with data: ERR_INVALID (SHOULD)", () => {
    expect(codes(haggling(), option(3, Uint8Array.of(1)))).toEqual([ERR_INVALID]);
  });

  test("without exports: ACK alone, and no default export", () => {
    const client = haggling({ exports: new ExportTable([]) });
    expect(codes(client, option(3), goOption(7, ""))).toEqual([ACK, ERR_UNKNOWN]);
  });
});

describe("NBD_OPT_INFO and NBD_OPT_GO", () => {
  test("INFO: NBD_INFO_EXPORT of length 12, then ACK (MUST), and haggling goes on", () => {
    const client = haggling();
    const bytes = client.send(goOption(6, "alpha"));
    const expected = [...infoExport(6, ALPHA_BYTES, FLAGS), ...optionReply(6, ACK)];
    expect(bytes).toEqual(Uint8Array.from(expected));
    expect(codes(client, option(8))).toEqual([ACK]);
  });

  test.each([1, 3])("GO with client flags %p: no zero padding after ACK (MUST NOT)", (flags) => {
    const client = new Client();
    client.send(clientFlags(flags));
    const bytes = client.send(goOption(7, "alpha"));
    expect(bytes).toHaveLength(20 + 12 + 20);
    expect(client.send(request(3, 1, 0, 0))).toEqual(simpleReply(1, 0));
  });

  test("GO straight after INFO with the same parameters gives the same data (MUST)", () => {
    const client = haggling();
    const infos = [0, 1, 2, 3];
    const info = parseOptionReplies(client.send(option(8), goOption(6, "odd", infos))).slice(1);
    const go = client.haggle(goOption(7, "odd", infos));
    expect(go.map((reply) => [reply.type, reply.data])).toEqual(
      info.map((reply) => [reply.type, reply.data]),
    );
  });

  test("all four informations on request: name, description, block sizes 1, 4096, 32 MiB", () => {
    const replies = haggling().haggle(goOption(6, "odd", [3, 2, 1, 0]));
    expect(replies.map((reply) => reply.data)).toEqual([
      wire().u16(0).u64(ODD_BYTES).u16(FLAGS).done(),
      wire().u16(1).text("odd").done(),
      wire().u16(2).text("ü").done(),
      wire().u16(3).u32(1).u32(4096).u32(33554432).done(),
      new Uint8Array(0),
    ]);
  });

  test("BLOCK_SIZE has length 14 and is sent if requested (MUST)", () => {
    const reply = haggling().haggle(goOption(6, "alpha", [3]))[1];
    expect(reply?.data).toHaveLength(14);
  });

  test("block sizes: minimum a power of 2 <= 64 KiB, preferred >= 512, maximum >= 1 MiB", () => {
    const data = haggling().haggle(goOption(6, "alpha", [3]))[1]!.data;
    const view = new DataView(data.buffer);
    const [minimum, preferred, maximum] = [
      view.getUint32(2),
      view.getUint32(6),
      view.getUint32(10),
    ];
    expect(Number.isInteger(Math.log2(minimum)) && minimum <= 65536).toBe(true);
    expect(Number.isInteger(Math.log2(preferred)) && preferred >= 512).toBe(true);
    expect(maximum % minimum === 0 && maximum >= 1048576).toBe(true);
  });

  test("the default export by the empty name; NBD_INFO_NAME tells its canonical name", () => {
    const replies = haggling().haggle(goOption(7, "", [1]));
    expect(replies[1]?.data).toEqual(wire().u16(1).text("alpha").done());
  });

  test("unknown information types are ignored, doubled ones answered once (MUST)", () => {
    expect(codes(haggling(), goOption(6, "alpha", [4, 9, 0xffff, 1, 1, 35]))).toEqual([3, 3, ACK]);
  });

  test("an unknown export: ERR_UNKNOWN without INFO, and haggling goes on", () => {
    const client = haggling();
    expect(codes(client, goOption(7, "nope"), goOption(6, "nope"))).toEqual([
      ERR_UNKNOWN,
      ERR_UNKNOWN,
    ]);
    expect(client.session.chosen).toBeNull();
  });

  test("a read-only export: READ_ONLY, and neither TRIM nor WRITE_ZEROES nor FAST_ZERO", () => {
    const replies = haggling().haggle(goOption(6, "beta"));
    expect(replies[0]?.data).toEqual(wire().u16(0).u64(65536).u16(FLAGS_READ_ONLY).done());
  });

  test.each([
    ["name length beyond the option length - 6", wire().u32(6).text("alpha").u16(0)],
    ["name length 4 GiB", wire().u32(0xffffffff).text("alpha").u16(0)],
    ["fewer informations than announced", wire().u32(5).text("alpha").u16(2).u16(0)],
    ["data left over", wire().u32(5).text("alpha").u16(0).u8(0)],
    ["no information count", wire().u32(5).text("alpha")],
    ["empty option", wire()],
    ["name with NUL", wire().u32(3).u8(97).u8(0).u8(97).u16(0)],
    ["name not UTF-8", wire().u32(2).u8(0xc3).u8(0x28).u16(0)],
  ])("%s: ERR_INVALID, and the next option is served", (_what, data) => {
    const client = haggling();
    expect(codes(client, option(7, data.done()), option(8))).toEqual([ERR_INVALID, ACK]);
  });

  test("a string beyond 4096 bytes: ERR_TOO_BIG; one of 3000 bytes is only unknown", () => {
    const client = haggling();
    expect(codes(client, goOption(7, "x".repeat(4097)))).toEqual([ERR_TOO_BIG]);
    expect(codes(client, goOption(7, "x".repeat(4096)))).toEqual([ERR_UNKNOWN]);
    expect(codes(client, goOption(7, "x".repeat(3000)))).toEqual([ERR_UNKNOWN]);
  });

  test("error replies say why in UTF-8 of at most 4096 bytes", () => {
    const reply = haggling().haggle(goOption(7, "nope"))[0];
    expect(new TextDecoder().decode(reply?.data)).toBe("no export of that name");
  });
});

describe("NBD_OPT_STRUCTURED_REPLY", () => {
  test("ACK; SEND_DF is set afterwards and clear before", () => {
    const client = haggling();
    const before = client.haggle(goOption(6, "alpha"))[0]?.data;
    expect(before).toEqual(wire().u16(0).u64(ALPHA_BYTES).u16(FLAGS).done());
    expect(client.send(option(8))).toEqual(optionReply(8, ACK));
    const after = client.haggle(goOption(6, "alpha"))[0]?.data;
    expect(after).toEqual(
      wire()
        .u16(0)
        .u64(ALPHA_BYTES)
        .u16(FLAGS | FLAG_DF)
        .done(),
    );
  });

  test("with data: ERR_INVALID, and nothing is negotiated", () => {
    const client = haggling();
    const replies = client.haggle(option(8, Uint8Array.of(0)), goOption(7, "alpha"));
    expect(replies[0]?.type).toBe(ERR_INVALID);
    expect(replies[1]?.data).toEqual(wire().u16(0).u64(ALPHA_BYTES).u16(FLAGS).done());
  });
});

describe("NOTLS mode", () => {
  test("STARTTLS: ERR_UNSUP, never TLS_REQD; what was negotiated stays", () => {
    const client = haggling();
    const replies = client.haggle(option(8), option(5), option(5), goOption(7, "alpha"));
    expect(replies.map((reply) => reply.type)).toEqual([ACK, ERR_UNSUP, ERR_UNSUP, 3, ACK]);
    expect(replies[3]?.data).toEqual(
      wire()
        .u16(0)
        .u64(ALPHA_BYTES)
        .u16(FLAGS | FLAG_DF)
        .done(),
    );
  });

  test("STARTTLS with data: ERR_INVALID", () => {
    expect(codes(haggling(), option(5, Uint8Array.of(1)))).toEqual([ERR_INVALID]);
  });
});

describe("Limits and ends of the handshake", () => {
  test("no export within 10 s: the connection is closed", () => {
    const client = haggling();
    expect(client.session.nextDeadlineMs()).toBe(11_000);
    client.session.expire(10_999);
    client.settle();
    expect(client.link.isClosed).toBe(false);
    client.session.expire(11_000);
    client.settle();
    expect(client.link.isClosed).toBe(true);
    expect(client.session.why).toContain("in time");
    expect(client.session.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
    expect(client.host.endedCount).toBe(1);
  });

  test("a trickle of options does not extend the deadline", () => {
    const client = haggling();
    client.nowMs = 10_900;
    client.haggle(option(3));
    expect(client.session.nextDeadlineMs()).toBe(11_000);
  });

  test("there is no deadline in the transmission phase", () => {
    const client = new Client().transmit();
    expect(client.session.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
  });

  test("server shutdown: options get ERR_SHUTDOWN, ABORT still ACK, EXPORT_NAME is closed", () => {
    const client = haggling();
    client.session.shutdown(client.nowMs);
    client.session.receive(client.nowMs, option(3));
    client.session.receive(client.nowMs, goOption(7, "alpha"));
    expect(parseOptionReplies(client.settle()).map((reply) => reply.type)).toEqual([
      ERR_SHUTDOWN,
      ERR_SHUTDOWN,
    ]);
    expect(client.link.isClosed).toBe(true);
    const aborting = haggling();
    aborting.session.shutdown(aborting.nowMs);
    expect(aborting.send(option(2))).toEqual(optionReply(2, ACK));
    const old = haggling();
    old.session.shutdown(old.nowMs);
    expect(old.send(option(1, wire().text("alpha").done()))).toHaveLength(0);
    expect(old.link.isClosed).toBe(true);
  });

  test("the transport closes in the handshake: ended once, nothing leaks", () => {
    const client = haggling();
    client.session.closed(client.nowMs);
    client.settle();
    client.settle();
    expect(client.host.endedCount).toBe(1);
    expect(client.pool.outstanding).toBe(0);
  });
});

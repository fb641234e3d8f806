/** NBD proto.md, "Metadata querying" and NBD_CMD_BLOCK_STATUS, clause by clause. */
import { describe, expect, test } from "bun:test";
import {
  chunk,
  Client,
  contextOption,
  goOption,
  haggling,
  option,
  optionReply,
  parseReplies,
  request,
  simpleReply,
  wire,
} from "./nbd_kit.ts";

const ACK = 1;
const META = 4;
const ERR_INVALID = 0x80000003;
const ERR_UNKNOWN = 0x80000006;
const ERR_TOO_BIG = 0x80000009;
const EINVAL = 22;
const ALLOCATION = "base:allocation";

function structured(): Client {
  const client = haggling();
  client.send(option(8));
  return client;
}

function context(code: number, id: number): Uint8Array {
  return optionReply(code, META, wire().u32(id).text(ALLOCATION).done());
}

function types(client: Client, ...parts: Uint8Array[]): number[] {
  return client.haggle(...parts).map((reply) => reply.type);
}

/** True if BLOCK_STATUS works after GO to `name`. */
function statusWorks(client: Client, name: string): boolean {
  client.send(goOption(7, name));
  const reply = parseReplies(client.send(request(7, 1, 0, 4096)))[0];
  if (reply?.error === EINVAL) return false;
  expect(reply?.type).toBe(5);
  return true;
}

describe("NBD_OPT_LIST_META_CONTEXT", () => {
  test("before structured replies: ERR_INVALID", () => {
    expect(types(haggling(), contextOption(9, "alpha", []))).toEqual([ERR_INVALID]);
  });

  test.each([
    ["zero queries list all (MUST)", []],
    ["`base:` is a wildcard (MUST)", ["base:"]],
    ["the full name", [ALLOCATION]],
    ["several that match give one", ["x-a:b", "base:", ALLOCATION]],
  ])("%s; the id is 0", (_what, queries) => {
    const bytes = structured().send(contextOption(9, "alpha", queries));
    expect(bytes).toEqual(Uint8Array.from([...context(9, 0), ...optionReply(9, ACK)]));
  });

  test.each([[["qemu:dirty-bitmap:b"]], [["base:unknown"]], [["x-nosuch:"]], [["nocolon"]]])(
    "%p: unknown namespaces and leaves are ignored (MUST), ACK alone",
    (queries) => {
      expect(types(structured(), contextOption(9, "alpha", queries))).toEqual([ACK]);
    },
  );

  test("an unknown export: ERR_UNKNOWN", () => {
    expect(types(structured(), contextOption(9, "nope", []))).toEqual([ERR_UNKNOWN]);
  });

  test("it selects nothing", () => {
    const client = structured();
    client.send(contextOption(9, "alpha", [ALLOCATION]));
    expect(statusWorks(client, "alpha")).toBe(false);
  });
});

describe("NBD_OPT_SET_META_CONTEXT", () => {
  test("before structured replies: ERR_INVALID", () => {
    expect(types(haggling(), contextOption(10, "alpha", [ALLOCATION]))).toEqual([ERR_INVALID]);
  });

  test("base:allocation is selected, with one id, then ACK", () => {
    const client = structured();
    const bytes = client.send(contextOption(10, "alpha", [ALLOCATION, ALLOCATION]));
    expect(bytes).toEqual(Uint8Array.from([...context(10, 1), ...optionReply(10, ACK)]));
    expect(statusWorks(client, "alpha")).toBe(true);
  });

  test.each([
    ["zero queries select none (MUST)", []],
    ["`base:` selects nothing (MUST)", ["base:"]],
    ["unknown ones", ["base:nosuch", "x-y:z"]],
  ])("%s", (_what, queries) => {
    const client = structured();
    expect(types(client, contextOption(10, "alpha", queries))).toEqual([ACK]);
    expect(statusWorks(client, "alpha")).toBe(false);
  });

  const invalid = option(10, wire().u32(5).text("alpha").u32(1).u32(99).text("base:").done());
  test.each([
    ["an empty selection", contextOption(10, "alpha", [])],
    ["an unknown export", contextOption(10, "nope", [ALLOCATION])],
    ["an invalid query", invalid],
    ["an empty option", option(10)],
  ])("each SET replaces the former one, also when it fails (MUST): %s", (_what, second) => {
    const client = structured();
    client.send(contextOption(10, "alpha", [ALLOCATION]));
    client.send(second);
    expect(statusWorks(client, "alpha")).toBe(false);
  });

  test("the export name must be the one of GO, to the letter", () => {
    const other = structured();
    other.send(contextOption(10, "odd", [ALLOCATION]));
    expect(statusWorks(other, "alpha")).toBe(false);
    const alias = structured();
    alias.send(contextOption(10, "alpha", [ALLOCATION]));
    expect(statusWorks(alias, "")).toBe(false);
    const same = structured();
    same.send(contextOption(10, "", [ALLOCATION]));
    expect(statusWorks(same, "")).toBe(true);
  });

  test.each([
    ["query length beyond the option", wire().u32(5).text("alpha").u32(1).u32(6).text("base:")],
    ["query length 4 GiB", wire().u32(5).text("alpha").u32(1).u32(0xffffffff).text("base:")],
    ["more queries than there are", wire().u32(5).text("alpha").u32(2).u32(5).text("base:")],
    ["a query count of 4 billion", wire().u32(5).text("alpha").u32(0xffffffff)],
    ["name length beyond the option", wire().u32(50).text("alpha").u32(0)],
    ["data left over", wire().u32(5).text("alpha").u32(0).u8(1)],
    ["a query with a NUL", wire().u32(5).text("alpha").u32(1).u32(2).u8(97).u8(0)],
  ])("%s: ERR_INVALID (MUST)", (_what, data) => {
    const client = structured();
    expect(types(client, option(10, data.done()), option(9, data.done()))).toEqual([
      ERR_INVALID,
      ERR_INVALID,
    ]);
  });

  test("a query beyond 4096 bytes: ERR_TOO_BIG", () => {
    const query = `base:${"x".repeat(4092)}`;
    expect(types(structured(), contextOption(10, "alpha", [query]))).toEqual([ERR_TOO_BIG]);
  });
});

describe("NBD_CMD_BLOCK_STATUS", () => {
  function status(client: Client, length: number, flags = 0): Uint8Array {
    return client.send(request(7, 9, 0, length, flags));
  }
  function extents(...pairs: number[]): Uint8Array {
    const payload = wire().u32(1);
    for (const value of pairs) payload.u32(value);
    return chunk(5, 9, payload.done());
  }

  test("without structured replies: EINVAL in a simple reply", () => {
    const client = new Client().transmit();
    expect(status(client, 4096)).toEqual(simpleReply(9, EINVAL));
  });

  test("without a selected context: EINVAL in a structured reply", () => {
    const client = new Client().transmit({ structured: true });
    const reply = parseReplies(status(client, 4096))[0];
    expect([reply?.simple, reply?.error, reply?.flags]).toEqual([false, EINVAL, 1]);
  });

  test("exactly one chunk per context, DONE, holes as HOLE | ZERO, data as 0", () => {
    const client = new Client().transmit({ context: true });
    expect(status(client, 16384)).toEqual(extents(4096, 3, 12288, 0));
  });

  test("REQ_ONE: exactly one extent, never longer than the request", () => {
    const client = new Client().transmit({ context: true });
    expect(status(client, 16384, 8)).toEqual(extents(4096, 3));
    client.host.extents = [1 << 20, 0];
    expect(status(client, 512, 8)).toEqual(extents(512, 0));
    client.host.extents = [100, 3, 100, 3, 100, 0];
    expect(status(client, 1000, 8)).toEqual(extents(200, 3));
  });

  test("extents are non-zero, merged when equal, and cut at the length asked for", () => {
    const client = new Client().transmit({ context: true });
    client.host.extents = [0, 3, 512, 0, 0, 3, 512, 0, 1024, 3, 9999, 0];
    expect(status(client, 4096)).toEqual(extents(1024, 0, 1024, 3, 2048, 0));
  });

  test("a host that knows nothing: the whole range with status 0", () => {
    const client = new Client().transmit({ context: true });
    client.host.extents = [];
    expect(status(client, 8192)).toEqual(extents(8192, 0));
  });

  test("at most 4096 extents a reply: fewer than asked for is allowed", () => {
    const client = new Client().transmit({ context: true });
    const pairs: number[] = [];
    for (let index = 0; index < 6000; index += 1) pairs.push(8, index % 2 === 0 ? 3 : 0);
    client.host.extents = pairs;
    const reply = parseReplies(status(client, 48000))[0];
    expect(reply?.payload).toHaveLength(4 + 4096 * 8);
  });

  test("past the end: EINVAL; FUA is accepted; other flags are not", () => {
    const client = new Client().transmit({ context: true });
    expect(parseReplies(client.send(request(7, 1, 1048576, 1)))[0]?.error).toBe(EINVAL);
    expect(parseReplies(status(client, 4096, 1))[0]?.type).toBe(5);
    expect(parseReplies(status(client, 4096, 4))[0]?.error).toBe(EINVAL);
  });

  test("an error of the host comes as an error chunk", () => {
    const client = new Client().transmit({ context: true });
    client.host.outcome = 1;
    expect(parseReplies(status(client, 4096))[0]?.error).toBe(5);
  });
});

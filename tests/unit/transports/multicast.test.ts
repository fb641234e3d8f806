/** Multicast on loopback: three hosts on one machine share the group's port. */
import { afterEach, describe, expect, test } from "bun:test";
import { LIMITS } from "../../../core/base/limits.ts";
import { type HostId, hostId } from "../../../core/base/units.ts";
import { Multicast } from "../../../transports/multicast.ts";
import { freePort, Remembered, until } from "./sink.ts";

let open: Multicast[] = [];
afterEach(() => {
  for (const link of open) link.close();
  open = [];
});

async function hosts(count: number): Promise<{ link: Multicast; got: Uint8Array[] }[]> {
  const group = `239.255.74.41:${freePort()}`;
  const addresses = Array.from({ length: count }, () => `127.0.0.1:${freePort()}`);
  const made = [];
  for (let self = 0; self < count; self += 1) {
    const peers = new Map<HostId, string>();
    addresses.forEach((address, id) => {
      if (id !== self) peers.set(hostId(id), address);
    });
    const got: Uint8Array[] = [];
    const options = { group, own: addresses[self] ?? "", peers };
    const link = new Multicast(options, { packet: (chunk) => got.push(chunk) }, new Remembered());
    await link.open();
    open.push(link);
    made.push({ link, got });
  }
  return made;
}

describe("multicast", () => {
  test("reaches every other host once, the sender never", async () => {
    const [first, second, third] = await hosts(3);
    if (first === undefined || second === undefined || third === undefined) throw new Error();
    const buffer = Uint8Array.of(0, 1, 2, 3, 0);
    first.link.multicast(buffer, 1, 3);
    buffer.fill(9); // Copied at the call.
    await until("arrived", () => second.got.length === 1 && third.got.length === 1);
    expect(second.got[0]).toEqual(Buffer.of(1, 2, 3));
    expect(third.got[0]).toEqual(Buffer.of(1, 2, 3));
    second.link.unicast(hostId(0), buffer, 0, 5);
    await until("arrived", () => first.got.length === 1);
    expect(third.got.length).toBe(1);
  });

  test("a dead peer's ICMP errors do not stop the others from hearing", async () => {
    const [first, second, third] = await hosts(3);
    if (first === undefined || second === undefined || third === undefined) throw new Error();
    third.link.close();
    const buffer = new Uint8Array(100);
    for (let round = 0; round < 20; round += 1) {
      first.link.unicast(hostId(2), buffer, 0, 100);
      first.link.unicast(hostId(1), buffer, 0, 100);
      await new Promise<void>((resolve) => setTimeout(resolve, 1));
    }
    await until("all arrived", () => second.got.length === 20);
    expect(first.link.sendDrops).toBe(0);
  });

  test("oversized datagrams are dropped and counted", async () => {
    const [first, second] = await hosts(2);
    if (first === undefined || second === undefined) throw new Error();
    const buffer = new Uint8Array(70_000);
    first.link.multicast(buffer, 0, LIMITS.datagramBytesMax + 1);
    first.link.multicast(buffer, 0, 70_000);
    first.link.multicast(buffer, 0, LIMITS.datagramBytesMax);
    await until("arrived", () => second.got.length === 1);
    expect(second.link.receiveDrops).toBe(1);
    expect(first.link.sendDrops).toBe(1);
  });

  test("a flood is processed in slices, with other events between them", async () => {
    const [first, second] = await hosts(2);
    if (first === undefined || second === undefined) throw new Error();
    let turn = 0;
    let isOver = false;
    const perTurn = new Map<number, number>();
    const count = (): void => {
      turn += 1;
      perTurn.set(turn, second.got.length);
      if (!isOver) setImmediate(count);
    };
    const buffer = new Uint8Array(1400);
    for (let index = 0; index < 4000; index += 1) first.link.multicast(buffer, 0, 1400);
    count();
    await until("most arrived", () => second.got.length >= 3000);
    isOver = true;
    let most = 0;
    for (const [at, total] of perTurn) most = Math.max(most, total - (perTurn.get(at - 1) ?? 0));
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(128);
    expect(second.got.every((chunk) => chunk.length === 1400)).toBe(true);
  });

  test("addresses that are no addresses are refused", () => {
    const options = { group: "group:1", own: "127.0.0.1:1", peers: new Map() };
    expect(() => new Multicast(options, { packet() {} }, new Remembered())).toThrow("not ip:port");
  });

  test("an address of another host is refused in one sentence", async () => {
    const options = { group: "239.255.74.41:7441", own: "192.0.2.1:7440", peers: new Map() };
    const link = new Multicast(options, { packet() {} }, new Remembered());
    await expect(link.open()).rejects.toThrow("the address is not on this host");
  });
});

/**
 * What every PacketLink must do (core/base/ports.ts), run on the real and on the simulated one.
 * Delivery is best effort, so each check sends again until what it waits for has arrived.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { LIMITS } from "../../core/base/limits.ts";
import type { PacketLink } from "../../core/base/ports.ts";
import type { HostId } from "../../core/base/units.ts";

export interface PacketRig {
  /** Three hosts in one multicast group. */
  readonly hosts: readonly [HostId, HostId, HostId];
  link(host: HostId): PacketLink;
  /** Datagrams that arrived at a host; the suite may clear it. */
  packets(host: HostId): Uint8Array[];
  /** Runs the world until `isDone` holds; false if it does not within a generous bound. */
  until(isDone: () => boolean): Promise<boolean>;
  close(): Promise<void>;
}

const ATTEMPTS = 20;

export function packetSuite(name: string, makeRig: () => Promise<PacketRig>): void {
  describe(`PacketLink: ${name}`, () => {
    let rig: PacketRig;

    beforeEach(async () => {
      rig = await makeRig();
    });
    afterEach(async () => {
      await rig.close();
    });

    /** Sends until all of `hosts` have got a datagram. */
    async function deliver(send: () => void, hosts: readonly HostId[]): Promise<boolean> {
      const isDone = (): boolean => hosts.every((host) => rig.packets(host).length > 0);
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        send();
        if (await rig.until(isDone)) return true;
      }
      return false;
    }

    test("a multicast reaches all other hosts", async () => {
      const [one, two, three] = rig.hosts;
      const bytes = Uint8Array.from({ length: 300 }, (_, index) => index % 256);
      const send = (): void => rig.link(one).multicast(bytes, 0, bytes.length);
      expect(await deliver(send, [two, three])).toBe(true);
      for (const host of [two, three]) {
        expect(Buffer.compare(rig.packets(host)[0] as Uint8Array, bytes)).toBe(0);
      }
    });

    test("a unicast reaches its host and no other", async () => {
      const [one, two, three] = rig.hosts;
      const bytes = new Uint8Array(50).fill(7);
      const send = (): void => rig.link(one).unicast(three, bytes, 0, 50);
      expect(await deliver(send, [three])).toBe(true);
      expect(rig.packets(two).length).toBe(0);
      expect(rig.packets(one).length).toBe(0);
      expect(Buffer.compare(rig.packets(three)[0] as Uint8Array, bytes)).toBe(0);
    });

    test("the largest datagram passes whole", async () => {
      const [one, two, three] = rig.hosts;
      const bytes = new Uint8Array(LIMITS.datagramBytesMax).fill(9);
      const send = (): void => rig.link(two).multicast(bytes, 0, bytes.length);
      expect(await deliver(send, [one, three])).toBe(true);
      expect(rig.packets(one)[0]?.length).toBe(LIMITS.datagramBytesMax);
    });

    test("a part of a buffer is sent, and copied at once", async () => {
      const [one, two] = rig.hosts;
      const send = (): void => {
        const bytes = Uint8Array.from({ length: 100 }, (_, index) => index);
        rig.link(one).unicast(two, bytes, 10, 5);
        bytes.fill(0);
      };
      expect(await deliver(send, [two])).toBe(true);
      expect([...(rig.packets(two)[0] as Uint8Array)]).toEqual([10, 11, 12, 13, 14]);
    });

    test("a burst within a socket buffer arrives for the most part", async () => {
      const [one, two] = rig.hosts;
      const bytes = new Uint8Array(1000);
      for (let count = 0; count < 50; count += 1) {
        bytes[0] = count;
        rig.link(one).multicast(bytes, 0, 1000);
      }
      expect(await rig.until(() => rig.packets(two).length >= 40)).toBe(true);
    });
  });
}

/** The mirror's small parts: ring, log positions, framer, token bucket, wire. */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../../core/base/random.ts";
import { hostId } from "../../../core/base/units.ts";
import { decode, encode } from "../../../core/format/codec.ts";
import { DatagramHeader, decodeDatagramHeader } from "../../../core/format/datagram.ts";
import { viewOf } from "../../../core/format/layout.ts";
import {
  encodeFrameHeader,
  FRAME_HEADER_BYTES,
  FRAME_PAYLOAD_BYTES_MAX,
  FRAME_TYPE,
  FrameHeader,
  MIRROR_MESSAGE,
  type MirrorMessage,
} from "../../../core/format/mirror_wire.ts";
import { Framer } from "../../../core/mirror/framer.ts";
import { LsnTrack } from "../../../core/mirror/lsn_track.ts";
import { RecordRing } from "../../../core/mirror/record_ring.ts";
import { TokenBucket } from "../../../core/mirror/token_bucket.ts";

test("a record ring keeps every entry whole through wraps and growth", () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const random = new SeededRandom(seed);
    const maxBytes = random.pick([5000, 100_000, 300_000]);
    const ring = new RecordRing(maxBytes, 500);
    const lengths: number[] = [];
    for (let step = 0; step < 2000; step += 1) {
      const length = 1 + random.below(2000);
      if (ring.fits(length)) {
        const seq = ring.nextSeq;
        const at = ring.reserve(seq, length, seq % 2);
        ring.buffer.fill(seq % 251, at, at + length);
        lengths[seq] = length;
      } else {
        expect(ring.count).toBeGreaterThan(0);
        ring.release(ring.firstSeq + random.below(ring.count));
      }
      expect(ring.buffer.length).toBeLessThanOrEqual(maxBytes);
    }
    for (let seq = ring.firstSeq; seq < ring.nextSeq; seq += 1) {
      expect(ring.lengthOf(seq)).toBe(lengths[seq] as number);
      expect(ring.tagOf(seq)).toBe(seq % 2);
      const bytes = ring.buffer.subarray(ring.at(seq), ring.at(seq) + ring.lengthOf(seq));
      expect(bytes.every((byte) => byte === seq % 251)).toBe(true);
    }
  }
});

test("a record ring refuses past its bounds and starts anywhere when empty", () => {
  const ring = new RecordRing(1000, 3);
  expect(ring.fits(1001)).toBe(false);
  for (let seq = 1; seq <= 3; seq += 1) ring.reserve(seq, 10, 0);
  expect(ring.fits(10)).toBe(false);
  ring.release(99);
  expect(ring.count).toBe(0);
  ring.reserve(77, 10, 0);
  expect(ring.has(77) && !ring.has(76) && !ring.has(78)).toBe(true);
});

test("log positions become stream positions", () => {
  const random = new SeededRandom(5);
  const track = new LsnTrack();
  const lsns = [0];
  let lsn = 0;
  let logged = 0;
  for (let step = 0; step < 5000; step += 1) {
    if (track.hasRoom && random.chance(0.6)) {
      lsn += 1 + random.below(100);
      lsns.push(lsn);
      track.push(lsn);
    } else {
      logged = Math.max(logged, random.below(lsn + 1));
      track.logged(logged);
      track.synced(logged);
      const expected = lsns.filter((each) => each <= logged).length - 1;
      expect(track.received).toBe(expected);
      expect(track.durable).toBe(expected);
    }
  }
});

test("a durable position that fell out of the ring is found again", () => {
  const track = new LsnTrack();
  for (let seq = 1; seq <= 1000; seq += 1) {
    track.push(seq * 10);
    track.logged(seq * 10);
  }
  expect(track.synced(50)).toBe(false);
  expect(track.synced(9995)).toBe(true);
  expect(track.durable).toBe(999);
});

function frameOf(length: number, fill: number): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + length).fill(fill);
  const header = new FrameHeader();
  header.type = FRAME_TYPE.bulk;
  header.sender = 1;
  header.length = length;
  encodeFrameHeader(bytes, viewOf(bytes), 0, header);
  return bytes;
}

test("a framer finds every frame however the bytes are cut", () => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const random = new SeededRandom(seed);
    const lengths = Array.from({ length: 20 }, () => random.below(random.pick([4, 200, 20_000])));
    const frames = lengths.map((length, index) => frameOf(length, index));
    const stream = Buffer.concat(frames);
    const seen: number[] = [];
    const framer = new Framer(hostId(1), false, {
      frame(_source, header, buffer, _view, at) {
        const isWhole = buffer
          .subarray(at, at + header.length)
          .every((byte) => byte === seen.length);
        expect(isWhole).toBe(true);
        seen.push(header.length);
        return true;
      },
    });
    let at = 0;
    while (at < stream.length) {
      const take = Math.min(stream.length - at, 1 + random.below(random.pick([2, 100, 50_000])));
      expect(framer.push(new Uint8Array(stream.subarray(at, at + take)), 0, take)).toBe(true);
      at += take;
    }
    expect(seen).toEqual(lengths);
  }
});

test("a framer survives any bytes", () => {
  const random = new SeededRandom(9);
  let frames = 0;
  let refused = 0;
  for (let round = 0; round < 2000; round += 1) {
    const framer = new Framer(hostId(1), false, {
      frame: (_source, header) => {
        frames += 1;
        expect(header.length).toBeLessThanOrEqual(FRAME_PAYLOAD_BYTES_MAX);
        return true;
      },
    });
    const bytes = random.chance(0.5) ? frameOf(50, 3) : new Uint8Array(200);
    const flips = 1 + random.below(3);
    for (let flip = 0; flip < flips; flip += 1) {
      bytes[random.below(FRAME_HEADER_BYTES)] = random.below(256);
    }
    if (!framer.push(bytes, 0, bytes.length)) refused += 1;
  }
  expect(refused).toBeGreaterThan(1900);
  expect(frames).toBeLessThan(100);
});

test("a token bucket keeps its rate", () => {
  const bucket = new TokenBucket(1_000_000, 10_000);
  let sent = 0;
  let nowMs = 0;
  while (nowMs < 1000) {
    if (bucket.take(nowMs, 1400)) sent += 1400;
    else nowMs += bucket.waitMs(1400, 1);
  }
  expect(sent).toBeGreaterThan(950_000);
  expect(sent).toBeLessThan(1_020_000);
});

test("control messages survive the wire, and any other bytes are refused or harmless", () => {
  const messages: MirrorMessage[] = [
    { kind: "resume", epoch: 65, appended: 3, received: 2, durable: 1 },
    { kind: "ack", epoch: 65, received: 2 ** 40, durable: 0 },
    { kind: "committed", epoch: 65, seq: 9 },
    { kind: "barrier", epoch: 65, id: 4 },
    { kind: "barrierDone", epoch: 65, id: 4, ok: true },
    { kind: "castStatus", epoch: 65, highest: 9 },
    { kind: "castNak", epoch: 65, next: 4, ranges: [{ from: 4, count: 2 }] },
    { kind: "castStart", epoch: 65, number: 7 },
    { kind: "castStop", epoch: 65 },
    { kind: "castEcho", epoch: 65, probe: 2 },
  ];
  const random = new SeededRandom(3);
  for (const message of messages) {
    const bytes = encode(MIRROR_MESSAGE, message);
    expect(decode(MIRROR_MESSAGE, bytes)).toEqual(message);
    for (let round = 0; round < 200; round += 1) {
      const broken = bytes.slice(0, random.below(bytes.length + 1));
      if (broken.length > 0) broken[random.below(broken.length)] = random.below(256);
      decode(MIRROR_MESSAGE, broken);
    }
  }
});

test("a datagram header refuses what is not one of ours", () => {
  const random = new SeededRandom(4);
  const header = new DatagramHeader();
  for (let round = 0; round < 2000; round += 1) {
    const bytes = new Uint8Array(random.below(1600));
    for (let at = 0; at < Math.min(40, bytes.length); at += 1) bytes[at] = random.below(256);
    expect(decodeDatagramHeader(viewOf(bytes), bytes.length, header)).toBe(false);
  }
});

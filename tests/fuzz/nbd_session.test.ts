/**
 * Any bytes end at most one connection (G9): random bytes, and valid sessions with mutations, cut
 * anywhere, answered in any order or not at all, read slowly. Nothing throws, every bound holds,
 * and when it is over all memory is back and `ended` was said once.
 */
import { expect, test } from "bun:test";
import { SeededRandom } from "../../core/base/random.ts";
import {
  Client,
  clientFlags,
  contextOption,
  goOption,
  join,
  option,
  request,
} from "../spec/nbd_kit.ts";

const LIMITS = {
  requestsMax: 8,
  payloadBytesMax: 100_000,
  outputBytesHigh: 50_000,
  heldBytesMax: 20_000,
};
const SEEDS = Number(process.env.FUZZ_SEEDS ?? 1500);

function randomBytes(random: SeededRandom, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.below(256));
}

function validSession(random: SeededRandom): Uint8Array {
  const parts = [clientFlags(random.below(4))];
  if (random.chance(0.7)) parts.push(option(8));
  if (random.chance(0.3)) parts.push(option(3));
  if (random.chance(0.6)) {
    parts.push(contextOption(9 + random.below(2), "alpha", ["base:allocation", "base:"]));
  }
  if (random.chance(0.2)) parts.push(option(random.below(20), randomBytes(random, 30)));
  const last = random.below(3);
  if (last === 0) parts.push(option(1, new TextEncoder().encode("alpha")));
  else parts.push(goOption(last === 1 ? 7 : 6, "alpha", [0, 1, 2, 3]), goOption(7, "alpha"));
  const count = random.below(40);
  for (let index = 0; index < count; index += 1) {
    const command = random.below(8);
    if (command === 2 && !random.chance(0.1)) continue;
    const length = command === 3 ? 0 : 1 + random.below(random.chance(0.2) ? 60_000 : 3000);
    const offset = command === 3 ? 0 : random.below(1_000_000);
    const flags = random.chance(0.2) ? random.below(32) : 0;
    const payload = command === 1 ? randomBytes(random, length) : new Uint8Array(0);
    parts.push(request(command, index, offset, length, flags, payload));
  }
  return join(...parts);
}

function mutate(random: SeededRandom, bytes: Uint8Array): Uint8Array {
  let out = bytes;
  const count = random.below(4);
  for (let index = 0; index < count && out.length > 0; index += 1) {
    const at = random.below(out.length);
    const kind = random.below(4);
    if (kind === 0) {
      out = out.slice();
      out[at] = random.below(256);
    } else if (kind === 1) {
      out = join(out.subarray(0, at), out.subarray(at + 1 + random.below(8)));
    } else if (kind === 2) {
      out = join(out.subarray(0, at), randomBytes(random, 1 + random.below(8)), out.subarray(at));
    } else {
      out = out.slice(0, at);
    }
  }
  return out;
}

function answerSome(random: SeededRandom, client: Client): void {
  const { open } = client.host;
  while (open.length > 0 && random.chance(0.7)) {
    const [one] = open.splice(random.below(open.length), 1);
    client.host.outcome = random.chance(0.1) ? random.pick([1, 2, 3, 4, 5, 6]) : 0;
    client.host.answer(one!);
  }
}

function checkBounds(client: Client): void {
  const { session } = client;
  if (client.host.open.length > LIMITS.requestsMax) throw new Error("too many open requests");
  if (session.openCount !== client.host.open.length) throw new Error("open requests miscounted");
  // One chunk was being read when it was held back, and is at most 4096 bytes here.
  if (session.heldBytes > LIMITS.heldBytesMax + 4096) throw new Error("too much held input");
  const most = LIMITS.outputBytesHigh + LIMITS.payloadBytesMax + 40_000;
  if (session.outputBytes > most) throw new Error("too much output");
  if (session.outputBytes < 0) throw new Error("output miscounted");
}

function play(random: SeededRandom, bytes: Uint8Array): Client {
  const client = new Client({ limits: LIMITS });
  client.host.deferred = random.chance(0.7);
  const obedient = random.chance(0.8);
  let at = 0;
  while (at < bytes.length) {
    if (random.chance(0.2)) client.link.capacity = random.below(30_000);
    if (random.chance(0.3)) {
      client.link.capacity = Number.POSITIVE_INFINITY;
      client.session.drained(client.nowMs);
    }
    if (!client.link.isPaused || !obedient) {
      const size = 1 + random.below(random.chance(0.5) ? 20 : 4096);
      client.session.receive(client.nowMs, bytes.slice(at, at + size));
      at += size;
    }
    checkBounds(client);
    if (random.chance(0.6)) client.settle();
    answerSome(random, client);
    if (random.chance(0.3)) client.session.flush();
    if (random.chance(0.002)) client.session.shutdown(client.nowMs);
    checkBounds(client);
    client.nowMs += random.chance(0.001) ? 11_000 : 1;
    client.session.expire(client.nowMs);
    // A held client whose requests nobody answers would wait for ever.
    if (client.link.isPaused && random.chance(0.1)) {
      client.host.outcome = 0;
      client.host.answerAll();
    }
  }
  return client;
}

function finish(client: Client): void {
  client.link.capacity = Number.POSITIVE_INFINITY;
  client.session.drained(client.nowMs);
  client.settle();
  client.session.closed(client.nowMs);
  client.settle();
  client.host.outcome = 0;
  client.host.answerAll();
  client.settle();
  if (client.host.endedCount !== 1) throw new Error("ended was not said once");
  if (client.pool.outstanding !== 0) throw new Error("memory was not given back");
  if (client.session.nextDeadlineMs() !== Number.POSITIVE_INFINITY) throw new Error("a deadline");
  if (client.session.why === "") throw new Error("nobody says why it ended");
}

function runSeed(seed: number, make: (random: SeededRandom) => Uint8Array): void {
  const random = new SeededRandom(seed);
  try {
    finish(play(random, make(random)));
  } catch (error) {
    throw new Error(`seed ${seed}`, { cause: error });
  }
}

test("random bytes", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    runSeed(seed, (random) => randomBytes(random, random.below(2000)));
  }
});

test("random bytes behind valid flags and behind a valid handshake", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    runSeed(seed, (random) => {
      const handshake = random.chance(0.5) ? [goOption(7, "alpha")] : [];
      return join(clientFlags(3), ...handshake, randomBytes(random, random.below(2000)));
    });
  }
});

test("valid sessions, mutated", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    runSeed(seed, (random) => mutate(random, validSession(random)));
  }
}, 30_000);

test("the mutated sessions reach the host (the fuzzer is not blind)", () => {
  let requests = 0;
  let refused = 0;
  for (let seed = 1; seed <= 200; seed += 1) {
    const random = new SeededRandom(seed);
    const client = play(random, mutate(random, validSession(random)));
    requests += client.host.requests.length;
    if (client.session.why.includes("magic")) refused += 1;
    finish(client);
  }
  expect(requests).toBeGreaterThan(500);
  expect(refused).toBeGreaterThan(5);
});

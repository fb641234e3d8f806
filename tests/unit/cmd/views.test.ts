/** What people read: status, leases, progress, tables, the report of a check. */
import { describe, expect, test } from "bun:test";
import { clippedLeases, leasesText } from "../../../cmd/lease.ts";
import { barText, Progress } from "../../../cmd/progress.ts";
import type { StatusDocument } from "../../../cmd/status_document.ts";
import { readStatus } from "../../../cmd/status_document.ts";
import { statusText } from "../../../cmd/status_view.ts";
import { checkText } from "../../../cmd/store_check.ts";
import { showsColors, table } from "../../../cmd/table.ts";

const GIB = 1024 ** 3;
const store = {
  sizeBytes: 20 * GIB,
  usedBytes: 5 * GIB,
  segmentsFree: 100,
  writeAmplification: 1.2,
  badBlocksHealed: 2,
  badBlocksWaiting: 1,
  indexBytes: 0,
  indexMisses: 0,
  scrub: {
    bytesPerSecond: 2 * 1024 * 1024,
    isRunning: true,
    share: 0.429,
    passes: 3,
    endedAt: "2026-11-25T22:10:35.123Z",
    checkedBlocks: 1000,
    badBlocks: 5,
    readsMedium: true,
  },
};
const status: StatusDocument = {
  cluster: "lab",
  host: "alpha",
  version: "0.1.0",
  view: {
    epoch: 65,
    members: ["alpha", "beta"],
    joining: ["gamma"],
    majority: true,
    open: true,
    why: "",
  },
  hosts: [
    {
      name: "alpha",
      kind: "data",
      connected: true,
      state: "in-sync",
      disk: "ok",
      why: "",
      paths: [
        { to: "beta", via: "dedicated", up: true, rttMicros: 31 },
        { to: "gamma", via: "dedicated", up: false, rttMicros: -1 },
        { to: "gamma", via: "shared", up: true, rttMicros: 1500 },
      ],
      store,
    },
    {
      name: "beta",
      kind: "data",
      connected: true,
      state: "in-sync",
      disk: "failed",
      why: "its disk answered EIO",
      paths: [],
      store: null,
    },
    {
      name: "gamma",
      kind: "witness",
      connected: false,
      state: "offline",
      disk: "none",
      why: "unreachable for 14 s",
      paths: [],
      store: null,
    },
  ],
  volumes: [
    {
      name: "vol0",
      sizeBytes: 10 * GIB,
      io: "frozen",
      why: "1 of 3 votes",
      clients: 2,
      usedBytes: 0,
    },
  ],
  resync: [
    {
      to: "gamma",
      from: "alpha",
      doneBytes: GIB,
      totalBytes: 4 * GIB,
      bytesPerSecond: 100 * 1024 ** 2,
      etaSeconds: 30.7,
    },
  ],
};

describe("status", () => {
  test("for people, without colours", () => {
    expect(statusText(status, false)).toBe(`cluster lab, seen by alpha (vsan 0.1.0)
view 65, open, majority: alpha, beta; joining: gamma

HOST             STATE    DISK    STORE                        PATH
alpha            in-sync  ok      5.00 GiB of 20.0 GiB (25 %)  (this host)
beta             in-sync  failed  -                            dedicated 31 µs
gamma (witness)  offline  -       -                            dedicated down, shared 1.5 ms
  alpha: 2 bad blocks were healed from a mirror
  alpha: 1 bad blocks wait for a good copy
  alpha: scrub at 42 %, 2.00 MiB/s; scrubbed whole 2026-11-25 22:10, 5 bad found so far
  beta: its disk answered EIO
  gamma: unreachable for 14 s

VOLUME  SIZE      USED  IO      CLIENTS
vol0    10.0 GiB  0 B   frozen  2
  vol0: 1 of 3 votes

RESYNC
  gamma from alpha  [######..................]  25 %  1.00 GiB of 4.00 GiB, 100 MiB/s, 31s left
`);
  });

  test("every reason is shown", () => {
    const text = statusText(status, false);
    for (const entry of status.hosts) expect(text).toContain(entry.why);
    expect(text).toContain("vol0: 1 of 3 votes");
    expect(text).toContain("dedicated down, shared 1.5 ms");
    expect(text).toContain("gamma from alpha");
    expect(text).toContain("25 %");
    expect(text).toContain("31s left");
  });

  test("colours change nothing but colour", () => {
    const colored = statusText(status, true);
    expect(colored).toContain("\u001b[32min-sync\u001b[39m");
    expect(colored).toContain("\u001b[31mfrozen\u001b[39m");
    expect(Bun.stripANSI(colored)).toBe(statusText(status, false));
  });

  test("no line is wider than a terminal", () => {
    for (const line of statusText(status, false).split("\n")) {
      expect(Bun.stringWidth(line)).toBeLessThanOrEqual(100);
    }
  });

  test("a document of another shape is refused, one with more keys is read", () => {
    expect(readStatus({ ...status, news: 1 })).toEqual(status);
    for (const bad of [null, 1, {}, { ...status, hosts: 1 }, { ...status, view: {} }]) {
      expect(() => readStatus(bad)).toThrow("cannot read");
    }
  });
});

test("tables line up wide characters and end without spaces", () => {
  const text = table(
    ["A", "B"],
    [
      [{ text: "µ" }, { text: "" }],
      [{ text: "漢字" }, { text: "x" }],
    ],
    false,
  );
  expect(text).toBe("A     B\nµ\n漢字  x");
});

test("colours only for a terminal", () => {
  expect(showsColors({})).toBe(false);
  expect(showsColors({ isTTY: false })).toBe(false);
});

test("leases", () => {
  expect(leasesText([])).toBe("no leases are held\n");
  const lease = {
    volume: "vol0",
    startByte: 0,
    endByte: GIB,
    holder: "alpha",
    priority: 3,
    waiting: [],
  };
  const text = leasesText([lease, { ...lease, holder: "", waiting: ["beta", "gamma"] }]);
  expect(text).toContain("vol0    0-1G   alpha   3         -\n");
  expect(text).toContain("-       3         beta, gamma\n");
});

test("leases end where the volume ends", () => {
  const lease = { volume: "vol0", holder: "alpha", priority: 3, waiting: [] };
  const inside = { ...lease, startByte: 0, endByte: GIB };
  const across = { ...lease, startByte: GIB, endByte: 4 * GIB };
  const beyond = { ...lease, startByte: 2 * GIB, endByte: 4 * GIB };
  const clipped = clippedLeases([inside, across, beyond], new Map([["vol0", 2 * GIB]]));
  expect(clipped).toEqual([inside, { ...across, endByte: 2 * GIB }]);
  expect(clippedLeases([beyond], new Map())).toEqual([beyond]);
});

describe("progress", () => {
  const entry = status.resync[0] as StatusDocument["resync"][number];

  test("bars of any share", () => {
    expect(barText(0.5, 4)).toBe("[##..]  50 %");
    expect(barText(-1, 4)).toBe("[....]   0 %");
    expect(barText(7, 4)).toBe("[####] 100 %");
    expect(barText(Number.NaN, 4)).toBe("[....]   0 %");
    expect(barText(0.999, 4)).toBe("[###.]  99 %");
  });

  function shown(isTTY: boolean, act: (progress: Progress) => void): string {
    let out = "";
    const progress = new Progress({
      isTTY,
      write: (text) => {
        out += text;
      },
    });
    act(progress);
    progress.finish();
    return out;
  }

  test("on a terminal one line is redrawn and ended once", () => {
    const out = shown(true, (progress) => {
      for (let step = 0; step <= 100; step++) {
        progress.show({ ...entry, doneBytes: (entry.totalBytes * step) / 100 });
      }
    });
    expect(out.split("\n")).toHaveLength(2);
    expect(out.split("\r")).toHaveLength(102);
  });

  test("elsewhere a line per ten per cent", () => {
    const out = shown(false, (progress) => {
      for (let step = 0; step <= 1000; step++) {
        progress.show({ ...entry, doneBytes: (entry.totalBytes * step) / 1000 });
      }
    });
    expect(out.trim().split("\n")).toHaveLength(11);
    expect(out).not.toContain("\r");
  });

  test("a note is said once", () => {
    const out = shown(false, (progress) => {
      for (let step = 0; step < 5; step++) progress.note("waiting for beta");
      progress.note("other");
    });
    expect(out).toBe("waiting for beta\nother\n");
  });
});

describe("the report of a check", () => {
  const sound = {
    store: "/s",
    checkedBytes: 4096,
    lostRecords: 0,
    damaged: [],
    structure: [],
    isCut: false,
    segments: { total: 24, free: 10, dead: 0 },
    why: "",
    repaired: null,
  };

  test("sound", () => {
    expect(checkText(sound)).toBe("/s: 4.00 KiB of data read\n  no damage\n");
  });

  test("damaged, with what and where", () => {
    const range = { volume: "vol0", startByte: 8192, endByte: 12288, why: "checksum" };
    const text = checkText({ ...sound, damaged: [range] });
    expect(text).toContain("vol0 bytes 8192-12288: checksum");
    expect(text).toContain("vsan recover");
    const many = checkText({ ...sound, damaged: Array(50).fill(range) });
    expect(many).toContain("and 30 damaged ranges");
    expect(checkText({ ...sound, lostRecords: 3 })).toContain("3 log records are lost");
    expect(checkText({ ...sound, why: "it is blank" })).toBe("/s: it is blank\n");
  });

  test("repaired: what was wrong, what is lost", () => {
    const range = { volume: "vol0", startByte: 8192, endByte: 12288, why: "it is lost" };
    const root = { kind: "root", volume: "", startByte: 0, endByte: 0, segment: 3, why: "rotten" };
    const repaired = { damaged: [range], structure: [root] };
    const lossy = checkText({ ...sound, damaged: [range], repaired });
    expect(lossy).toContain("  root: rotten\n  vol0 bytes 8192-12288: it is lost\n");
    expect(lossy).toContain("what is listed is lost");
    expect(checkText({ ...sound, repaired })).toContain("repaired; nothing is lost");
    expect(checkText({ ...sound, repaired: { damaged: [], structure: [] } })).toContain(
      "no damage",
    );
  });
});

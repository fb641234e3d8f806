/** The config: what is read, and that each defect is one sentence with line, key and hint. */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { type Config, type ConfigRequest, loadConfig } from "../../../cmd/config.ts";
import { configText } from "../../../cmd/config_text.ts";
import { CommandError, EXIT } from "../../../cmd/exit.ts";

const directory = mkdtempSync(join(tmpdir(), "vsan-config-"));
const file = join(directory, "vsan.toml");
afterAll(() => rmSync(directory, { recursive: true, force: true }));
beforeEach(() => rmSync(file, { force: true }));

const GOOD = `[cluster]
name = "lab"

[[host]]
name = "alpha"
link = "127.0.0.1:7440"
store = "alpha.vsan"
store_size = "1G"
nbd = ["127.0.0.1:10809"]

[[host]]
name = "beta"
link = "127.0.0.1:7441"
store = "/var/lib/beta.vsan"
nbd = ["unix:beta-nbd.sock"]

[[host]]
name = "wit"
kind = "witness"
link = "127.0.0.1:7442"

[[volume]]
name = "vol0"
size = "10G"
`;

function load(text: string, request: ConfigRequest = {}): Config {
  writeFileSync(file, text);
  return loadConfig({ file, host: "alpha", ...request });
}

/** The refusal of a config; the file's name is left out. */
function refusal(text: string, request: ConfigRequest = {}): string {
  try {
    load(text, request);
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(CommandError);
    expect((thrown as CommandError).code).toBe(EXIT.usage);
    const { message } = thrown as CommandError;
    expect(message.split("\n")).toHaveLength(1);
    return message.replaceAll(`${file}:`, "");
  }
  return "";
}

/** The refusal after one replacement in the good config. */
function changed(from: string, to: string): string {
  expect(GOOD).toContain(from);
  return refusal(GOOD.replace(from, to));
}

test("a config is read, completed and knows its host", () => {
  const config = load(GOOD);
  expect(config.file).toBe(file);
  expect(config.selfIndex).toBe(0);
  expect(config.self.name).toBe("alpha");
  expect(config.self.store).toBe(join(directory, "alpha.vsan"));
  expect(config.self.store_size).toBe(1024 ** 3);
  expect(config.self.control).toBe("/run/vsan/alpha.sock");
  expect(config.self.state).toBe("/run/vsan/alpha.state");
  expect(config.document.cluster.key_file).toBe(join(directory, "cluster.key"));
  expect(config.document.cluster.peer_timeout).toBe(5000);
  expect(config.document.host[1]?.nbd).toEqual([`unix:${join(directory, "beta-nbd.sock")}`]);
  expect(config.document.volume[0]?.size).toBe(10 * 1024 ** 3);
  expect(config.document.policing).toEqual({
    network: "dedicated",
    timeout: 10_000,
    aging: 2000,
  });
});

test("index_memory, in the file and printed", () => {
  expect(load(GOOD).self.index_memory).toBe("auto");
  expect(configText(load(GOOD))).toContain('index_memory = "auto"');
  const text = GOOD.replace('store_size = "1G"', 'index_memory = "512M"');
  expect(load(text).self.index_memory).toBe(512 * 1024 ** 2);
  const printed = configText(load(text));
  expect(printed).toContain('index_memory = "512M"');
  expect(load(printed).self.index_memory).toBe(512 * 1024 ** 2);
});

test("busy_poll, in the file and printed", () => {
  expect(load(GOOD).self.busy_poll).toBe("auto");
  const printed = configText(load(GOOD.replace('store_size = "1G"', 'busy_poll = "off"')));
  expect(printed).toContain('busy_poll = "off"');
  expect(load(printed).self.busy_poll).toBe("off");
});

test("disk_timeout and store_alloc, in the file and printed", () => {
  const text = GOOD.replace('store_size = "1G"', 'store_alloc = "thin"\ndisk_timeout = "90s"');
  const { self } = load(text);
  expect([self.store_alloc, self.disk_timeout]).toEqual(["thin", 90_000]);
  expect(load(GOOD).self).toMatchObject({ store_alloc: "full", disk_timeout: 20_000 });
  const printed = configText(load(text));
  expect(printed).toContain('store_alloc = "thin"');
  expect(printed).toContain('disk_timeout = "90s"');
  expect(load(printed).self.disk_timeout).toBe(90_000);
});

test("the state is beside the control socket", () => {
  const text = GOOD.replace('store = "alpha.vsan"', 'store = "a"\ncontrol = "run/alpha.sock"');
  expect(load(text).self.state).toBe(join(directory, "run", "alpha.state"));
});

describe("refused with its line", () => {
  test.each([
    ['name = "lab"', "nmae = 1", "2: unknown key nmae; did you mean name?"],
    ["[cluster]", "[clustr]", "1: unknown key clustr; did you mean cluster?"],
    [
      'store_size = "1G"',
      'store_sice = "1G"',
      "8: unknown key store_sice; did you mean store_size?",
    ],
    ['store_size = "1G"', 'store_size = "1GB"', "8: host[0].store_size: expected a size"],
    ['store_size = "1G"', "store_size = 1", "8: host[0].store_size: expected a size"],
    ['store_size = "1G"', 'disk_timeout = "20"', "8: host[0].disk_timeout: expected a duration"],
    ['store_size = "1G"', 'disk_timeout = "999ms"', "8: host[0].disk_timeout: expected a duration"],
    [
      'store_size = "1G"',
      'index_memory = "63M"',
      '8: host[0].index_memory: expected "auto" or a size, 64M at least',
    ],
    ['store_size = "1G"', 'store_alloc = "some"', '8: host[0].store_alloc: expected one of "full"'],
    [
      'size = "10G"',
      'size = "10"',
      "24: volume[0].size: expected a size of whole 4096-byte blocks",
    ],
    ['size = "10G"', 'size = "0"', "24: volume[0].size: expected a size of whole"],
    ['size = "10G"', 'size = "2P"', "24: the largest volume is 1024T"],
    ['size = "10G"', "", "22: missing key size"],
    ['name = "lab"', 'cold_wait = "10"', "2: cluster.cold_wait: expected a duration"],
    ['name = "lab"', 'peer_timeout = "0s"', "2: cluster.peer_timeout: expected a duration"],
    [
      'name = "lab"',
      'cold_start = "some"',
      '2: cluster.cold_start: expected one of "flushed", "all"',
    ],
    ['name = "lab"', "min_copies = 3", "2: min_copies is 3, but there are 2 data hosts"],
    ['name = "lab"', "min_copies = 0", "2: cluster.min_copies: expected a whole number"],
    ['name = "lab"', 'on_lost_majority = "survive"', '2: "survive" is not in this version'],
    ['name = "lab"', 'survivor = "alpha"', "2: survivor has a meaning only with"],
    ['name = "beta"', 'name = "alpha"', "12: two hosts are named alpha"],
    ['name = "beta"', 'name = "be ta"', "12: host[1].name: expected a name"],
    ['link = "127.0.0.1:7441"', 'link = "127.0.0.1:7440"', "13: alpha and beta both have"],
    ['link = "127.0.0.1:7441"', 'link = "127.0.0.1"', "13: host[1].link: expected an address"],
    ['link = "127.0.0.1:7441"', 'link = "300.0.0.1:1"', "13: host[1].link: expected an address"],
    ['link = "127.0.0.1:7441"', 'link = "0.0.0.0:7441"', "13: link is where the other hosts"],
    ['link = "127.0.0.1:7441"', "", "11: host beta needs link"],
    ['"unix:beta-nbd.sock"', '"127.0.0.1:10809"', "15: 127.0.0.1:10809 is used twice"],
    ['"127.0.0.1:10809"', '"127.0.0.1:7440"', "6: 127.0.0.1:7440 is used twice"],
    ['store = "/var/lib/beta.vsan"', "", "11: host beta is a data host and needs store"],
    ['kind = "witness"', 'kind = "witness"\nstore = "x"', "17: host wit is a witness and has no"],
    ['kind = "witness"', 'kind = "whitness"', '19: host[2].kind: expected one of "data"'],
    ['nbd = ["127.0.0.1:10809"]', 'nbd = "127.0.0.1:10809"', "9: host[0].nbd: expected a list"],
    ['nbd = ["127.0.0.1:10809"]', "priority = 8", "9: host[0].priority: expected a whole"],
    ['size = "10G"', 'size = "1G"\nmirror = "shared"', '25: mirror = "shared" needs shared'],
    [
      'size = "10G"',
      'size = "1G"\n\n[policing]\nnetwork = "shared"',
      '27: network = "shared" needs shared',
    ],
    ['size = "10G"', 'size = "1G"\n[[volume]]\nname = "vol0"\nsize = "1G"', "26: two volumes are"],
    ['size = "10G"', 'size = "1G"\nread_only = 1', "25: volume[0].read_only: expected true or"],
    ['size = "10G"', 'size = "1G"\n[shared_network]\ngroup = "10.0.0.1:1"', "26: shared_network."],
    [
      'size = "10G"',
      'size = "1G"\n[shared_network]\nmtu = 1427',
      "26: shared_network.mtu: expected 1428 or more, since datagrams are 1400 bytes",
    ],
    [
      'size = "10G"',
      'size = "1G"\n[shared_network]\nrate_limit = "0"',
      "26: shared_network.rate_limit: expected a size a second, 64K at least",
    ],
    ['name = "lab"', "name = lab", "2: not TOML: "],
    ["[[volume]]", "[volume]", "22: volume: expected [[volume]] sections"],
  ])("%s -> %s", (from, to, complaint) => {
    expect(changed(from, to)).toStartWith(complaint);
  });

  test("nothing at all", () => {
    expect(refusal("")).toBe("1: missing key host");
    expect(refusal('host = []\nvolume = [{ name = "a", size = "1G" }]')).toContain("no [[host]]");
  });

  test("a volume whose id collides", () => {
    // CRC-32("plumless") = CRC-32("buckeroo") = 0x4DDB0C25, a well-known pair.
    const text = GOOD.replace("vol0", "plumless");
    const both = `${text}\n[[volume]]\nname = "buckeroo"\nsize = "1G"\n`;
    expect(refusal(both)).toContain("the name buckeroo has the id of plumless");
    expect(refusal(text)).toBe("");
  });

  test("too many of anything", () => {
    const hosts = Array.from({ length: 17 }, (_, index) => {
      return `[[host]]\nname = "h${index}"\nlink = "10.0.0.${index}:1"\nstore = "s${index}"\n`;
    });
    const text = `${hosts.join("")}[[volume]]\nname = "a"\nsize = "1G"\n`;
    expect(refusal(text, { host: "h0" })).toContain("there are 17 hosts; the most is 16");
  });

  test("a socket path that the kernel would cut", () => {
    const text = GOOD.replace(
      'store = "alpha.vsan"',
      `store = "a"\ncontrol = "/${"x".repeat(107)}"`,
    );
    expect(refusal(text)).toContain("longer than 107 bytes");
  });
});

describe("flags", () => {
  test("win over the file", () => {
    const config = load(GOOD, { flags: { store: "/x", nbd: ["127.0.0.1:1"], priority: 7 } });
    expect(config.self.store).toBe("/x");
    expect(config.self.nbd).toEqual(["127.0.0.1:1"]);
    expect(config.self.priority).toBe(7);
    expect(config.document.host[1]?.priority).toBe(3);
  });

  test("are named when they are wrong", () => {
    expect(refusal(GOOD, { flags: { store_size: "many" } })).toStartWith("--store-size: expected");
    expect(refusal(GOOD, { flags: { priority: 9 } })).toStartWith("--priority: expected a whole");
    expect(refusal(GOOD, { flags: { link: "127.0.0.1:7441" } })).toContain("7441");
    expect(refusal(GOOD, { size: "1G" })).toContain("--size is for a run without a config file");
  });
});

describe("which host", () => {
  test("an unknown one is refused with the nearest", () => {
    expect(refusal(GOOD, { host: "betta" })).toContain("no host betta; did you mean beta?");
  });

  test("this machine's name, or the flag is needed", () => {
    const named = GOOD.replace('"beta"', `"${hostname()}"`);
    expect(load(named, { host: undefined }).selfIndex).toBe(1);
    expect(refusal(GOOD, { host: undefined })).toContain("is none of alpha, beta, wit");
  });

  test("the only one needs no name", () => {
    const text = '[[host]]\nname = "solo"\nstore = "s"\n[[volume]]\nname = "v"\nsize = "1G"\n';
    expect(load(text, { host: undefined }).self.name).toBe("solo");
  });
});

describe("without a file", () => {
  const before = { directory: process.cwd(), variable: process.env.VSAN_CONFIG };

  function inEmptyDirectory<T>(action: () => T): T {
    process.chdir(directory);
    delete process.env.VSAN_CONFIG;
    try {
      return action();
    } finally {
      process.chdir(before.directory);
      if (before.variable !== undefined) process.env.VSAN_CONFIG = before.variable;
    }
  }

  test("a single host that just works", () => {
    const config = inEmptyDirectory(() => loadConfig({}));
    expect(config.file).toBeNull();
    expect(config.self.nbd).toEqual(["127.0.0.1:10809"]);
    expect(config.self.store).toBe(join(directory, "vsan-data", "store.vsan"));
    expect(config.document.volume).toHaveLength(1);
    expect(config.document.volume[0]?.name).toBe("vol0");
    expect(config.document.volume[0]?.size).toBe(1024 ** 3);
  });

  test("--size is its volume's", () => {
    const sizeOf = (size: string): number | undefined =>
      inEmptyDirectory(() => loadConfig({ size })).document.volume[0]?.size;
    expect(sizeOf("20G")).toBe(20 * 1024 ** 3);
    expect(() => sizeOf("5")).toThrow("--size: expected a size of whole 4096-byte blocks");
    expect(() => sizeOf("x")).toThrow("--size: expected a size such as");
  });

  test("a file that was named must be there", () => {
    expect(() => loadConfig({ file: join(directory, "none.toml") })).toThrow(
      "cannot read the config",
    );
    process.env.VSAN_CONFIG = join(directory, "none.toml");
    try {
      expect(() => loadConfig({})).toThrow("cannot read the config");
    } finally {
      delete process.env.VSAN_CONFIG;
      if (before.variable !== undefined) process.env.VSAN_CONFIG = before.variable;
    }
  });
});

test("what --print-config shows is read back to the same", () => {
  const config = load(GOOD, { flags: { priority: 6 } });
  const text = configText(config);
  const again = load(text);
  expect(again.document).toEqual(config.document);
});

test("no bytes at all crash the reader", () => {
  const random = new Uint8Array(400);
  for (let round = 0; round < 50; round++) {
    for (let index = 0; index < random.length; index++) {
      random[index] = (index * 31 + round * 97 + ((index * round) % 13) * 7) & 0xff;
    }
    expect(refusal(new TextDecoder().decode(random))).not.toBe("");
  }
});

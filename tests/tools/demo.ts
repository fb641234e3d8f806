/**
 * `bun run demo`: what vsan does, in a minute, on this machine and without root.
 *
 * Three hosts on files; a file tree written through the first and more through the second; the
 * first is killed and everything read back through the others; its disk is destroyed, replaced
 * and rebuilt; all three copies are compared. Only NBD is spoken to the hosts: nbdcopy where it
 * is installed, else the client of our own tests. Everything started is ended by its pid.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { humanBytes } from "../../cmd/quantity.ts";
import { build } from "./build.ts";
import { EXECUTABLE } from "./cluster.ts";
import { copyIn, copyOut, makeTree } from "./demo_image.ts";
import { HostProcess } from "./host_process.ts";
import { NbdClient } from "./nbd_client.ts";

const MIB = 1024 * 1024;
const IMAGE_BYTES = 64 * MIB;
/** The second write lies behind the image of the first. */
const SECOND_AT = 96 * MIB;
const SECOND_BYTES = 8 * MIB;
const CORRUPT_BYTES = 2 * MIB;
const VOLUME = "vol0:128M";
const NAMES = ["alpha", "beta", "gamma"] as const;
const SYNC_LIMIT_MS = 40_000;

interface Init {
  readonly file: string;
  readonly hosts: readonly { name: string; link: string; nbd: string }[];
}

class Demo {
  private readonly directory = mkdtempSync(join(tmpdir(), "vsan-demo-"));
  private readonly lab = join(this.directory, "lab");
  private readonly started = performance.now();
  private readonly hosts = new Map<string, HostProcess>();
  private stepCount = 0;

  async run(): Promise<void> {
    await this.step("compile dist/vsan", async () => {
      build(EXECUTABLE);
      return "one executable";
    });
    await this.step("write the config of three hosts (vsan serve --init)", () => this.init());
    await this.step("start alpha, beta and gamma", () => this.startAll());
    const image = join(this.directory, "tree.img");
    await this.step("write a file tree into the shared volume through alpha", async () => {
      const what = await makeTree(join(this.directory, "tree"), image, IMAGE_BYTES);
      return `${what}; ${await copyIn(image, this.host("alpha").nbd)}`;
    });
    const first = sha256(readFileSync(image));
    const second = randomData(SECOND_BYTES);
    await this.step("write more through beta", async () => {
      await writeThrough(this.host("beta").nbd, SECOND_AT, second);
      return `${humanBytes(SECOND_BYTES)} at ${humanBytes(SECOND_AT)}, flushed`;
    });
    await this.step("kill alpha (SIGKILL)", async () => {
      await this.host("alpha").kill();
      return "no goodbye, no flush";
    });
    for (const name of ["beta", "gamma"]) {
      await this.step(`read everything back through ${name}`, async () => {
        await this.verify(name, first, sha256(second));
        return "sha256 of both writes is right";
      });
    }
    await this.step("overwrite a part of alpha's disk with garbage", () => this.corrupt());
    await this.step("put an empty disk in its place", () => this.newDisk());
    await this.step("rebuild it from the others (vsan recover)", () => this.recover());
    await this.step("start alpha again", async () => await this.host("alpha").start());
    await this.step("compare all three copies", () => this.compareCopies(first, sha256(second)));
    await this.step("stop all three and check every block of their disks", () => this.checkAll());
  }

  /** Ends every process and removes every file; never rejects. */
  async end(): Promise<void> {
    await Promise.all([...this.hosts.values()].map((host) => host.kill()));
    rmSync(this.directory, { recursive: true, force: true });
  }

  private host(name: string): HostProcess {
    const host = this.hosts.get(name);
    if (host === undefined) throw new Error(`no host ${name}`);
    return host;
  }

  private async init(): Promise<string> {
    const words = ["serve", "--init", this.lab, "--hosts", NAMES.join(","), "--volume", VOLUME];
    const result = Bun.spawnSync([EXECUTABLE, ...words, "--json"]);
    if (!result.success) throw new Error(result.stderr.toString());
    const init: Init = JSON.parse(result.stdout.toString());
    for (const { name, nbd } of init.hosts) {
      const options = {
        name,
        nbd,
        kind: "data" as const,
        directory: this.lab,
        configFile: init.file,
        executable: EXECUTABLE,
        wrapper: [],
        environment: {},
      };
      this.hosts.set(name, new HostProcess(options));
    }
    return init.file;
  }

  private async startAll(): Promise<string> {
    await Promise.all([...this.hosts.values()].map((host) => host.start()));
    await this.untilInSync("alpha", NAMES);
    const status = await this.host("alpha").status();
    return `one view: ${status.view.members.join(", ")}`;
  }

  private async untilInSync(observer: string, names: readonly string[]): Promise<void> {
    const deadline = performance.now() + SYNC_LIMIT_MS;
    for (;;) {
      const status = await this.host(observer).status();
      const states = new Map(status.hosts.map((entry) => [entry.name, entry.state]));
      if (status.view.open && names.every((name) => states.get(name) === "in-sync")) return;
      if (performance.now() > deadline) {
        const list = [...states].map(([name, state]) => `${name} ${state}`).join(", ");
        throw new Error(`not in sync: ${list}; ${status.view.why}`);
      }
      await Bun.sleep(50);
    }
  }

  private async verify(name: string, first: string, second: string): Promise<void> {
    const out = join(this.directory, `from-${name}.img`);
    await copyOut(this.host(name).nbd, out, IMAGE_BYTES);
    const found = sha256(readFileSync(out));
    unlinkSync(out);
    if (found !== first) throw new Error(`${name} returned a different file tree: ${found}`);
    const client = await NbdClient.connect({ uri: this.host(name).nbd });
    const data = await client.read(SECOND_AT, SECOND_BYTES);
    client.close();
    if (sha256(data) !== second) throw new Error(`${name} returned different second data`);
  }

  private async corrupt(): Promise<string> {
    const host = this.host("alpha");
    const garbage = randomData(CORRUPT_BYTES);
    const descriptor = openSync(host.store, "r+");
    writeSync(descriptor, garbage, 0, garbage.length, middleOfData(host.store));
    closeSync(descriptor);
    const { code, stdout } = await host.run(["recover", "check"]);
    if (code !== 4) throw new Error(`vsan recover check found nothing (code ${code}): ${stdout}`);
    const found = stdout.split("\n").find((line) => line.includes("bytes")) ?? stdout;
    return `${humanBytes(CORRUPT_BYTES)}; vsan recover check: damaged, e.g. ${found.trim()}`;
  }

  private async newDisk(): Promise<string> {
    const { store } = this.host("alpha");
    const size = Bun.file(store).size;
    truncateSync(store, 0);
    truncateSync(store, size);
    return `${humanBytes(size)} of zeros`;
  }

  private async recover(): Promise<string> {
    const { code, stdout, stderr } = await this.host("alpha").run(["recover"]);
    if (code !== 0) throw new Error(`vsan recover ended with ${code}: ${stdout}${stderr}`);
    return stdout.trim();
  }

  private async compareCopies(first: string, second: string): Promise<string> {
    await this.untilInSync("alpha", NAMES);
    for (const name of NAMES) {
      // A host in sync reads from its own disk.
      await this.verify(name, first, second);
    }
    return `sha256 ${first.slice(0, 16)}... everywhere`;
  }

  private async checkAll(): Promise<string> {
    const hosts = [...this.hosts.values()];
    const codes = await Promise.all(hosts.map((host) => host.stop()));
    if (codes.some((code) => code !== 0)) throw new Error(`exit codes ${codes.join(", ")}`);
    for (const host of hosts) {
      const { code, stdout, stderr } = await host.run(["recover", "check"]);
      if (code !== 0) throw new Error(`${host.name}: check ended with ${code}: ${stdout}${stderr}`);
    }
    return "every stop was orderly, every checksum is right";
  }

  private async step(what: string, action: () => Promise<string>): Promise<void> {
    this.stepCount += 1;
    const label = `${String(this.stepCount).padStart(2)}. ${what}`;
    const begun = performance.now();
    const result = await action();
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    say(`${label}\n      ${result} (${seconds} s)`);
  }

  report(): void {
    const seconds = ((performance.now() - this.started) / 1000).toFixed(0);
    say(`
Done in ${seconds} s: one shared disk on three servers, one of them lost and rebuilt.

By hand:
  dist/vsan serve                              # a single host, NBD on 127.0.0.1:10809
  dist/vsan serve --init lab                   # or three: it prints what to start
  nbdinfo nbd://127.0.0.1:10809
  mkdir -p mnt && nbdfuse mnt/disk nbd://127.0.0.1:10809 &    # the volume as a file
  sudo nbd-client 127.0.0.1 10809 /dev/nbd0 -N vol0           # or as a block device
  dist/vsan mirror status --config lab/vsan.toml --host alpha`);
  }
}

/** Where a file's data is: the middle one of the MiB that are not all zeros. */
function middleOfData(file: string): number {
  const bytes = readFileSync(file);
  const zeros = Buffer.alloc(MIB);
  const used: number[] = [];
  for (let at = MIB; at + 2 * MIB < bytes.length; at += MIB) {
    if (!bytes.subarray(at, at + MIB).equals(zeros)) used.push(at);
  }
  return used[Math.floor(used.length / 2)] ?? MIB;
}

async function writeThrough(uri: string, offset: number, data: Uint8Array): Promise<void> {
  const client = await NbdClient.connect({ uri });
  const writes: Promise<void>[] = [];
  for (let at = 0; at < data.length; at += MIB) {
    writes.push(client.write(offset + at, data.subarray(at, at + MIB)));
  }
  await Promise.all(writes);
  await client.flush();
  client.close();
}

function randomData(lengthBytes: number): Uint8Array {
  const data = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes; at += 65536) {
    crypto.getRandomValues(data.subarray(at, Math.min(lengthBytes, at + 65536)));
  }
  return data;
}

function sha256(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const demo = new Demo();
const interrupt = (): void => {
  void demo.end().then(() => process.exit(1));
};
process.on("SIGINT", interrupt);
process.on("SIGTERM", interrupt);
try {
  await demo.run();
  demo.report();
} catch (thrown) {
  say(`\nFAILED: ${thrown instanceof Error ? thrown.message : thrown}`);
  process.exitCode = 1;
} finally {
  await demo.end();
}
process.exit();

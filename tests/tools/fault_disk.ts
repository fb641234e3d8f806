/**
 * A disk with faults on demand as a file: faultdisk.c in nbdkit, mounted by nbdfuse. Needs root,
 * /dev/fuse, nbdkit with its headers, and gcc; `canFault` says whether they are there.
 */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SOURCE = join(import.meta.dir, "faultdisk.c");
const MOUNT_LIMIT_MS = 10_000;

/** What must be there; a test that needs it is skipped otherwise, and says so by its name. */
export const canFault =
  process.getuid?.() === 0 &&
  existsSync("/dev/fuse") &&
  existsSync("/usr/include/nbdkit-plugin.h") &&
  ["nbdkit", "nbdfuse", "fusermount3", "gcc", "losetup"].every(
    (program) => Bun.which(program) !== null,
  );

type Fault = "eio" | "hang" | "slow" | "lost" | "misdirect" | "cutafter";
export type FaultDiskKind = "file" | "device";

export class FaultDisk {
  /** Where the disk is: a file, or a link to a block device. */
  readonly path: string;
  private readonly directory: string;
  private readonly control: string;
  /** The file that nbdfuse serves. */
  private readonly mounted: string;
  private child: Bun.Subprocess | null = null;
  private loop = "";

  private constructor(path: string, kind: FaultDiskKind) {
    this.path = path;
    this.directory = mkdtempSync(join(tmpdir(), "vsan-faultdisk-"));
    this.control = join(this.directory, "ctl");
    this.mounted = kind === "file" ? path : join(this.directory, "disk");
  }

  /**
   * A disk of `sizeBytes` zeros at `path`, where nothing may be. As a "file" each write waits for
   * the disk; as a "device" it goes to the page cache first, as on a real disk.
   */
  static async mount(
    path: string,
    sizeBytes: number,
    kind: FaultDiskKind = "file",
  ): Promise<FaultDisk> {
    const disk = new FaultDisk(path, kind);
    try {
      disk.build(sizeBytes);
      await disk.start();
      if (kind === "device") disk.attach();
      return disk;
    } catch (thrown) {
      await disk.close();
      throw thrown;
    }
  }

  /** Begins a fault; `text` as faultdisk.c describes it. */
  set(fault: Fault, text = ""): void {
    writeFileSync(join(this.control, fault), text);
  }

  clear(fault: Fault): void {
    rmSync(join(this.control, fault), { force: true });
  }

  /**
   * Where `bytes` lie on the medium, in whole 16-byte units (the places of a store); every copy.
   */
  find(bytes: Uint8Array): number[] {
    const medium = Buffer.from(Bun.mmap(join(this.directory, "back.img")).buffer);
    const found: number[] = [];
    for (let at = medium.indexOf(bytes); at >= 0; at = medium.indexOf(bytes, at + 1)) {
      if (at % 16 === 0) found.push(at);
    }
    return found;
  }

  /** Bytes of the medium rot, under whatever caches there are above it. */
  rot(offset: number, lengthBytes: number): void {
    const backing = openSync(join(this.directory, "back.img"), "r+");
    const bytes = new Uint8Array(lengthBytes);
    readSync(backing, bytes, 0, lengthBytes, offset);
    for (let at = 0; at < lengthBytes; at += 1) bytes[at] = (bytes[at] ?? 0) ^ 0x55;
    writeSync(backing, bytes, 0, lengthBytes, offset);
    closeSync(backing);
  }

  /** The power cut that `cutafter` asked for has happened. */
  get isCut(): boolean {
    return existsSync(join(this.control, "cut"));
  }

  /** The power is back: the same medium, with what a cut left on it and nothing in any cache. */
  async powerOn(): Promise<void> {
    await this.pull();
    this.clear("cutafter");
    rmSync(join(this.control, "cut"), { force: true });
    writeFileSync(this.mounted, "");
    await this.start();
  }

  /** The disk is pulled: every operation fails from now on, and the path is free again. */
  async pull(): Promise<void> {
    this.clear("hang");
    this.child?.kill("SIGKILL");
    await this.child?.exited;
    this.child = null;
    if (this.loop !== "") Bun.spawnSync(["losetup", "--detach", this.loop], { stderr: "ignore" });
    if (this.loop !== "") rmSync(this.path, { force: true });
    this.loop = "";
    Bun.spawnSync(["fusermount3", "-u", "-z", this.mounted], { stderr: "ignore" });
  }

  /** Unmounts and removes everything. Never rejects. */
  async close(): Promise<void> {
    await this.pull();
    rmSync(this.directory, { recursive: true, force: true });
  }

  private build(sizeBytes: number): void {
    mkdirSync(this.control);
    const plugin = join(this.directory, "faultdisk.so");
    const words = ["-O2", "-Wall", "-shared", "-fPIC", "-o", plugin, SOURCE];
    const built = Bun.spawnSync(["gcc", ...words]);
    if (!built.success) throw new Error(`gcc: ${built.stderr}`);
    const backing = openSync(join(this.directory, "back.img"), "w");
    ftruncateSync(backing, sizeBytes);
    closeSync(backing);
    writeFileSync(this.mounted, "");
  }

  private attach(): void {
    const made = Bun.spawnSync(["losetup", "--find", "--show", this.mounted]);
    if (!made.success) throw new Error(`losetup: ${made.stderr}`);
    this.loop = made.stdout.toString().trim();
    symlinkSync(this.loop, this.path);
  }

  private async start(): Promise<void> {
    const plugin = join(this.directory, "faultdisk.so");
    const backing = join(this.directory, "back.img");
    const server = ["nbdkit", "--exit-with-parent", plugin, `file=${backing}`];
    this.child = Bun.spawn(["nbdfuse", this.mounted, "[", ...server, `ctl=${this.control}`, "]"], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    const deadline = performance.now() + MOUNT_LIMIT_MS;
    while (statSync(this.mounted).size === 0) {
      if (this.child.exitCode !== null) throw new Error(`nbdfuse ended: ${this.child.exitCode}`);
      if (performance.now() > deadline) throw new Error("nbdfuse did not mount in time");
      await Bun.sleep(20);
    }
  }
}

/**
 * A volume as an ordinary disk of this machine: NBD through nbdfuse to a file, a loop device on
 * it, a file system on that. All of it ends in `close()`, whatever state it is in.
 */
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must, run, until } from "./lab.ts";

export const NEEDS_OF_FILE_SYSTEM = [
  "root",
  "fuse",
  "loop devices",
  "nbdfuse",
  "fusermount3",
  "losetup",
  "mkfs.ext4",
] as const;

/** What nbdfuse connects: a URI, or a server it starts itself on a pair of pipes. */
export type FuseSource = { readonly uri: string } | { readonly server: readonly string[] };

/** A file whose bytes are an NBD export's. */
export class FuseFile {
  readonly path: string;
  private readonly child: Bun.Subprocess;

  private constructor(path: string, child: Bun.Subprocess) {
    this.path = path;
    this.child = child;
  }

  static async open(directory: string, source: FuseSource): Promise<FuseFile> {
    mkdirSync(directory, { recursive: true });
    const path = join(directory, "disk");
    if (!existsSync(path)) writeFileSync(path, "");
    const from = "uri" in source ? [source.uri] : ["[", ...source.server, "]"];
    const child = Bun.spawn(["nbdfuse", path, ...from], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    const file = new FuseFile(path, child);
    try {
      await until(`${path} is mounted`, () => {
        if (child.exitCode !== null) throw new Error(`nbdfuse ended with ${child.exitCode}`);
        return statSync(path).size > 0;
      });
    } catch (thrown) {
      await file.close();
      throw thrown;
    }
    return file;
  }

  /** Takes the disk away under whoever uses it. */
  async pull(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.exited;
  }

  async close(): Promise<void> {
    await run(["fusermount3", "-uz", this.path]);
    const ended = await Promise.race([this.child.exited, Bun.sleep(5000).then(() => null)]);
    if (ended === null) await this.pull();
  }
}

/** An ext4 file system on a volume, mounted at `path`. */
export class MountedVolume {
  readonly path: string;
  private readonly directory: string;
  private file: FuseFile | null = null;
  private device = "";
  private isMounted = false;

  constructor(directory: string) {
    mkdirSync(directory, { recursive: true });
    this.directory = directory;
    this.path = join(directory, "mnt");
    mkdirSync(this.path, { recursive: true });
  }

  /** Attaches the volume; with `format` it gets a fresh ext4 first. */
  async open(uri: string, options: { readonly format: boolean }): Promise<void> {
    this.file = await FuseFile.open(join(this.directory, "fuse"), { uri });
    const words = ["losetup", "--find", "--show", "--direct-io=off", this.file.path];
    this.device = (await must(words)).trim();
    if (options.format) await must(["mkfs.ext4", "-q", "-E", "nodiscard", this.device]);
    await must(["mount", this.device, this.path]);
    this.isMounted = true;
  }

  /** `fsck.ext4 -fn` on the volume as it is; throws unless it is clean. */
  async check(uri: string): Promise<void> {
    const file = await FuseFile.open(join(this.directory, "check"), { uri });
    try {
      await must(["fsck.ext4", "-fn", file.path]);
    } finally {
      await file.close();
    }
  }

  /** Unmounts in order. */
  async unmount(): Promise<void> {
    await must(["umount", this.path]);
    this.isMounted = false;
    await this.close();
  }

  /** Ends everything; if the disk below is gone, the mount is only detached. Never rejects. */
  async close(): Promise<void> {
    if (this.isMounted) await run(["umount", "-l", this.path]);
    this.isMounted = false;
    if (this.device !== "") await run(["losetup", "--detach", this.device]);
    this.device = "";
    await this.file?.close();
    this.file = null;
  }
}

/** A block device that ends with its test: a loop device on a sparse file. Needs root. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must, run } from "./lab.ts";

export const NEEDS_OF_LOOP = ["root", "loop devices", "losetup"] as const;

export class LoopDevice {
  readonly path: string;
  private readonly directory: string;

  private constructor(path: string, directory: string) {
    this.path = path;
    this.directory = directory;
  }

  static async make(sizeBytes: number, sectorBytes = 512): Promise<LoopDevice> {
    const directory = mkdtempSync(join(tmpdir(), "vsan-loop-"));
    try {
      const file = openSync(join(directory, "back.img"), "w");
      ftruncateSync(file, sizeBytes);
      closeSync(file);
      const words = ["losetup", "--find", "--show", "--sector-size", String(sectorBytes)];
      const path = (await must([...words, join(directory, "back.img")])).trim();
      return new LoopDevice(path, directory);
    } catch (thrown) {
      rmSync(directory, { recursive: true, force: true });
      throw thrown;
    }
  }

  /** What the file below takes on its file system. */
  get takenBytes(): number {
    return statSync(join(this.directory, "back.img")).blocks * 512;
  }

  /** Another disk in the same slot: the file below gets this size, and the device with it. */
  async resize(sizeBytes: number): Promise<void> {
    const file = openSync(join(this.directory, "back.img"), "r+");
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    await must(["losetup", "--set-capacity", this.path]);
  }

  /** Never rejects. */
  async close(): Promise<void> {
    await run(["losetup", "--detach", this.path]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

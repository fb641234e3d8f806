/** The two directions of the test client's socket: exact reads, and writes that never get lost. */

/** Chunks as they come, taken in exact lengths. One `take` at a time. */
export class ByteReader {
  private chunks: Uint8Array[] = [];
  private available = 0;
  private wanted = 0;
  private waiting: { resolve: () => void; reject: (error: Error) => void } | null = null;
  private failure: Error | null = null;

  push(chunk: Uint8Array): void {
    this.chunks.push(chunk);
    this.available += chunk.length;
    if (this.waiting !== null && this.available >= this.wanted) {
      this.waiting.resolve();
      this.waiting = null;
    }
  }

  fail(error: Error): void {
    this.failure ??= error;
    this.waiting?.reject(error);
    this.waiting = null;
  }

  /** The next `lengthBytes`, once they are there; what came before a failure can still be had. */
  async take(lengthBytes: number): Promise<Uint8Array> {
    if (this.available < lengthBytes) {
      if (this.failure !== null) throw this.failure;
      this.wanted = lengthBytes;
      const gate = Promise.withResolvers<void>();
      this.waiting = gate;
      await gate.promise;
    }
    const out = new Uint8Array(lengthBytes);
    let done = 0;
    while (done < lengthBytes) {
      const chunk = this.chunks[0] as Uint8Array;
      const count = Math.min(chunk.length, lengthBytes - done);
      out.set(chunk.subarray(0, count), done);
      done += count;
      if (count === chunk.length) this.chunks.shift();
      else this.chunks[0] = chunk.subarray(count);
    }
    this.available -= lengthBytes;
    return out;
  }
}

/** `socket.write` takes what fits; the rest waits here for the drain. */
export class ByteWriter {
  private readonly socket: Bun.Socket;
  private readonly queue: Uint8Array[] = [];
  private isEnding = false;

  constructor(socket: Bun.Socket) {
    this.socket = socket;
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.queue.push(bytes);
    this.drain();
  }

  drain(): void {
    for (let first = this.queue[0]; first !== undefined; first = this.queue[0]) {
      const taken = this.socket.write(first);
      if (taken < 0) return;
      if (taken < first.length) {
        this.queue[0] = first.subarray(taken);
        return;
      }
      this.queue.shift();
    }
    if (this.isEnding) this.socket.end();
  }

  /** Closes after what is queued has left. */
  end(): void {
    this.isEnding = true;
    this.drain();
  }

  terminate(): void {
    this.socket.terminate();
  }
}

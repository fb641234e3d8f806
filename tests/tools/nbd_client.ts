/**
 * A minimal NBD client on raw sockets, for tests and the demo: fixed newstyle, structured
 * replies, several requests in flight. It knows the protocol and nothing of vsan, so what it
 * sees is what any NBD client sees. Source: the NBD project's doc/proto.md.
 *
 * The client keeps no promise that NBD does not give: replies are matched by cookie, an error is
 * an `NbdError` with the server's errno, and everything pending fails when the connection ends.
 */
import { ByteReader, ByteWriter } from "./nbd_bytes.ts";

const MAGIC_SERVER = 0x4e42444d41474943n;
const MAGIC_OPTION = 0x49484156454f5054n;
const MAGIC_OPTION_REPLY = 0x3e889045565a9n;
const MAGIC_REQUEST = 0x25609513;
const MAGIC_SIMPLE = 0x67446698;
const MAGIC_STRUCTURED = 0x668e33ef;

const OPTION = { abort: 2, list: 3, go: 7, structuredReply: 8 } as const;
const REPLY = { ack: 1, server: 2, info: 3 } as const;
const REPLY_ERROR = 2 ** 31;
const CHUNK = { none: 0, data: 1, hole: 2, error: 32769, errorOffset: 32770 } as const;
export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, zero: 6 } as const;
export const FLAG = { fua: 1, noHole: 2 } as const;

/** The server's answer to a request was an error. */
export class NbdError extends Error {
  override readonly name = "NbdError";
  readonly errno: number;

  constructor(errno: number, text: string) {
    super(`NBD error ${errno}${text === "" ? "" : `: ${text}`}`);
    this.errno = errno;
  }
}

/** Where to connect: `nbd://host:port` or `nbd+unix:///?socket=/path`. */
export interface NbdTarget {
  readonly uri: string;
  /** Export name; "" is the server's default. */
  readonly exportName?: string;
}

interface Pending {
  readonly data: Uint8Array | null;
  readonly offset: number;
  readonly resolve: (data: Uint8Array) => void;
  readonly reject: (error: Error) => void;
  error: NbdError | null;
}

export class NbdClient {
  sizeBytes = 0;
  transmissionFlags = 0;
  private readonly reader = new ByteReader();
  private readonly writer: ByteWriter;
  private readonly pending = new Map<bigint, Pending>();
  private nextCookie = 1n;
  private failure: Error | null = null;

  private constructor(writer: ByteWriter) {
    this.writer = writer;
  }

  /** Connects and negotiates. Rejects if the server refuses the export. */
  static async connect(target: NbdTarget): Promise<NbdClient> {
    const opened = Promise.withResolvers<NbdClient>();
    // Bun.connect rejects as well; whichever is first is the one that is told.
    opened.promise.catch(() => {});
    let client: NbdClient | null = null;
    const handlers = {
      open: (socket: Bun.Socket) => {
        client = new NbdClient(new ByteWriter(socket));
        opened.resolve(client);
      },
      data: (_: Bun.Socket, chunk: Buffer) => client?.reader.push(new Uint8Array(chunk)),
      drain: () => client?.writer.drain(),
      close: () => client?.fail(new Error("the NBD connection was closed")),
      error: (_: Bun.Socket, error: Error) => client?.fail(error),
      connectError: (_: Bun.Socket, error: Error) => opened.reject(error),
    };
    const { host, port, path } = parseUri(target.uri);
    if (path === null) await Bun.connect({ hostname: host, port, socket: handlers });
    else await Bun.connect({ unix: path, socket: handlers });
    const connected = await opened.promise;
    try {
      await connected.negotiate(target.exportName ?? "");
    } catch (thrown) {
      connected.abort();
      throw thrown;
    }
    void connected.receive();
    return connected;
  }

  /** Reads `lengthBytes` at `offset`; at most 32 MiB a request. */
  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    return await this.request(COMMAND.read, 0, offset, lengthBytes, null);
  }

  async write(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    await this.request(COMMAND.write, flags, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.request(COMMAND.flush, 0, 0, 0, null);
  }

  async trim(offset: number, lengthBytes: number, flags = 0): Promise<void> {
    await this.request(COMMAND.trim, flags, offset, lengthBytes, null);
  }

  async zero(offset: number, lengthBytes: number, flags = 0): Promise<void> {
    await this.request(COMMAND.zero, flags, offset, lengthBytes, null);
  }

  /** Sends bytes as they are, which need not make sense. */
  raw(bytes: Uint8Array): void {
    this.writer.write(bytes);
  }

  /** Waits until the connection has failed, at most `timeoutMs`. */
  async untilEnded(timeoutMs: number): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    while (this.failure === null && performance.now() < deadline) await Bun.sleep(5);
    return this.failure !== null;
  }

  /** Ends in order: NBD_CMD_DISC, then the connection. */
  close(): void {
    if (this.failure === null) this.sendRequest(COMMAND.disconnect, 0, 0n, 0, 0, null);
    this.fail(new Error("this client was closed"));
    this.writer.end();
  }

  /** Drops the connection without a word, as a killed client does. */
  abort(): void {
    this.fail(new Error("this client was aborted"));
    this.writer.terminate();
  }

  private async negotiate(exportName: string): Promise<void> {
    const hello = view(await this.reader.take(18));
    if (hello.getBigUint64(0) !== MAGIC_SERVER || hello.getBigUint64(8) !== MAGIC_OPTION) {
      throw new Error("not an NBD server");
    }
    const flags = new Uint8Array(4);
    // Fixed newstyle, and no 124 zeroes after EXPORT_NAME if the server can leave them out.
    view(flags).setUint32(0, 1 | (hello.getUint16(16) & 2));
    this.writer.write(flags);
    await this.option(OPTION.structuredReply, new Uint8Array(0)).catch((thrown) => {
      // A server without structured replies answers with simple ones, which are fine too.
      if (!(thrown instanceof NbdError)) throw thrown;
    });
    const name = new TextEncoder().encode(exportName);
    const body = new Uint8Array(4 + name.length + 2);
    view(body).setUint32(0, name.length);
    body.set(name, 4);
    for (const info of await this.option(OPTION.go, body)) {
      if (info.length < 12 || view(info).getUint16(0) !== 0) continue;
      this.sizeBytes = Number(view(info).getBigUint64(2));
      this.transmissionFlags = view(info).getUint16(10);
    }
  }

  /** Sends one option; the INFO replies that came before its ACK. */
  private async option(code: number, body: Uint8Array): Promise<Uint8Array[]> {
    const head = new Uint8Array(16);
    view(head).setBigUint64(0, MAGIC_OPTION);
    view(head).setUint32(8, code);
    view(head).setUint32(12, body.length);
    this.writer.write(head);
    this.writer.write(body);
    const infos: Uint8Array[] = [];
    for (;;) {
      const reply = view(await this.reader.take(20));
      if (reply.getBigUint64(0) !== MAGIC_OPTION_REPLY) throw new Error("bad option reply");
      const type = reply.getUint32(12);
      const data = await this.reader.take(reply.getUint32(16));
      if (type === REPLY.ack) return infos;
      if (type >= REPLY_ERROR) {
        const text = new TextDecoder().decode(data);
        throw new NbdError(type - REPLY_ERROR, `option ${code} refused ${text}`);
      }
      if (type === REPLY.info || type === REPLY.server) infos.push(data);
    }
  }

  private request(
    command: number,
    flags: number,
    offset: number,
    lengthBytes: number,
    payload: Uint8Array | null,
  ): Promise<Uint8Array> {
    if (this.failure !== null) return Promise.reject(this.failure);
    const cookie = this.nextCookie;
    this.nextCookie += 1n;
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    const data = command === COMMAND.read ? new Uint8Array(lengthBytes) : null;
    this.pending.set(cookie, { data, offset, resolve, reject, error: null });
    this.sendRequest(command, flags, cookie, offset, lengthBytes, payload);
    return promise;
  }

  private sendRequest(
    command: number,
    flags: number,
    cookie: bigint,
    offset: number,
    lengthBytes: number,
    payload: Uint8Array | null,
  ): void {
    const head = new Uint8Array(28);
    const fields = view(head);
    fields.setUint32(0, MAGIC_REQUEST);
    fields.setUint16(4, flags);
    fields.setUint16(6, command);
    fields.setBigUint64(8, cookie);
    fields.setBigUint64(16, BigInt(offset));
    fields.setUint32(24, lengthBytes);
    this.writer.write(head);
    if (payload !== null) this.writer.write(payload);
  }

  private async receive(): Promise<void> {
    try {
      for (;;) {
        const magic = view(await this.reader.take(4)).getUint32(0);
        if (magic === MAGIC_SIMPLE) await this.simpleReply();
        else if (magic === MAGIC_STRUCTURED) await this.structuredReply();
        else throw new Error(`bad reply magic ${magic.toString(16)}`);
      }
    } catch (thrown) {
      this.fail(thrown instanceof Error ? thrown : new Error(String(thrown)));
    }
  }

  private async simpleReply(): Promise<void> {
    const head = view(await this.reader.take(12));
    const cookie = head.getBigUint64(4);
    const entry = this.entryOf(cookie);
    const errno = head.getUint32(0);
    if (errno !== 0) entry.error = new NbdError(errno, "");
    else if (entry.data !== null) entry.data.set(await this.reader.take(entry.data.length));
    this.finish(cookie, entry);
  }

  private async structuredReply(): Promise<void> {
    const head = view(await this.reader.take(16));
    const isLast = (head.getUint16(0) & 1) !== 0;
    const type = head.getUint16(2);
    const cookie = head.getBigUint64(4);
    const body = await this.reader.take(head.getUint32(12));
    const entry = this.entryOf(cookie);
    if (type === CHUNK.data && entry.data !== null) {
      entry.data.set(body.subarray(8), Number(view(body).getBigUint64(0)) - entry.offset);
    } else if (type === CHUNK.error || type === CHUNK.errorOffset) {
      const text = new TextDecoder().decode(body.subarray(6, 6 + view(body).getUint16(4)));
      entry.error = new NbdError(view(body).getUint32(0), text);
    } else if (type !== CHUNK.none && type !== CHUNK.hole) {
      throw new Error(`unknown reply chunk ${type}`);
    }
    if (isLast) this.finish(cookie, entry);
  }

  private entryOf(cookie: bigint): Pending {
    const entry = this.pending.get(cookie);
    if (entry === undefined) throw new Error(`a reply to no request: cookie ${cookie}`);
    return entry;
  }

  private finish(cookie: bigint, entry: Pending): void {
    this.pending.delete(cookie);
    if (entry.error !== null) entry.reject(entry.error);
    else entry.resolve(entry.data ?? new Uint8Array(0));
  }

  private fail(error: Error): void {
    this.failure ??= error;
    this.reader.fail(error);
    for (const entry of this.pending.values()) entry.reject(error);
    this.pending.clear();
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function parseUri(uri: string): { host: string; port: number; path: string | null } {
  const unix = /^nbd\+unix:\/\/\/\?socket=(.+)$/.exec(uri);
  if (unix !== null) return { host: "", port: 0, path: unix[1] as string };
  const tcp = /^nbd:\/\/\[?([^\]/]+?)\]?:(\d+)\/?$/.exec(uri);
  if (tcp === null) throw new Error(`not an NBD URI: ${uri}`);
  return { host: tcp[1] as string, port: Number(tcp[2]), path: null };
}

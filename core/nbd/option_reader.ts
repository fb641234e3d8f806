/**
 * Reads the data of one option: bounds checked, never throwing. Past the end, or at a string
 * that breaks the protocol's rules, it fails with the error reply that says so.
 */
import { LIMITS } from "../base/limits.ts";
import { OPTION_REPLY } from "../format/nbd.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class OptionReader {
  /** 0, or the NBD_REP_ERR that the option deserves; the first failure counts. */
  error = 0;
  why = "";
  private readonly buffer: Uint8Array;
  private readonly view: DataView;
  private at: number;
  private readonly end: number;

  constructor(buffer: Uint8Array, view: DataView, at: number, length: number) {
    this.buffer = buffer;
    this.view = view;
    this.at = at;
    this.end = at + length;
  }

  get remaining(): number {
    return this.end - this.at;
  }

  u16(): number {
    if (!this.has(2)) return 0;
    this.at += 2;
    return this.view.getUint16(this.at - 2);
  }

  u32(): number {
    if (!this.has(4)) return 0;
    this.at += 4;
    return this.view.getUint32(this.at - 4);
  }

  /**
   * The next `length` bytes as a string (proto.md, "Conventions": UTF-8, no NUL, at most 4096
   * bytes), leaving at least `reserve` bytes of the option behind it.
   */
  text(length: number, reserve: number): string {
    if (this.error !== 0 || length > this.remaining - reserve) {
      this.fail(OPTION_REPLY.errInvalid, "a string is longer than the option that holds it");
      return "";
    }
    if (length > LIMITS.stringBytesMax) {
      this.fail(OPTION_REPLY.errTooBig, "a string is longer than 4096 bytes");
      return "";
    }
    const bytes = this.buffer.subarray(this.at, this.at + length);
    this.at += length;
    const text = decodeText(bytes);
    if (text === null) {
      this.fail(OPTION_REPLY.errInvalid, "a string is not UTF-8 or holds a NUL");
      return "";
    }
    return text;
  }

  /** Nothing may be left over. */
  finish(): void {
    if (this.remaining !== 0) this.fail(OPTION_REPLY.errInvalid, "the option has data left over");
  }

  private has(length: number): boolean {
    if (this.error === 0 && this.remaining >= length) return true;
    this.fail(OPTION_REPLY.errInvalid, "the option is too short");
    return false;
  }

  private fail(error: number, why: string): void {
    if (this.error !== 0) return;
    this.error = error;
    this.why = why;
  }
}

function decodeText(bytes: Uint8Array): string | null {
  if (bytes.includes(0)) return null;
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

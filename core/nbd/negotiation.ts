/**
 * The option haggling of one connection: what each option is answered, and what was agreed when
 * the transmission phase begins (proto.md, "Option types"). docs/nbd.md lists every option.
 *
 * All that is agreed lives in this object. A future STARTTLS that is accepted must replace it by
 * a fresh one, since nothing agreed before TLS may be kept (proto.md, NBD_OPT_STARTTLS).
 */
import { INFO, OPTION, OPTION_REPLY } from "../format/nbd.ts";
import { type Export, type ExportTable, transmissionFlags } from "./export_table.ts";
import { OptionReader } from "./option_reader.ts";
import {
  putAck,
  putExportReply,
  putInfoBlockSize,
  putInfoExport,
  putInfoText,
  putMetaContext,
  putOptionError,
  putServer,
} from "./option_replies.ts";
import type { Output } from "./output.ts";
import { ALLOCATION_CONTEXT_ID } from "./replies.ts";

/** What follows an option: the next option, the transmission phase, or the end. */
export const STEP = {
  haggle: 0,
  transmit: 1,
  /** Close once the reply is out. */
  close: 2,
  /** No reply is possible: close at once; `why` says the reason. */
  drop: 3,
} as const;
export type Step = (typeof STEP)[keyof typeof STEP];

const ALLOCATION = "base:allocation";
const ALLOCATION_BYTES = new TextEncoder().encode(ALLOCATION);
const NAMESPACE_WILDCARD = "base:";

export class Negotiation {
  /** Structured replies were agreed. */
  structured = false;
  /** The export chosen; set when a step says `transmit`. */
  chosen: Export | null = null;
  /** `base:allocation` was selected for the export chosen, under the very name it was chosen by. */
  hasContext = false;
  why = "";
  /** The host is stopping: every option but ABORT is refused. */
  stopping = false;
  private readonly exports: ExportTable;
  private readonly output: Output;
  private readonly noZeroes: boolean;
  /** Name given with the last SET_META_CONTEXT, null if that selected nothing or failed. */
  private contextFor: string | null = null;

  constructor(exports: ExportTable, output: Output, noZeroes: boolean) {
    this.exports = exports;
    this.output = output;
    this.noZeroes = noZeroes;
  }

  /** Answers one option whose data is `buffer[at, at + length)`. */
  option(option: number, buffer: Uint8Array, view: DataView, at: number, length: number): Step {
    const reader = new OptionReader(buffer, view, at, length);
    if (option === OPTION.exportName) return this.exportName(reader);
    if (option === OPTION.abort) {
      putAck(this.output, option);
      this.why = "the client aborted the handshake";
      return STEP.close;
    }
    if (this.stopping) {
      return this.refuse(option, OPTION_REPLY.errShutdown, "this host is stopping");
    }
    switch (option) {
      case OPTION.list:
        return this.list(option, length);
      case OPTION.info:
      case OPTION.go:
        return this.infoOrGo(option, reader);
      case OPTION.structuredReply:
        return this.structuredReply(option, length);
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        return this.metaContext(option, reader);
      case OPTION.startTls:
        return this.startTls(option, length);
      default:
        return this.refuse(option, OPTION_REPLY.errUnsupported, "option not supported");
    }
  }

  private refuse(option: number, type: number, text: string): Step {
    putOptionError(this.output, option, type, text);
    return STEP.haggle;
  }

  /** This option cannot be answered with an error, so a failure ends the connection. */
  private exportName(reader: OptionReader): Step {
    const name = reader.text(reader.remaining, 0);
    const entry = reader.error === 0 ? this.exports.find(name) : null;
    if (entry === null || this.stopping) {
      this.why = this.stopping ? "this host is stopping" : "the client asked for an unknown export";
      return STEP.drop;
    }
    this.choose(entry, name);
    putExportReply(this.output, entry, transmissionFlags(entry, this.structured), this.noZeroes);
    return STEP.transmit;
  }

  private choose(entry: Export, name: string): void {
    this.chosen = entry;
    this.hasContext = this.structured && this.contextFor === name;
  }

  private list(option: number, length: number): Step {
    if (length > 0) {
      return this.refuse(option, OPTION_REPLY.errInvalid, "LIST takes no data");
    }
    for (const entry of this.exports.list) putServer(this.output, option, entry);
    putAck(this.output, option);
    return STEP.haggle;
  }

  private infoOrGo(option: number, reader: OptionReader): Step {
    const name = reader.text(reader.u32(), 2);
    const count = reader.u16();
    let wanted = 0;
    for (let index = 0; index < count && reader.error === 0; index += 1) {
      const type = reader.u16();
      // An unknown type is ignored (MUST); the known ones are 0 to 3.
      if (type <= INFO.blockSize) wanted |= 1 << type;
    }
    if (reader.error === 0) reader.finish();
    if (reader.error !== 0) return this.refuse(option, reader.error, reader.why);
    const entry = this.exports.find(name);
    if (entry === null) {
      return this.refuse(option, OPTION_REPLY.errUnknown, "no export of that name");
    }
    const { output } = this;
    putInfoExport(output, option, entry, transmissionFlags(entry, this.structured));
    if ((wanted & (1 << INFO.name)) !== 0) putInfoText(output, option, INFO.name, entry.nameBytes);
    if ((wanted & (1 << INFO.description)) !== 0 && entry.description !== "") {
      putInfoText(output, option, INFO.description, entry.descriptionBytes);
    }
    if ((wanted & (1 << INFO.blockSize)) !== 0) putInfoBlockSize(output, option);
    putAck(output, option);
    if (option === OPTION.info) return STEP.haggle;
    this.choose(entry, name);
    return STEP.transmit;
  }

  private structuredReply(option: number, length: number): Step {
    if (length > 0) {
      return this.refuse(option, OPTION_REPLY.errInvalid, "STRUCTURED_REPLY takes no data");
    }
    this.structured = true;
    putAck(this.output, option);
    return STEP.haggle;
  }

  /**
   * `base:allocation` is the only context. On LIST no query at all and `base:` find it too; on
   * SET they select nothing. Every SET forgets the former one, also when it fails.
   */
  private metaContext(option: number, reader: OptionReader): Step {
    const setting = option === OPTION.setMetaContext;
    if (setting) this.contextFor = null;
    if (!this.structured) {
      const text = "metadata contexts need structured replies";
      return this.refuse(option, OPTION_REPLY.errInvalid, text);
    }
    const name = reader.text(reader.u32(), 4);
    const queryCount = reader.u32();
    let matched = !setting && queryCount === 0;
    for (let index = 0; index < queryCount && reader.error === 0; index += 1) {
      const query = reader.text(reader.u32(), 0);
      if (query === ALLOCATION || (!setting && query === NAMESPACE_WILDCARD)) matched = true;
    }
    if (reader.error === 0) reader.finish();
    if (reader.error !== 0) return this.refuse(option, reader.error, reader.why);
    if (this.exports.find(name) === null) {
      return this.refuse(option, OPTION_REPLY.errUnknown, "no export of that name");
    }
    if (matched) {
      // On LIST the identifier is reserved and 0.
      putMetaContext(this.output, option, setting ? ALLOCATION_CONTEXT_ID : 0, ALLOCATION_BYTES);
      if (setting) this.contextFor = name;
    }
    putAck(this.output, option);
    return STEP.haggle;
  }

  /** NOTLS mode: known, checked, refused (proto.md, "NOTLS mode"). */
  private startTls(option: number, length: number): Step {
    if (length > 0) return this.refuse(option, OPTION_REPLY.errInvalid, "STARTTLS takes no data");
    return this.refuse(option, OPTION_REPLY.errUnsupported, "TLS is not offered here");
  }
}

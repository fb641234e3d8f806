/**
 * Parses the handshake phase: the client's flags, then options one by one
 * (proto.md, "Newstyle negotiation"). What they mean is `Negotiation`'s business.
 */
import { assert } from "../base/assert.ts";
import { LIMITS } from "../base/limits.ts";
import { CLIENT_FLAGS, HANDSHAKE_FLAG, OPTION_HEADER, OPTION_MAGIC } from "../format/nbd.ts";
import type { ExportTable } from "./export_table.ts";
import { type Input, PROGRESS, type Progress } from "./input.ts";
import { Negotiation, STEP } from "./negotiation.ts";
import type { Output } from "./output.ts";

const PHASE = { flags: 0, header: 1, data: 2 } as const;
type Phase = (typeof PHASE)[keyof typeof PHASE];

export class Handshake {
  /** Why it ended, when `step` said finish or abort. */
  why = "";
  /** What was agreed, when `step` said done. */
  negotiation: Negotiation | null = null;
  private readonly exports: ExportTable;
  private readonly input: Input;
  private readonly output: Output;
  private phase: Phase = PHASE.flags;
  private option = 0;
  private optionBytes = 0;

  constructor(exports: ExportTable, input: Input, output: Output) {
    this.exports = exports;
    this.input = input;
    this.output = output;
  }

  step(stopping: boolean): Progress {
    switch (this.phase) {
      case PHASE.flags:
        return this.flags();
      case PHASE.header:
        return this.header();
      case PHASE.data:
        return this.data(stopping);
    }
  }

  private flags(): Progress {
    if (!this.input.gather(CLIENT_FLAGS.sizeBytes)) return PROGRESS.starved;
    const flags = CLIENT_FLAGS.flags.get(this.input.sourceView, this.input.sourceAt);
    // A client without FIXED_NEWSTYLE is served all the same ("Client flags": MAY).
    const known = HANDSHAKE_FLAG.fixedNewstyle | HANDSHAKE_FLAG.noZeroes;
    if ((flags & ~known) !== 0) {
      return this.abort("the client set a handshake flag that was not offered");
    }
    const noZeroes = (flags & HANDSHAKE_FLAG.noZeroes) !== 0;
    this.negotiation = new Negotiation(this.exports, this.output, noZeroes);
    this.phase = PHASE.header;
    return PROGRESS.more;
  }

  private header(): Progress {
    if (!this.input.gather(OPTION_HEADER.sizeBytes)) return PROGRESS.starved;
    const { sourceView: view, sourceAt: at } = this.input;
    const good =
      OPTION_HEADER.magicHigh.get(view, at) === OPTION_MAGIC[0] &&
      OPTION_HEADER.magicLow.get(view, at) === OPTION_MAGIC[1];
    if (!good) return this.abort("an option did not begin with its magic");
    this.option = OPTION_HEADER.option.get(view, at);
    this.optionBytes = OPTION_HEADER.lengthBytes.get(view, at);
    if (this.optionBytes > LIMITS.optionBytesMax) {
      return this.abort("an option was longer than 64 KiB");
    }
    this.phase = PHASE.data;
    return PROGRESS.more;
  }

  private data(stopping: boolean): Progress {
    const { input, negotiation, option, optionBytes } = this;
    assert(negotiation !== null, "nbd: an option before the client's flags");
    if (!input.gather(optionBytes)) return PROGRESS.starved;
    const { source, sourceView, sourceAt } = input;
    negotiation.stopping = stopping;
    this.phase = PHASE.header;
    switch (negotiation.option(option, source, sourceView, sourceAt, optionBytes)) {
      case STEP.haggle:
        return PROGRESS.more;
      case STEP.transmit:
        return PROGRESS.done;
      case STEP.close:
        this.why = negotiation.why;
        return PROGRESS.finish;
      case STEP.drop:
        return this.abort(negotiation.why);
    }
  }

  private abort(why: string): Progress {
    this.why = why;
    return PROGRESS.abort;
  }
}

/**
 * On which line of a TOML text each key stands, so that an error can say where.
 *
 * smol-toml gives line numbers for syntax errors only. This scanner runs on texts that smol-toml
 * has accepted, so it only needs to find headers and keys, and to skip values that span lines
 * (arrays and triple-quoted strings). Keys inside inline tables are not found on their own: the
 * line of the nearest ancestor stands for them.
 */

/** Lines (from 1) by dotted path; elements of an array of tables are numbered from 0. */
export class TomlLines {
  private readonly lines = new Map<string, number>();

  constructor(text: string) {
    const counts = new Map<string, number>();
    let prefix: string[] = [];
    let pending = "";
    for (const [index, line] of text.split("\n").entries()) {
      if (pending !== "") {
        pending = stillOpen(`${pending}\n${line}`);
        continue;
      }
      const header = /^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?/.exec(line);
      if (header !== null) {
        prefix = headerPath(keyParts(header[2] as string), header[1] === "[[", counts);
        this.note(prefix, index + 1);
        continue;
      }
      const key = /^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+|\s*\.\s*)+)\s*=(.*)$/.exec(line);
      if (key === null) continue;
      this.note([...prefix, ...keyParts(key[1] as string)], index + 1);
      pending = stillOpen(key[2] as string);
    }
  }

  /** The line of `path`, or of its nearest ancestor; 1 when nothing of it is in the text. */
  lineOf(path: readonly (string | number)[]): number {
    for (let length = path.length; length > 0; length--) {
      const line = this.lines.get(path.slice(0, length).join("\u0000"));
      if (line !== undefined) return line;
    }
    return 1;
  }

  private note(path: readonly string[], line: number): void {
    const name = path.join("\u0000");
    if (!this.lines.has(name)) this.lines.set(name, line);
  }
}

function keyParts(text: string): string[] {
  const parts = text.match(/"[^"]*"|'[^']*'|[A-Za-z0-9_-]+/g) ?? [];
  return parts.map((part) => (/^["']/.test(part) ? part.slice(1, -1) : part));
}

function headerPath(parts: string[], isArray: boolean, counts: Map<string, number>): string[] {
  const name = parts.join("\u0000");
  const seen = counts.get(name);
  if (!isArray) return parts;
  const index = seen === undefined ? 0 : seen + 1;
  counts.set(name, index);
  return [...parts, String(index)];
}

/** The value so far if it goes on in the next line, "" if it is complete. */
function stillOpen(value: string): string {
  let depth = 0;
  for (let at = 0; at < value.length; at++) {
    const quote = ['"""', "'''", '"', "'"].find((mark) => value.startsWith(mark, at));
    if (quote !== undefined) {
      const end = closingQuote(value, at + quote.length, quote);
      if (end < 0) return quote.length === 3 ? value : "";
      at = end + quote.length - 1;
      continue;
    }
    const character = value[at];
    if (character === "#") {
      const newline = value.indexOf("\n", at);
      if (newline < 0) break;
      at = newline;
    } else if (character === "[" || character === "{") depth += 1;
    else if (character === "]" || character === "}") depth -= 1;
  }
  return depth > 0 ? value : "";
}

function closingQuote(value: string, from: number, quote: string): number {
  for (let at = from; at < value.length; at++) {
    if (value[at] === "\\" && quote.startsWith('"')) at += 1;
    else if (value.startsWith(quote, at)) return at;
  }
  return -1;
}

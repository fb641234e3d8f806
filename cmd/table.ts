/** A table of text in columns; colours only where the caller's stream is a terminal. */

export interface Cell {
  readonly text: string;
  readonly tone?: "good" | "doubtful" | "bad";
}

/** SGR colours: green, yellow, red. */
const TONES = { good: 32, doubtful: 33, bad: 31 } as const;

/** True if `stream` shows colours: a terminal, and nobody asked for none (no-color.org). */
export function showsColors(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== "dumb";
}

/** Rows under a head, columns two spaces apart, no trailing spaces. */
export function table(
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
  colors: boolean,
): string {
  const all = [head.map((text): Cell => ({ text })), ...rows];
  const widths = head.map((_, column) =>
    Math.max(...all.map((row) => Bun.stringWidth(row[column]?.text ?? ""))),
  );
  const lines = all.map((row) =>
    row
      .map((cell, column) => painted(cell, widths[column] ?? 0, colors))
      .join("  ")
      .trimEnd(),
  );
  return lines.join("\n");
}

function painted(cell: Cell, width: number, colors: boolean): string {
  const padding = " ".repeat(Math.max(0, width - Bun.stringWidth(cell.text)));
  if (!colors || cell.tone === undefined) return cell.text + padding;
  return `\u001b[${TONES[cell.tone]}m${cell.text}\u001b[39m${padding}`;
}

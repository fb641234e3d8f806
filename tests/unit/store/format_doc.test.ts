/**
 * docs/format.md shows the layouts as they are declared. To print the tables anew after a change
 * of the format: VSAN_WRITE_DOCS=1 bun test tests/unit/store/format_doc.test.ts
 */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NODE_REGION, PAGE_ENTRY, SPARSE_ENTRY } from "../../../core/format/checkpoint.ts";
import { ENTRY, RECORD } from "../../../core/format/record.ts";
import { BATCH, DIRECTORY, ITEM, MOVE_SOURCE } from "../../../core/format/segment.ts";
import { SUPERBLOCK } from "../../../core/format/superblock.ts";

const PATH = join(import.meta.dir, "../../../docs/format.md");
const LAYOUTS = [
  SUPERBLOCK,
  BATCH,
  DIRECTORY,
  RECORD,
  ENTRY,
  ITEM,
  MOVE_SOURCE,
  NODE_REGION,
  PAGE_ENTRY,
  SPARSE_ENTRY,
];

interface Shown {
  readonly layoutName: string;
  readonly sizeBytes: number;
  readonly table: readonly { readonly name: string; readonly kind: string; readonly at: number }[];
}

function tableOf(layout: Shown): string {
  const rows = layout.table.map(({ name, kind, at }) => `| ${at} | ${kind} | ${name} |`);
  const head = `${layout.layoutName}, ${layout.sizeBytes} bytes:`;
  return [head, "", "| at | type | field |", "| --- | --- | --- |", ...rows].join("\n");
}

function printed(text: string): string {
  let result = text;
  for (const layout of LAYOUTS as readonly Shown[]) {
    const marker = `<!-- layout: ${layout.layoutName} -->`;
    const start = result.indexOf(marker);
    expect(start).toBeGreaterThan(0);
    const rest = result.slice(start + marker.length);
    // The table that stands there now, if any, ends with the last line that belongs to one.
    const old = /^\n[^\n]+ bytes:\n\n(?:\|[^\n]*\n)+/.exec(rest)?.[0] ?? "\n";
    const after = rest.slice(old.length);
    result = `${result.slice(0, start)}${marker}\n${tableOf(layout)}\n${after}`;
  }
  return result;
}

test("docs/format.md shows every layout as declared", () => {
  const text = readFileSync(PATH, "utf8");
  const wanted = printed(text);
  if (process.env.VSAN_WRITE_DOCS === "1") writeFileSync(PATH, wanted);
  else expect(text).toBe(wanted);
});

test("every byte of every layout is some field's", () => {
  for (const { table, sizeBytes } of LAYOUTS as readonly Shown[]) {
    let at = 0;
    for (const field of table) {
      expect(field.at).toBe(at);
      at += { u8: 1, u16: 2, u32: 4, u64: 8 }[field.kind] ?? Number.NaN;
    }
    expect(at).toBe(sizeBytes);
  }
});

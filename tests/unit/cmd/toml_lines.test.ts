/** Lines of keys, for messages that say where. */
import { expect, test } from "bun:test";
import { TomlLines } from "../../../cmd/toml_lines.ts";

const TEXT = `# comment = 1
[cluster]
name = "a = b"
fence = [
  "x", # host = "no"
  "y]",
]
"quoted key" = 1

[[host]]
name = "alpha"
[[host]]
name = "beta"
text = """
link = "inside"
"""
link = "10.0.0.1:1"
store = 'it''s'

[a.b]
c.d = 1
inline = { x = 1, y = [1, 2] }
`;

test("tables, arrays of tables, dotted and quoted keys", () => {
  const lines = new TomlLines(TEXT);
  expect(lines.lineOf(["cluster"])).toBe(2);
  expect(lines.lineOf(["cluster", "name"])).toBe(3);
  expect(lines.lineOf(["cluster", "fence"])).toBe(4);
  expect(lines.lineOf(["cluster", "quoted key"])).toBe(8);
  expect(lines.lineOf(["host", 0])).toBe(10);
  expect(lines.lineOf(["host", 0, "name"])).toBe(11);
  expect(lines.lineOf(["host", 1, "name"])).toBe(13);
  expect(lines.lineOf(["host", 1, "link"])).toBe(17);
  expect(lines.lineOf(["a", "b", "c", "d"])).toBe(21);
});

test("what is not there has its nearest ancestor's line, or the first", () => {
  const lines = new TomlLines(TEXT);
  expect(lines.lineOf(["host", 1, "nbd", 3])).toBe(12);
  expect(lines.lineOf(["a", "b", "inline", "x"])).toBe(22);
  expect(lines.lineOf(["volume"])).toBe(1);
  expect(new TomlLines("").lineOf(["x"])).toBe(1);
});

test("any text at all ends", () => {
  for (const text of ['x = """', "[[", "x = [", "= 1", 'x = "\\', "[[a]", "\u0000", "x = {{{"]) {
    expect(new TomlLines(text).lineOf(["x"])).toBeGreaterThan(0);
  }
});

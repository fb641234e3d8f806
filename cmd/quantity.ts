/**
 * Sizes and durations as an operator writes and reads them (docs/cli.md): `512`, `4K`, `10G`, `1T`
 * in powers of 1024; `250ms`, `10s`, `5m`, `2h`. Whole numbers only.
 */

const SIZE_UNITS: readonly string[] = ["", "K", "M", "G", "T", "P"];
const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Bytes, or null if `text` is not a size or is not below 2^53. */
export function parseSize(text: string): number | null {
  const match = /^([0-9]{1,16})([KMGTP]?)$/.exec(text);
  if (match === null) return null;
  const bytes = Number(match[1]) * 1024 ** SIZE_UNITS.indexOf(match[2] as string);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** The shortest exact text that `parseSize` reads back: 10737418240 -> "10G". */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value !== 0 && value % 1024 === 0 && unit < SIZE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value}${SIZE_UNITS[unit]}`;
}

/** Milliseconds, or null if `text` is not a duration or is longer than ten years. */
export function parseDuration(text: string): number | null {
  const match = /^([0-9]{1,12})(ms|s|m|h)$/.exec(text);
  if (match === null) return null;
  const milliseconds = Number(match[1]) * (DURATION_UNITS_MS[match[2] as string] as number);
  return milliseconds <= 10 * 365 * 24 * 3_600_000 ? milliseconds : null;
}

/** The shortest exact text that `parseDuration` reads back: 10000 -> "10s". */
export function durationText(milliseconds: number): string {
  for (const unit of ["h", "m", "s"]) {
    const length = DURATION_UNITS_MS[unit] as number;
    if (milliseconds !== 0 && milliseconds % length === 0) return `${milliseconds / length}${unit}`;
  }
  return `${milliseconds}ms`;
}

/** For people, three digits: 1536 -> "1.50 KiB". */
export function humanBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < SIZE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  if (unit === 0) return `${Math.round(value)} B`;
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${SIZE_UNITS[unit]}iB`;
}

/** For people, whole seconds: 75 -> "1m15s", 4000 -> "1h06m". */
export function humanSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}m${String(whole % 60).padStart(2, "0")}s`;
  return `${Math.floor(minutes / 60)}h${String(minutes % 60).padStart(2, "0")}m`;
}

/** "Did you mean": the nearest known word by optimal string alignment distance. */

/**
 * Edits (insert, delete, substitute, swap neighbours) between two words; the restricted
 * Damerau-Levenshtein distance. O(a*b) time, meant for words, not texts.
 */
export function editDistance(source: string, target: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: target.length + 1 }, (_, index) => index);
  for (let row = 1; row <= source.length; row++) {
    const current = [row];
    for (let column = 1; column <= target.length; column++) {
      const same = source[row - 1] === target[column - 1];
      let best = Math.min(
        (previous[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (previous[column - 1] as number) + (same ? 0 : 1),
      );
      const swapped =
        row > 1 &&
        column > 1 &&
        source[row - 1] === target[column - 2] &&
        source[row - 2] === target[column - 1];
      if (swapped) best = Math.min(best, (before[column - 2] as number) + 1);
      current.push(best);
    }
    before = previous;
    previous = current;
  }
  return previous[target.length] as number;
}

/** The known word nearest to `word`; null only when none is known. */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const distance = editDistance(word.slice(0, 64).toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** A list of this many is shown whole when no word is near. */
const SHOWN_MOST = 6;

/**
 * `; did you mean x?`, or, when no word is near enough to be meant, `; known: ...` for a short
 * list and `; the nearest known is x` for a long one.
 */
export function suggestion(word: string, known: readonly string[], prefix = ""): string {
  const found = nearest(word, known);
  if (found === null) return "";
  const distance = editDistance(word.slice(0, 64).toLowerCase(), found.toLowerCase());
  const isNear = distance <= Math.max(2, word.length / 2) && distance < found.length;
  if (isNear) return `; did you mean ${prefix}${found}?`;
  if (known.length > SHOWN_MOST) return `; the nearest known is ${prefix}${found}`;
  return `; known: ${known.map((name) => prefix + name).join(", ")}`;
}

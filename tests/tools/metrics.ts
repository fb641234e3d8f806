/** One metric of a host's Prometheus text, read over HTTP. */

/** The samples of `name` at `address`; the answer gives the one with exactly these labels. */
export async function metric(
  address: string,
  name: string,
): Promise<(labels: Readonly<Record<string, string>>) => number> {
  const answer = await fetch(`http://${address}/metrics`, { signal: AbortSignal.timeout(5000) });
  const lines = (await answer.text()).split("\n");
  return (labels) => {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${text}"`);
    const head = pairs.length === 0 ? name : `${name}{${pairs.join(",")}}`;
    const line = lines.find((each) => each.startsWith(`${head} `));
    if (line === undefined) throw new Error(`no ${head} among the metrics of ${address}`);
    return Number(line.slice(head.length + 1));
  };
}

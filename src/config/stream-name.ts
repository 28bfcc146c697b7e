/**
 * The Redis stream of a worker's KV events: `%h`, `%p` and `%r` in the name that the config gives stand for the host and
 * port of its URL and for its rank. Ranks have a stream each also where the name does not say how.
 */
export function streamName(given: string, url: string, rank: number | null): string {
  const { hostname, port, protocol } = new URL(url)
  const values: Record<string, string> = {
    '%h': hostname.replace(/^\[|\]$/g, ''),
    '%p': port === '' ? (protocol === 'https:' ? '443' : '80') : port,
    '%r': String(rank ?? 0),
  }
  const name = rank === null || given.includes('%r') ? given : `${given}:${rank}`
  return name.replace(/%[hpr]/g, (placeholder) => values[placeholder] ?? placeholder)
}

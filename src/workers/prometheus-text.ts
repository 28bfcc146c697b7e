export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/**
 * Samples of the wanted metrics in a Prometheus text exposition (format 0.0.4). Lines of other metrics are passed over
 * without being parsed; a malformed line is ignored.
 */
export function samplesOf(text: string, wanted: readonly string[]): Map<string, Sample[]> {
  const found = new Map<string, Sample[]>()
  for (const name of wanted) {
    let from = text.startsWith(name) ? 0 : text.indexOf(`\n${name}`)
    while (from !== -1) {
      const start = from === 0 && text.startsWith(name) ? 0 : from + 1
      const end = text.indexOf('\n', start)
      const sample = parseLine(text.slice(start, end === -1 ? undefined : end), name)
      if (sample !== null) found.set(name, [...(found.get(name) ?? []), sample])
      from = end === -1 ? -1 : text.indexOf(`\n${name}`, end)
    }
  }
  return found
}

function parseLine(line: string, name: string): Sample | null {
  const after = line.slice(name.length)
  if (after.startsWith(' ')) return numbered({}, after)
  if (!after.startsWith('{')) return null
  const labels: Record<string, string> = {}
  const pattern = /([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)",?/y
  pattern.lastIndex = 1
  for (let pair = pattern.exec(after); pair !== null; pair = pattern.exec(after)) {
    const [whole, label = '', value = ''] = pair
    labels[label] = value.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped))
    const next = pair.index + whole.length
    if (after[next] === '}') return numbered(labels, after.slice(next + 1))
    pattern.lastIndex = next
  }
  return null
}

function numbered(labels: Record<string, string>, rest: string): Sample | null {
  const word = rest.trim().split(/\s+/)[0] ?? ''
  const value = word === '+Inf' ? Infinity : word === '-Inf' ? -Infinity : Number(word)
  return word === '' || Number.isNaN(value) ? null : { labels, value }
}

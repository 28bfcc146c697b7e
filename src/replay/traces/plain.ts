import type { TraceFormat, TraceReader } from './format.ts'
import type { Row } from './row.ts'
import { SessionRows } from './sessions.ts'
import { RunBuilder, type BlockRuns, type TraceSession } from './trace.ts'

export const plainFormatName = 'warmroute-trace'

/**
 * The format to write where one has a workload of one's own. The first line is `{"format": "warmroute-trace", "block_tokens": N}`, each
 * further one a request: `{prompt_tokens, output_tokens, blocks, at_ms | session + think_ms}`. docs/replay.md tells the details.
 */
export const plainFormat: TraceFormat = {
  name: 'plain',
  description: 'a JSONL of one’s own: requests with times, or sessions with pauses',
  recognizes: (first) => first.has('format') && first.text('format') === plainFormatName,
  create: () => new PlainReader(),
}

/** Ids beyond it stand for names. */
const mostId = 0x7fffffff

class PlainReader implements TraceReader {
  readonly #sessions = new SessionRows()
  readonly #named = new Map<string, number>()
  #blockTokens = 0

  add(row: Row): void {
    if (this.#blockTokens === 0) {
      this.#blockTokens = row.whole('block_tokens', 1)
      return
    }
    const promptTokens = row.whole('prompt_tokens', 1)
    this.#sessions.add(row, {
      promptTokens,
      outputTokens: row.whole('output_tokens', 1),
      blocks: this.#blocks(row, Math.ceil(promptTokens / this.#blockTokens)),
    })
  }

  done(): { blockTokens: number; sessions: TraceSession[] } {
    return { blockTokens: this.#blockTokens, sessions: this.#sessions.done() }
  }

  #blocks(row: Row, most: number): BlockRuns {
    const runs = new RunBuilder()
    let found = 0
    for (const entry of row.list('blocks')) {
      const [first, last] = Array.isArray(entry) ? (entry as readonly unknown[]) : [entry, entry]
      if (typeof first === 'string' && first === last) {
        runs.add(this.#idOf(first))
        found++
        continue
      }
      if (!isId(first) || !isId(last) || last < first)
        return row.fault('blocks', `a list of ids (0 … ${mostId}), names or [first, last]`)
      runs.add(first, last - first + 1)
      found += last - first + 1
    }
    if (found > most) row.fault('blocks', `of at most ${most} blocks for "prompt_tokens" (and has ${found})`)
    return runs.done()
  }

  #idOf(name: string): number {
    const known = this.#named.get(name)
    if (known !== undefined) return known
    const id = 0xffffffff - this.#named.size
    this.#named.set(name, id)
    return id
  }
}

function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= mostId
}

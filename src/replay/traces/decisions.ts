import type { TraceFormat, TraceReader } from './format.ts'
import type { Row } from './row.ts'
import { RunBuilder, type BlockRuns, type TraceRequest, type TraceSession } from './trace.ts'

export const decisionLogName = 'warmroute-decisions'

/**
 * The router's own decision log: what came yesterday, for asking what another policy would have made of it. The first line is
 * `{"format": "warmroute-decisions", "version": 1}`, each further one a request with its keys (decision 2: no token is in it).
 * The router knows no sessions, so that this is an open loop.
 */
export const decisionsFormat: TraceFormat = {
  name: 'decisions',
  description: 'the router’s own decision log: an open loop of requests with the keys of their blocks',
  recognizes: (first) => first.has('format') && first.text('format') === decisionLogName,
  create: ({ model }) => new DecisionsReader(model),
}

const bytesPerKey = 8

class DecisionsReader implements TraceReader {
  readonly #wanted: string | undefined
  readonly #ids = new Map<bigint, number>()
  readonly #requests: TraceRequest[] = []
  #model: string | undefined
  #blockTokens = 0
  #opened = false

  constructor(wanted: string | undefined) {
    this.#wanted = wanted
  }

  add(row: Row): void {
    if (row.has('format')) {
      // Every file of a rotated log has a head of its own.
      if (row.whole('version', 1) !== 1) row.fault('version', '1')
      this.#opened = true
      return
    }
    if (!this.#opened) row.fault('format', `"${decisionLogName}" in the first line`)
    const model = row.text('model')
    if (this.#wanted !== undefined && model !== this.#wanted) return
    this.#model ??= model
    if (model !== this.#model) row.fault('model', `"${this.#model}", or one is to be named with --model`)
    const blockTokens = row.whole('block_size', 1)
    if (this.#blockTokens !== 0 && blockTokens !== this.#blockTokens)
      row.fault('block_size', `${this.#blockTokens}, as in the lines before`)
    this.#blockTokens = blockTokens
    const promptTokens = row.whole('prompt_tokens', 1)
    this.#requests.push({
      thinkMs: 0,
      recordedMs: row.number('time_ms'),
      promptTokens,
      outputTokens: Math.max(1, row.whole('output_tokens', 0)),
      blocks: this.#blocks(row, Math.floor(promptTokens / blockTokens)),
    })
  }

  done(): { blockTokens: number; sessions: TraceSession[] } {
    // Lines are written as answers end.
    const requests = this.#requests.sort((a, b) => a.recordedMs - b.recordedMs)
    const firstMs = requests[0]?.recordedMs ?? 0
    const sessions = requests.map((request, index) => {
      const startMs = request.recordedMs - firstMs
      return { id: String(index + 1), startMs, commonBlocks: 0, requests: [{ ...request, recordedMs: startMs }] }
    })
    return { blockTokens: this.#blockTokens, sessions }
  }

  #blocks(row: Row, blocks: number): BlockRuns {
    const bytes = Buffer.from(row.text('keys'), 'base64')
    if (bytes.length % bytesPerKey !== 0 || bytes.length > blocks * bytesPerKey)
      row.fault('keys', `at most ${blocks} keys of ${bytesPerKey} bytes in base64`)
    const runs = new RunBuilder()
    for (let at = 0; at < bytes.length; at += bytesPerKey) {
      const key = bytes.readBigUInt64LE(at)
      let id = this.#ids.get(key)
      if (id === undefined) this.#ids.set(key, (id = this.#ids.size))
      runs.add(id)
    }
    return runs.done()
  }
}

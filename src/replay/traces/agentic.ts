import type { TraceFormat, TraceReader } from './format.ts'
import type { Row } from './row.ts'
import { RunBuilder, type BlockRuns, type TraceRequest, type TraceSession } from './trace.ts'

/**
 * Recorded sessions of coding agents, one a line: `{id, block, tool_tokens, system_tokens, requests: [{t s, in, out, api s,
 * think s, ids: [[first, last], …]}]}`. Ids are a session's own, but sessions with the same tools and system prompt, which are told
 * apart by their lengths, begin with the same blocks: those get common ids.
 */
export const agenticFormat: TraceFormat = {
  name: 'agentic',
  description: 'recorded agent sessions: closed loop with think times, each prompt holds the former prompt and answers',
  recognizes: (first) => first.has('requests') && first.has('block'),
  create: () => new AgenticReader(),
}

class AgenticReader implements TraceReader {
  readonly #sessions: TraceSession[] = []
  /** By lengths of tools and system prompt: the first of the ids that such sessions have in common. */
  readonly #preambles = new Map<string, number>()
  #blockTokens = 0
  #nextId = 0

  add(row: Row): void {
    const block = row.whole('block', 1)
    if (this.#blockTokens !== 0 && block !== this.#blockTokens)
      row.fault('block', `${this.#blockTokens}, as in the lines before`)
    this.#blockTokens = block
    const tools = row.whole('tool_tokens', 0)
    const system = row.whole('system_tokens', 0)
    const common = Math.floor((tools + system) / block)
    const ids = new SessionIds(common, this.#preamble(`${tools}+${system}`, common), this.#nextId)
    const requests = row.rows('requests')
    if (requests.length === 0) row.fault('requests', 'a list of at least one request')
    this.#sessions.push({
      id: row.text('id'),
      startMs: null,
      commonBlocks: common,
      requests: requestsOf(requests, block, ids),
    })
    this.#nextId = ids.end
  }

  done(): { blockTokens: number; sessions: TraceSession[] } {
    return { blockTokens: this.#blockTokens, sessions: this.#sessions }
  }

  #preamble(lengths: string, blocks: number): number {
    const known = this.#preambles.get(lengths)
    if (known !== undefined) return known
    const first = this.#nextId
    this.#preambles.set(lengths, first)
    this.#nextId += blocks
    return first
  }
}

/** Makes a session's own ids, which count from 1, into ids of the whole trace. */
class SessionIds {
  readonly #common: number
  readonly #commonFirst: number
  readonly #ownFirst: number
  end: number

  constructor(common: number, commonFirst: number, ownFirst: number) {
    this.#common = common
    this.#commonFirst = commonFirst
    this.#ownFirst = ownFirst
    this.end = ownFirst
  }

  add(first: number, last: number, runs: RunBuilder): void {
    const common = Math.max(0, Math.min(last, this.#common) - first + 1)
    runs.add(this.#commonFirst + first - 1, common)
    const own = this.#ownFirst + first + common - 1 - this.#common
    const count = last - first + 1 - common
    runs.add(own, count)
    if (count > 0) this.end = Math.max(this.end, own + count)
  }
}

function requestsOf(rows: readonly Row[], block: number, ids: SessionIds): TraceRequest[] {
  let answeredS = 0
  return rows.map((row, turn) => {
    const sentS = row.number('t')
    // A recording that broke off has no duration; the time of the next request then tells.
    const thinkS = row.has('think') ? row.number('think') : Math.max(0, sentS - answeredS)
    answeredS = sentS + (row.has('api') ? row.number('api') : 0)
    const promptTokens = row.whole('in', 1)
    return {
      thinkMs: turn === 0 ? 0 : thinkS * 1000,
      recordedMs: sentS * 1000,
      promptTokens,
      // An answer of no tokens took a step all the same.
      outputTokens: Math.max(1, row.whole('out', 0)),
      blocks: runsOf(row, Math.floor(promptTokens / block), ids),
    }
  })
}

function runsOf(row: Row, blocks: number, ids: SessionIds): BlockRuns {
  const runs = new RunBuilder()
  let found = 0
  for (const pair of row.list('ids')) {
    const [first, last] = Array.isArray(pair) ? (pair as readonly unknown[]) : []
    if (!isId(first) || !isId(last) || last < first) return row.fault('ids', 'a list of [first, last], counted from 1')
    ids.add(first, last, runs)
    found += last - first + 1
  }
  if (found !== blocks) row.fault('ids', `ids of the prompt's ${blocks} full blocks (and names ${found})`)
  return runs.done()
}

function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 1
}

import { mix32 } from '../../simulator/random.ts'

/**
 * A recorded workload. What was written is not in it: a prompt is a row of block ids, and equal ids hold equal tokens. So a
 * trace can be kept, shared and replayed without anybody's text.
 */
export interface Trace {
  /** Of the file that it was read from. */
  readonly name: string
  readonly format: string
  /** Tokens in a block of the trace; engines' blocks are this large or divide it. */
  readonly blockTokens: number
  /** In the order of their starts, where those are known. */
  readonly sessions: readonly TraceSession[]
}

/** Requests that follow one another, each sent after the answer to the one before it. */
export interface TraceSession {
  readonly id: string
  /** When its first request came, from the trace's start (an open loop); null: whenever there is room for one more user. */
  readonly startMs: number | null
  /** At least one. */
  readonly requests: readonly TraceRequest[]
  /** So many leading blocks are no session's own (tools, system prompt): a second user who does the same shares them. */
  readonly commonBlocks: number
}

export interface TraceRequest {
  /** From the answer before it to this request; 0 for the first one. */
  readonly thinkMs: number
  /** When it was sent in the recording, from the session's start; orders requests of different sessions. */
  readonly recordedMs: number
  readonly promptTokens: number
  readonly outputTokens: number
  /**
   * The prompt's leading blocks as runs of consecutive ids: first id, how many, first id, how many, … The last block may
   * be filled only in part. Tokens beyond them are this request's own.
   */
  readonly blocks: BlockRuns
}

export type BlockRuns = Uint32Array

export function blockCount(runs: BlockRuns): number {
  let blocks = 0
  for (let at = 1; at < runs.length; at += 2) blocks += runs[at] as number
  return blocks
}

/** The ids one by one. */
export function blockIds(runs: BlockRuns): Uint32Array {
  const ids = new Uint32Array(blockCount(runs))
  let out = 0
  for (let at = 0; at < runs.length; at += 2) {
    const first = runs[at] as number
    const count = runs[at + 1] as number
    for (let i = 0; i < count; i++) ids[out++] = first + i
  }
  return ids
}

/** How many leading blocks two prompts have in common. */
export function sharedRuns(one: BlockRuns, other: BlockRuns): number {
  let shared = 0
  let at = 0
  let otherAt = 0
  let skip = 0
  let otherSkip = 0
  while (at < one.length && otherAt < other.length) {
    if ((one[at] as number) + skip !== (other[otherAt] as number) + otherSkip) break
    const left = (one[at + 1] as number) - skip
    const otherLeft = (other[otherAt + 1] as number) - otherSkip
    const step = Math.min(left, otherLeft)
    shared += step
    if (left === step) [at, skip] = [at + 2, 0]
    else skip += step
    if (otherLeft === step) [otherAt, otherSkip] = [otherAt + 2, 0]
    else otherSkip += step
  }
  return shared
}

/**
 * Walks a prompt whose blocks are cut into so many parts each, from one part to another.
 *
 * @param visit told of the id and the place of each part's block, and of the part's own place there and in the prompt
 */
export function eachPart(
  runs: BlockRuns,
  parts: number,
  from: number,
  end: number,
  visit: (id: number, block: number, part: number, place: number) => void,
): void {
  let before = 0
  for (let at = 0; at < runs.length && before * parts < end; at += 2) {
    const first = runs[at] as number
    const count = runs[at + 1] as number
    const stop = Math.min((before + count) * parts, end)
    for (let place = Math.max(before * parts, from); place < stop; place++) {
      const block = Math.floor(place / parts)
      visit(first + block - before, block, place - block * parts, place)
    }
    before += count
  }
}

/** Gathers ids into runs. */
export class RunBuilder {
  readonly #runs: number[] = []

  add(first: number, count = 1): void {
    const runs = this.#runs
    const last = runs.length - 2
    if (count === 0) return
    if (last >= 0 && (runs[last] as number) + (runs[last + 1] as number) === first)
      runs[last + 1] = (runs[last + 1] as number) + count
    else runs.push(first, count)
  }

  done(): BlockRuns {
    return Uint32Array.from(this.#runs)
  }
}

export interface TokenRange {
  readonly first: number
  readonly count: number
}

/** Ordinary ids of every large vocabulary. */
const defaultTokens: TokenRange = { first: 1_000, count: 30_000 }

/** The prompt as token ids, made up: equal blocks hold equal tokens, and what no block covers is `own`. */
export function promptTokenIds(
  { blockTokens }: Pick<Trace, 'blockTokens'>,
  { blocks, promptTokens }: TraceRequest,
  own: number,
  range: TokenRange = defaultTokens,
): Uint32Array {
  const tokens = new Uint32Array(promptTokens)
  let at = 0
  const write = (seed: number, most: number): void => {
    for (let i = 0; i < most && at < promptTokens; i++) {
      tokens[at++] = range.first + ((mix32(mix32(seed) + i) >>> 0) % range.count)
    }
  }
  for (const id of blockIds(blocks)) write(id, blockTokens)
  write(mix32(own ^ 0x5bd1e995), promptTokens)
  return tokens
}

export interface TraceFigures {
  readonly sessions: number
  readonly requests: number
  readonly promptTokens: number
  readonly outputTokens: number
  readonly blocks: number
  readonly distinctBlocks: number
  /** Blocks that a cache without end would have held when they came, session after session, over all blocks. */
  readonly idealHitRatio: number
}

export function traceFigures({ sessions }: Trace): TraceFigures {
  const seen = new Set<number>()
  let [requests, promptTokens, outputTokens, blocks, hits] = [0, 0, 0, 0, 0]
  for (const request of sessions.flatMap((session) => session.requests)) {
    const ids = blockIds(request.blocks)
    let found = 0
    while (found < ids.length && seen.has(ids[found] as number)) found++
    for (let i = found; i < ids.length; i++) seen.add(ids[i] as number)
    requests++
    promptTokens += request.promptTokens
    outputTokens += request.outputTokens
    blocks += ids.length
    hits += found
  }
  const idealHitRatio = blocks === 0 ? 0 : hits / blocks
  return {
    ...{ sessions: sessions.length, requests, promptTokens, outputTokens },
    ...{ blocks, distinctBlocks: seen.size, idealHitRatio },
  }
}

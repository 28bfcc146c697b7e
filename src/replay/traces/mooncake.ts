import type { TraceFormat, TraceReader } from './format.ts'
import type { Row } from './row.ts'
import { RunBuilder, type TraceRequest, type TraceSession } from './trace.ts'

/** What a Mooncake id stands for. */
const blockTokens = 512
/** The conversation trace tells the time in steps of so much. */
const batchMs = 3_000

/**
 * Mooncake's traces, one request a line: `{timestamp ms, input_length, output_length, hash_ids: one id per 512 tokens}`. The time of
 * many requests is that of the batch that they were logged in: those of one instant are spread evenly up to the next one.
 */
export const mooncakeFormat: TraceFormat = {
  name: 'mooncake',
  description: 'Mooncake’s JSONL: an open loop of requests with one id per 512 tokens',
  recognizes: (first) => first.has('hash_ids'),
  create: () => new MooncakeReader(),
}

interface Arrival {
  readonly timestampMs: number
  readonly request: Omit<TraceRequest, 'recordedMs'>
}

class MooncakeReader implements TraceReader {
  readonly #arrivals: Arrival[] = []

  add(row: Row): void {
    const timestampMs = row.number('timestamp')
    if (timestampMs < (this.#arrivals.at(-1)?.timestampMs ?? 0))
      row.fault('timestamp', 'no earlier than the one before')
    const promptTokens = row.whole('input_length', 1)
    const blocks = new RunBuilder()
    const ids = row.list('hash_ids')
    if (ids.length !== Math.ceil(promptTokens / blockTokens))
      row.fault('hash_ids', `an id for each ${blockTokens} tokens of "input_length", ${ids.length} of them`)
    for (const id of ids) {
      if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > 0xffffffff)
        return row.fault('hash_ids', 'a list of whole numbers')
      blocks.add(id)
    }
    const outputTokens = Math.max(1, row.whole('output_length', 0))
    this.#arrivals.push({ timestampMs, request: { thinkMs: 0, promptTokens, outputTokens, blocks: blocks.done() } })
  }

  done(): { blockTokens: number; sessions: TraceSession[] } {
    const startMs = spread(this.#arrivals.map(({ timestampMs }) => timestampMs))
    const sessions = this.#arrivals.map(({ request }, index) => ({
      id: String(index + 1),
      startMs: startMs[index] as number,
      commonBlocks: 0,
      requests: [{ ...request, recordedMs: startMs[index] as number }],
    }))
    return { blockTokens, sessions }
  }
}

/** Requests of one instant evenly over the time until the next instant, but no further than a batch reaches. */
function spread(timesMs: readonly number[]): number[] {
  const out: number[] = []
  for (let first = 0; first < timesMs.length;) {
    const atMs = timesMs[first] as number
    let end = first
    while (timesMs[end] === atMs) end++
    const reachMs = Math.min(batchMs, (timesMs[end] ?? Infinity) - atMs)
    for (let i = first; i < end; i++) out.push(atMs + (reachMs * (i - first)) / (end - first))
    first = end
  }
  return out
}

// An answer of 1 MB to TensorRT-LLM's /kv_cache_events: our reader against ways around JSON.parse, which rounds 64-bit hashes.
import assert from 'node:assert/strict'
import { decodeEvents } from '../../src/events/trtllm/decode.ts'
import { eventJson, stored } from '../../test/events/trtllm-answers.ts'
import { randomWords } from '../../test/support/random.ts'
import { median, printResults, type BenchResult } from '../result.ts'

const answerBytes = 1_000_000
const blocks = 16
const blockSize = 32
const rounds = 25

/** Stored events of 16 blocks of 32 tokens, until the answer is full. */
function makeAnswer(): string {
  const next = randomWords(1)
  const hash = (): bigint => (BigInt(next() | 0x8000_0000) << 32n) + BigInt(next())
  const events: string[] = []
  for (let bytes = 0; bytes < answerBytes; bytes += events.at(-1)?.length ?? 0) {
    const run = Array.from({ length: blocks }, () => ({
      hash: BigInt.asUintN(64, hash()),
      tokens: Array.from({ length: blockSize }, () => next() % 128_000),
    }))
    events.push(eventJson(events.length, stored(null, ...run)))
  }
  return `[${events.join(', ')}]`
}

type Reviver = (key: string, value: unknown, context?: { readonly source: string }) => unknown

const exact: Reviver = (_key, value, context) =>
  typeof value === 'number' && !Number.isSafeInteger(value) ? BigInt(context?.source ?? 0) : value

export async function run(): Promise<BenchResult[]> {
  const text = makeAnswer()
  const bytes = Buffer.from(text)
  const ways: Readonly<Record<string, () => unknown>> = {
    'our reader, tokens in typed arrays': () => decodeEvents(bytes, () => Promise.resolve()),
    'JSON.parse, hashes rounded': () => JSON.parse(bytes.toString('utf8')) as unknown,
    'JSON.parse of long numbers as texts': () =>
      JSON.parse(bytes.toString('utf8').replace(/:(\d{16,})/g, ':"$1"')) as unknown,
    'JSON.parse with a reviver that sees the source': () => JSON.parse(bytes.toString('utf8'), exact) as unknown,
  }
  const { events } = await decodeEvents(bytes, () => Promise.resolve())
  assert.ok(events.length > 20, 'the answer has events')
  const samples = new Map<string, number[]>(Object.keys(ways).map((name) => [name, []]))
  for (let round = 0; round < rounds + 3; round++)
    for (const [name, way] of Object.entries(ways)) {
      const startedAt = performance.now()
      await way()
      if (round >= 3) samples.get(name)?.push(performance.now() - startedAt)
    }
  return [...samples].map(([name, times]) => ({
    name: `polled: ${name}`,
    unit: 'ms',
    value: median(times),
    samples: times,
    notes: { bytes: bytes.length, blocks: events.length * blocks },
  }))
}

if (import.meta.main) printResults(await run())

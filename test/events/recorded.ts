import { readFileSync } from 'node:fs'

/** A line of a recording of an engine's event stream. */
export interface RecordedBatch {
  readonly case?: string
  readonly topic: string
  readonly seq: number
  readonly payload: Buffer
  readonly decoded: readonly [number, readonly (Record<string, unknown> | readonly unknown[])[], number | null]
}

const folder = new URL('../fixtures/', import.meta.url)

/** Lines of a JSONL fixture; integers that a number cannot hold exactly become bigints. */
export function readLines(path: string): unknown[] {
  return readFileSync(new URL(path, folder), 'utf8')
    .trim()
    .split('\n')
    .map((line): unknown =>
      JSON.parse(line, function (_key, value: unknown, context?: { source: string }) {
        const exact = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)
        return exact ? BigInt(context?.source ?? value) : value
      } as (key: string, value: unknown) => unknown),
    )
}

export function readBatches(path: string): RecordedBatch[] {
  return readLines(path).map((line) => {
    const { payload_base64, ...rest } = line as RecordedBatch & { payload_base64: string }
    return { ...rest, payload: Buffer.from(payload_base64, 'base64') }
  })
}

export const vllmRecordings = [
  'vllm/events_A_sha256_bs32.jsonl',
  'vllm/events_B2_dup_refcount.jsonl',
  'vllm/events_C_xxhashcbor_bs64_seed0.jsonl',
]
export const sglangRecordings = ['sglang/events-0.5.23.jsonl', 'sglang/events-legacy-array.jsonl']

/** 64-bit values of an array of word pairs, for comparing with recorded ones. */
export function toBigInts(words: Uint32Array): bigint[] {
  return Array.from(
    { length: words.length / 2 },
    (_, i) => (BigInt(words[2 * i + 1] ?? 0) << 32n) | BigInt(words[2 * i] ?? 0),
  )
}

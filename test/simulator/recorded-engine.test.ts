// The engine model against a recorded session of vLLM 0.32 (test/fixtures/vllm): same requests, same events, same hashes.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Engine } from '../../src/simulator/engine.ts'
import type { KvEvent } from '../../src/simulator/kv-event.ts'
import { vllmBlockHash } from '../../src/simulator/vllm-block-hash.ts'

const linesOf = (path: string): string[] =>
  readFileSync(new URL(`../fixtures/${path}`, import.meta.url), 'utf8')
    .trim()
    .split('\n')

/** Hashes beyond 2^53 as texts, since JSON.parse would round them. */
const parse = (line: string): unknown => JSON.parse(line.replace(/(?<=[[ ,])\d{16,20}(?=[,\]])/g, '"$&"'))

interface Vector {
  readonly algo: 'sha256' | 'sha256_cbor'
  readonly seed: string
  readonly block_size: number
  readonly blocks: readonly {
    readonly token_ids: readonly number[]
    readonly extra_keys: readonly (readonly string[])[] | null
    readonly event_int64: string
  }[]
}

const number = (low: number, high: number): string => String((BigInt(high) << 32n) | BigInt(low))

test('block hashes equal vLLM’s, pickled or in CBOR, with salts, adapters and seeds', () => {
  for (const line of linesOf('vllm-http/block_hashes.jsonl')) {
    const { algo, seed, block_size: blockSize, blocks } = JSON.parse(line) as Vector
    const keys = new Map(blocks[0]?.extra_keys?.map(([kind, ...rest]) => [kind, rest]) ?? [])
    const [loraName = null, loraPath = null] = keys.get('lora') ?? []
    const [cacheSalt = null] = keys.get('cache_salt') ?? []
    const chain = vllmBlockHash(algo, seed)({ loraName, loraPath, cacheSalt }, blockSize)
    const tokens = Uint32Array.from(blocks.flatMap((block) => block.token_ids))
    for (const [i, block] of blocks.entries()) {
      chain.append(tokens, i * blockSize)
      assert.equal(number(chain.low, chain.high), block.event_int64, line.slice(0, 120))
    }
  }
})

interface Step {
  readonly step: string
  readonly path: string
  readonly status: number
  readonly request: Readonly<Record<string, unknown>> | null
  readonly request_headers: Readonly<Record<string, string>> | null
  readonly prompt_token_ids: readonly number[] | null
  readonly generated_token_ids: readonly number[] | null
  readonly event_seqs: readonly number[]
}

interface Recorded {
  readonly seq: number
  readonly decoded: readonly [number, readonly Readonly<Record<string, unknown>>[], number]
}

/** An event as vLLM tells it, as far as the prompt alone decides it. */
const ours = (event: KvEvent, promptTokens: ReadonlySet<string>) => {
  if (event.kind !== 'stored') return event.kind === 'cleared' ? 'AllBlocksCleared' : 'BlockRemoved'
  const hashes = Array.from({ length: event.hashes.length / 2 }, (_, i) =>
    number(event.hashes[2 * i] ?? 0, event.hashes[2 * i + 1] ?? 0),
  )
  const parent = event.parent === null ? null : number(...event.parent)
  const known = promptTokens.has(event.tokens.join())
  return {
    parent,
    blocks: hashes.length,
    session: event.sessionId,
    ...(known ? { hashes, tokens: event.tokens.join() } : {}),
  }
}

const theirs = (event: Readonly<Record<string, unknown>>) => {
  if (event['type'] !== 'BlockStored') return event['type']
  const hashes = (event['block_hashes'] as unknown[]).map(String)
  const parent = event['parent_block_hash'] as string | null
  return { parent, hashes, session: event['session_id'] ?? null, tokens: (event['token_ids'] as number[]).join() }
}

test('the recorded requests make the recorded events: batches, order, parents, hashes', () => {
  const recorded = linesOf('vllm/events_A_sha256_bs32.jsonl').map((line) => parse(line) as Recorded)
  const batches: (readonly KvEvent[])[] = []
  const engine = new Engine({
    blockSize: 32,
    capacityBlocks: 65_536,
    maxModelLength: 8_192,
    blockHash: vllmBlockHash('sha256'),
    onEvents: (events) => batches.push(events),
  })
  const drain = (): void => {
    for (let at = engine.nextEventMs(); at !== null; at = engine.nextEventMs()) engine.advanceTo(at)
  }
  for (const line of linesOf('vllm/steps_A_sha256_bs32.jsonl')) {
    const step = JSON.parse(line) as Step
    if (step.status !== 200) continue
    if (step.path === '/reset_prefix_cache') {
      assert.equal(engine.resetPrefixCache(engine.nowMs), true)
      continue
    }
    const request = step.request ?? {}
    const prompt = request['prompt']
    const listed = Array.isArray(prompt) && Array.isArray(prompt[0]) ? (prompt as number[][]) : null
    const prompts = listed ?? [step.prompt_token_ids ?? (prompt as number[])]
    const xargs = request['vllm_xargs'] as { kv_cache_report_mode?: string } | undefined
    const salt = request['cache_salt'] as string | undefined
    const session = (request['session_id'] as string | undefined) ?? step.request_headers?.['X-Session-ID']
    for (const [i, tokens] of prompts.entries()) {
      engine.add(
        {
          id: `${step.step} ${i}`,
          tokens: Uint32Array.from(tokens),
          outputTokens: request['max_tokens'] as number,
          reportWhole: xargs?.kv_cache_report_mode === 'full',
          ...(salt === undefined ? {} : { cacheSalt: salt }),
          ...(session === undefined ? {} : { sessionId: session }),
        },
        engine.nowMs,
      )
    }
    drain()
  }
  const fromPrompts = new Set(
    recorded.flatMap(({ decoded: [, events] }) => events.map((event) => String(event['token_ids']))),
  )
  assert.equal(batches.length, recorded.length)
  let compared = 0
  for (const [i, { decoded }] of recorded.entries()) {
    const expected = decoded[1].map(theirs)
    const actual = (batches[i] ?? []).map((event) => ours(event, fromPrompts))
    assert.equal(actual.length, expected.length)
    for (const [j, event] of actual.entries()) {
      const other = expected[j]
      if (typeof event === 'string' || typeof other !== 'object' || other === null) {
        assert.deepEqual(event, other)
        continue
      }
      const { hashes, tokens, ...rest } = other as { hashes: string[]; tokens: string }
      if (event.hashes === undefined) {
        // A block with generated tokens: their text is the engine's own affair, the event's form is not.
        assert.equal(event.blocks, hashes.length)
        continue
      }
      assert.deepEqual(event, { ...rest, blocks: hashes.length, hashes, tokens })
      compared++
    }
  }
  assert(compared >= 12, `${compared} events were compared in full`)
})

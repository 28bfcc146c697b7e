import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { EngineOptions } from '../../src/simulator/engine-options.ts'
import { Engine } from '../../src/simulator/engine.ts'
import type { KvEvent } from '../../src/simulator/kv-event.ts'
import type { GenerationRequest, GenerationResult } from '../../src/simulator/sequence.ts'

interface Run {
  readonly engine: Engine
  readonly batches: { readonly atMs: number; readonly events: readonly KvEvent[] }[]
  readonly results: GenerationResult[]
  readonly tokens: [id: string, token: number, atMs: number][]
  /** Adds a request now and runs the engine until it is idle. */
  readonly serve: (request: GenerationRequest) => GenerationResult
  readonly drain: () => void
}

function run(options: Partial<EngineOptions> = {}): Run {
  const batches: Run['batches'] = []
  const results: GenerationResult[] = []
  const tokens: Run['tokens'] = []
  const engine = new Engine({
    blockSize: 4,
    capacityBlocks: 16,
    onEvents: (events, atMs) => batches.push({ atMs, events }),
    onFinished: (result) => results.push(result),
    onToken: (sequence, token, atMs) => tokens.push([sequence.id, token, atMs]),
    ...options,
  })
  const drain = (): void => {
    for (let at = engine.nextEventMs(); at !== null; at = engine.nextEventMs()) engine.advanceTo(at)
  }
  return {
    engine,
    batches,
    results,
    tokens,
    drain,
    serve(request) {
      engine.add(request, engine.nowMs)
      drain()
      const result = results.find(({ id }) => id === request.id)
      assert(result !== undefined)
      return result
    },
  }
}

const prompt = (length: number, first = 1_000): Uint32Array => Uint32Array.from({ length }, (_, i) => first + i)
const request = (id: string, tokens: Uint32Array, more: Partial<GenerationRequest> = {}): GenerationRequest => ({
  id,
  tokens,
  outputTokens: 1,
  ...more,
})

/** Events in short: +2 = two blocks stored, −1 = one removed, 0 = all cleared. */
const kinds = (events: readonly KvEvent[]): string =>
  events
    .map((event) => (event.kind === 'stored' ? `+${event.hashes.length / 2}` : event.kind === 'removed' ? '-1' : '0'))
    .join(' ')

const name = (event: KvEvent | undefined, block = 0): string => {
  assert(event !== undefined && event.kind !== 'cleared')
  const [low, high] = event.kind === 'removed' ? [event.low, event.high] : event.hashes.slice(2 * block, 2 * block + 2)
  return `${high}:${low}`
}

test('a first request hits nothing, its repeat hits all blocks but the one of the last token', () => {
  const { serve, batches } = run()
  assert.equal(serve(request('a', prompt(11))).cachedTokens, 0)
  assert.equal(serve(request('b', prompt(11))).cachedTokens, 8)
  assert.deepEqual(
    batches.map(({ events }) => kinds(events)),
    ['+2'],
    'a repeat publishes nothing',
  )
})

test('a longer prompt over a shared prefix stores only its new blocks, under the last shared one', () => {
  const { serve, batches } = run()
  serve(request('a', prompt(8)))
  serve(request('b', prompt(17)))
  const [first, second] = batches.map(({ events }) => events[0])
  assert(first?.kind === 'stored' && second?.kind === 'stored')
  assert.equal(first.parent, null)
  // Block 1 ends the first prompt, whose last token is always computed; here it is found again.
  assert.deepEqual(second.parent, [first.hashes[2], first.hashes[3]])
  assert.deepEqual([...second.tokens], [...prompt(8, 1_008)])
})

test('a prompt of a whole number of blocks computes its last block again: stored twice, removed twice', () => {
  const { serve, batches } = run({ capacityBlocks: 4 })
  serve(request('a', prompt(8)))
  assert.equal(serve(request('b', prompt(8))).cachedTokens, 4)
  assert.deepEqual(
    batches.map(({ events }) => kinds(events)),
    ['+2', '+1'],
  )
  const twice = name(batches[0]?.events[0], 1)
  assert.equal(name(batches[1]?.events[0]), twice)
  serve(request('c', prompt(13, 5_000)))
  const removed = batches.flatMap(({ events }) => events.filter(({ kind }) => kind === 'removed'))
  assert.equal(removed.filter((event) => name(event) === twice).length, 2)
})

test('generated tokens are cached as their blocks fill, the last one never is', () => {
  const { serve, batches } = run()
  const { generated } = serve(request('a', prompt(3), { outputTokens: 9 }))
  assert.deepEqual(
    batches.map(({ events }) => kinds(events)),
    ['+1', '+1'],
    '11 of 12 tokens are computed',
  )
  const next = Uint32Array.from([...prompt(3), ...generated, 7])
  assert.equal(serve(request('b', next)).cachedTokens, 8)
})

test('the least recently freed chain goes first, its tail before its head, and removals precede the store', () => {
  const { serve, batches } = run({ capacityBlocks: 4 })
  serve(request('a', prompt(8, 100)))
  serve(request('b', prompt(8, 200)))
  serve(request('c', prompt(8, 300)))
  assert.deepEqual(
    batches.map(({ events }) => kinds(events)),
    ['+2', '+2', '-1 -1 +2'],
  )
  const [a, , c] = batches
  assert.deepEqual([name(c?.events[0]), name(c?.events[1])], [name(a?.events[0], 1), name(a?.events[0], 0)])
  assert.equal(serve(request('b again', prompt(9, 200))).cachedTokens, 8, 'b is still there')
})

test('a use makes a chain young again', () => {
  const { serve } = run({ capacityBlocks: 6 })
  serve(request('a', prompt(8, 100)))
  serve(request('b', prompt(8, 200)))
  serve(request('a again', prompt(9, 100)))
  serve(request('c', prompt(12, 300)))
  assert.equal(serve(request('a once more', prompt(9, 100))).cachedTokens, 8)
})

test('blocks that a running request holds are never evicted; the next request waits for them', () => {
  const { engine, drain, results } = run({ capacityBlocks: 4 })
  engine.add(request('long', prompt(8), { outputTokens: 5 }), 0)
  engine.add(request('other', prompt(8, 500)), 0)
  assert.deepEqual([engine.stats.running, engine.stats.waiting], [1, 1])
  assert.equal(engine.stats.kvUsage, 0.5)
  drain()
  const [long, other] = results
  assert.equal(other?.startedMs, long?.finishedMs)
  assert.equal(engine.stats.kvUsage, 0)
})

test('salts and adapters keep prefixes apart', () => {
  const { serve, batches } = run({ capacityBlocks: 32 })
  const lora = { name: 'sql', id: 1, path: '/adapters/sql' }
  serve(request('plain', prompt(9)))
  for (const [id, more] of Object.entries({ a: { cacheSalt: 'a' }, b: { cacheSalt: 'b' }, lora: { lora } })) {
    assert.equal(serve(request(id, prompt(9), more)).cachedTokens, 0)
    assert.equal(serve(request(`${id} again`, prompt(9), more)).cachedTokens, 8)
  }
  assert.equal(new Set(batches.map(({ events }) => name(events[0]))).size, 4)
})

test('a step lasts its base, its prefill tokens at the given rate, and a share for each decoding request', () => {
  const { engine, drain, results } = run({ blockSize: 16, capacityBlocks: 1_000 })
  engine.add(request('a', prompt(800), { outputTokens: 3 }), 10)
  drain()
  const [a] = results
  assert(a !== undefined)
  assert.equal(a.ttftMs, 6 + 100)
  assert.deepEqual([...a.tokenTimesMs], [116, 116 + 6.35, 116 + 6.35 + 6.35])
})

test('a long prefill is cut into chunks, while requests that decode get their token in every step', () => {
  const { engine, drain, results } = run({ blockSize: 16, capacityBlocks: 1_000, maxBatchedTokens: 100 })
  engine.add(request('short', prompt(10), { outputTokens: 50 }), 0)
  engine.add(request('long', prompt(1_000, 5_000)), 0)
  drain()
  const long = results.find(({ id }) => id === 'long')
  const short = results.find(({ id }) => id === 'short')
  assert(long !== undefined && short !== undefined)
  const gaps = [...short.tokenTimesMs].slice(1).map((at, i) => at - (short.tokenTimesMs[i] ?? 0))
  assert(Math.max(...gaps) < 6 + 100 / 8 + 1, 'no step is longer than its budget')
  // 99 tokens a step beside one decoding request.
  assert.equal(gaps.filter((gap) => gap > 7).length, Math.ceil(1_000 / 99))
})

test('requests beyond the running limit wait in the order of their arrival', () => {
  const { engine, drain, results } = run({ maxRunningRequests: 1 })
  for (const id of ['1', '2', '3']) engine.add(request(id, prompt(5, Number(id) * 100)), 0)
  assert.deepEqual([engine.stats.running, engine.stats.waiting], [1, 2])
  drain()
  assert.deepEqual(
    results.map(({ id }) => id),
    ['1', '2', '3'],
  )
})

test('an abort frees the request’s blocks and place at once, running or waiting', () => {
  const { engine, drain, results } = run({ capacityBlocks: 4 })
  engine.add(request('a', prompt(8), { outputTokens: 8 }), 0)
  engine.add(request('b', prompt(8, 500)), 0)
  engine.add(request('c', prompt(8, 700)), 0)
  assert.equal(engine.abort('b', 0), true)
  assert.equal(engine.stats.waiting, 1)
  assert.equal(engine.abort('a', 1), true)
  assert.deepEqual([engine.stats.running, engine.stats.kvUsage], [0, 0])
  assert.equal(engine.abort('a', 1), false)
  drain()
  assert.deepEqual(
    results.map(({ id }) => id),
    ['c'],
  )
})

test('a reset is refused while requests run, and is told only with the next step, first in its batch', () => {
  const { engine, serve, batches, drain } = run()
  engine.add(request('a', prompt(8)), 0)
  assert.equal(engine.resetPrefixCache(0), false)
  drain()
  assert.equal(engine.resetPrefixCache(engine.nowMs), true)
  drain()
  assert.equal(batches.length, 1)
  assert.equal(serve(request('b', prompt(8))).cachedTokens, 0)
  assert.equal(kinds(batches[1]?.events ?? []), '0 +2')
})

test('a request can ask for its whole prefix to be announced again', () => {
  const { serve, batches } = run()
  serve(request('a', prompt(8)))
  serve(request('b', prompt(13), { reportWhole: true }))
  const again = batches[1]?.events[0]
  assert(again?.kind === 'stored')
  assert.deepEqual([again.parent, again.hashes.length / 2], [null, 3])
  serve(request('c', prompt(13), { reportWhole: true }))
  assert.equal(kinds(batches[2]?.events ?? []), '+3', 'also where nothing is new')
})

test('a prompt that can never fit is refused, and the engine stays usable', () => {
  const { engine, serve } = run({ capacityBlocks: 4 })
  assert.throws(() => engine.add(request('a', prompt(16)), 0), { code: 'PROMPT_TOO_LONG' })
  serve(request('b', prompt(15)))
})

test('a request that is added in answer to a finished one waits for the next step', () => {
  const order: string[] = []
  const engine = new Engine({
    onFinished: ({ id }) => {
      order.push(id)
      if (id === 'a') engine.add(request('b', prompt(5)), engine.nowMs)
    },
  })
  engine.add(request('a', prompt(5)), 0)
  engine.add(request('c', prompt(5), { outputTokens: 3 }), 0)
  for (let at = engine.nextEventMs(); at !== null; at = engine.nextEventMs()) engine.advanceTo(at)
  assert.deepEqual(order.sort(), ['a', 'b', 'c'])
})

const arrivals = fc.array(
  fc.record({
    gapMs: fc.integer({ min: 0, max: 30 }),
    chain: fc.integer({ min: 0, max: 3 }),
    length: fc.integer({ min: 1, max: 40 }),
    outputTokens: fc.integer({ min: 1, max: 12 }),
    abortAfterMs: fc.option(fc.integer({ min: 0, max: 40 })),
  }),
  { maxLength: 30 },
)

type Arrivals = typeof arrivals extends fc.Arbitrary<infer Log> ? Log : never

function replay(log: Arrivals, seed: number): Run {
  const done = run({ capacityBlocks: 20, maxBatchedTokens: 24, maxRunningRequests: 5, seed })
  const aborts: { readonly atMs: number; readonly id: string }[] = []
  let atMs = 0
  log.forEach((entry, i) => {
    atMs += entry.gapMs
    for (const due of aborts.splice(0)) {
      if (due.atMs <= atMs && due.atMs >= done.engine.nowMs) done.engine.abort(due.id, due.atMs)
      else aborts.push(due)
    }
    done.engine.add(request(String(i), prompt(entry.length, entry.chain * 1_000), entry), atMs)
    if (entry.abortAfterMs !== null) aborts.push({ atMs: atMs + entry.abortAfterMs, id: String(i) })
  })
  done.drain()
  return done
}

test('the events tell the cache: under any load a counted view of them holds every block that is hit', () => {
  fc.assert(
    fc.property(arrivals, (log) => {
      const { batches, engine } = replay(log, 1)
      const counts = new Map<string, number>()
      for (const { events } of batches) {
        for (const event of events) {
          if (event.kind === 'stored') {
            const parent = event.parent === null ? null : `${event.parent[1]}:${event.parent[0]}`
            assert(parent === null || (counts.get(parent) ?? 0) > 0, 'a parent is in the view')
            for (let i = 0; i < event.hashes.length / 2; i++) {
              counts.set(name(event, i), (counts.get(name(event, i)) ?? 0) + 1)
            }
          } else if (event.kind === 'removed') {
            const left = (counts.get(name(event)) ?? 0) - 1
            assert(left >= 0, 'only what was stored is removed')
            counts.set(name(event), left)
          }
        }
      }
      assert([...counts.values()].reduce((sum, count) => sum + count, 0) <= 20, 'no more blocks than the cache has')
      assert.deepEqual([engine.stats.running, engine.stats.waiting, engine.stats.kvUsage], [0, 0, 0])
      for (let chain = 0; chain < 4; chain++) {
        const probe = run()
        probe.serve(request('probe', prompt(41, chain * 1_000)))
        const names = Array.from({ length: 10 }, (_, i) => name(probe.batches[0]?.events[0], i))
        const held = names.findIndex((hash) => (counts.get(hash) ?? 0) === 0)
        const cached = engine.cachedTokens(request('probe', prompt(41, chain * 1_000)))
        assert.equal(cached, 4 * (held === -1 ? 10 : held))
      }
    }),
  )
})

test('the same seed gives the same everything, another seed other tokens', () => {
  fc.assert(
    fc.property(arrivals, fc.integer(), (log, seed) => {
      const [first, second] = [replay(log, seed), replay(log, seed)]
      assert.deepEqual(first.results, second.results)
      assert.deepEqual(first.batches, second.batches)
      assert.deepEqual(first.tokens, second.tokens)
      assert.deepEqual(first.engine.stats, second.engine.stats)
    }),
    { numRuns: 30 },
  )
  const said = (seed: number) =>
    run({ seed })
      .serve(request('a', prompt(9), { outputTokens: 8 }))
      .generated.join()
  assert.notEqual(said(1), said(2))
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EngineOptions } from '../../src/simulator/engine-options.ts'
import { Engine } from '../../src/simulator/engine.ts'
import { encodeBatch } from '../../src/simulator/event-encoding.ts'
import { nameOf } from '../../src/simulator/host-cache.ts'
import type { KvEvent } from '../../src/simulator/kv-event.ts'
import type { GenerationRequest, GenerationResult } from '../../src/simulator/sequence.ts'
import { SharedStore } from '../../src/simulator/shared-store.ts'
import { decodeBatch } from '../../src/events/decode.ts'
import { seededRandom } from '../support/random.ts'

/** An engine of few blocks that serves one request at a time. */
function rig(options: Partial<EngineOptions> = {}) {
  const events: KvEvent[] = []
  const results: GenerationResult[] = []
  const engine = new Engine({
    blockSize: 4,
    capacityBlocks: 8,
    onEvents: (batch) => events.push(...batch),
    onFinished: (result) => results.push(result),
    ...options,
  })
  let served = 0
  const serve = (tokens: Uint32Array, more: Partial<GenerationRequest> = {}): GenerationResult => {
    engine.add({ id: `r${served++}`, tokens, outputTokens: 1, ...more }, engine.nowMs)
    for (let at = engine.nextEventMs(); at !== null; at = engine.nextEventMs()) engine.advanceTo(at)
    return results.at(-1) as GenerationResult
  }
  return { engine, events, serve }
}

const prompt = (length: number, first: number): Uint32Array => Uint32Array.from({ length }, (_, i) => first + i)

/** Events in short: G+2 = two blocks stored on the GPU, H-1 = one removed from the host tier. */
const told = (events: readonly KvEvent[]): string =>
  events
    .map((event) => {
      if (event.kind === 'cleared') return 'cleared'
      const tier = event.tier === 'gpu' ? 'G' : event.tier === 'host' ? 'H' : 'S'
      return event.kind === 'removed' ? `${tier}-1` : `${tier}+${event.hashes.length / 2}`
    })
    .join(' ')

/** What a listener that counts stores and removals believes each tier to hold. */
function believed(events: readonly KvEvent[]): Record<'gpu' | 'host' | 'shared', Set<string>> {
  const counts = new Map<string, number>()
  for (const event of events) {
    if (event.kind === 'cleared') counts.clear()
    else if (event.kind === 'removed') {
      const name = `${event.tier} ${nameOf(event.low, event.high)}`
      counts.set(name, (counts.get(name) ?? 0) - 1)
    } else
      for (let i = 0; i < event.hashes.length; i += 2) {
        const name = `${event.tier} ${nameOf(event.hashes[i] as number, event.hashes[i + 1] as number)}`
        counts.set(name, (counts.get(name) ?? 0) + 1)
      }
  }
  const held = { gpu: new Set<string>(), host: new Set<string>(), shared: new Set<string>() }
  for (const [name, count] of counts) {
    assert(count >= 0, `${name} was removed more often than stored`)
    const [tier = '', block = ''] = name.split(' ')
    if (count > 0) held[tier as keyof typeof held].add(block)
  }
  return held
}

test('an engine that writes through copies each full block to its host tier', () => {
  const { engine, events, serve } = rig({ hostBlocks: 16 })
  serve(prompt(9, 100))
  assert.equal(told(events), 'G+2 H+1 H+1')
  const { gpu, host } = engine.trueBlocks()
  assert.deepEqual(host, gpu)
})

test('an engine that writes back copies a block when it leaves the GPU, before that is told', () => {
  const { events, serve } = rig({ hostBlocks: 16, hostWrites: 'evicted', capacityBlocks: 3 })
  serve(prompt(9, 100))
  serve(prompt(9, 200))
  assert.equal(told(events), 'G+2 H+1 G-1 H+1 G-1 G+2')
})

test('a prefix that only the host tier holds is loaded back: cached, announced on the GPU, and at a cost', () => {
  const { engine, events, serve } = rig({ hostBlocks: 16, capacityBlocks: 3, hostLoadMsPerBlock: 50 })
  serve(prompt(9, 100))
  serve(prompt(9, 200))
  assert.deepEqual(engine.trueMatch({ id: '', tokens: prompt(9, 100), outputTokens: 1 }), {
    gpu: 0,
    host: 2,
    shared: 0,
  })
  events.length = 0
  const again = serve(prompt(9, 100))
  assert.equal(again.cachedTokens, 8)
  assert(again.ttftMs > 100, `${again.ttftMs} ms`)
  assert.equal(told(events), 'G-1 G+2 G-1')
  assert.deepEqual(engine.trueMatch({ id: '', tokens: prompt(9, 100), outputTokens: 1 }), {
    gpu: 2,
    host: 0,
    shared: 0,
  })
})

test('the host tier forgets what was used longest ago, tails first', () => {
  const { engine, events, serve } = rig({ hostBlocks: 3, capacityBlocks: 3 })
  serve(prompt(9, 100))
  serve(prompt(9, 200))
  assert.equal(told(events), 'G+2 H+1 H+1 G-1 G-1 G+2 H+1 H-1 H+1')
  assert.deepEqual(engine.trueMatch({ id: '', tokens: prompt(9, 100), outputTokens: 1 }), {
    gpu: 0,
    host: 1,
    shared: 0,
  })
})

test('what one engine puts into the shared store another one loads, by whole chunks', () => {
  const sharedStore = new SharedStore({ capacityChunks: 4, chunkTokens: 8 })
  const one = rig({ sharedStore })
  const other = rig({ sharedStore })
  one.serve(prompt(21, 100))
  assert.equal(told(one.events), 'G+5 S+1 S+1')
  assert.equal(other.serve(prompt(21, 100)).cachedTokens, 16)
  assert.equal(told(other.events), 'G+4 G+1', 'what is in the store is not put there again')
})

test('a chunk that leaves the shared store is announced by the engine that brought it, if at all', () => {
  for (const sharedRemovals of [true, false]) {
    const sharedStore = new SharedStore({ capacityChunks: 1, chunkTokens: 8 })
    const one = rig({ sharedStore, sharedRemovals })
    const other = rig({ sharedStore, sharedRemovals })
    one.serve(prompt(9, 100))
    one.events.length = 0
    other.serve(prompt(9, 200))
    assert.equal(told(one.events), sharedRemovals ? 'S-1' : '')
  }
})

test('requests with an adapter or a salt leave the shared store alone', () => {
  const sharedStore = new SharedStore({ capacityChunks: 4, chunkTokens: 8 })
  const { events, serve } = rig({ sharedStore })
  serve(prompt(9, 100), { cacheSalt: 'tenant' })
  assert.equal(told(events), 'G+2')
})

test('placeholders name blocks outside the GPU one by one and without tokens', () => {
  const { events, serve } = rig({ hostBlocks: 16 })
  serve(prompt(9, 100))
  const encoding = { hashes: 'int', rank: 0 } as const
  const { events: decoded } = decodeBatch(encodeBatch(events, 1, { ...encoding, placeholders: true }))
  assert.deepEqual(
    decoded.map(
      (event) => event.kind === 'store' && [event.medium, event.blockSize, event.tokens.length, event.parent],
    ),
    [
      ['GPU', 4, 8, null],
      ['CPU', 0, 0, null],
      ['CPU', 0, 0, null],
    ],
  )
})

for (const hostWrites of ['through', 'evicted'] as const) {
  test(`events tell exactly what the tiers hold, whatever is served (${hostWrites})`, () => {
    const seed = Number(process.env['FC_SEED'] ?? Date.now())
    const random = seededRandom(seed)
    const sharedStore = new SharedStore({ capacityChunks: 6, chunkTokens: 8 })
    const rigs = [0, 1].map(() => rig({ hostBlocks: 10, hostWrites, sharedStore, capacityBlocks: 12 }))
    for (let turn = 0; turn < 400; turn++) {
      const { serve } = rigs[turn % 2] as (typeof rigs)[number]
      serve(prompt(5 + Math.floor(random() * 30), 1_000 * Math.floor(random() * 6)))
    }
    const shared = new Set(rigs.flatMap(({ events }) => [...believed(events).shared]))
    for (const { engine, events } of rigs) {
      const { gpu, host } = believed(events)
      assert.deepEqual({ gpu, host, shared }, engine.trueBlocks(), `seed ${seed}`)
    }
  })
}

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecodedEvent } from '../../src/events/decode.ts'
import { decodeEvents } from '../../src/events/trtllm/decode.ts'
import { TrtllmRank, type TrtllmRankOptions } from '../../src/events/trtllm/rank.ts'
import { randomWords, seededRandom } from '../support/random.ts'
import { toBigInts } from './recorded.ts'
import { created, eventJson, moved, recordedAnswer, removed, stored } from './trtllm-answers.ts'

const noTurn = () => Promise.resolve()

function watchedRank(options: Partial<TrtllmRankOptions> = {}) {
  const log: string[] = []
  const skipped: Record<string, number> = {}
  const capacities: (readonly number[])[] = []
  const rank = new TrtllmRank(
    { blockSize: 4, maxLeftOut: 1_000, ...options },
    {
      apply: (id, events) => log.push(...events.map((event) => `${id} ${describe(event)}`)),
      clear: (reason) => log.push(`clear ${reason}`),
      gap: () => log.push('gap'),
      restart: () => log.push('restart'),
      skipped: (reason, count) => (skipped[reason] = (skipped[reason] ?? 0) + count),
      capacity: (blocks) => capacities.push(blocks),
    },
  )
  const take = async (...events: string[]) => {
    log.length = 0
    const answer = await decodeEvents(Buffer.from(`[${events.join()}]`), noTurn)
    assert.equal(answer.malformed, 0)
    await rank.take(answer.events, noTurn)
    return [...log]
  }
  return { rank, take, log, skipped, capacities }
}

function describe(event: DecodedEvent): string {
  if (event.kind === 'clear') return 'clear'
  const hashes = toBigInts(event.hashes).join(' ')
  if (event.kind === 'remove') return `remove ${event.everywhere === true ? '*' : event.medium}: ${hashes}`
  const parent = event.parent === null ? 'root' : toBigInts(event.parent).join()
  if (event.tokens.length === 0) return `present ${event.medium}: ${hashes}`
  return `store ${event.medium} under ${parent}: ${hashes} (${event.tokens.length}/${event.blockSize})`
}

const full = (hash: bigint, level = 0) => ({ hash, tokens: [1, 2, 3, Number(hash % 1000n)], level })

test('the answer that was built after the serializer: one window, offload, partial block, and a lost event that clears', async () => {
  const { rank, log, skipped, capacities } = watchedRank({ blockSize: null })
  const { events } = await decodeEvents(recordedAnswer('kv_cache_events_poll').bytes, noTurn)
  await rank.take(events, noTurn)
  assert.deepEqual(log, [
    '7 store GPU under root: 15822008985855418734 4088130506997063587 (64/32)',
    '7 present CPU: 4088130506997063587',
    '7 remove GPU: 4088130506997063587',
    '7 remove *: 4088130506997063587',
    'gap',
    'clear gap',
    '9 remove *: 15822008985855418734',
  ])
  assert.deepEqual(skipped, { window: 2, partial_block: 1 })
  assert.deepEqual(capacities, [[4096, 1024]])
  assert.deepEqual([rank.last, rank.partial], [9, true])
})

test('ids of which nothing is applied are told too, so that whoever polls next goes on behind them', async () => {
  const applied: string[] = []
  const outputs = {
    apply: (id: number, events: readonly DecodedEvent[]) => applied.push(`${id}: ${events.length}`),
    clear: (reason: string) => applied.push(reason),
    gap: () => applied.push('gap'),
    restart: () => applied.push('restart'),
    skipped: () => undefined,
    capacity: () => undefined,
  }
  const poller = (): ((...events: string[]) => Promise<void>) & { rank: TrtllmRank } => {
    const rank = new TrtllmRank({ blockSize: 4, maxLeftOut: 1_000 }, outputs)
    const take = async (...events: string[]) =>
      rank.take((await decodeEvents(Buffer.from(`[${events.join()}]`), noTurn)).events, noTurn)
    return Object.assign(take, { rank })
  }
  const first = poller()
  await first(eventJson(0, created(10), { window: 64 }), eventJson(1, created(10), { window: 32 }))
  await first(eventJson(2, stored(null, full(5n)), { window: 64 }))
  await first(eventJson(3, stored(null, full(5n)), { window: 32 }))
  await first()
  assert.deepEqual(applied, ['1: 0', '2: 1', '3: 0'])
  const second = poller()
  second.rank.resume(3, false)
  await second(eventJson(4, stored(5n, full(6n)), { window: 64 }))
  assert.deepEqual(applied.slice(3), ['4: 1'])
})

test('events are applied in the order of their ids, each once', async () => {
  const { take, skipped } = watchedRank()
  assert.deepEqual(
    await take(
      eventJson(2, removed(5n)),
      eventJson(0, created(10)),
      eventJson(1, stored(null, full(5n))),
      eventJson(1, stored(null, full(5n))),
    ),
    ['2 store GPU under root: 5 (4/4)', '2 remove *: 5'],
  )
  assert.deepEqual(skipped, { duplicate: 1 })
})

test('a process that is heard from its first event is known wholly, one that is heard later in part', async () => {
  const early = watchedRank()
  await early.take(eventJson(0, created(10)))
  assert.equal(early.rank.partial, false)
  const late = watchedRank()
  assert.deepEqual(await late.take(eventJson(70, stored(9n, full(5n)))), ['70 store GPU under 9: 5 (4/4)'])
  assert.equal(late.rank.partial, true)
})

test('a lost event clears before what follows it is applied', async () => {
  const { take, rank } = watchedRank()
  await take(eventJson(0, created(10)), eventJson(1, stored(null, full(5n))))
  assert.deepEqual(await take(eventJson(3, stored(null, full(6n)))), [
    'gap',
    'clear gap',
    '3 store GPU under root: 6 (4/4)',
  ])
  assert.equal(rank.partial, true)
})

test('an id that goes back is another process, whose windows and blocks begin anew', async () => {
  const { take, rank } = watchedRank()
  await take(eventJson(0, created(10), { window: 4096 }), eventJson(1, stored(null, full(5n)), { window: 4096 }))
  assert.deepEqual(
    await take(
      eventJson(0, created(10), { window: 512 }),
      eventJson(1, stored(null, full(6n)), { window: 512 }),
      eventJson(2, stored(6n, full(7n)), { window: 512 }),
    ),
    ['restart', 'clear restart', '2 store GPU under root: 6 (4/4)', '2 store GPU under 6: 7 (4/4)'],
  )
  assert.equal(rank.partial, false)
})

test('after a loss that was told, a jump of the ids is no further gap', async () => {
  const { take, rank, log } = watchedRank()
  await take(eventJson(0, created(10)))
  log.length = 0
  rank.lose('gap')
  assert.deepEqual(log, ['clear gap'])
  assert.deepEqual(await take(eventJson(9, stored(null, full(6n)))), ['9 store GPU under root: 6 (4/4)'])
  assert.deepEqual(await take(eventJson(11, removed(6n))), ['gap', 'clear gap', '11 remove *: 6'])
})

test('a larger window that comes after blocks of a smaller one clears those', async () => {
  const { take } = watchedRank()
  await take(eventJson(40, stored(null, full(5n)), { window: 512 }))
  assert.deepEqual(
    await take(eventJson(41, stored(null, full(6n)), { window: 4096 }), eventJson(42, removed(5n), { window: 512 })),
    ['clear window', '42 store GPU under root: 6 (4/4)'],
  )
})

test('a partial block ends its walk, and neither its removal nor its move counts as unknown', async () => {
  const { take, skipped } = watchedRank()
  const part = { hash: 7n, tokens: [1, 2] }
  assert.deepEqual(
    await take(
      eventJson(0, stored(null, full(5n), part)),
      eventJson(1, stored(7n, full(8n))),
      eventJson(2, moved(7n, 0, 1)),
      eventJson(3, removed(7n, 5n, 8n)),
    ),
    ['3 store GPU under root: 5 (4/4)', '3 remove *: 5'],
  )
  assert.deepEqual(skipped, { partial_block: 1, behind_left_out: 1, left_out_removal: 2 })
})

test('a block that holds a medium is left out with all that hangs below it', async () => {
  const { take, skipped } = watchedRank()
  const medium = { ...full(6n), extra: 77 }
  assert.deepEqual(
    await take(eventJson(0, stored(null, full(5n), medium, full(7n))), eventJson(1, removed(6n, 7n, 5n))),
    ['1 store GPU under root: 5 (4/4)', '1 remove *: 5'],
  )
  assert.deepEqual(skipped, { media: 1, behind_left_out: 1, left_out_removal: 2 })
})

test('blocks are stored on the level where they are, and moves keep them held', async () => {
  const { take, skipped } = watchedRank()
  assert.deepEqual(await take(eventJson(0, stored(null, full(5n), full(6n, 1), full(7n, 1), full(8n, 2)))), [
    '0 store GPU under root: 5 (4/4)',
    '0 store CPU under 5: 6 7 (8/4)',
    '0 store DISK under 7: 8 (4/4)',
  ])
  assert.deepEqual(
    await take(eventJson(1, moved(5n, 0, 1)), eventJson(2, moved(5n, 1, 0)), eventJson(3, moved(5n, 0, 0))),
    ['3 present CPU: 5', '3 remove GPU: 5', '3 present GPU: 5', '3 remove CPU: 5'],
  )
  assert.deepEqual(await take(eventJson(4, moved(5n, 0, 3)), eventJson(5, stored(8n, full(9n, 3)))), [
    '5 remove GPU: 5',
  ])
  assert.deepEqual(skipped, { unknown_medium: 2 })
})

test('the block size is what all blocks of a store but the last one have', async () => {
  const { take, skipped } = watchedRank({ blockSize: null })
  assert.deepEqual(await take(eventJson(0, stored(null, full(3n)))), [])
  assert.deepEqual(await take(eventJson(1, stored(null, full(5n), { hash: 6n, tokens: [1] }))), [
    '1 store GPU under root: 5 (4/4)',
  ])
  assert.deepEqual(await take(eventJson(2, stored(5n, full(7n)))), ['2 store GPU under 5: 7 (4/4)'])
  assert.deepEqual(skipped, { block_size_unknown: 1, partial_block: 1 })
})

test('versions without windows are taken as they are', async () => {
  const { take } = watchedRank()
  assert.deepEqual(
    await take(eventJson(0, created(4), { window: null }), eventJson(1, stored(null, full(5n)), { window: null })),
    ['1 store GPU under root: 5 (4/4)'],
  )
})

test('what is translated from random events is what a small model of the engine holds', async (t) => {
  const seed = Number(process.env['TRTLLM_SEED'] ?? Math.floor(Math.random() * 2 ** 32))
  t.diagnostic(`seed ${seed}`)
  const engine = new ModelEngine(seed)
  const random = seededRandom(seed ^ 0x5eed)
  const held = new Map<string, Set<string>>()
  const hold = (medium: string | null, hash: string) =>
    (held.get(hash) ?? held.set(hash, new Set()).get(hash))?.add(medium ?? 'GPU')
  const rank = new TrtllmRank(
    { blockSize: 4, maxLeftOut: 10_000 },
    {
      apply(_, events) {
        for (const event of events) {
          if (event.kind === 'clear') continue
          // A block under an unknown parent waits for it, and gives no credit.
          if (event.kind === 'store' && event.parent !== null && !held.has(String(toBigInts(event.parent)[0]))) continue
          for (const hash of toBigInts(event.hashes).map(String)) {
            if (event.kind === 'store') {
              // A block named by hash alone must be held already.
              if (event.tokens.length > 0 || held.has(hash)) hold(event.medium, hash)
            } else if (event.everywhere === true) held.delete(hash)
            else if (held.get(hash)?.delete(event.medium ?? 'GPU') === true && held.get(hash)?.size === 0)
              held.delete(hash)
          }
        }
      },
      clear: () => held.clear(),
      gap: () => undefined,
      restart: () => undefined,
      skipped: () => undefined,
      capacity: () => undefined,
    },
  )
  let isWhole = true
  for (let round = 0; round < 600; round++) {
    let events = engine.step(1 + Math.floor(random() * 12))
    if (random() < 0.02) {
      events = engine.restart()
      isWhole = true
    }
    if (random() < 0.03 && events.length > 2) {
      events = events.filter((_, i) => i !== 1)
      isWhole = false
    }
    if (random() < 0.3) events = events.toSorted(() => random() - 0.5)
    if (random() < 0.1) events = [...events, ...events.slice(0, 1)]
    const answer = await decodeEvents(Buffer.from(`[${events.join()}]`), noTurn)
    await rank.take(answer.events, noTurn)
    // What was lost with a gap is not known, but nothing is believed that the engine does not hold.
    const truth = engine.held()
    for (const [hash, media] of held)
      assert.deepEqual([...media], [truth.get(hash)], `seed ${seed}, round ${round}, hash ${hash}`)
    if (isWhole) assert.equal(held.size, truth.size, `seed ${seed}, round ${round}`)
  }
})

/** An engine that stores, offloads, brings back and evicts blocks at random, of which some are partial or hold media. */
class ModelEngine {
  readonly #random: () => number
  readonly #words: () => number
  #fresh: string[]
  #blocks: { hash: bigint; medium: string; full: boolean }[] = []
  #id = 0

  constructor(seed: number) {
    this.#random = seededRandom(seed)
    this.#words = randomWords(seed)
    this.#fresh = [
      eventJson(this.#id++, created(100, 100), { window: 4096 }),
      eventJson(this.#id++, created(9, 9), { window: 64 }),
    ]
  }

  held(): Map<string, string> {
    return new Map(this.#blocks.filter(({ full }) => full).map(({ hash, medium }) => [String(hash), medium]))
  }

  restart(): string[] {
    this.#blocks = []
    this.#id = 0
    return [eventJson(this.#id++, created(100, 100), { window: 4096 }), ...this.step(3)]
  }

  step(count: number): string[] {
    const events = this.#fresh
    this.#fresh = []
    for (let i = 0; i < count; i++) events.push(eventJson(this.#id++, ...this.#event()))
    return events
  }

  #event(): [object, { window: number }] {
    const draw = this.#random()
    const block = this.#blocks[Math.floor(this.#random() * this.#blocks.length)]
    if (draw < 0.1) return [stored(null, { hash: this.#hash(), tokens: [1, 2, 3, 4] }), { window: 64 }]
    if (draw < 0.3 && block !== undefined) {
      this.#blocks = this.#blocks.filter((other) => other !== block)
      return [removed(block.hash), { window: 4096 }]
    }
    if (draw < 0.5 && block !== undefined) {
      const [from, to] = block.medium === 'GPU' ? [0, 1] : [1, 0]
      block.medium = to === 1 ? 'CPU' : 'GPU'
      return [moved(block.hash, from, to), { window: 4096 }]
    }
    const parent = block === undefined || this.#random() < 0.3 ? null : block
    const run = Array.from({ length: 1 + Math.floor(this.#random() * 3) }, () => this.#hash())
    const short = this.#random() < 0.2
    const media = this.#random() < 0.1
    const blocks = run.map((hash, i) => ({
      hash,
      tokens: short && i === run.length - 1 ? [1, 2] : [1, 2, 3, 4],
      extra: media && i === run.length - 1 ? 5 : 0,
    }))
    const ok = parent?.full ?? true
    for (const [i, { hash }] of blocks.entries())
      this.#blocks.push({ hash, medium: 'GPU', full: ok && !((short || media) && i === blocks.length - 1) })
    return [stored(parent?.hash ?? null, ...blocks), { window: 4096 }]
  }

  #hash(): bigint {
    return (BigInt(this.#words() >>> 0) << 32n) | BigInt(this.#words() >>> 0)
  }
}

import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { Engine, EngineFacts } from '../../src/workers/engine.ts'
import { EndpointWatch } from '../../src/workers/watch.ts'
import { until } from '../support/until.ts'
import { answering } from './answering.ts'

interface Stage {
  /** What the endpoint is now, and what it tells; null: it does not answer. */
  engine: Engine | null
  startedAt: number
  /** How often its load was read. */
  loads: number
  readonly seen: string[]
  readonly asked: string[]
  readonly watch: EndpointWatch
}

/** An engine that tells when its process began, or nothing to who takes it for another kind. */
function kind(name: string, stage: () => Stage, more: Partial<Engine> = {}): Engine {
  const facts = (): EngineFacts | null => {
    const { engine, startedAt } = stage()
    if (engine?.name !== name) return null
    return { models: [], startedAt, ranks: [{ rank: 0, blockSize: 16, capacityBlocks: null, events: null }] }
  }
  return {
    name,
    countsStores: false,
    recognizes: () => true,
    facts: () => Promise.resolve(facts()),
    load: () =>
      Promise.resolve(stage().engine?.name === name ? { byRank: new Map(), startedAt: stage().startedAt } : null),
    ...more,
  }
}

function watching(t: TestContext, first: (stage: () => Stage) => Engine | null, path?: string): Stage {
  const asked: string[] = []
  const seen: string[] = []
  const http = answering({ '/health': {}, '/ping': {}, '/alive': {} }, asked)
  const stage: Stage = {
    engine: null,
    startedAt: 1,
    loads: 0,
    seen,
    asked,
    watch: new EndpointWatch({
      baseUrl: 'http://a:1',
      headers: {},
      http,
      recognize: () => {
        seen.push('recognize')
        return Promise.resolve(stage.engine)
      },
      timing: {
        health: { intervalMs: 2, timeoutMs: 100, failures: 2, ...(path === undefined ? {} : { path }) },
        load: { intervalMs: 5 },
      },
      onUp: ({ name }) => {
        seen.push(`up ${name}`)
        return Promise.resolve(true)
      },
      onDown: () => seen.push('down'),
      onRestart: ({ name }) => {
        seen.push(`restarted ${name}`)
        return Promise.resolve(true)
      },
      wantsLoad: () => true,
      onLoadAsked: () => undefined,
      onLoad: () => stage.loads++,
      wantsHits: () => true,
      onHits: ({ hitTokens }) => seen.push(`hits ${hitTokens}`),
    }),
  }
  stage.engine = first(() => stage)
  t.after(() => stage.watch.stop())
  stage.watch.start()
  return stage
}

test('an endpoint is asked what it is once, and its health by the path of its kind', async (t) => {
  const stage = watching(t, (of) => kind('one', of, { healthPath: '/ping' }))
  await until(() => stage.asked.length > 5, 'it is checked')
  assert.deepEqual(stage.seen, ['recognize', 'up one'])
  assert.deepEqual([...new Set(stage.asked)], ['/ping'])
})

test('hit counters are asked of an engine that says it counts, and of no other', async (t) => {
  const counting = (of: () => Stage, countsHits: boolean): Engine => {
    const engine = kind('one', of)
    return {
      ...engine,
      facts: async (...asked) => {
        const facts = await engine.facts(...asked)
        return facts === null ? null : { ...facts, countsHits }
      },
      hitCounters: () => Promise.resolve({ queriedTokens: 20, hitTokens: 16 }),
    }
  }
  const stage = watching(t, (of) => counting(of, true))
  const other = watching(t, (of) => counting(of, false))
  await until(() => stage.seen.includes('hits 16') && other.loads > 2, 'both were read')
  assert.deepEqual(other.seen, ['recognize', 'up one'])
})

test('a path in the config is the one that is checked', async (t) => {
  const stage = watching(t, (of) => kind('one', of, { healthPath: '/ping' }), '/alive')
  await until(() => stage.asked.length > 5, 'it is checked')
  assert.deepEqual([...new Set(stage.asked)], ['/alive'])
})

test('while nobody can tell what it is, it is not up', async (t) => {
  const stage = watching(t, () => null)
  await until(() => stage.seen.length > 3, 'it is asked again')
  assert.deepEqual([...new Set(stage.seen)], ['recognize'])
  assert.deepEqual(stage.asked, [])
  stage.engine = kind('one', () => stage)
  await until(() => stage.seen.includes('up one'), 'it is up')
})

test('a broken connection to the same process changes nothing', async (t) => {
  const stage = watching(t, (of) => kind('one', of))
  await until(() => stage.seen.includes('up one'), 'it is up')
  stage.watch.reportUnreachable(false)
  const { length } = stage.asked
  await until(() => stage.asked.length > length + 3, 'it was checked')
  assert.deepEqual(stage.seen, ['recognize', 'up one'])
})

test('another process is noticed by its start time, and asked what it is', async (t) => {
  const stage = watching(t, (of) => kind('one', of))
  await until(() => stage.seen.includes('up one'), 'it is up')
  stage.startedAt = 2
  await until(() => stage.seen.includes('restarted one'), 'it is noticed')
  assert.deepEqual(stage.seen, ['recognize', 'up one', 'recognize', 'restarted one'])
})

test('an engine of another kind is noticed although it tells the former one’s questions nothing', async (t) => {
  const stage = watching(t, (of) => kind('one', of))
  await until(() => stage.seen.includes('up one'), 'it is up')
  stage.engine = kind('other', () => stage)
  stage.watch.reportUnreachable(false)
  await until(() => stage.seen.includes('restarted other'), 'it is noticed')
  assert(!stage.seen.includes('down'))
})

test('an engine of another kind is noticed although no request and no check failed, as its load cannot be read', async (t) => {
  const stage = watching(t, (of) => kind('one', of))
  await until(() => stage.loads > 0, 'its load has been read')
  stage.engine = kind('other', () => stage)
  await until(() => stage.seen.includes('restarted other'), 'it is noticed')
  assert(!stage.seen.includes('down'))
})

test('one that refused a connection is down, and asked anew what it is', async (t) => {
  const stage = watching(t, (of) => kind('one', of))
  await until(() => stage.seen.includes('up one'), 'it is up')
  stage.engine = kind('other', () => stage)
  stage.watch.reportUnreachable(true)
  await until(() => stage.seen.includes('up other'), 'it is up')
  assert.deepEqual(stage.seen, ['recognize', 'up one', 'down', 'recognize', 'up other'])
})

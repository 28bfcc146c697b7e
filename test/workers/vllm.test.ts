import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { EngineAnswer, EngineHttp } from '../../src/workers/engine-http.ts'
import { vllm } from '../../src/workers/engines/vllm.ts'
import { samplesOf } from '../../src/workers/prometheus-text.ts'

const recorded = (name: string): string =>
  readFileSync(new URL(`../fixtures/vllm-facts/endpoint_A_sha256_bs32_${name}.txt`, import.meta.url), 'utf8')

function answering(answers: Record<string, string>): EngineHttp {
  return {
    ask: (url): Promise<EngineAnswer | null> => {
      const text = answers[new URL(url).pathname]
      return Promise.resolve(text === undefined ? { status: 404, text: '{}' } : { status: 200, text })
    },
    close: () => Promise.resolve(),
  }
}

const engine = answering({
  '/metrics': recorded('metrics'),
  '/v1/models': recorded('v1_models'),
  '/kv_event_sources': recorded('kv_event_sources'),
})

test('a recorded vLLM tells its model, block size, capacity and event endpoints', async () => {
  const facts = await vllm.facts(engine, 'http://10.1.2.3:8100', {})
  assert.ok(facts !== null)
  assert.deepEqual(facts.models, [{ id: 'model', parent: null, root: 'models/llama31', maxModelLength: 8192 }])
  assert.equal(facts.ranks.length, 1)
  const [rank] = facts.ranks
  assert.equal(rank?.blockSize, 32)
  assert.equal(rank.capacityBlocks, 65_536)
  assert.deepEqual(rank.events, {
    kind: 'zmq',
    endpoint: 'tcp://10.1.2.3:15557',
    replay: 'tcp://10.1.2.3:15558',
    topic: 'kv@127.0.0.1:8100@model',
  })
  assert.ok((facts.startedAt ?? 0) > 1.7e9)
})

test('a recorded vLLM tells its load', async () => {
  const load = await vllm.load(engine, 'http://10.1.2.3:8100', {}, 100)
  assert.deepEqual(
    [...(load?.byRank ?? [])].map(([rank]) => rank),
    [0],
  )
  assert.equal(load?.byRank.get(0)?.running, 0)
})

test('an engine without events, metrics or models is unknown, not wrong', async () => {
  assert.deepEqual((await vllm.facts(answering({}), 'http://a:1', {}))?.models, [])
  const facts = await vllm.facts(answering({ '/v1/models': recorded('v1_models') }), 'http://a:1', {})
  assert.deepEqual(facts?.ranks, [
    { rank: 0, blockSize: null, capacityBlocks: null, hashAlgorithm: null, events: null },
  ])
})

test('each rank has its own endpoints', async () => {
  const source = (port: number) => ({
    enable_kv_cache_events: true,
    publisher: 'zmq',
    endpoint: `tcp://*:${port}`,
    replay_endpoint: null,
    topic: '',
  })
  const facts = await vllm.facts(
    answering({
      '/v1/models': recorded('v1_models'),
      '/kv_event_sources': JSON.stringify({ 0: source(5557), 1: source(5558), 2: { enable_kv_cache_events: false } }),
    }),
    'http://h:1',
    {},
  )
  assert.deepEqual(
    facts?.ranks.map(({ rank, events }) => [rank, events?.kind === 'zmq' ? events.endpoint : null]),
    [
      [0, 'tcp://h:5557'],
      [1, 'tcp://h:5558'],
    ],
  )
})

test('Prometheus text: labels with escapes, infinities, and malformed lines', () => {
  const text = 'a{x="1\\"2\\\\",y="b,}"} 5\nab 9\na 7\n# a 8\na{x="1" 3\na{} +Inf\na nonsense'
  assert.deepEqual(samplesOf(text, ['a']).get('a'), [
    { labels: { x: '1"2\\', y: 'b,}' }, value: 5 },
    { labels: {}, value: 7 },
  ])
})

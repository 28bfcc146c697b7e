import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { EngineAnswer, EngineHttp } from '../../src/workers/engine-http.ts'
import { trtllm } from '../../src/workers/engines/trtllm.ts'

const statistics = readFileSync(new URL('../fixtures/trtllm/iteration_stats.json', import.meta.url), 'utf8')
const models = JSON.stringify({ object: 'list', data: [{ id: 'm', object: 'model', owned_by: 'tensorrt_llm' }] })

const prometheus = (
  pid: number,
  running: number,
): string => `# HELP trtllm_num_requests_running Number of active requests
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="undefined",model_name="undefined",pid="${pid}"} ${running}.0
trtllm_num_requests_waiting{engine_type="undefined",model_name="undefined",pid="${pid}"} 2.0
trtllm_kv_cache_utilization{engine_type="undefined",model_name="undefined",pid="${pid}"} 0.25
trtllm_kv_cache_tokens_per_block{engine_type="undefined",model_name="undefined",pid="${pid}"} 64.0
trtllm_kv_cache_max_blocks{engine_type="undefined",model_name="undefined",pid="${pid}"} 2048.0
`

function answering(answers: Record<string, string>) {
  const asked: string[] = []
  const http: EngineHttp = {
    ask: (url): Promise<EngineAnswer | null> => {
      const { pathname } = new URL(url)
      asked.push(pathname)
      const text = answers[pathname]
      return Promise.resolve(text === undefined ? { status: 404, text: '{}' } : { status: 200, text })
    },
    close: () => Promise.resolve(),
  }
  return { http, asked }
}

const base = 'http://h:8000/base'
const factsOf = (answers: Record<string, string>) => trtllm.facts(answering(answers).http, base, {})
const loadOf = (answers: Record<string, string>) => trtllm.load(answering(answers).http, base, {}, 100)

test('its metrics tell block size and capacity, and its events are drained beside it, never while it is asked', async () => {
  const { http, asked } = answering({ '/base/v1/models': models, '/base/prometheus/metrics': prometheus(7, 3) })
  const facts = await trtllm.facts(http, base, {})
  assert.deepEqual(facts, {
    models: [{ id: 'm', parent: null, root: null, maxModelLength: null }],
    startedAt: null,
    ranks: [
      { rank: null, blockSize: 64, capacityBlocks: 2048, events: { kind: 'poll', url: `${base}/kv_cache_events` } },
    ],
  })
  assert.deepEqual(asked.sort(), ['/base/prometheus/metrics', '/base/v1/models'])
})

test('without metrics the iteration statistics tell both, and without either nothing is made up', async () => {
  const told = await factsOf({ '/base/v1/models': models, '/base/metrics': statistics })
  assert.deepEqual([told?.ranks[0]?.blockSize, told?.ranks[0]?.capacityBlocks], [32, 4096])
  const silent = await factsOf({ '/base/v1/models': models, '/base/metrics': '[]' })
  assert.deepEqual([silent?.ranks[0]?.blockSize, silent?.ranks[0]?.capacityBlocks], [null, null])
})

test('an engine that does not answer is asked again', async () => {
  const http: EngineHttp = { ask: () => Promise.resolve(null), close: () => Promise.resolve() }
  assert.equal(await trtllm.facts(http, base, {}), null)
  assert.equal(await trtllm.load(http, base, {}, 100), null)
})

test('load comes from its metrics, of the process that wrote last', async () => {
  const load = await loadOf({
    '/base/prometheus/metrics': prometheus(7, 3) + prometheus(8, 5),
    '/base/metrics': statistics,
  })
  assert.deepEqual(load, { byRank: new Map([[0, { running: 5, waiting: 2, kvUsage: 0.25 }]]), startedAt: null })
})

test('load comes from the iteration statistics where there are no metrics: the newest record of each rank', async () => {
  assert.deepEqual((await loadOf({ '/base/metrics': statistics }))?.byRank.get(0), {
    running: 3,
    waiting: 1,
    kvUsage: 1096 / 4096,
  })
  const record = (iter: number, rank: number, running: number) => ({
    ...{ iter, attentionDpRank: rank, numActiveRequests: running, numQueuedRequests: 0 },
    kvCacheStats: { maxNumBlocks: 10, usedNumBlocks: 5 },
  })
  const several = JSON.stringify([record(4, 0, 1), record(9, 0, 2), record(9, 1, 7), record(8, 0, 3)])
  const load = await loadOf({ '/base/metrics': several })
  assert.deepEqual(
    [...(load?.byRank ?? [])].map(([rank, { running }]) => [rank, running]),
    [
      [0, 2],
      [1, 7],
    ],
  )
})

test('a figure that is not told leaves the load unknown, never zero', async () => {
  const waitingOnly = 'trtllm_num_requests_waiting{model_name="m"} 2.0\n'
  assert.deepEqual((await loadOf({ '/base/prometheus/metrics': waitingOnly }))?.byRank, new Map())
  assert.deepEqual((await loadOf({ '/base/metrics': '[]' }))?.byRank, new Map())
  assert.deepEqual(
    (await loadOf({ '/base/metrics': '[{"iter":1,"numActiveRequests":1,"numQueuedRequests":0}]' }))?.byRank,
    new Map(),
  )
  assert.deepEqual((await loadOf({ '/base/metrics': 'vllm:num_requests_running 1' }))?.byRank, new Map())
})

test('Triton tells the same figures under its own names', async () => {
  const text = `nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 4
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 6
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="m",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 6239
`
  const load = await loadOf({ '/base/prometheus/metrics': text })
  assert.deepEqual(load?.byRank.get(0), { running: 6, waiting: 4, kvUsage: 0.5 })
  const facts = await factsOf({ '/base/v1/models': models, '/base/prometheus/metrics': text })
  assert.deepEqual([facts?.ranks[0]?.blockSize, facts?.ranks[0]?.capacityBlocks], [64, 6239])
})

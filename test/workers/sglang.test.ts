import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { sglang } from '../../src/workers/engines/sglang.ts'
import type { EngineFacts } from '../../src/workers/engine.ts'
import { answering, models } from './answering.ts'

const published = {
  publisher: 'zmq',
  endpoint_host: '*',
  endpoint_port_base: 5557,
  topic: 'kv',
  block_size: 64,
  dp_size: 2,
}

const info = {
  served_model_name: 'model',
  page_size: 32,
  dcp_size: 2,
  dp_size: 2,
  max_total_num_tokens: 6_450,
  random_seed: 81_723,
  speculative_algorithm: null,
}

async function factsOf(more: object, path = '/server_info'): Promise<EngineFacts | null> {
  const http = answering({ '/v1/models': models('sglang'), [path]: { ...info, ...more } })
  return sglang.facts(http, 'http://10.1.2.3:30000', {})
}

test('an SGLang tells where each rank publishes events, repeats them and publishes its load', async () => {
  const more = { replay_endpoint_port_base: 5600, load_endpoint_port_base: 5700, load_topic: 'load' }
  const facts = await factsOf({ kv_events: { ...published, ...more } })
  assert.deepEqual(facts?.models, [{ id: 'model', parent: null, root: null, maxModelLength: 4096 }])
  assert.equal(facts.startedAt, 81_723)
  assert.deepEqual(facts.ranks[1], {
    rank: 1,
    blockSize: 64,
    capacityBlocks: 100,
    events: { kind: 'zmq', endpoint: 'tcp://10.1.2.3:5558', replay: 'tcp://10.1.2.3:5601', topic: 'kv' },
    loadFeed: { endpoint: 'tcp://10.1.2.3:5701', topic: 'load' },
  })
  assert.equal(facts.ranks.length, 2)
})

test('a host that is no wildcard is taken as it is, an IPv6 one in brackets', async () => {
  const at = async (host: string): Promise<unknown> => {
    const facts = await factsOf({ kv_events: { ...published, endpoint_host: host } })
    const events = facts?.ranks[0]?.events
    return events?.kind === 'zmq' ? events.endpoint : events
  }
  assert.equal(await at('10.9.9.9'), 'tcp://10.9.9.9:5557')
  assert.equal(await at('fd00::1'), 'tcp://[fd00::1]:5557')
  assert.equal(await at('::'), 'tcp://10.1.2.3:5557')
})

test('without events the ranks and their block size are known all the same', async () => {
  for (const kvEvents of [null, { ...published, publisher: 'null' }, { ...published, endpoint_port_base: 0 }]) {
    const facts = await factsOf({ kv_events: kvEvents })
    assert.deepEqual(
      facts?.ranks.map(({ rank, blockSize, events, loadFeed }) => [rank, blockSize, events, loadFeed]),
      [
        [0, 64, null, null],
        [1, 64, null, null],
      ],
    )
  }
})

test('what EAGLE publishes is of no use: its pairs of tokens name no prompt’s blocks', async () => {
  const facts = await factsOf({ kv_events: published, speculative_algorithm: 'EAGLE3' })
  assert.deepEqual(
    facts?.ranks.map(({ events }) => events),
    [null, null],
  )
})

test('sizes that no engine has are not believed', async () => {
  const facts = await factsOf({ kv_events: { ...published, dp_size: 1e12, block_size: 1e12 } })
  assert.equal(facts?.ranks.length, 1024)
  assert.equal(facts.ranks[0]?.blockSize, null)
})

test('whether misses are left out of its usage is known by whether hits are in it', async () => {
  assert.equal((await factsOf({ enable_cache_report: true }))?.omitsMisses, true)
  assert.equal((await factsOf({ enable_cache_report: false }))?.omitsMisses, false)
  assert.equal((await factsOf({}))?.omitsMisses, false)
})

test('an older SGLang answers under the path’s former name', async () => {
  assert.equal((await factsOf({ kv_events: published }, '/get_server_info'))?.ranks.length, 2)
})

test('an SGLang that does not answer properly is asked again', async () => {
  const ask = (answers: Readonly<Record<string, unknown>>) => sglang.facts(answering(answers), 'http://a:1', {})
  assert.equal(await ask({ '/v1/models': models('sglang'), '/server_info': null }), null)
  assert.equal(await ask({ '/v1/models': 503, '/server_info': info }), null)
})

test('an SGLang behind a gateway that hides its facts serves with what the config tells', async () => {
  const facts = await sglang.facts(answering({ '/v1/models': models('sglang') }), 'http://a:1', {})
  assert.deepEqual(facts?.ranks, [{ rank: 0, blockSize: null, capacityBlocks: null, events: null, loadFeed: null }])
})

test('its load is asked of the scheduler, by rank', async () => {
  const loads = [
    { dp_rank: 0, num_running_reqs: 3, num_waiting_reqs: 1, num_waiting_uncached_tokens: 512, token_usage: 0.25 },
    { dp_rank: 1, num_running_reqs: 2, num_waiting_reqs: 0 },
    { dp_rank: 2, num_running_reqs: 2 },
  ]
  const read = await sglang.load(answering({ '/v1/loads': { loads } }), 'http://a:1', {}, 100)
  assert.deepEqual(
    [...(read?.byRank ?? [])],
    [
      [0, { running: 3, waiting: 1, kvUsage: 0.25, waitingTokens: 512 }],
      [1, { running: 2, waiting: 0, kvUsage: null }],
    ],
    'what is not told is unknown, never 0',
  )
})

test('its hit counters are summed over the tiers and over all that its server tells apart', async () => {
  const text = readFileSync(new URL('../fixtures/sglang/metrics.txt', import.meta.url), 'utf8')
  const read = (metrics: string | null) =>
    sglang.hitCounters?.(answering(metrics === null ? {} : { '/metrics': metrics }), 'http://a:1', {}, 100)
  assert.deepEqual(await read(text), { queriedTokens: 12_000, hitTokens: 4864 })
  assert.deepEqual(await read('# nothing has ended yet\n'), { queriedTokens: 0, hitTokens: 0 })
  assert.equal(await read(null), null)
})

test('whether it counts hits is known by whether its metrics are on', async () => {
  assert.equal((await factsOf({ enable_metrics: true }))?.countsHits, true)
  assert.equal((await factsOf({}))?.countsHits, false)
})

test('where there is no such path its metrics tell the load', async () => {
  const metrics = [
    'sglang:num_running_reqs{dp_rank="1",model_name="model"} 4.0',
    'sglang:num_running_reqs{dp_rank="0",model_name="model"} 1.0',
    'sglang:num_queue_reqs{dp_rank="0",model_name="model"} 2.0',
    'sglang:token_usage{dp_rank="0",model_name="model"} 0.5',
  ].join('\n')
  const read = await sglang.load(answering({ '/metrics': metrics }), 'http://a:1', {}, 100)
  assert.deepEqual([...(read?.byRank ?? [])], [[0, { running: 1, waiting: 2, kvUsage: 0.5 }]])
  assert.equal(await sglang.load(answering({}), 'http://a:1', {}, 100), null)
  assert.equal(await sglang.load(answering({ '/v1/loads': null }), 'http://a:1', {}, 100), null)
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMetrics } from '../../src/telemetry/metrics.ts'

/** The samples of one metric: labels as text → value. */
async function scraped(metrics: ReturnType<typeof createMetrics>, name: string): Promise<Record<string, number>> {
  const text = await metrics.registry.metrics()
  const lines = text.split('\n').filter((line) => line.startsWith(`warmroute_${name}`) && !line.startsWith('#'))
  return Object.fromEntries(
    lines.map((line) => [
      line.slice(`warmroute_${name}`.length, line.lastIndexOf(' ')),
      Number(line.slice(line.lastIndexOf(' '))),
    ]),
  )
}

test('counts are kept by label values and never counted twice over scrapes', async () => {
  const metrics = createMetrics()
  metrics.requests.add(2, 'm', 'w1', '200')
  metrics.requests.add(1, 'm', 'w1', '503')
  const cell = metrics.requests.cell('m', 'w1', '200')
  cell.value += 3
  const expected = { '{model="m",worker="w1",status="200"}': 5, '{model="m",worker="w1",status="503"}': 1 }
  assert.deepEqual(await scraped(metrics, 'requests_total'), expected)
  assert.deepEqual(await scraped(metrics, 'requests_total'), expected)
  cell.value += 1
  assert.equal((await scraped(metrics, 'requests_total'))['{model="m",worker="w1",status="200"}'], 6)
})

test('a counter without labels is there from the start', async () => {
  assert.deepEqual(await scraped(createMetrics(), 'client_aborts_total'), { '': 0 })
})

test('observations reach their buckets, more of them than are gathered at a time included', async () => {
  const metrics = createMetrics()
  for (let i = 0; i < 2500; i++) metrics.timeToFirstToken.observe(i % 2 === 0 ? 0.002 : 20)
  const buckets = await scraped(metrics, 'time_to_first_token_seconds')
  assert.equal(buckets['_bucket{le="0.0025"}'], 1250)
  assert.equal(buckets['_bucket{le="30"}'], 2500)
  assert.equal(buckets['_count'], 2500)
})

test('a gauge shows what its reader answers now', async () => {
  const metrics = createMetrics()
  let workers = [['w1'], ['w2']]
  metrics.read('in_flight_requests', () => workers.map((labels, index) => [labels, index + 1] as const))
  assert.deepEqual(await scraped(metrics, 'in_flight_requests'), { '{worker="w1"}': 1, '{worker="w2"}': 2 })
  workers = [['w2']]
  assert.deepEqual(await scraped(metrics, 'in_flight_requests'), { '{worker="w2"}': 1 })
})

test('the counts of a worker that is gone are dropped, and no other’s', async () => {
  const metrics = createMetrics()
  metrics.requests.add(2, 'm', 'a', '200')
  metrics.requests.add(3, 'm', 'b', '200')
  await scraped(metrics, 'requests_total')
  metrics.requests.forget('worker', 'a')
  metrics.requests.forget('reason', 'b')
  assert.deepEqual(await scraped(metrics, 'requests_total'), { '{model="m",worker="b",status="200"}': 3 })
  metrics.requests.add(1, 'm', 'a', '200')
  const again = await scraped(metrics, 'requests_total')
  assert.equal(again['{model="m",worker="a",status="200"}'], 1, 'one that comes back counts from 0')
})

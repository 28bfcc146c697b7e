// The faults that a worker can be told to have, and what it counts, from another process's point of view.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until } from '../support/until.ts'
import { eventsOf, post, simulator } from './simulators.ts'

interface Figures {
  readonly requests: Record<string, number>
  readonly running: number
  readonly aborted: number
  readonly lastAbortMs: number | null
  readonly nowMs: number
}

const chat = { messages: [{ role: 'user', content: 'hello' }], max_tokens: 4 }
const path = '/v1/chat/completions'

async function counters(worker: { readonly url: string }): Promise<Figures> {
  return (await (await fetch(`${worker.url}/simulator/counters`)).json()) as Figures
}

async function received(answer: Response): Promise<string> {
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (let part = await reader?.read(); part?.done === false; part = await reader?.read()) text += part.value
  return text
}

test('a worker without fault control has no such path, and answers what it counted', async (t) => {
  const worker = await simulator(t)
  assert.equal((await post(worker, '/simulator/fault', { kind: 'hang' })).status, 404)
  await post(worker, path, chat)
  await fetch(`${worker.url}/health`)
  await fetch(`${worker.url}/nothing/of/this/name`)
  const { requests, running, aborted, lastAbortMs } = await counters(worker)
  assert.deepEqual(requests, { [path]: 1, '/health': 1, unknown: 1 })
  assert.deepEqual([running, aborted, lastAbortMs], [0, 0, null])
})

test('a status fault answers so many requests with its status, headers and body', async (t) => {
  const worker = await simulator(t, { worker: { faultControl: true } })
  const fault = { kind: 'status', status: 503, headers: { 'retry-after': '2' }, count: 2 }
  assert.equal((await post(worker, '/simulator/fault', fault)).status, 200)
  for (let i = 0; i < 2; i++) {
    const answer = await post(worker, path, chat)
    assert.deepEqual([answer.status, answer.headers.get('retry-after')], [503, '2'])
    const { error } = (await answer.json()) as { error: object }
    assert.deepEqual(Object.keys(error), ['message', 'type', 'param', 'code'])
  }
  assert.equal((await post(worker, path, chat)).status, 200)
  const html = { kind: 'status', status: 502, headers: { 'content-type': 'text/html' }, body: '<h1>Bad Gateway</h1>' }
  await post(worker, '/simulator/fault', html)
  const answer = await post(worker, path, chat)
  assert.equal(answer.headers.get('content-type'), 'text/html')
  assert.equal(await answer.text(), html.body)
})

test('a fault meets every POST and nothing else, unless it names its paths', async (t) => {
  const worker = await simulator(t)
  worker.fault({ kind: 'status', status: 500 })
  assert.equal((await fetch(`${worker.url}/health`)).status, 200)
  assert.equal((await post(worker, path, chat)).status, 500)
  worker.fault({ kind: 'status', status: 500, paths: ['/health'] })
  assert.equal((await fetch(`${worker.url}/health`)).status, 500)
  assert.equal((await post(worker, path, chat)).status, 200)
  worker.fault({ kind: 'none' })
  assert.equal((await fetch(`${worker.url}/health`)).status, 200)
})

test('a worker that hangs takes requests and counts the clients that leave, by a clock of the machine', async (t) => {
  const worker = await simulator(t)
  worker.fault({ kind: 'hang' })
  const controller = new AbortController()
  const answer = post(worker, path, chat, { signal: controller.signal })
  const left = assert.rejects(answer)
  await until(() => worker.counters?.running === 1, 'the request is taken in')
  const beforeMs = Number(process.hrtime.bigint()) / 1e6
  controller.abort()
  await left
  await until(() => worker.counters?.aborted === 1, 'the abort is counted')
  const { lastAbortMs, nowMs, running } = await counters(worker)
  assert(lastAbortMs !== null && beforeMs <= lastAbortMs && lastAbortMs <= nowMs)
  assert.equal(running, 0)
  assert.equal(worker.stats[0]?.running, 0, 'the engine never saw it')
})

test('a cut stream ends after exactly so many events, and the worker does not take it for an abort', async (t) => {
  const worker = await simulator(t)
  worker.fault({ kind: 'cut', afterEvents: 3 })
  const answer = await post(worker, path, { ...chat, max_tokens: 50, stream: true })
  let text = ''
  await assert.rejects(async () => {
    for await (const part of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) text += part
  })
  assert.equal(eventsOf(text).length, 3)
  await until(() => worker.counters?.running === 0, 'the request is over')
  assert.deepEqual([worker.counters?.aborted, worker.stats[0]?.running], [0, 0])
})

test('a cut can end the stream as if it were complete', async (t) => {
  const worker = await simulator(t)
  worker.fault({ kind: 'cut', afterEvents: 3, clean: true })
  const text = await received(await post(worker, path, { ...chat, max_tokens: 50, stream: true }))
  assert.equal(eventsOf(text).length, 3)
  assert(!text.includes('[DONE]'))
  await until(() => worker.stats[0]?.running === 0, 'the engine is free')
})

test('an answer that is not streamed is cut too, and a cut after nothing comes before the first byte', async (t) => {
  const worker = await simulator(t)
  worker.fault({ kind: 'cut', afterEvents: 2 })
  await assert.rejects(post(worker, path, { ...chat, max_tokens: 50 }))
  worker.fault({ kind: 'cut', afterEvents: 0, count: 1 })
  await assert.rejects(post(worker, path, { ...chat, stream: true }))
  assert.equal((await post(worker, path, chat)).status, 200)
})

test('latency holds a request back before the engine sees it', async (t) => {
  let waited = 0
  const clock = {
    now: () => performance.now(),
    after: (delayMs: number, run: () => void) => {
      if (delayMs === 5_000) waited++
      const timer = setTimeout(run, delayMs === 5_000 ? 0 : delayMs)
      return () => clearTimeout(timer)
    },
  }
  const worker = await simulator(t, { clock })
  worker.fault({ kind: 'latency', ms: 5_000 })
  assert.equal((await post(worker, path, chat)).status, 200)
  assert.equal(waited, 1)
})

test('a fault that is none is refused with the field', async (t) => {
  const worker = await simulator(t, { worker: { faultControl: true } })
  for (const [fault, param] of [
    [{ kind: 'sleep' }, 'body.kind'],
    [{ kind: 'cut', afterEvents: 'many' }, 'body.afterEvents'],
    [{ kind: 'hang', paths: '/health' }, 'body.paths'],
  ] as const) {
    const answer = await post(worker, '/simulator/fault', fault)
    const { error } = (await answer.json()) as { error: { param: string } }
    assert.deepEqual([answer.status, error.param], [400, param])
  }
})

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { FakeEngine } from '../events/fake-engine.ts'
import { fleetFor, model, prose, type Fleet } from '../support/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

const bin = fileURLToPath(new URL('../../bin/warmroute.js', import.meta.url))

interface ChatAnswer {
  readonly choices: readonly { readonly message: { readonly content: string } }[]
  readonly usage: { readonly prompt_tokens: number; readonly prompt_tokens_details: { readonly cached_tokens: number } }
}

interface Answered {
  readonly worker: string
  readonly predicted: number
  readonly actual: number
  readonly promptTokens: number
  readonly content: string
}

async function ask(fleet: Fleet, messages: string | readonly object[], more: object = {}): Promise<Answered> {
  const answer = await fleet.chat(messages, more)
  const text = await answer.text()
  assert.equal(answer.status, 200, text)
  const { usage, choices } = JSON.parse(text) as ChatAnswer
  await fleet.settled()
  return {
    worker: answer.headers.get('x-warmroute-worker') ?? '',
    predicted: Number(answer.headers.get('x-warmroute-cached-tokens')),
    actual: usage.prompt_tokens_details.cached_tokens,
    promptTokens: usage.prompt_tokens,
    content: choices[0]?.message.content ?? '',
  }
}

test('a second turn goes to the warm worker, however often the others were used', async (t) => {
  const fleet = await fleetFor(t, { workers: 4 })
  const messages: object[] = [{ role: 'user', content: prose('turns', 150) }]
  const first = await ask(fleet, messages)
  messages.push({ role: 'assistant', content: first.content }, { role: 'user', content: 'Go on.' })
  for (let other = 0; other < 8; other++) await ask(fleet, prose(`other ${other}`, 20))
  const second = await ask(fleet, messages)
  assert.equal(second.worker, first.worker)
  assert.ok(
    second.predicted >= Math.floor(first.promptTokens / 16) * 16,
    `${second.predicted} of ${first.promptTokens} tokens`,
  )
  assert.equal(second.predicted, second.actual)
})

test('predicted equal reported cached tokens over conversations that push each other out', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, engine: { capacityBlocks: 120, maxModelLength: 1200 } })
  const random = seededRandom(11)
  const system = { role: 'system', content: prose('system', 30) }
  const users = Array.from({ length: 6 }, (_, user): object[] => [
    system,
    { role: 'user', content: prose(`user ${user}`, 60) },
  ])
  let warm = 0
  let short = 0
  for (let turn = 0; turn < 60; turn++) {
    const messages = users[Math.floor(random() * users.length)] ?? []
    const answer = await ask(fleet, messages, { max_tokens: 8, stream: false })
    assert.equal(answer.predicted, answer.actual, `turn ${turn}`)
    if (answer.actual > 0) warm++
    if (answer.actual < 400) short++
    messages.push({ role: 'assistant', content: answer.content }, { role: 'user', content: prose(`turn ${turn}`, 12) })
    if (messages.length > 12) messages.splice(2)
  }
  assert.ok(warm > 20 && short > 3, `${warm} warm and ${short} short matches: the caches must be both used and overrun`)
  const removed = await fleet.metric('kv_events_total', { kind: 'removed' })
  assert.ok(removed > 10, `${removed} removals`)
  for (const { agreement } of await fleet.workers()) assert.equal(agreement.ratio, 1)
})

test('a cache salt parts tenants: nobody is credited with another’s blocks', async (t) => {
  const fleet = await fleetFor(t, { workers: 2 })
  const text = prose('salted', 120)
  const salted = await ask(fleet, text, { cache_salt: 'tenant-a' })
  for (const more of [{}, { cache_salt: 'tenant-b' }]) {
    const other = await ask(fleet, text, more)
    assert.equal(other.predicted, 0)
    assert.equal(other.actual, 0)
  }
  const again = await ask(fleet, text, { cache_salt: 'tenant-a' })
  assert.equal(again.worker, salted.worker)
  assert.ok(again.predicted > 100)
  assert.equal(again.predicted, again.actual)
})

test('requests of a LoRA adapter match its own blocks only', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 2,
    simulators: {
      worker: {
        loras: [
          { name: 'tuned', path: '/a' },
          { name: 'other', path: '/b' },
        ],
      },
    },
  })
  const text = prose('adapter', 120)
  await ask(fleet, text)
  for (const name of ['tuned', 'other']) {
    const cold = await ask(fleet, text, { model: name })
    assert.equal(cold.predicted, 0)
    const warm = await ask(fleet, text, { model: name })
    assert.equal(warm.worker, cold.worker)
    assert.ok(warm.predicted > 100)
    assert.equal(warm.predicted, warm.actual)
  }
})

test('a chat with images is credited up to the first, and not held against what the engine then finds', async (t) => {
  const usage = { prompt_tokens: 3000, completion_tokens: 1, prompt_tokens_details: { cached_tokens: 2992 } }
  const engine = await scriptedEngine(t, (_received, response) => response.end(JSON.stringify({ choices: [], usage })))
  const events = await new FakeEngine('').listen()
  t.after(() => events.close())
  const worker = { blockSize: 16, events: { endpoint: `tcp://127.0.0.1:${events.port}` } }
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker })
  await until(async () => (await fleet.workers())[0]?.events.state === 'live', 'its events are live')
  const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } }
  const content = [{ type: 'text', text: prose('before', 80) }, image, { type: 'text', text: 'What is it?' }]
  for (let i = 0; i < 40; i++) assert.equal((await fleet.chat([{ role: 'user', content }])).status, 200)
  await fleet.settled()
  assert.ok((await fleet.metric('prompt_tokens_total')) > 40_000, 'each image counts in the load')
  const [row] = await fleet.workers()
  assert.deepEqual([row?.agreement.verified, row?.degraded], [0, undefined])
  assert.equal(await fleet.metric('prompts_with_media_total'), 40)
  const [record] = await fleet.decisions(1)
  assert.ok(record !== undefined && record.promptTokens < 10, 'this template’s message is unknown from its beginning')
})

test('40 cold prompts one at a time spread over 4 workers', async (t) => {
  const fleet = await fleetFor(t, { workers: 4 })
  const counts = new Map<string, number>()
  for (let prompt = 0; prompt < 40; prompt++) {
    const answer = await fleet.chat(prose(`cold ${prompt}`, 20 + ((prompt * 37) % 60)))
    await answer.text()
    const worker = answer.headers.get('x-warmroute-worker') ?? ''
    counts.set(worker, (counts.get(worker) ?? 0) + 1)
  }
  const largest = Math.max(...counts.values()) / 40
  t.diagnostic(`largest share ${largest}`)
  assert.ok(largest <= 0.35, `largest share ${largest}`)
})

test('long prompts, tokenized on a thread, are routed by prefix as short ones are', async (t) => {
  const fleet = await fleetFor(t, { workers: 2 })
  const text = prose('long', 9_000)
  const first = await ask(fleet, text)
  const second = await ask(fleet, [
    { role: 'user', content: text },
    { role: 'assistant', content: 'Yes.' },
    { role: 'user', content: 'Go on.' },
  ])
  assert.ok(first.promptTokens > 9_000)
  assert.equal(second.worker, first.worker)
  assert.ok(second.predicted > first.promptTokens - 32)
  assert.equal(second.predicted, second.actual)
})

/** What a decision says, less times, costs that depend on the time, and what was read from the engines, which goes on meanwhile. */
function essence(record: DecisionRecord): object {
  return {
    ...record,
    requestId: '',
    time: '',
    timingsUs: {},
    actualCachedTokens: 0,
    candidates: record.candidates.map((candidate) => ({
      ...candidate,
      ...{ scores: Object.keys(candidate.scores), total: 0 },
      load: { ...candidate.load, running: 0, waiting: 0, kvUsage: 0, ageMs: 0 },
    })),
  }
}

/** Metrics that requests move; process figures and ages move by themselves, and plugins are timed for explanations too. */
function requestMetrics(text: string): string[] {
  return text
    .split('\n')
    .filter(
      (line) =>
        line.startsWith('warmroute_') &&
        !/^warmroute_(process|nodejs|event_loop|token_cache|policy_(calls|seconds))/.test(line),
    )
}

test('explain, over HTTP and by command, is the decision that the request then gets, and changes nothing', async (t) => {
  const fleet = await fleetFor(t, { workers: 3 })
  await fleet.measured()
  const body = { model, messages: [{ role: 'user', content: prose('explain', 100) }], max_tokens: 2 }
  await ask(fleet, body.messages)
  await ask(fleet, prose('elsewhere', 40))

  const before = {
    decisions: await fleet.decisions(),
    metrics: requestMetrics(await fleet.metricsText()),
    workers: (await fleet.workers()).map(({ inFlight }) => inFlight),
  }
  const answer = await fleet.explain(body)
  assert.equal(answer.status, 200)
  const explained = (await answer.json()) as DecisionRecord
  const wrapped = (await (await fleet.explain({ path: '/v1/chat/completions', body })).json()) as DecisionRecord
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'body.json')
  writeFileSync(file, JSON.stringify(body))
  const command = (...more: string[]) =>
    promisify(execFile)(process.execPath, [bin, 'explain', '--url', fleet.adminUrl, ...more, file])
  const json = JSON.parse((await command('--json')).stdout) as DecisionRecord
  const table = (await command()).stdout
  const after = {
    decisions: await fleet.decisions(),
    metrics: requestMetrics(await fleet.metricsText()),
    workers: (await fleet.workers()).map(({ inFlight }) => inFlight),
  }
  assert.deepEqual(after, before)

  const id = 'the-request'
  const routed = await fleet.post('/v1/chat/completions', body, {
    headers: { 'x-request-id': id, 'x-warmroute-explain': '1' },
  })
  await routed.text()
  await fleet.settled()
  const inHeader = JSON.parse(routed.headers.get('x-warmroute-decision') ?? '') as DecisionRecord
  const kept = await fleet.admin<DecisionRecord>(`/admin/decisions/${id}`)
  for (const record of [wrapped, json, inHeader, kept]) {
    assert.deepEqual(essence(record), essence(explained))
    for (const [at, { total }] of record.candidates.entries()) {
      const expected = explained.candidates[at]?.total ?? NaN
      // How many requests come, which is a part of the cost, is less with each second without one.
      assert.ok(Math.abs(total - expected) < 0.01 * Math.abs(expected), `${total}, ${expected}`)
    }
  }
  assert.equal(routed.headers.get('x-warmroute-worker'), explained.chosen)
  assert.match(table, new RegExp(`→ +${explained.chosen}`))
  assert.match(table, /longest_match, \d+ tokens predicted to be cached/)
})

test('round robin is not moved on by explain', async (t) => {
  const fleet = await fleetFor(t, { workers: 3, pool: { profile: 'round-robin' } })
  const chosen: string[] = []
  for (let request = 0; request < 6; request++) {
    const body = { model, prompt: 'Hi', max_tokens: 1 }
    const explained = (await (await fleet.explain(body)).json()) as DecisionRecord
    const answer = await fleet.post('/v1/completions', body)
    await answer.text()
    assert.equal(answer.headers.get('x-warmroute-worker'), explained.chosen)
    chosen.push(explained.chosen)
  }
  assert.deepEqual(chosen.slice(3), chosen.slice(0, 3))
  assert.equal(new Set(chosen).size, 3)
})

test('explain answers the error that the request would get', async (t) => {
  const fleet = await fleetFor(t)
  const unknown = await fleet.explain({ model: 'other', prompt: 'Hi' })
  assert.equal(unknown.status, 404)
  assert.equal((await fleet.explain({ model })).status, 400)
  assert.equal((await fleet.explain({ path: '/v1/nothing', body: { model } })).status, 400)
})

test('a decision record is complete', async (t) => {
  const fleet = await fleetFor(t, { workers: 2 })
  await fleet.measured()
  const text = prose('record', 100)
  const first = await ask(fleet, text)
  const beforeMs = Date.now()
  await (await fleet.chat(text, {}, { headers: { 'x-request-id': 'recorded' } })).text()
  await fleet.settled()
  const record = await fleet.admin<DecisionRecord>('/admin/decisions/recorded')
  const blocks = Math.floor(first.promptTokens / 16)
  const { candidates, timingsUs, time, ...rest } = record
  assert.deepEqual(rest, {
    requestId: 'recorded',
    pool: model,
    model,
    profile: 'kv-aware',
    attempt: 1,
    promptTokens: first.promptTokens,
    blocks,
    chosen: first.worker,
    reason: 'longest_match',
    predictedCachedTokens: Math.floor((first.promptTokens - 1) / 16) * 16,
    actualCachedTokens: Math.floor((first.promptTokens - 1) / 16) * 16,
  })
  assert.ok(Date.parse(time) >= beforeMs - 1 && Date.parse(time) <= Date.now())
  assert.deepEqual(Object.keys(timingsUs), ['tokenize', 'keys', 'match', 'choose'])
  for (const value of Object.values(timingsUs)) assert.ok(value >= 0 && value < 1e6)
  assert.deepEqual(candidates.map(({ worker }) => worker).sort(), [...fleet.simulators.urls].sort())
  for (const { worker, matchedBlocks, exact, load, scores, total } of candidates) {
    assert.deepEqual(matchedBlocks, { gpu: worker === first.worker ? blocks : 0, host: 0, disk: 0, shared: 0 })
    assert.equal(exact, true)
    assert.deepEqual(Object.keys(load), [
      'requests',
      'prefillTokens',
      'decodeBlocks',
      'running',
      'waiting',
      'kvUsage',
      'ageMs',
    ])
    assert.deepEqual(Object.keys(scores), ['predicted-ttft'])
    assert.equal(total, scores['predicted-ttft'])
  }
  assert.equal((await fleet.decisions(1)).length, 1)
  assert.equal((await fleet.decisions())[0]?.requestId, 'recorded')
})

test('without a config, workers form a pool by the model that they say they serve', async (t) => {
  const { demoTokenizer } = await import('../support/fleet.ts')
  const one = await fleetFor(t, { workers: 2 })
  const fleet = await fleetFor(t, {
    workers: 0,
    config: { pools: [], workerUrls: [...one.simulators.urls], modelPath: demoTokenizer },
  })
  assert.equal((await fleet.workers()).length, 2, 'both are there as soon as the router is ready')
  const text = prose('formed', 80)
  const first = await fleet.chat(text)
  await first.text()
  await one.settled()
  assert.equal(first.status, 200)
  const { until } = await import('../support/until.ts')
  await until(
    async () =>
      ((await (await fleet.explain({ model, messages: [{ role: 'user', content: text }] })).json()) as DecisionRecord)
        .predictedCachedTokens > 0,
    'the pool’s tokenizer and events credit the first worker',
  )
})

test('until a worker has told its model, the answer is 503, not 404', async (t) => {
  const fleet = await fleetFor(t, { workers: 0, config: { pools: [], workerUrls: ['http://127.0.0.1:9'] } })
  const answer = await fleet.chat('Hi')
  assert.equal(answer.status, 503)
  assert.equal(answer.headers.get('retry-after'), '1')
})

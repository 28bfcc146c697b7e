import assert from 'node:assert/strict'
import { test } from 'node:test'
import OpenAI from 'openai'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { fleetFor, model, postTo, prose, type Fleet } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

/** Health checks so rare that only a request itself can find a dead worker. */
const rarelyChecked = { health: { intervalMs: 600_000, timeoutMs: 500 } }

async function assertIdle(fleet: Fleet): Promise<void> {
  await until(
    async () =>
      (await fleet.workers()).every(
        ({ inFlight }) => inFlight.requests === 0 && inFlight.prefillTokens === 0 && inFlight.decodeBlocks === 0,
      ),
    'nothing is in flight',
  )
}

const stateOf = async (fleet: Fleet, index: number): Promise<string | undefined> =>
  (await fleet.workers()).find(({ id }) => id === fleet.simulators.urls[index])?.state

for (const stream of [false, true]) {
  test(`a request for a dead worker goes to the next best one (${stream ? 'streamed' : 'whole'})`, async (t) => {
    const fleet = await fleetFor(t, { workers: 3, config: rarelyChecked })
    const text = prose('dead', 100)
    const first = await fleet.chat(text)
    await first.text()
    await fleet.settled()
    const warm = first.headers.get('x-warmroute-worker')
    await fleet.named(warm).kill()
    const second = await fleet.chat(text, { stream }, { headers: { 'x-request-id': 'retried' } })
    const body = await second.text()
    assert.equal(second.status, 200, body)
    assert.notEqual(second.headers.get('x-warmroute-worker'), warm)
    if (stream) assert.ok(body.endsWith('data: [DONE]\n\n'))
    assert.equal(await fleet.metric('retries_total', { reason: 'upstream_unreachable' }), 1)
    assert.equal((await fleet.admin<DecisionRecord>('/admin/decisions/retried')).attempt, 2)
    assert.equal(fleet.log.filter(({ message }) => message === 'request').at(-1)?.fields['attempt'], 2)
    assert.equal(
      await stateOf(fleet, fleet.simulators.urls.indexOf(warm ?? '')),
      'unhealthy',
      'the first failure takes it out',
    )
    assert.equal((await fleet.chat(text)).status, 200)
    assert.equal(await fleet.metric('retries_total'), 1, 'nobody else pays for it')
    await assertIdle(fleet)
  })
}

test('a worker killed during a whole answer costs its client nothing but time', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, engine: { stepBaseMs: 20 } })
  const answers = ['a', 'b', 'c', 'd'].map((name) => fleet.chat(prose(name, 30), { max_tokens: 20 }))
  const [first] = fleet.simulators.workers
  await until(() => (first?.stats[0]?.running ?? 0) >= 1, 'the first worker computes')
  const cut = first?.stats[0]?.running ?? 0
  await first?.kill()
  for (const answer of await Promise.all(answers)) {
    assert.equal(answer.status, 200, await answer.text())
    assert.equal(
      answer.headers.get('x-warmroute-worker'),
      fleet.worker(1).url === answer.headers.get('x-warmroute-worker') ? fleet.worker(1).url : '',
    )
  }
  assert.ok(cut >= 1)
  assert.equal(await fleet.metric('retries_total', { reason: 'upstream_unreachable' }), 2)
  await assertIdle(fleet)
})

test('with every worker dead the answer is a quick 502 or 503 with retry-after', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, config: rarelyChecked })
  for (const worker of fleet.simulators.workers) await worker.kill()
  const first = await fleet.chat('Hi')
  assert.equal(first.status, 502)
  const second = await fleet.chat('Hi')
  assert.equal(second.status, 503)
  for (const answer of [first, second]) {
    assert.equal(answer.headers.get('retry-after'), '1')
    assert.equal(answer.headers.get('x-should-retry'), null)
    assert.ok(((await answer.json()) as { error: { message: string } }).error.message)
  }
  assert.equal(await fleet.metric('requests_total', { status: '502' }), 1)
  assert.equal(await fleet.metric('requests_total', { status: '503' }), 1, 'what no worker took is counted, too')
  const explained = await fleet.explain({ model, prompt: 'Hi' })
  assert.equal(explained.status, 503)
  const models = (await (await fetch(`${fleet.publicUrl}/v1/models`)).json()) as { data: unknown[] }
  assert.deepEqual(models.data, [])
  assert.equal((await fetch(`${fleet.adminUrl}/readyz`)).status, 200)
  await assertIdle(fleet)
})

test('a worker that dies in a stream leaves no half event: an error event and [DONE] end it', async (t) => {
  const whole = 'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    response.write(whole + whole + 'data: {"id":"1","choices":[{"ind')
    setImmediate(() => response.destroy())
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const answer = await fleet.chat('Hi', { stream: true })
  assert.equal(answer.status, 200)
  const text = await answer.text()
  assert.ok(text.startsWith(whole + whole + 'data: {"error":'), text)
  const [error = '', done] = text.slice(2 * whole.length).split('\n\n')
  const note = JSON.parse(error.slice('data: '.length)) as { error: Record<string, unknown> }
  assert.deepEqual(Object.keys(note.error).sort(), ['code', 'message', 'param', 'type'])
  assert.equal(done, 'data: [DONE]')
  assert.ok(text.endsWith('data: [DONE]\n\n'))
  assert.equal(engine.received.length, 1, 'nothing is sent again once bytes have gone out')
  assert.equal(await fleet.metric('upstream_died_total'), 1)
  await assertIdle(fleet)
})

test('the openai client throws when the worker dies in its stream, and reads a whole one', async (t) => {
  const fleet = await fleetFor(t, { workers: 1, engine: { stepBaseMs: 30 } })
  const client = new OpenAI({ baseURL: `${fleet.publicUrl}/v1`, apiKey: 'any', maxRetries: 0 })
  const read = async (): Promise<string> => {
    let text = ''
    const stream = await client.chat.completions.create({
      model,
      messages: [{ role: 'user', content: 'Hi' }],
      max_completion_tokens: 12,
      stream: true,
    })
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    return text
  }
  const whole = await read()
  assert.equal(whole.trim().split(' ').length, 12)
  fleet.worker(0).dieAfterTokens(10)
  await assert.rejects(read(), (error: unknown) => error instanceof OpenAI.APIError && error.message.includes('died'))
  fleet.worker(0).dieAfterTokens(null)
  assert.equal(await read(), whole)
  await assert.rejects(client.chat.completions.create({ model: 'none', messages: [] }), OpenAI.NotFoundError)
  await assertIdle(fleet)
})

test('a whole answer cut in its body is not sent again, and its client sees a cut', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' })
    response.write('{"half":')
    setTimeout(() => response.destroy(), 20)
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  await assert.rejects(fleet.chat('Hi').then((answer) => answer.text()))
  assert.equal(engine.received.length, 1)
  await assertIdle(fleet)
})

test('a dead worker is out within 2 s and back after its restart, with nothing credited that it lost', async (t) => {
  const fleet = await fleetFor(t, { workers: 2 })
  const text = prose('restart', 200)
  const first = await fleet.chat(text)
  await first.text()
  await fleet.settled()
  const worker = fleet.named(first.headers.get('x-warmroute-worker'))
  const index = fleet.simulators.workers.indexOf(worker)
  const killedMs = performance.now()
  await worker.kill()
  await until(async () => (await stateOf(fleet, index)) === 'unhealthy', 'the dead worker is out', 2000)
  t.diagnostic(`added: out after ${Math.round(performance.now() - killedMs)} ms`)
  await worker.start()
  await until(async () => (await stateOf(fleet, index)) === 'healthy', 'the worker is back')
  await fleet.settled()
  const explained = (await (
    await fleet.explain({ model, messages: [{ role: 'user', content: text }] })
  ).json()) as DecisionRecord
  assert.deepEqual(
    explained.candidates.map(({ matchedBlocks }) => matchedBlocks.gpu),
    [0, 0],
  )
  for (let turn = 0; turn < 4; turn++) {
    const answer = await fleet.chat(text, { cache_salt: turn < 2 ? undefined : 'other' })
    const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
    assert.equal(Number(answer.headers.get('x-warmroute-cached-tokens')), usage.prompt_tokens_details.cached_tokens)
    assert.equal(usage.prompt_tokens_details.cached_tokens > 0, turn % 2 === 1)
    await fleet.settled()
  }
})

test('an engine that is restarted between two health checks is not credited with its old cache', async (t) => {
  const fleet = await fleetFor(t, { workers: 1, config: rarelyChecked })
  const text = prose('quick restart', 200)
  await (await fleet.chat(text)).text()
  await fleet.settled()
  assert.ok(((await fleet.workers())[0]?.map.blocks.gpu ?? 0) > 10)
  await fleet.worker(0).restart()
  await until(async () => (await fleet.workers())[0]?.map.blocks.gpu === 0, 'the old blocks are gone', 1000)
  const again = await fleet.chat(text)
  const { usage } = (await again.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
  assert.equal(again.status, 200)
  assert.equal(Number(again.headers.get('x-warmroute-cached-tokens')), usage.prompt_tokens_details.cached_tokens)
})

test('lost events are repaired by replay', async (t) => {
  const fleet = await fleetFor(t, { workers: 1 })
  await (await fleet.chat(prose('before', 50))).text()
  await fleet.settled()
  fleet.worker(0).dropEvents(1)
  const text = prose('lost', 150)
  await (await fleet.chat(text)).text()
  await (await fleet.chat(prose('after', 50))).text()
  await fleet.settled()
  const answer = await fleet.chat(text)
  const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
  assert.ok(usage.prompt_tokens_details.cached_tokens > 100)
  assert.equal(Number(answer.headers.get('x-warmroute-cached-tokens')), usage.prompt_tokens_details.cached_tokens)
  assert.equal(await fleet.metric('kv_event_gaps_total'), 1)
  assert.equal((await fleet.workers())[0]?.events.gaps, 1)
})

test('a gap that replay cannot fill clears the worker: what was stored before is not credited', async (t) => {
  const fleet = await fleetFor(t, { workers: 1, simulators: { worker: { bufferSteps: 1 } } })
  const before = prose('before', 100)
  await (await fleet.chat(before)).text()
  await fleet.settled()
  // Only the last batch is ever kept for replay.
  fleet.worker(0).dropEvents(2)
  for (const name of ['lost', 'lost, too', 'heard']) await (await fleet.chat(prose(name, 50))).text()
  await until(async () => (await fleet.workers())[0]?.events.gaps === 1, 'the gap is seen')
  const gpuBlocks = async (text: string): Promise<number | undefined> =>
    ((await (await fleet.explain({ model, messages: [{ role: 'user', content: text }] })).json()) as DecisionRecord)
      .candidates[0]?.matchedBlocks.gpu
  await until(async () => (await gpuBlocks(before)) === 0, 'the worker is cleared')
  // Later events count again.
  const later = prose('later', 100)
  await (await fleet.chat(later)).text()
  await until(async () => ((await gpuBlocks(later)) ?? 0) > 5, 'later events count')
})

test('a worker whose events keep being lost is routed by what it is sent, and again by its events once none were lost', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 1,
    simulators: { worker: { bufferSteps: 1 } },
    config: { eventLosses: { gaps: 2, withinSeconds: 2 } },
  })
  const [view] = await fleet.workers()
  assert.equal(view?.events.lossy, undefined)
  for (let gap = 1; gap <= 2; gap++) {
    fleet.worker(0).dropEvents(2)
    for (const name of ['lost', 'lost, too', 'heard']) await (await fleet.chat(prose(`${name} ${gap}`, 50))).text()
    await until(async () => (await fleet.workers())[0]?.events.gaps === gap, 'the gap is seen')
  }
  await until(async () => (await fleet.workers())[0]?.events.lossy === true, 'it is called lossy')
  const explained = async (text: string): Promise<DecisionRecord> =>
    (await fleet.explain({ model, messages: [{ role: 'user', content: text }] })).json() as Promise<DecisionRecord>
  const text = prose('sent', 100)
  await (await fleet.chat(text)).text()
  await until(async () => {
    const [candidate] = (await explained(text)).candidates
    return candidate?.exact === false && candidate.matchedBlocks.gpu > 5
  }, 'what it was sent counts, and is not called exact')
  assert.equal((await fleet.chat(text)).status, 200)
  assert.equal(fleet.log.filter(({ message }) => message.includes('keep being lost')).length, 1)
  let later = 0
  await until(async () => {
    const prompt = prose(`later ${later++}`, 100)
    await (await fleet.chat(prompt)).text()
    const [candidate] = (await explained(prompt)).candidates
    return candidate?.exact === true && candidate.matchedBlocks.gpu > 5
  }, 'its events count again')
  assert.equal((await fleet.workers())[0]?.events.lossy, undefined)
  assert.equal(fleet.log.filter(({ message }) => message.includes('they count again')).length, 1)
})

test('a cleared prefix cache is cleared in the map', async (t) => {
  const fleet = await fleetFor(t, { workers: 1 })
  const text = prose('cleared', 150)
  await (await fleet.chat(text)).text()
  await fleet.settled()
  assert.ok(((await fleet.workers())[0]?.map.blocks.gpu ?? 0) > 10)
  assert.equal((await postTo(`${fleet.worker(0).url}/reset_prefix_cache`, {})).status, 200)
  // The engine tells it with the batch of its next step.
  await (await fleet.chat('Hi', { max_tokens: 1 })).text()
  await fleet.settled()
  assert.ok(((await fleet.workers())[0]?.map.blocks.gpu ?? Infinity) <= 2)
  const answer = await fleet.chat(text)
  assert.equal(answer.headers.get('x-warmroute-cached-tokens'), '0')
  const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
  assert.equal(usage.prompt_tokens_details.cached_tokens, 0)
})

for (const stream of [true, false]) {
  test(`a client that leaves stops the engine at once (${stream ? 'streamed' : 'whole'})`, async (t) => {
    const fleet = await fleetFor(t, { workers: 1, engine: { stepBaseMs: 5 } })
    const leaving = new AbortController()
    const requests = Array.from({ length: 5 }, (_, index) =>
      fleet
        .chat(`${index} ${prose('abort', 20)}`, { stream, max_tokens: 5000 }, { signal: leaving.signal })
        .then((answer) => answer.text()),
    )
    const ended = Promise.allSettled(requests)
    await until(() => fleet.worker(0).stats[0]?.running === 5, 'the engine computes all')
    const leftMs = performance.now()
    leaving.abort()
    await until(() => fleet.worker(0).stats[0]?.running === 0, 'the engine has stopped', 1000)
    t.diagnostic(`added: stopped after ${Math.round(performance.now() - leftMs)} ms`)
    assert.equal(fleet.worker(0).stats[0]?.aborted, 5)
    assert.ok((await ended).every(({ status }) => status === 'rejected'))
    await assertIdle(fleet)
    assert.equal(await fleet.metric('client_aborts_total'), 5)
    assert.equal(await stateOf(fleet, 0), 'healthy')
  })
}

test('a client that leaves before its request was sent on is never sent on', async (t) => {
  const fleet = await fleetFor(t, { workers: 1 })
  const leaving = new AbortController()
  const request = fleet.chat(prose('big', 40_000), {}, { signal: leaving.signal })
  const ended = assert.rejects(request)
  // The body is long: it is read and tokenized on a thread, which takes longer than leaving does.
  await until(async () => (await fleet.metric('queued_requests')) >= 0, 'the router is up')
  leaving.abort()
  await ended
  await (await fleet.chat('after')).text()
  await fleet.settled()
  assert.equal(fleet.worker(0).stats[0]?.finished, 1)
  await assertIdle(fleet)
})

test('an engine that hangs costs a stream 504 after the first-token limit', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 1,
    config: { timeouts: { firstTokenMs: 300, totalMs: 500, idleMs: 300 } },
  })
  fleet.worker(0).stall()
  const startMs = performance.now()
  const [streamed, whole] = await Promise.all([fleet.chat('Hi', { stream: true }), fleet.chat('Hi')])
  for (const answer of [streamed, whole]) {
    assert.equal(answer.status, 504)
    assert.equal(((await answer.json()) as { error: { code: string } }).error.code, 'upstream_timeout')
  }
  assert.ok(performance.now() - startMs >= 450)
  fleet.worker(0).resume()
  await until(
    () => fleet.worker(0).stats.every(({ running, waiting }) => running + waiting === 0),
    'the engine was told to stop',
  )
  await assertIdle(fleet)
  assert.equal((await fleet.chat('Hi')).status, 200)
})

test('a stream whose first token is too late is tried once elsewhere, a whole answer is not', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, config: { timeouts: { firstTokenMs: 250, totalMs: 250 } } })
  const text = prose('hang', 60)
  const first = await fleet.chat(text)
  await first.text()
  await fleet.settled()
  const warm = first.headers.get('x-warmroute-worker')
  fleet.named(warm).stall()
  const streamed = await fleet.chat(text, { stream: true })
  assert.equal(streamed.status, 200)
  assert.notEqual(streamed.headers.get('x-warmroute-worker'), warm)
  await streamed.text()
  assert.equal(await fleet.metric('retries_total', { reason: 'upstream_timeout' }), 1)
  const queries = fleet.simulators.workers.map((worker) => worker.stats[0]?.finished)
  const whole = await fleet.chat(`${text} now`)
  if (whole.status !== 200) assert.equal(whole.status, 504)
  assert.equal(await fleet.metric('retries_total', { reason: 'upstream_timeout' }), 1)
  assert.ok(queries.length === 2)
  fleet.named(warm).resume()
  await assertIdle(fleet)
})

test('a stream that falls silent ends with an error event after the idle limit', async (t) => {
  const fleet = await fleetFor(t, { workers: 1, engine: { stepBaseMs: 10 }, config: { timeouts: { idleMs: 300 } } })
  const answer = await fleet.chat('Hi', { stream: true, max_tokens: 2000 })
  assert.equal(answer.status, 200)
  const text = answer.text()
  await until(() => (fleet.worker(0).stats[0]?.generatedTokens ?? 0) > 3, 'tokens flow')
  fleet.worker(0).stall()
  assert.match(
    await text,
    /data: \{"error":\{"message":"Nothing from the worker for 300 ms"[^\n]*\n\ndata: \[DONE\]\n\n$/,
  )
  assert.equal(await stateOf(fleet, 0), 'healthy', 'its health check still answers')
  fleet.worker(0).resume()
  await until(() => fleet.worker(0).stats[0]?.running === 0, 'the engine was told to stop')
  await assertIdle(fleet)
})

test('a redirect of an engine is never passed on', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(307, { location: 'http://other.example/' }).end(),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const answer = await fleet.chat('Hi')
  assert.equal(answer.status, 502)
  assert.equal(answer.headers.get('location'), null)
  assert.equal(engine.received.length, 1)
  await assertIdle(fleet)
})

test('a connection that the engine closed while it was idle is not taken for a dead engine', async (t) => {
  const fleet = await fleetFor(t, { workers: 1 })
  const text = prose('idle', 100)
  await (await fleet.chat(text)).text()
  await fleet.settled()
  const known = (await fleet.workers())[0]?.map.blocks.gpu
  const engine = await scriptedEngine(t, (_request, response) => response.destroy())
  assert.ok(engine.url)
  fleet.worker(0).dieAfterTokens(1)
  const cut = await fleet.chat(text)
  assert.equal(cut.status, 502)
  fleet.worker(0).dieAfterTokens(null)
  assert.equal(await stateOf(fleet, 0), 'healthy')
  await fleet.settled()
  assert.ok(((await fleet.workers())[0]?.map.blocks.gpu ?? 0) >= (known ?? Infinity), 'what is known of it stays')
})

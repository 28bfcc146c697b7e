import assert from 'node:assert/strict'
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import type { Config } from '../../src/config/schema.ts'
import { configOf, fleetFor, prose, type Fleet } from '../support/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'

interface Message {
  readonly role: string
  readonly content: string
}

/** One conversation, a turn at a time; its messages grow by each question and answer. */
async function converse(fleet: Fleet, messages: Message[], question: string, stream = false): Promise<void> {
  messages.push({ role: 'user', content: question })
  const answer = await fleet.chat(messages, { max_tokens: 8, stream: false })
  assert.equal(answer.status, 200)
  const { choices } = (await answer.json()) as { choices: { message: Message }[] }
  messages.push(choices[0]!.message)
  if (stream) await (await fleet.chat(messages, { stream: true })).text()
}

const served = (fleet: Fleet) =>
  fleet.log
    .filter(({ message }) => message === 'request')
    .map(({ fields }) => fields as Record<string, number | string>)

async function explained(fleet: Fleet, content: string): Promise<DecisionRecord> {
  const body = { model: 'demo', messages: [{ role: 'user', content }] }
  return (await (await fleet.explain(body)).json()) as DecisionRecord
}

/** Workers 2 and 3 are not listened to. */
const mixed = { workers: 4, worker: (index: number) => (index < 2 ? {} : { events: false }) }

test('a mixed fleet: workers without events are predicted as well as those with, and labelled', async (t) => {
  const fleet = await fleetFor(t, mixed)
  await until(
    async () => (await explained(fleet, 'Hi')).candidates.filter(({ exact }) => exact).length === 2,
    'the events of two are known to be live',
  )
  const random = seededRandom(11)
  const talks = Array.from({ length: 12 }, (_, i): Message[] => [
    { role: 'system', content: prose(`system ${i % 6}`, 120) },
  ])
  for (let turn = 0; turn < 4; turn++) {
    for (const batch of [talks.slice(0, 6), talks.slice(6)]) {
      await Promise.all(
        batch.map((talk, i) =>
          converse(fleet, talk, prose(`${turn} ${i}`, 20 + Math.floor(random() * 60)), i % 3 === 0),
        ),
      )
    }
  }
  await fleet.settled()

  const views = await fleet.workers()
  assert.deepEqual(views.map(({ events }) => events.state).sort(), ['absent', 'absent', 'live', 'live'])
  const blind = new Set(views.filter(({ events }) => events.state === 'absent').map(({ id }) => id))
  for (const { id, map, approximate, degraded } of views) {
    assert.equal(approximate !== undefined, map.blocks.gpu > 0 && blind.has(id))
    assert.equal(degraded, undefined)
  }

  const assumed = views.filter(({ id }) => blind.has(id)).reduce((sum, { map }) => sum + map.blocks.gpu, 0)
  assert.ok(assumed > 40, `${assumed} blocks assumed`)
  const requests = served(fleet)
  const off = { predicted: 0, actual: 0 }
  for (const { worker, predictedCachedTokens, actualCachedTokens } of requests) {
    if (!blind.has(String(worker)) || actualCachedTokens === undefined) continue
    off.predicted += Math.abs(Number(predictedCachedTokens) - Number(actualCachedTokens))
    off.actual += Number(actualCachedTokens)
  }
  assert.ok(off.actual > 1000)
  assert.ok(off.predicted / off.actual < 0.1, `off by ${off.predicted} of ${off.actual} tokens`)

  const decisions = await fleet.decisions()
  for (const { candidates } of decisions)
    for (const { worker, exact } of candidates) assert.equal(exact, !blind.has(worker))
  const reasons = new Set(decisions.map(({ reason }) => reason))
  for (const reason of ['longest_match', 'approximate_match']) assert.ok(reasons.has(reason), [...reasons].join(', '))
})

test('a worker without events that is started anew holds nothing any more', async (t) => {
  const fleet = await fleetFor(t, { ...mixed, worker: { events: false }, workers: 1 })
  const text = prose('restarted', 100)
  await (await fleet.chat(text)).text()
  assert.equal((await explained(fleet, text)).reason, 'only_candidate')
  assert.ok((await explained(fleet, text)).predictedCachedTokens > 50)
  await fleet.worker(0).restart()
  await until(async () => (await explained(fleet, text)).predictedCachedTokens === 0, 'its blocks are forgotten')
  assert.equal((await fleet.workers())[0]?.map.blocks.gpu, 0)
})

test('a worker that has less room than was thought is relied on for less, and predictions come right', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 1,
    engine: { capacityBlocks: 200 },
    worker: { events: false, capacityBlocks: 5000 },
  })
  const talks = Array.from({ length: 12 }, (_, i) => prose(`talk ${i}`, 300))
  const offOf = async (rounds: number): Promise<number> => {
    const from = served(fleet).length
    for (let round = 0; round < rounds; round++)
      for (const talk of talks) await (await fleet.chat(talk, { max_tokens: 1 })).text()
    return served(fleet)
      .slice(from)
      .reduce((sum, row) => sum + Math.abs(Number(row['predictedCachedTokens']) - Number(row['actualCachedTokens'])), 0)
  }
  const first = await offOf(3)
  assert.ok(first > 1000, 'at first it is thought to hold all of them')
  for (let more = 0; more < 6; more++) await offOf(3)
  const later = await offOf(3)
  assert.ok(later < first / 2, `off by ${first} tokens at first and ${later} later`)
  const [view] = await fleet.workers()
  assert.ok((view?.approximate?.capacityBlocks ?? Infinity) < 1500, `${view?.approximate?.capacityBlocks} blocks`)
})

for (const events of [true, false]) {
  test(`equal prompts at once keep together on few workers ${events ? 'with' : 'without'} events, and most find the prompt cached`, (t) =>
    burst(t, events))
}

async function burst(t: TestContext, events: boolean): Promise<void> {
  const engine = { stepBaseMs: 2, prefillTokensPerSecond: 2_000 }
  const fleet = await fleetFor(t, { workers: 8, engine, worker: events ? {} : { events } })
  const text = prose('burst', 1200)
  const answers = await Promise.all(
    Array.from({ length: 64 }, (_, i) => fleet.chat(text, { max_tokens: 2, stream: i % 2 === 0 })),
  )
  await Promise.all(answers.map((answer) => answer.text()))
  await fleet.settled()
  const decisions = await fleet.decisions()
  const chosen = new Set(decisions.map(({ chosen }) => chosen))
  assert.ok(chosen.size <= 4, `on ${chosen.size} workers`)
  const [coming, matched] = [/^match_coming$/, /match/].map(
    (wanted) => decisions.filter(({ reason, fallback }) => fallback === undefined && wanted.test(reason)).length,
  )
  // How many come while the first is computed depends on the machine; the others find what it left.
  assert.ok((coming ?? 0) >= 8 && (matched ?? 0) >= 48, `${coming} coming, ${matched} matched`)
  const hits = fleet.simulators.workers.flatMap(({ stats }) => stats)
  const share =
    hits.reduce((sum, { prefixHitTokens }) => sum + prefixHitTokens, 0) /
    hits.reduce((sum, { prefixQueryTokens }) => sum + prefixQueryTokens, 0)
  assert.ok(share > 0.9, `hit ratio ${share}`)
  for (const { degraded, agreement } of await fleet.workers()) {
    assert.equal(degraded, undefined)
    if (events) assert.ok(agreement.ratio > 0.9, `agreement ${agreement.ratio}`)
  }
  assert.deepEqual(
    (await explained(fleet, text)).candidates.filter(({ comingBlocks }) => comingBlocks !== undefined),
    [],
    'nothing is coming any more',
  )
}

test('a prompt that a worker refused is not coming there', async (t) => {
  const worker = (index: number) => (index === 0 ? {} : { events: false })
  const fleet = await fleetFor(t, { workers: 2, worker, config: { retries: { attempts: 0 } } })
  const text = prose('refused', 200)
  for (const worker of fleet.simulators.workers) worker.fault({ kind: 'status', status: 503 })
  for (let times = 0; times < 4; times++) assert.equal((await fleet.chat(text)).status, 503)
  for (const { comingBlocks, matchedBlocks } of (await explained(fleet, text)).candidates) {
    assert.equal(comingBlocks, undefined)
    assert.equal(matchedBlocks.gpu, 0)
  }
})

/** Passes connections on to a port once it is opened, and breaks them off before. */
async function gateTo(t: TestContext, port: number): Promise<{ readonly port: number; open(): void }> {
  const sockets = new Set<Socket>()
  let isOpen = false
  const server: Server = createServer((socket) => {
    if (!isOpen) {
      socket.destroy()
      return
    }
    const onward = connect(port, '127.0.0.1')
    for (const end of [socket, onward]) {
      sockets.add(end)
      end.on('error', () => undefined)
    }
    socket.pipe(onward).pipe(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, open: () => (isOpen = true) }
}

test('a worker whose events come late is predicted without them, and by them as soon as they are there', async (t) => {
  const { startSimulators } = await import('../../src/simulator/simulate.ts')
  const { loadTokenizer } = await import('../../src/tokenize/tokenizer.ts')
  const { demoTokenizer } = await import('../support/fleet.ts')
  const simulators = await startSimulators({
    workers: 1,
    model: 'demo',
    tokenizer: await loadTokenizer({ path: demoTokenizer }),
    engine: { stepBaseMs: 1 },
  })
  t.after(() => simulators.stop())
  const engine = simulators.workers[0]!
  const gate = await gateTo(t, Number(engine.eventEndpoints().events.split(':').at(-1)))
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: simulators.urls,
    worker: { events: { endpoint: `tcp://127.0.0.1:${gate.port}` } },
    awaitEvents: false,
  })
  const text = prose('late', 100)
  await (await fleet.chat(text)).text()
  const before = await explained(fleet, text)
  assert.ok(before.predictedCachedTokens > 50)
  assert.equal(before.candidates[0]?.exact, false)
  gate.open()
  await until(async () => (await explained(fleet, text)).candidates[0]?.exact === true, 'its events are live')
  await until(async () => (await explained(fleet, text)).predictedCachedTokens === 0, 'what was assumed is forgotten')
  const other = prose('later', 100)
  await (await fleet.chat(other)).text()
  await until(async () => (await explained(fleet, other)).predictedCachedTokens > 50, 'its events tell')
  assert.equal((await fleet.workers())[0]?.approximate, undefined)
})

test('with the approximation off, a worker without events is routed by load only', async (t) => {
  const fleet = await fleetFor(t, { ...mixed, config: { approximate: { enabled: false } }, worker: { events: false } })
  const text = prose('off', 100)
  for (let times = 0; times < 3; times++) await (await fleet.chat(text)).text()
  const { predictedCachedTokens, candidates } = await explained(fleet, text)
  assert.equal(predictedCachedTokens, 0)
  assert.ok(candidates.every(({ matchedBlocks }) => matchedBlocks.gpu === 0))
})

test('turned off and on by a reload, what was concluded is forgotten at once', async (t) => {
  let enabled = true
  const load = (): Config =>
    configOf({ worker: { events: false }, config: { approximate: { enabled } } }, fleet.simulators.urls)
  const fleet = await fleetFor(t, { worker: { events: false }, source: { file: null, load } })
  const text = prose('reloaded', 100)
  const blocks = async () => (await fleet.workers())[0]?.map.blocks.gpu ?? 0
  await (await fleet.chat(text)).text()
  assert.ok((await blocks()) > 5)
  enabled = false
  assert.equal(await fleet.router.reload(), 'applied')
  await until(async () => (await blocks()) === 0, 'nothing is assumed')
  await (await fleet.chat(text)).text()
  assert.equal(await blocks(), 0)
  enabled = true
  await fleet.router.reload()
  await (await fleet.chat(text)).text()
  await until(async () => (await blocks()) > 5, 'it is assumed again')
})

test('requests of others on a worker are seen in its load and keep ours away', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, engine: { stepBaseMs: 20 } })
  const { postTo } = await import('../support/fleet.ts')
  const others = Array.from({ length: 4 }, (_, i) =>
    postTo(`${fleet.worker(0).url}/v1/completions`, { model: 'demo', prompt: prose(`o${i}`, 20), max_tokens: 150 }),
  )
  const of = async (index: number) =>
    (await fleet.workers()).find(({ id }) => id === fleet.simulators.urls[index])?.load?.foreignRequests
  await until(async () => (await of(0)) === 4, 'they are foreign')
  assert.equal(await of(1), 0)
  const chosen = (await explained(fleet, prose('ours', 10))).chosen
  assert.equal(chosen, fleet.simulators.urls[1])
  await Promise.all(others.map(async (answer) => (await answer).text()))
  await until(async () => (await of(0)) === 0, 'they are gone')
})

// Router and simulated engines on real sockets, set up wrongly in every usual way: each fault is named within 100 requests.
// test/truth tries all pairs, and 100,000 healthy requests, in virtual time.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test, type TestContext } from 'node:test'
import type { Flavour } from '../../src/simulator/flavour.ts'
import { sglang } from '../../src/simulator/flavours/sglang.ts'
import { trtllm } from '../../src/simulator/flavours/trtllm.ts'
import type { Misreport } from '../../src/simulator/misreport.ts'
import { startSimulators, type Simulators } from '../../src/simulator/simulate.ts'
import { vllmBlockHash } from '../../src/simulator/vllm-block-hash.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { demoTokenizer, fleetFor, model, prose, type Fleet, type WorkerView } from '../support/fleet.ts'
import { until } from '../support/until.ts'

interface Truth extends WorkerView {
  readonly findings: readonly { readonly cause: string; readonly text: string }[]
  readonly nativeHash: { readonly state: string }
  readonly mark?: string
}

interface Setup {
  readonly misreport?: readonly Misreport[]
  /** Whether answers report cached tokens. */
  readonly details?: boolean
  readonly events?: boolean
  /** Whether the engine has /tokenize. */
  readonly tokenize?: boolean
  readonly capacityBlocks?: number
  readonly flavour?: Flavour
  /** Config of the worker and the pool. */
  readonly worker?: object
  readonly pool?: object
}

const folder = mkdtempSync(join(tmpdir(), 'warmroute-template-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const otherTemplate = join(folder, 'other.jinja')
writeFileSync(
  otherTemplate,
  "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}" +
    readFileSync(join(demoTokenizer, 'chat_template.jinja'), 'utf8'),
)

interface Running {
  readonly fleet: Fleet
  readonly simulators: Simulators
}

async function running(t: TestContext, setup: Setup): Promise<Running> {
  const simulators = await startSimulators({
    workers: 1,
    model,
    tokenizer: await loadTokenizer({ path: demoTokenizer }),
    engine: {
      stepBaseMs: 1,
      decodeMsPerRequest: 0.1,
      prefillTokensPerSecond: 100_000,
      ...(setup.flavour === undefined ? { blockHash: vllmBlockHash('sha256') } : {}),
      ...(setup.capacityBlocks === undefined ? {} : { capacityBlocks: setup.capacityBlocks }),
    },
    worker: {
      ...(setup.flavour === undefined
        ? { loras: [{ name: 'sql', path: '/adapters/sql' }] }
        : { flavour: setup.flavour }),
      promptTokensDetails: setup.details ?? true,
      misreport: setup.misreport ?? [],
    },
    ...(setup.events === false ? { eventsPort: null } : {}),
  })
  t.after(() => simulators.stop())
  if (setup.tokenize === false) simulators.workers[0]?.fault({ kind: 'status', status: 404, paths: ['/tokenize'] })
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: simulators.urls,
    worker: setup.worker ?? {},
    pool: setup.pool ?? {},
    config: { truth: { graceMs: 200, silentMs: 500 }, load: { intervalMs: 50 } },
  })
  if (setup.events !== false && setup.worker === undefined)
    await until(async () => (await fleet.workers())[0]?.events.state === 'live', 'events are live')
  return { fleet, simulators }
}

async function truthOf(fleet: Fleet): Promise<Truth> {
  return (await fleet.workers())[0] as Truth
}

/** Turns of a few conversations: chats and completions, a third of them salted, a third of an adapter. */
async function drive(fleet: Fleet, requests: number, { adapters = true, from = 0 } = {}): Promise<void> {
  for (let sent = from; sent < from + requests; sent++) {
    const text = prose(`conversation ${sent % 7}`, 60 + (sent % 5) * 12)
    const more = {
      max_tokens: 4,
      ...(sent % 3 === 0 ? { cache_salt: 'tenant-a' } : {}),
      ...(adapters && sent % 3 === 1 ? { model: 'sql' } : {}),
    }
    const answer =
      sent % 2 === 0
        ? await fleet.chat(text, more)
        : await fleet.post('/v1/completions', { model, prompt: text, ...more })
    assert.equal(answer.status, 200)
    await answer.arrayBuffer()
  }
}

async function named(fleet: Fleet, causes: readonly string[], allowed: readonly string[] = []): Promise<Truth> {
  const isNamed = async (): Promise<boolean> => {
    const found = (await truthOf(fleet)).findings.map(({ cause }) => cause)
    return causes.every((cause) => found.includes(cause))
  }
  for (let sent = 0; sent < 100 && !(await isNamed()); sent += 25) await drive(fleet, 25, { from: sent })
  await until(isNamed, `${causes.join()} named`, 10_000)
  const view = await truthOf(fleet)
  const others = view.findings.map(({ cause }) => cause).filter((cause) => ![...causes, ...allowed].includes(cause))
  assert.deepEqual(others, [], 'nothing else is blamed')
  assert.equal(view.mark, view.degraded === undefined ? 'amber' : 'red')
  for (const cause of causes) assert.equal(await fleet.metric('worker_finding', { cause }), 1)
  return view
}

const numbered: Setup = { misreport: ['lora-numbered'] }
const cases: readonly (readonly [string, Setup, readonly string[]])[] = [
  ['a wrong block size in the config', { worker: { blockSize: 32 } }, ['block_size']],
  ['blocks of another size than announced', { misreport: ['block-size'] }, ['block_size']],
  ['a salt that the engine ignores', { misreport: ['salt-ignored'] }, ['salt']],
  ['a salt that events do not tell', { misreport: ['salt-untold'] }, ['salt']],
  ['adapters under other names', { misreport: ['lora-renamed'] }, ['lora']],
  ['adapters that are only numbered', numbered, ['lora']],
  ['a wrong template', { pool: { chatTemplate: otherTemplate } }, ['template']],
  ['a wrong template, no /tokenize', { pool: { chatTemplate: otherTemplate }, tokenize: false }, ['template']],
  ['a wrong hash seed', { worker: { nativeHash: { seed: '0' } } }, ['hash_seed']],
  ['events off', { events: false }, ['events_off']],
  ['silent events', { misreport: ['silent'] }, ['events_silent']],
  [
    'events at a port where nobody is',
    { worker: { blockSize: 16, events: { endpoint: 'tcp://127.0.0.1:9' } } },
    ['events_unreachable'],
  ],
  [
    'a salt that is ignored, and a wrong hash seed',
    { misreport: ['salt-ignored'], worker: { nativeHash: { seed: '0' } } },
    ['salt', 'hash_seed'],
  ],
  [
    'adapters under other names, a wrong template and no /tokenize',
    { misreport: ['lora-renamed'], pool: { chatTemplate: otherTemplate }, tokenize: false },
    ['lora', 'template'],
  ],
  [
    'a wrong block size and a salt that events do not tell',
    { misreport: ['salt-untold'], worker: { blockSize: 32 } },
    ['block_size', 'salt'],
  ],
  [
    'events off and a wrong template',
    { events: false, pool: { chatTemplate: otherTemplate } },
    ['events_off', 'template'],
  ],
]

// They mostly wait.
void suite('misconfigured', { concurrency: 4 }, () => {
  for (const [name, setup, causes] of cases) {
    void test(`${name}: named within 100 requests`, async (t) => {
      await named((await running(t, setup)).fleet, causes)
    })
    void test(`${name}: named within 100 requests of an engine that reports no cached tokens`, async (t) => {
      const { fleet } = await running(t, { ...setup, details: false })
      // Nor is that named where nothing was expected to be found.
      await named(fleet, causes, ['details_off'])
    })
  }
})

test('a worker whose events are silent is routed by load only, with one loud line, and believed again when they come', async (t) => {
  const { fleet, simulators } = await running(t, {})
  await drive(fleet, 21)
  simulators.workers[0]?.pauseEvents()
  for (let sent = 0; sent < 8; sent++) await (await fleet.chat(prose(`new ${sent}`, 80))).arrayBuffer()
  await until(async () => (await truthOf(fleet)).degraded === 'events_silent', 'silence is noticed')
  assert.equal((await truthOf(fleet)).mark, 'red')
  assert.equal(fleet.log.filter(({ level }) => level === 'error').length, 1)
  simulators.workers[0]?.resumeEvents()
  await until(async () => (await truthOf(fleet)).degraded === undefined, 'it is heard again')
})

test('repeats of cached prompts, of which engines tell nothing, are no silence', async (t) => {
  const { fleet } = await running(t, { details: false })
  const text = prose('again and again', 80)
  for (let sent = 0; sent < 30; sent++) await (await fleet.chat(text, { max_tokens: 1 })).arrayBuffer()
  await new Promise((resolve) => setTimeout(resolve, 900))
  const view = await truthOf(fleet)
  assert.equal(view.degraded, undefined)
  assert.deepEqual(
    view.findings.map(({ cause }) => cause),
    ['details_off'],
  )
})

for (const kind of ['sglang', 'trtllm'] as const) {
  for (const details of [true, false]) {
    test(`a healthy ${kind} that ${details ? 'reports' : 'does not report'} cached tokens is blamed for nothing else`, async (t) => {
      const flavour = kind === 'sglang' ? sglang({ cacheReport: details }) : trtllm()
      const { fleet } = await running(t, { flavour, details })
      await drive(fleet, 150, { adapters: false })
      await new Promise((resolve) => setTimeout(resolve, 500))
      const view = await truthOf(fleet)
      const causes = view.findings.map(({ cause }) => cause).filter((cause) => details || cause !== 'details_off')
      assert.deepEqual(causes, [])
      assert.equal(view.degraded, undefined)
      assert.ok(view.agreement.verified > 50, `${view.agreement.verified}`)
      assert.equal(view.nativeHash.state, 'verified')
    })
  }
}

for (const untold of [true, false]) {
  test(`an SGLang whose streams tell nothing is ${untold ? 'found out' : 'agreed with'} by its hit counters, while it publishes its load`, async (t) => {
    const { fleet } = await running(t, {
      flavour: sglang({ metrics: true, publishLoad: true }),
      capacityBlocks: 100,
      misreport: untold ? ['removals-untold'] : [],
    })
    const { verified } = (await truthOf(fleet)).agreement
    const isJudged = async (): Promise<boolean> => {
      const { agreement, degraded } = await truthOf(fleet)
      return untold ? degraded === 'predictions_fail' : agreement.verified - verified > 60
    }
    for (let sent = 0; sent < 150 && !(await isJudged()); sent++)
      await (await fleet.chat(prose(`one of many ${sent % 20}`, 200), { stream: true })).arrayBuffer()
    await until(isJudged, 'its counters were read')
    const view = await truthOf(fleet)
    const causes = view.findings.map(({ cause }) => cause)
    assert.deepEqual(causes, untold ? ['finds_less'] : [])
    assert.equal(view.load?.source, 'feed')
  })
}

test('healthy engines under pressure are blamed for nothing: evictions, bursts, several answers, leaving clients, restarts', async (t) => {
  const { fleet, simulators } = await running(t, { capacityBlocks: 160 })
  const turn = async (sent: number): Promise<void> => {
    const stream = sent % 4 === 1
    const leaves = sent % 17 === 0
    const init = leaves ? { signal: AbortSignal.timeout(3) } : {}
    const text = prose(`pressed ${sent % 9 === 0 ? 0 : sent % 23}`, 40 + (sent % 11) * 9)
    const more = {
      max_tokens: 1 + (sent % 9),
      ...(stream ? { stream } : {}),
      ...(sent % 7 === 3 ? { n: 2 } : {}),
      ...(sent % 5 === 0 ? { cache_salt: `tenant ${sent % 2}` } : {}),
    }
    const prompt = sent % 6 === 5 ? [text, prose(`other ${sent}`, 50)] : text
    try {
      const answer = await (sent % 2 === 0
        ? fleet.chat(text, more, init)
        : fleet.post('/v1/completions', { model, prompt, ...more }, init))
      await answer.arrayBuffer()
    } catch (error) {
      assert.ok(leaves || (error as Error).name === 'TypeError', String(error))
    }
  }
  for (let round = 0; round < 40; round++) {
    await Promise.all(Array.from({ length: 12 }, (_, at) => turn(round * 12 + at)))
    if (round === 20) await simulators.workers[0]?.restart()
    if (round === 30) await fetch(`${simulators.urls[0] ?? ''}/reset_prefix_cache`, { method: 'POST' })
  }
  await new Promise((resolve) => setTimeout(resolve, 900))
  const view = await truthOf(fleet)
  assert.deepEqual(view.findings, [])
  assert.equal(view.degraded, undefined)
})

test('a healthy engine is verified, covered, agreed with, and blamed for nothing', async (t) => {
  const { fleet } = await running(t, {})
  await drive(fleet, 200)
  const view = await truthOf(fleet)
  assert.deepEqual(view.findings, [])
  assert.equal(view.nativeHash.state, 'verified')
  assert.equal(view.mark, undefined)
  const agreement = view.agreement as WorkerView['agreement'] & { readonly coverage: number; readonly bias: number }
  assert.equal(agreement.coverage, 1)
  assert.ok(agreement.ratio > 0.99, `${agreement.ratio}`)
  assert.ok(Math.abs(agreement.bias) < 0.01)
  assert.equal(fleet.log.filter(({ level }) => level === 'error').length, 0)
})

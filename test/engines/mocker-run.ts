import { join } from 'node:path'
import { seededRandom } from '../support/random.ts'
import type { OwnRule } from './exchanges.ts'
import { Field, tellWorker } from './field.ts'
import { Journal } from './journal.ts'
import { folder, installDynamo, makeMockModel, Mocker, type MockerOptions } from './mocker.ts'
import { ownWays } from './mocker-ways.ts'
import { Processes } from './processes.ts'
import { Relay } from './relay.ts'
import type { Report } from './report.ts'
import { Router, type WorkerView } from './router.ts'

type Told = 'all' | 'size' | 'nothing'

interface Case {
  readonly title: string
  readonly options: MockerOptions
  readonly requests: number
  readonly leastAgreement: number
  readonly rules?: readonly OwnRule[]
  /** Whether an engine dies and another one's events are lost. */
  readonly failures?: boolean
  /** What the router's config tells of the engines beside their URLs; all where omitted. */
  readonly told?: Told
}

const blockSize = 16
/** Of both engines about what the agents have open; with what else they leave behind, evictions never end. */
const blocks = 320
const agents = { agents: 4, conversations: 6, longest: 500 }
const eventsMs = 20_000

/** Blocks that the engine once told of, has removed since, and yet finds again. */
const silentHost: OwnRule = ({ promptIds, predicted, actual }, journal) => {
  const known = journal.namesOf(promptIds).length * blockSize
  return actual !== null && actual > predicted && actual <= known
    ? 'loaded from the host tier, of which the mocker publishes no event'
    : null
}

const wholePrompt: OwnRule = ({ promptIds, predicted, actual }) =>
  actual === promptIds.length && actual === predicted + blockSize
    ? 'the mocker counts a whole prompt as cached, its last token too'
    : null

const cases: readonly Case[] = [
  {
    title: 'as vLLM',
    options: { imitates: 'vllm', blocks, blockSize },
    requests: 1_000,
    leastAgreement: 0.98,
    failures: true,
  },
  {
    title: 'as SGLang',
    options: { imitates: 'sglang', blocks, blockSize },
    requests: 1_000,
    leastAgreement: 0.98,
  },
  {
    title: 'as SGLang with pages of one token',
    options: { imitates: 'sglang', blocks: blocks * blockSize, blockSize: 1 },
    requests: 300,
    leastAgreement: 0.98,
  },
  {
    title: 'as TensorRT-LLM',
    options: { imitates: 'trtllm', blocks, blockSize },
    requests: 1_000,
    // It admits a request only once there is room for all of its answer: more is evicted while requests wait.
    leastAgreement: 0.97,
    rules: [wholePrompt],
  },
  {
    title: 'as vLLM with a host tier',
    options: { imitates: 'vllm', blocks, blockSize, hostBlocks: 2 * blocks },
    requests: 200,
    // Most of what is found again comes from a tier that nobody is told of.
    leastAgreement: 0,
    rules: [silentHost],
  },
  {
    title: 'without events',
    options: { imitates: 'vllm', blocks, blockSize },
    requests: 1_000,
    leastAgreement: 0.7,
    told: 'nothing',
  },
  {
    title: 'without events, its size configured',
    options: { imitates: 'vllm', blocks, blockSize },
    requests: 1_000,
    leastAgreement: 0.9,
    told: 'size',
  },
]

/** Warmroute before two engines of NVIDIA Dynamo's mocker, for each engine that it imitates. */
export async function mockerRun(report: Report, only?: string): Promise<void> {
  report.section('NVIDIA Dynamo’s mocker')
  const programs = installDynamo((line) => report.say(line))
  const model = makeMockModel()
  const processes = new Processes(join(folder, 'running.json'))
  for (const one of cases)
    if (only === undefined || one.title.includes(only)) await runCase(one, report, programs, model, processes)
}

async function runCase(
  { title, options, requests, leastAgreement, rules, failures, told = 'all' }: Case,
  report: Report,
  programs: string,
  model: string,
  processes: Processes,
): Promise<void> {
  report.section(
    `The mocker ${title}: ${options.blocks} blocks of ${options.blockSize}${options.hostBlocks === undefined ? '' : `, ${options.hostBlocks} in the host`}`,
  )
  const mockers = [
    await Mocker.at('mocker 1', options, programs, model, processes),
    await Mocker.at('mocker 2', options, programs, model, processes),
  ] as const
  for (const mocker of mockers) mocker.start()
  for (const mocker of mockers) await mocker.ready()
  const relay = await Relay.of(mockers[1].events)
  const journals = new Map<string, Journal>()
  for (const { url, events } of mockers)
    journals.set(url, await Journal.of({ endpoint: events, blockSize: options.blockSize, countsStores: false }))
  const log = join(folder, 'logs', `router-${title.replaceAll(' ', '-')}.txt`)
  const config = configFor(mockers, relay, model, told)
  const router = await Router.startWith(config, join(folder, 'router.yaml'), log, processes)
  for (const { name, url } of mockers) {
    const worker = await router.workerOnce(url, told === 'all' ? isLive : isUp, eventsMs)
    report.check(`${name} is healthy`, worker !== null, `${worker?.engine}, events ${worker?.events.state}`)
  }
  const field = new Field({
    report,
    router,
    blockSize: options.blockSize,
    journals,
    tellsTokens: false,
    ...(rules === undefined ? {} : { rules }),
  })
  const random = seededRandom(20_261_123)
  await field.work(requests, { ...agents, random })
  field.judge(leastAgreement, told === 'all')
  for (const mocker of mockers) {
    const panic = mocker.panic()
    if (panic === null) continue
    report.say(`${mocker.name} gave up: ${panic}`)
    await journals.get(mocker.url)?.close()
    journals.delete(mocker.url)
  }
  if (told === 'all') await field.mapIsRight()
  for (const { url } of mockers) await tellWorker(report, router, url)
  if (failures === true) {
    await lostEvents(report, router, field, relay, mockers[1], random)
    await death(report, router, field, mockers[0], journals, random)
  }
  if (told === 'all' && mockers[0].panic() === null) await ownWays(report, router, mockers[0])
  for (const journal of journals.values()) await journal.close()
  await relay.close()
  processes.endAll()
}

function isUp({ state }: WorkerView): boolean {
  return state === 'healthy'
}

function isLive(worker: WorkerView): boolean {
  return isUp(worker) && worker.events.state === 'live'
}

/** The mocker answers neither /kv_event_sources nor /metrics as an engine, so that the config tells all of it, or none. */
function configFor([first, second]: readonly [Mocker, Mocker], relay: Relay, model: string, told: Told): object {
  const worker = ({ url, options, replay }: Mocker, endpoint: string): object => {
    if (told === 'nothing') return { url }
    const size = { url, blockSize: options.blockSize, capacityBlocks: options.blocks }
    if (told === 'size') return size
    // As TensorRT-LLM it publishes the events of vLLM, too.
    return { ...size, engine: options.imitates === 'sglang' ? 'sglang' : 'vllm', events: { endpoint, replay } }
  }
  const workers = [worker(first, first.events), worker(second, relay.endpoint)]
  return {
    // The frontend has not the paths of the engine that is imitated.
    health: { path: '/health' },
    // The one that comes back is asked about at once.
    outliers: { slowStart: { windowMs: 0 } },
    pools: [{ model: 'model', tokenizer: model, workers }],
  }
}

/** Messages that never arrive leave a gap, which the mocker's own replay fills. */
async function lostEvents(
  report: Report,
  router: Router,
  field: Field,
  relay: Relay,
  mocker: Mocker,
  random: () => number,
): Promise<void> {
  report.section(`Lost events of ${mocker.name}`)
  const before = (await router.worker(mocker.url)).events.gaps
  relay.lose(5)
  await field.work(60, { ...agents, random })
  const after = await router.workerOnce(
    mocker.url,
    ({ events }) => events.gaps > before && events.state === 'live',
    eventsMs,
  )
  report.check(
    'the gap was seen, and filled',
    after !== null,
    `${relay.lost} messages lost; ${JSON.stringify(after?.events)}`,
  )
  await field.mapIsRight()
}

/** kill -9, and another process at the same address. */
async function death(
  report: Report,
  router: Router,
  field: Field,
  mocker: Mocker,
  journals: ReadonlyMap<string, Journal>,
  random: () => number,
): Promise<void> {
  report.section(`kill -9 of ${mocker.name}`)
  mocker.kill()
  journals.get(mocker.url)?.forget()
  const down = await router.workerOnce(
    mocker.url,
    ({ state, map }) => state !== 'healthy' && map.blocks.gpu === 0,
    eventsMs,
  )
  report.check('it is down, and the map holds nothing of it', down !== null)
  const failed = field.failed
  await field.work(40, { ...agents, random })
  report.equal('requests fail meanwhile', field.failed - failed, 0)
  mocker.start()
  await mocker.ready()
  const back = await router.workerOnce(mocker.url, isLive, eventsMs)
  report.check('it is back, and its events are live', back !== null, JSON.stringify(back?.events))
  await field.work(200, { ...agents, random })
  await field.mapIsRight()
}

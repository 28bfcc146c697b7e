import { setTimeout as after } from 'node:timers/promises'
import { demoTokenizer, model, prose } from '../support/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { metricSum } from '../support/metric-sum.ts'
import { elapsed, streamEnding, type Ask, type Sent, type LoadClient } from './load.ts'
import type { EngineProcess, RouterProcess } from './processes.ts'
import type { Rig } from './rig.ts'
import { percentile, Verdict, type Finding } from './scenario.ts'
import { batches, blow } from './storm.ts'
import { tellingWorker } from './telling-engine.ts'

export const soak = {
  number: 'soak',
  fault:
    'half of the load that the machine bears, while engines die and return every 20 s, clients leave, and one engine publishes 10,000–50,000 blocks/s in bursts',
  promise:
    'memory that is held grows < 1 MB/min after the warm-up, descriptors stay flat, event-loop delay p99 < 20 ms, 0 unexpected errors',
} as const

const sampleMs = 5000
const flapMs = 20_000
/** Caches fill and compilers warm up at first. */
const warmUpShare = 1 / 3
/** Blocks a second. */
const heaviestStorm = 50_000

export interface Sample {
  readonly atMs: number
  readonly rssMiB: number
  readonly heapMiB: number
  readonly externalMiB: number
  readonly descriptors: number
  readonly loopDelayMs: number
  readonly mapMiB: number
}

/** What clients saw, counted as it comes: a run of hours must not be kept in memory. */
interface Outcomes {
  sent: number
  /** Left on purpose. */
  left: number
  /** Told by an error event, or reset, that their engine died. */
  cut: number
  readonly unexpected: Map<string, number>
}

export async function runSoak(rig: Rig, minutes: number): Promise<Finding & { readonly series: readonly Sample[] }> {
  // Fast enough that the machine is the limit, and not the GPUs that are simulated.
  const engines = await rig.engines(4, '--time-scale', '16')
  const telling = await tellingWorker(rig, {}, 'storm')
  telling.events.keeps = 20
  rig.after(() => telling.events.close())
  const router = await rig.router([...engines, telling], {
    collects: true,
    config: {
      pools: [
        { model, tokenizer: demoTokenizer, workers: engines.map(({ url }) => ({ url })) },
        // Of its own: an engine that answers at once would get all requests.
        { model: 'storm', tokenizer: demoTokenizer, workers: [{ url: telling.url, ...telling.worker }] },
      ],
      // Small enough to be full before the warm-up ends.
      map: { budgetBytes: 32 * 2 ** 20 },
      tokenizer: { threads: 1, cacheBytes: 16 * 2 ** 20 },
      log: { level: 'warn' },
    },
  })
  const client = rig.client(router, 256)
  const mix = requestMix()
  const payloads = batches(600)
  const [bearable] = await Promise.all([bearablePerSecond(client, mix), blow(telling.events, payloads, heaviestStorm)])
  const perSecond = bearable / 2
  const outcomes: Outcomes = { sent: 0, left: 0, cut: 0, unexpected: new Map() }
  const isOver = elapsed(minutes * 60_000)
  const [series, held] = await Promise.all([
    sample(router, isOver),
    heldMemory(router, minutes),
    load(client, perSecond, isOver, mix, outcomes),
    flap(engines, isOver),
    storms(telling.events, payloads, isOver),
  ])
  await router.idle()
  return { ...verdictOf(series, held, outcomes, perSecond), series }
}

/** What is answered at most, with everything on one machine. Nothing is kept: what piles up here would slow the rest down. */
async function bearablePerSecond(client: LoadClient, mix: (index: number) => Ask): Promise<number> {
  const seconds = 6
  const isOver = elapsed(seconds * 1000)
  let answered = 0
  await Promise.all(
    Array.from({ length: 64 }, async () => {
      for (; !isOver(); answered++) await client.chat(mix(answered))
    }),
  )
  return answered / seconds
}

/** Conversations that return, new prompts, and some long ones; most streamed; every fiftieth client leaves. */
function requestMix(): (index: number) => Ask {
  const random = seededRandom(1)
  const known = Array.from({ length: 200 }, (_, index) => prose(`conversation ${index}`, 300))
  return (index) => {
    const kind = random()
    const words = kind < 0.1 ? 1500 : 60
    const content =
      kind < 0.6
        ? `${known[Math.floor(random() * known.length)] ?? ''} And ${index}?`
        : prose(`new ${index} ${kind}`, words)
    const stream = random() < 0.75
    const maxTokens = 4 + Math.floor(random() * 28)
    if (!stream || random() >= 0.02) return { content, stream, maxTokens }
    const leave = new AbortController()
    return { content, stream, maxTokens: 500, signal: leave.signal, onFirstByte: () => leave.abort() }
  }
}

async function load(
  client: LoadClient,
  perSecond: number,
  isOver: () => boolean,
  mix: (index: number) => Ask,
  outcomes: Outcomes,
): Promise<void> {
  const open = new Set<Promise<void>>()
  const startMs = performance.now()
  for (let index = 0; !isOver(); index++) {
    const waitMs = startMs + (index * 1000) / perSecond - performance.now()
    if (waitMs > 1) await after(waitMs)
    const ask = mix(index)
    const one = client.chat(ask).then((sent) => count(ask, sent, outcomes))
    open.add(one)
    void one.then(() => open.delete(one))
  }
  await Promise.all(open)
}

function count({ signal, stream = false }: Ask, sent: Sent, outcomes: Outcomes): void {
  outcomes.sent++
  const ending = stream ? streamEnding(sent) : sent.broken ? 'reset' : sent.status === 200 ? 'whole' : 'refused'
  if (signal?.aborted === true) outcomes.left++
  else if (ending === 'error event' || (ending === 'reset' && sent.status === 200)) outcomes.cut++
  else if (ending !== 'whole') {
    const name = `${sent.status} ${ending}`
    outcomes.unexpected.set(name, (outcomes.unexpected.get(name) ?? 0) + 1)
  }
}

async function flap(engines: readonly EngineProcess[], isOver: () => boolean): Promise<void> {
  for (let round = 0; !isOver(); round++) {
    await after(flapMs)
    const engine = engines[round % engines.length]
    await engine?.kill()
    await after(1000)
    await engine?.start()
  }
}

/** Bursts of a few seconds, with rests; the same blocks come again and again and are evicted in between. */
async function storms(
  events: Parameters<typeof blow>[0],
  payloads: readonly Buffer[],
  isOver: () => boolean,
): Promise<void> {
  for (let round = 0; !isOver(); round++) {
    const blocksPerSecond = (heaviestStorm / 5) * (1 + (round % 5))
    const from = (round * 100) % payloads.length
    await blow(events, payloads.slice(from, from + 100), blocksPerSecond)
    await after(4000)
  }
}

/** What the process keeps: its memory right after a collection, once it is warm and at the end. */
interface Held {
  readonly fromMiB: number
  readonly toMiB: number
  readonly perMinuteMiB: number
}

async function heldMemory(router: RouterProcess, minutes: number): Promise<Held> {
  await after(minutes * 60_000 * warmUpShare)
  const fromMiB = await router.collect()
  const measuredMinutes = minutes * (1 - warmUpShare)
  await after(measuredMinutes * 60_000)
  const toMiB = await router.collect()
  return { fromMiB, toMiB, perMinuteMiB: (toMiB - fromMiB) / measuredMinutes }
}

async function sample(router: RouterProcess, isOver: () => boolean): Promise<Sample[]> {
  const series: Sample[] = []
  const startMs = performance.now()
  await router.metricsText()
  while (!isOver()) {
    await after(sampleMs)
    const text = await router.metricsText()
    const bytes = (name: string): number => metricSum(text, name) / 2 ** 20
    series.push({
      atMs: Math.round(performance.now() - startMs),
      rssMiB: router.rssMiB,
      heapMiB: bytes('nodejs_heap_size_used_bytes'),
      externalMiB: bytes('nodejs_external_memory_bytes'),
      descriptors: router.descriptors,
      loopDelayMs: 1000 * metricSum(text, 'event_loop_delay_seconds', { quantile: '0.99' }),
      mapMiB: bytes('map_bytes'),
    })
  }
  return series
}

function verdictOf(series: readonly Sample[], held: Held, outcomes: Outcomes, perSecond: number): Finding {
  const warm = series.slice(Math.floor(series.length * warmUpShare))
  const half = Math.floor(warm.length / 2)
  const openedIn = (part: readonly Sample[]): number => most(part, ({ descriptors }) => descriptors)
  const [before, afterwards] = [openedIn(warm.slice(0, half)), openedIn(warm.slice(half))]
  const delays = warm.map(({ loopDelayMs }) => loopDelayMs)
  const late = delays.filter((ms) => ms >= 20).length
  const unexpected = [...outcomes.unexpected].map(([name, times]) => `${name} × ${times}`)
  const last = warm.at(-1)
  const verdict = new Verdict()
  verdict.add(
    `${Math.round((series.at(-1)?.atMs ?? 0) / 60_000)} min at ${perSecond.toFixed(0)} requests/s: ${outcomes.sent} sent, ${outcomes.left} left on purpose, ${outcomes.cut} cut by an engine’s death`,
  )
  verdict.add(`unexpected: ${unexpected.length === 0 ? '0' : unexpected.join(', ')}`, unexpected.length === 0)
  verdict.add(
    `memory, after all garbage is collected, ${held.fromMiB.toFixed(0)} MiB after the warm-up and ${held.toMiB.toFixed(0)} MiB at the end: ${held.perMinuteMiB.toFixed(2)} MiB/min (as it stands at most ${most(warm, ({ rssMiB }) => rssMiB).toFixed(0)} MiB)`,
    held.perMinuteMiB < 1,
  )
  verdict.add(`descriptors at most ${before} in the first half, ${afterwards} in the second`, afterwards <= before + 16)
  verdict.add(
    `event-loop delay p99 of 5 s: median ${percentile(delays, 0.5).toFixed(1)} ms, worst ${Math.max(...delays).toFixed(1)} ms, ${late} of ${delays.length} at 20 ms or more`,
    late <= delays.length / 100,
  )
  verdict.add(`map ${last?.mapMiB.toFixed(0) ?? ''} of 32 MiB`)
  return verdict.finding(warm.map(({ rssMiB }) => rssMiB))
}

function most(samples: readonly Sample[], of: (sample: Sample) => number): number {
  return Math.max(...samples.map(of))
}

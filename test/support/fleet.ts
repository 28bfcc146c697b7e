import { fileURLToPath } from 'node:url'
import type { TestContext } from 'node:test'
import { checkConfig } from '../../src/config/load.ts'
import { startRouter, type Router, type RouterParts } from '../../src/main.ts'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { startSimulators, type Simulators, type SimulatorsOptions } from '../../src/simulator/simulate.ts'
import type { SimulatedWorker } from '../../src/simulator/worker.ts'
import type { Log } from '../../src/telemetry/log.ts'
import { loadTokenizer, type Tokenizer } from '../../src/tokenize/tokenizer.ts'
import { metricSum } from './metric-sum.ts'
import { seededRandom } from './random.ts'
import { until } from './until.ts'

export const demoTokenizer = fileURLToPath(new URL('../../config/tokenizers/demo', import.meta.url))
export const model = 'demo'

let loaded: Promise<Tokenizer> | null = null

export interface FleetOptions {
  readonly workers?: number
  readonly engine?: SimulatorsOptions['engine']
  readonly simulators?: Partial<SimulatorsOptions>
  /** Options of every worker in the config, beside its URL, or of each by its index. */
  readonly worker?: object | ((index: number) => object)
  /** Options of the one pool. */
  readonly pool?: object
  /** Top-level config options; `listen` and `admin` are on free ports unless given. */
  readonly config?: object
  /** Config entries of the workers in place of the simulators'. */
  readonly urls?: readonly string[]
  /** Where the config is read again for a reload. */
  readonly source?: RouterParts['source']
  /** Whether to wait until all events are live; false where they come later. */
  readonly awaitEvents?: boolean
}

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
}

export interface WorkerView {
  readonly id: string
  readonly url: string
  readonly pool: string
  readonly engine: string
  readonly rank: number | null
  readonly state: string
  readonly degraded?: string
  readonly blockSize: number | null
  readonly approximate?: { readonly capacityBlocks: number }
  readonly load: { readonly source?: string; readonly foreignRequests?: number } | null
  readonly events: {
    readonly state: string
    readonly lastSequence: number | null
    readonly gaps: number
    readonly restarts: number
    /** Blocks may be there that were announced before what is known. */
    readonly partial: boolean
    readonly lossy?: boolean
  }
  readonly map: { readonly blocks: { readonly gpu: number; readonly host: number; readonly disk: number } }
  readonly inFlight: { readonly requests: number; readonly prefillTokens: number; readonly decodeBlocks: number }
  readonly agreement: {
    readonly predicted: number
    readonly actual: number
    readonly ratio: number
    readonly verified: number
  }
}

/** Simulated engines behind a router, all in this process, on real sockets. */
export class Fleet {
  readonly router: Router
  readonly simulators: Simulators
  readonly publicUrl: string
  readonly adminUrl: string
  /** Every line that the router logged. */
  readonly log: readonly LogLine[]

  constructor(router: Router, simulators: Simulators, log: readonly LogLine[]) {
    this.router = router
    this.simulators = simulators
    this.publicUrl = router.publicUrl
    this.adminUrl = router.adminUrl
    this.log = log
  }

  worker(index: number): SimulatedWorker {
    const worker = this.simulators.workers[index]
    if (worker === undefined) throw new RangeError(`simulated worker ${index}`)
    return worker
  }

  /** The simulator behind a worker id. */
  named(id: string | null): SimulatedWorker {
    return this.worker(this.simulators.urls.indexOf(id ?? ''))
  }

  post(
    path: string,
    body: unknown,
    init: { headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Response> {
    return postTo(this.publicUrl + path, body, init)
  }

  chat(
    content: string | readonly object[],
    more: object = {},
    init: { headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Response> {
    const messages = typeof content === 'string' ? [{ role: 'user', content }] : content
    return this.post('/v1/chat/completions', { model, messages, max_tokens: 4, ...more }, init)
  }

  async admin<Answer>(path: string): Promise<Answer> {
    const answer = await fetch(this.adminUrl + path)
    return (await answer.json()) as Answer
  }

  async workers(): Promise<readonly WorkerView[]> {
    return (await this.admin<{ workers: readonly WorkerView[] }>('/admin/workers')).workers
  }

  async decisions(limit = 1000): Promise<readonly DecisionRecord[]> {
    return (await this.admin<{ decisions: readonly DecisionRecord[] }>(`/admin/decisions?limit=${limit}`)).decisions
  }

  explain(body: object, headers: Record<string, string> = {}): Promise<Response> {
    return postTo(`${this.adminUrl}/admin/explain`, body, { headers })
  }

  metricsText(): Promise<string> {
    return fetch(`${this.adminUrl}/metrics`).then((answer) => answer.text())
  }

  /** Sum of a metric's samples whose labels contain all of `labels`. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return metricSum(await this.metricsText(), name, labels)
  }

  /** Until the map knows all that the running engines have said, and nothing is in flight. */
  async settled(): Promise<void> {
    await until(async () => {
      const views = await this.workers()
      return views.every((view) => view.inFlight.requests === 0 && this.#heard(view))
    }, 'all events are applied and nothing is in flight')
  }

  /** Until every worker's load has been read and its events are known to be live. */
  async measured(): Promise<void> {
    await until(async () => {
      const { candidates } = (await (await this.explain({ model, prompt: 'Hi' })).json()) as DecisionRecord
      return candidates.every(({ exact, load }) => exact && load.running !== undefined)
    }, 'loads and events are known')
  }

  #heard({ id, rank, events }: WorkerView): boolean {
    const worker = this.simulators.workers[this.simulators.urls.indexOf(id.split('#')[0] ?? '')]
    const publisher = worker?.publishers[rank ?? 0]
    if (publisher === undefined || events.state === 'absent') return true
    return events.state === 'live' && (events.lastSequence ?? -1) === publisher.nextSequence - 1
  }

  async stop(): Promise<void> {
    await this.router.stop()
    await this.simulators.stop()
  }
}

/** Engines as fast as the clock allows, and a router with the default policy and quick health checks. */
export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  loaded ??= loadTokenizer({ path: demoTokenizer })
  const tokenizer = await loaded
  const simulators = await startSimulators({
    workers: options.workers ?? 1,
    model,
    tokenizer,
    ...options.simulators,
    engine: { stepBaseMs: 1, decodeMsPerRequest: 0.1, prefillTokensPerSecond: 100_000, ...options.engine },
    worker: { ...options.simulators?.worker },
  })
  const log: LogLine[] = []
  try {
    const router = await startRouter(configOf(options, options.urls ?? simulators.urls), {
      log: collectingLog(log),
      random: seededRandom(7),
      ...(options.source === undefined ? {} : { source: options.source }),
    })
    const fleet = new Fleet(router, simulators, log)
    await until(
      async () => (await fleet.workers()).every(({ state }) => state === 'healthy'),
      'all workers are healthy',
    )
    if (options.awaitEvents !== false) await fleet.settled()
    return fleet
  } catch (error) {
    await simulators.stop()
    throw error
  }
}

/** As `startFleet`, for the length of a test. */
export async function fleetFor(t: TestContext, options: FleetOptions = {}): Promise<Fleet> {
  const fleet = await startFleet(options)
  t.after(() => fleet.stop())
  return fleet
}

const optionsOf = (worker: FleetOptions['worker'], index: number): object =>
  typeof worker === 'function' ? (worker as (index: number) => object)(index) : (worker ?? {})

export function configOf(options: FleetOptions, urls: readonly string[]): ReturnType<typeof checkConfig> {
  return checkConfig({
    listen: { port: 0 },
    admin: { port: 0 },
    // A busy machine may hold up the whole process, which must not pass for an engine that hangs.
    health: { intervalMs: 100, timeoutMs: 2000, failures: 3 },
    load: { intervalMs: 50 },
    shutdown: { graceMs: 2000 },
    tokenizer: { threads: 1 },
    pools: [
      {
        model,
        tokenizer: demoTokenizer,
        ...options.pool,
        workers: urls.map((url, index) => ({ url, ...optionsOf(options.worker, index) })),
      },
    ],
    ...options.config,
  })
}

export function collectingLog(lines: LogLine[]): Log {
  const at =
    (level: LogLine['level']) =>
    (fields: object, message: string): void => {
      lines.push({ level, fields: fields as Record<string, unknown>, message })
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** A text or bytes go as they are, anything else as JSON. */
export function postTo(
  url: string,
  body: unknown,
  init: { headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    ...init,
    headers: { 'content-type': 'application/json', ...init.headers },
    body: typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
  })
}

/** A text of about `words` tokens that no other name shares a beginning with. */
export function prose(name: string, words: number): string {
  const random = seededRandom(Buffer.from(name).reduce((hash, byte) => Math.imul(hash, 31) + byte, 7))
  const known = [
    'river',
    'stone',
    'window',
    'garden',
    'letter',
    'market',
    'winter',
    'number',
    'engine',
    'people',
    'little',
    'always',
  ]
  return `${name}: ${Array.from({ length: words }, () => known[Math.floor(random() * known.length)]).join(' ')}`
}

import { spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { warmrouteBin } from '../support/command.ts'
import { metricSum } from '../support/metric-sum.ts'
import { until } from '../support/until.ts'

/** What GET /simulator/counters tells. */
export interface EngineCounters {
  readonly requests: Readonly<Record<string, number>>
  readonly running: number
  readonly aborted: number
  readonly lastAbortMs: number | null
  readonly nowMs: number
}

export interface WorkerRow {
  readonly id: string
  readonly state: string
  readonly degraded?: string
  readonly events: { readonly state: string; readonly gaps: number; readonly restarts: number }
  readonly map: { readonly blocks: { readonly gpu: number } }
  readonly inFlight: { readonly requests: number; readonly prefillTokens: number; readonly decodeBlocks: number }
}

const collecting = new URL('collect.ts', import.meta.url).href
const jumping = new URL('jumping-clock.ts', import.meta.url).href
const startDeadlineMs = 30_000

/** A process of the command line, which can be killed and held as any process can. */
class CommandProcess {
  child: ChildProcess | null = null
  out = ''
  errors = ''
  exited: Promise<number | null> = Promise.resolve(null)

  spawn(argv: readonly string[], nodeArgv: readonly string[] = []): void {
    const child = spawn(process.execPath, [...nodeArgv, warmrouteBin, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.child = child
    this.out = this.errors = ''
    child.stdout.on('data', (chunk: Buffer) => (this.out += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (this.errors += chunk.toString()))
    this.exited = new Promise((resolve) => child.once('close', resolve))
  }

  get pid(): number {
    return this.child?.pid ?? 0
  }

  get ended(): boolean {
    return this.child === null || this.child.exitCode !== null || this.child.signalCode !== null
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.ended) this.child?.kill(signal)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.exited
  }
}

/** A simulated engine in a process of its own. */
export class EngineProcess extends CommandProcess {
  url = ''
  readonly #flags: readonly string[]
  #ports: readonly [string, string, string] = ['0', '0', '0']

  constructor(flags: readonly string[]) {
    super()
    this.#flags = flags
  }

  /** Starts it, again on the ports that it had; of flags that are given twice the last counts. */
  async start(...more: readonly string[]): Promise<void> {
    const [http, events, replay] = this.#ports
    const ports = ['--http-port', http, '--events-port', events, '--replay-port', replay]
    this.spawn(['simulate', '--workers', '1', '--faults', ...ports, ...this.#flags, ...more])
    await until(() => this.out.includes('\n') || this.ended, 'an engine starts', startDeadlineMs)
    const [url = '', , eventsUrl = '', , replayUrl = ''] = this.out.trim().split(/\s+/)
    if (!url.startsWith('http')) throw new Error(`simulate ended: ${this.errors}`)
    this.url = url
    const port = (text: string): string => /\d+$/.exec(text)?.[0] ?? '0'
    this.#ports = [port(url), port(eventsUrl), port(replayUrl)]
  }

  async fault(fault: object): Promise<void> {
    const answer = await fetch(`${this.url}/simulator/fault`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(fault),
    })
    if (!answer.ok) throw new Error(`no such fault: ${await answer.text()}`)
  }

  async counters(): Promise<EngineCounters> {
    return (await (await fetch(`${this.url}/simulator/counters`)).json()) as EngineCounters
  }

  /** Generation requests of this life of the process. */
  async calls(): Promise<number> {
    const { requests } = await this.counters()
    return (requests['/v1/chat/completions'] ?? 0) + (requests['/v1/completions'] ?? 0)
  }
}

/** `warmroute serve` in a process of its own. */
export class RouterProcess extends CommandProcess {
  url = ''
  adminUrl = ''
  configFile = ''

  /** `collects`: whether `collect` is to work; `jumps`: whether `jump` is. */
  async start(configFile: string, { collects = false, jumps = false } = {}): Promise<void> {
    this.configFile = configFile
    const nodeArgv = [
      ...(collects ? ['--expose-gc', '--import', collecting] : []),
      ...(jumps ? ['--import', jumping] : []),
    ]
    this.spawn(['serve', '--config', configFile], nodeArgv)
    const pattern = /serving on (http:\S+), admin on (http:\S+)/
    await until(() => pattern.test(this.errors) || this.ended, 'the router serves', startDeadlineMs)
    const [, url, adminUrl] = pattern.exec(this.errors) ?? []
    if (url === undefined || adminUrl === undefined) throw new Error(`serve ended: ${this.errors}${this.out}`)
    this.url = url
    this.adminUrl = adminUrl
  }

  async admin<Answer>(path: string, init: RequestInit = {}): Promise<Answer> {
    return (await (await fetch(this.adminUrl + path, init)).json()) as Answer
  }

  async workers(): Promise<readonly WorkerRow[]> {
    return (await this.admin<{ workers: readonly WorkerRow[] }>('/admin/workers')).workers
  }

  metricsText(): Promise<string> {
    return fetch(`${this.adminUrl}/metrics`).then((answer) => answer.text())
  }

  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return metricSum(await this.metricsText(), name, labels)
  }

  async healthy(count: number): Promise<void> {
    await until(
      async () => (await this.workers()).filter(({ state }) => state === 'healthy').length >= count,
      `${count} workers are healthy`,
      15_000,
    )
  }

  /** Until no request is in flight and every counter of it is back at 0. */
  async idle(): Promise<void> {
    await until(
      async () =>
        (await this.workers()).every(
          ({ inFlight }) => inFlight.requests === 0 && inFlight.prefillTokens === 0 && inFlight.decodeBlocks === 0,
        ),
      'nothing is in flight',
      15_000,
    )
  }

  /** Lines that were logged with this message. */
  logged(message: string): Record<string, unknown>[] {
    return this.out
      .split('\n')
      .filter((line) => line.includes(`"msg":"${message}"`))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  /** Collects the process's garbage; answers the memory that it then takes, in MiB. */
  async collect(): Promise<number> {
    const collections = (): number => this.errors.split('collected\n').length
    const before = collections()
    this.signal('SIGUSR2')
    await until(() => collections() > before, 'garbage is collected')
    return this.rssMiB
  }

  /** Moves its wall clock by an hour: ahead, then back to an hour behind, then ahead again. */
  async jump(): Promise<void> {
    const jumps = (): number => this.errors.split('clock jumped').length
    const before = jumps()
    this.signal('SIGUSR2')
    await until(() => jumps() > before, 'the clock jumps')
  }

  get rssMiB(): number {
    const pages = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1])
    return pages / 1024
  }

  get descriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length
  }
}

/** Upper bound of the bucket of a histogram, in Prometheus text, that holds this quantile. */
export function histogramQuantile(text: string, name: string, quantile: number): number {
  const buckets = [...text.matchAll(new RegExp(`^warmroute_${name}_bucket\\{le="([^"]+)"\\} (\\d+)`, 'gm'))].map(
    ([, bound, count]) => ({ bound: bound === '+Inf' ? Infinity : Number(bound), count: Number(count) }),
  )
  const total = buckets.at(-1)?.count ?? 0
  return buckets.find(({ count }) => count >= total * quantile)?.bound ?? Number.NaN
}

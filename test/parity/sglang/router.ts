import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { eventually, json } from '../../engines/client.ts'
import { freePorts, type Processes } from '../../engines/processes.ts'
import { installPython, root } from '../../engines/python.ts'
import type { HeldEngines } from './held-engines.ts'
import type { LogStep } from './request-log.ts'

export const folder = join(root, '.cache', 'parity', 'sglang')
export const sglangVersion = '0.3.2'

const startDeadlineMs = 60_000
const arrivalDeadlineMs = 10_000
const launcher = `
import json, sys
from sglang_router.router import Router
from sglang_router.router_args import RouterArgs
Router.from_args(RouterArgs(**json.loads(sys.argv[1]))).start()
`

/** Options by the names of its Python interface: those of its flags, with underscores. */
export type SglangOptions = Readonly<Record<string, string | number | boolean>>

/** Python's folder of programs with sglang-router in it. */
export function installSglang(say: (line: string) => void): string {
  const packages = fileURLToPath(new URL('requirements.txt', import.meta.url))
  return installPython({ folder, packages, title: `sglang-router ${sglangVersion} (30 MB)`, say })
}

/** The real program before held engines. */
export class SglangRouter {
  /** Engines in the order in which the program goes through them. */
  readonly order: readonly number[]
  readonly #url: string
  readonly #log: string
  readonly #engines: HeldEngines
  readonly #answers = new Map<string, Promise<void>>()
  /** It counts requests in flight for this policy only. */
  readonly #countsLoad: boolean

  private constructor(url: string, log: string, engines: HeldEngines, order: readonly number[], countsLoad: boolean) {
    this.#url = url
    this.#log = log
    this.#engines = engines
    this.order = order
    this.#countsLoad = countsLoad
  }

  static async start(
    programs: string,
    options: SglangOptions,
    engines: HeldEngines,
    processes: Processes,
    name: string,
  ): Promise<SglangRouter> {
    const [port = 0, metrics = 0] = await freePorts(2)
    const given = {
      worker_urls: engines.urls,
      host: '127.0.0.1',
      port,
      prometheus_host: '127.0.0.1',
      prometheus_port: metrics,
      worker_startup_check_interval: 1,
      disable_retries: true,
      // Its log tells when the tree is cut down.
      log_level: 'debug',
      ...options,
    }
    const log = join(folder, 'logs', `${name}.txt`)
    processes.start(join(programs, 'python'), ['-c', launcher, JSON.stringify(given)], {}, log)
    const url = `http://127.0.0.1:${port}`
    const order = await eventually(async () => {
      const { workers } = await workersOf(url).catch(() => ({ workers: [] }))
      const isUp = workers.length === engines.urls.length && workers.every((worker) => worker.is_healthy)
      return isUp ? workers.map((worker) => engines.urls.indexOf(worker.url)) : null
    }, startDeadlineMs)
    if (order === null) throw new Error(`sglang-router is not ready; its log is ${log}`)
    return new SglangRouter(url, log, engines, order, options['policy'] === 'cache_aware')
  }

  /** Plays the log and returns the engine of each request that was sent, as places in `order`. */
  async play(steps: readonly LogStep[]): Promise<number[]> {
    const chosen: number[] = []
    const at = new Map<string, number>()
    const loads = new Array<number>(this.order.length).fill(0)
    let evictions = 0
    for (const step of steps) {
      switch (step.kind) {
        case 'send': {
          const place = await this.#send(step)
          chosen.push(place)
          at.set(step.name, place)
          loads[place] = (loads[place] ?? 0) + 1
          break
        }
        case 'finish': {
          const place = at.get(step.name) ?? 0
          loads[place] = (loads[place] ?? 0) - 1
          this.#engines.finish(step.name)
          await this.#answers.get(step.name)
          this.#answers.delete(step.name)
          break
        }
        case 'evict': {
          if (evictions > 0 && this.#evictions() > evictions) throw new Error('an eviction came between two steps')
          evictions = await this.#eviction()
          break
        }
        default:
          step satisfies never
      }
      if (this.#countsLoad) await this.#settled(loads)
    }
    return chosen
  }

  async #send({ name, prompt, headers }: LogStep & { readonly kind: 'send' }): Promise<number> {
    const arrival = this.#engines.nextArrival()
    const body = JSON.stringify({ model: 'model', prompt, user: name, max_tokens: 1 })
    const sent = fetch(`${this.#url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body,
    }).then(async (response) => {
      const text = await response.text()
      if (response.status !== 200) throw new Error(`sglang-router answered ${response.status}: ${text.slice(0, 300)}`)
    })
    sent.catch(() => undefined)
    this.#answers.set(name, sent)
    const late = AbortSignal.timeout(arrivalDeadlineMs)
    const engine = await Promise.race([
      arrival,
      // An answer before the arrival is a refusal.
      sent.then(() => arrival),
      new Promise<never>((_, reject) =>
        late.addEventListener('abort', () => reject(new Error(`request ${name} arrived nowhere`))),
      ),
    ])
    return this.order.indexOf(engine)
  }

  /** Waits until the program, too, counts so many requests in flight. */
  async #settled(loads: readonly number[]): Promise<void> {
    const settled = await eventually(async () => {
      const { workers } = await workersOf(this.#url)
      const counted = this.order.map((engine) => workers.find(({ url }) => url === this.#engines.urls[engine])?.load)
      return counted.every((load, place) => load === loads[place]) ? true : null
    }, arrivalDeadlineMs)
    if (settled === null) throw new Error(`sglang-router does not count ${loads.join(', ')} requests in flight`)
  }

  #evictions(): number {
    return readFileSync(this.#log, 'utf8').split('Cache eviction completed').length - 1
  }

  /** Waits for the next one. */
  async #eviction(): Promise<number> {
    const before = this.#evictions()
    const now = await eventually(async () => {
      const count = this.#evictions()
      return Promise.resolve(count > before ? count : null)
    }, startDeadlineMs)
    if (now === null) throw new Error('sglang-router does not cut its tree down')
    return now
  }
}

interface WorkerList {
  readonly workers: readonly { readonly url: string; readonly is_healthy: boolean; readonly load: number }[]
}

function workersOf(url: string): Promise<WorkerList> {
  return json<WorkerList>(`${url}/workers`)
}

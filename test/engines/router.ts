import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { call, eventually, json } from './client.ts'
import { root } from './python.ts'
import { freePorts, type Processes } from './processes.ts'
import type { DecisionRecord } from '../../src/routing/decisions.ts'

/** A worker as /admin/workers shows it. */
export interface WorkerView {
  readonly id: string
  readonly pool: string
  readonly engine: string
  readonly state: string
  readonly blockSize: number | null
  readonly capacityBlocks: number | null
  readonly events: {
    readonly state: string
    readonly lastSequence: number | null
    readonly gaps: number
    readonly restarts: number
  }
  readonly map: { readonly blocks: { readonly gpu: number; readonly host: number; readonly disk: number } }
  readonly inFlight: { readonly requests: number; readonly prefillTokens: number; readonly decodeBlocks: number }
  readonly load: { readonly running: number } | null
  readonly agreement: {
    readonly predicted: number
    readonly actual: number
    readonly ratio: number
    readonly verified: number
    readonly requests: number
  }
  readonly degraded?: string
  /** Whether the engine names its blocks by hashes that the router can recompute. */
  readonly nativeHash?: unknown
  readonly findings?: unknown
}

/** Warmroute as a user starts it: a process of its own. */
export class Router {
  readonly url: string
  readonly admin: string

  private constructor(port: number, adminPort: number) {
    this.url = `http://127.0.0.1:${port}`
    this.admin = `http://127.0.0.1:${adminPort}`
  }

  /** With flags and no config file. */
  static start(engines: readonly string[], model: string, log: string, processes: Processes): Promise<Router> {
    return Router.#serve(
      (port, adminPort) => {
        const ports = ['--port', String(port), '--admin-port', String(adminPort)]
        return ['--worker-urls', ...engines, '--model-path', model, ...ports]
      },
      log,
      processes,
    )
  }

  /** With a config file, for engines that do not tell what the router must know of them; `file` is written. */
  static startWith(config: object, file: string, log: string, processes: Processes): Promise<Router> {
    return Router.#serve(
      (port, adminPort) => {
        const places = { listen: { host: '127.0.0.1', port }, admin: { host: '127.0.0.1', port: adminPort } }
        mkdirSync(dirname(file), { recursive: true })
        // JSON is YAML.
        writeFileSync(file, JSON.stringify({ ...places, ...config }, null, 2))
        return ['--config', file]
      },
      log,
      processes,
    )
  }

  static async #serve(
    flags: (port: number, adminPort: number) => readonly string[],
    log: string,
    processes: Processes,
  ): Promise<Router> {
    const [port = 0, adminPort = 0] = await freePorts(2)
    const router = new Router(port, adminPort)
    const program = join(root, 'bin', 'warmroute.js')
    processes.start(process.execPath, [program, 'serve', ...flags(port, adminPort)], {}, log)
    const ready = await eventually(
      async () => ((await call(`${router.admin}/readyz`)).status === 200 ? true : null),
      30_000,
    )
    if (ready === null) throw new Error(`the router is not ready after 30 s; its log is ${log}`)
    return router
  }

  async workers(): Promise<WorkerView[]> {
    return (await json<{ workers: WorkerView[] }>(`${this.admin}/admin/workers`)).workers
  }

  async worker(id: string): Promise<WorkerView> {
    const found = (await this.workers()).find((worker) => worker.id === id)
    if (found === undefined) throw new Error(`no worker ${id} in /admin/workers`)
    return found
  }

  /** The worker once the condition holds; null when the deadline has passed. */
  workerOnce(id: string, condition: (worker: WorkerView) => boolean, deadlineMs: number): Promise<WorkerView | null> {
    return eventually(async () => {
      const worker = await this.worker(id)
      return condition(worker) ? worker : null
    }, deadlineMs)
  }

  /** Leading blocks of the tokens that the map says the worker holds; null if the worker is no candidate. */
  async heldBlocks(worker: string, tokens: readonly number[], salt: string | null): Promise<number | null> {
    const body = { model: 'model', prompt: tokens, max_tokens: 1, ...(salt === null ? {} : { cache_salt: salt }) }
    const { candidates } = await json<DecisionRecord>(`${this.admin}/admin/explain`, body)
    const matched = candidates.find((candidate) => candidate.worker === worker)?.matchedBlocks
    return matched === undefined ? null : matched.gpu + matched.host + matched.disk + matched.shared
  }

  decision(requestId: string): Promise<DecisionRecord> {
    return json<DecisionRecord>(`${this.admin}/admin/decisions/${requestId}`)
  }

  async metric(name: string): Promise<number> {
    const { text } = await call(`${this.admin}/metrics`)
    return text
      .split('\n')
      .filter((row) => row.startsWith(`${name}{`) || row.startsWith(`${name} `))
      .reduce((sum, row) => sum + Number(row.slice(row.lastIndexOf(' ') + 1)), 0)
  }

  async tokenize(body: Record<string, unknown>): Promise<number[]> {
    return (await json<{ tokens: number[] }>(`${this.url}/tokenize`, { model: 'model', ...body })).tokens
  }
}

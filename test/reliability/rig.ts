import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { demoTokenizer, model } from '../support/fleet.ts'
import { LoadClient } from './load.ts'
import { EngineProcess, RouterProcess } from './processes.ts'

/** An engine as the config names it. */
export interface Addressed {
  readonly url: string
  /** Further options of this worker. */
  readonly worker?: object
}

export interface RouterOptions {
  /** Options of the one pool. */
  readonly pool?: object
  /** Options of every worker beside its URL. */
  readonly worker?: object
  /** Top-level options. */
  readonly config?: object
  /** Whether its garbage can be collected from outside. */
  readonly collects?: boolean
  /** Whether its wall clock can be moved from outside. */
  readonly jumps?: boolean
}

/** Starts the processes that a scenario needs, and ends all that it started. */
export class Rig {
  /** Whether the scenario runs at its full size; else small enough for the test suite. */
  readonly full: boolean
  readonly #folder = mkdtempSync(join(tmpdir(), 'warmroute-'))
  readonly #processes: { kill(): Promise<void>; signal(signal: NodeJS.Signals): void }[] = []
  readonly #cleanups: (() => unknown)[] = []
  readonly #killAll = (): void => this.#processes.forEach((process) => process.signal('SIGKILL'))

  constructor(full: boolean) {
    this.full = full
    process.once('exit', this.#killAll)
  }

  /** One figure for the full size, another for the reduced one. */
  size(full: number, reduced: number): number {
    return this.full ? full : reduced
  }

  /** Runs at the end of the scenario; the last that was added runs first. */
  after(cleanup: () => unknown): void {
    this.#cleanups.unshift(cleanup)
  }

  async engines(count: number, ...flags: string[]): Promise<EngineProcess[]> {
    const engines = Array.from({ length: count }, () => new EngineProcess(['--model', model, ...flags]))
    this.#processes.push(...engines)
    await Promise.all(engines.map((engine) => engine.start()))
    return engines
  }

  /** A router in front of these engines; fulfilled when all of them are healthy. */
  async router(engines: readonly Addressed[], options: RouterOptions = {}): Promise<RouterProcess> {
    const router = new RouterProcess()
    this.#processes.push(router)
    await router.start(this.configFile(`router-${this.#processes.length}`, engines, options), options)
    await router.healthy(engines.length)
    return router
  }

  /** Clients of the router, who leave at the end of the scenario. */
  client(router: RouterProcess, connections?: number): LoadClient {
    const client = new LoadClient(router.url, connections)
    this.after(() => client.close())
    return client
  }

  /** Writes a config; under the name of one that is there, in its place. */
  configFile(name: string, engines: readonly Addressed[], options: RouterOptions = {}): string {
    const file = this.path(`${name}.yaml`)
    const config = {
      listen: { port: 0 },
      admin: { port: 0 },
      tokenizer: { threads: 1 },
      pools: [
        {
          model,
          tokenizer: demoTokenizer,
          ...options.pool,
          workers: engines.map(({ url, worker }) => ({ url, ...options.worker, ...worker })),
        },
      ],
      ...options.config,
    }
    // JSON is YAML, too.
    writeFileSync(file, JSON.stringify(config))
    return file
  }

  /** A place for a file that is gone with the scenario. */
  path(name: string): string {
    return join(this.#folder, name)
  }

  async close(): Promise<void> {
    for (const cleanup of this.#cleanups) await cleanup()
    await Promise.all(this.#processes.map((process) => process.kill()))
    process.off('exit', this.#killAll)
    rmSync(this.#folder, { recursive: true })
  }
}

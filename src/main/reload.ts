import { isDeepStrictEqual } from 'node:util'
import type { Config } from '../config/schema.ts'
import { RouterError } from '../errors.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/**
 * A part that can take over a changed config as it runs, in two steps: whatever may fail is done before the answer, which is
 * the change itself and must not fail. No part changes unless every part is prepared.
 */
export type Reloadable = (next: Config, before: Config) => Change | Promise<Change>
export type Change = () => void

export type ReloadResult = 'applied' | 'unchanged' | 'failed'

export interface ReloaderOptions {
  /** The config that runs. */
  readonly config: Config
  /** @throws RouterError for a config that is not good */
  readonly load: () => Config
  readonly parts: readonly Reloadable[]
  readonly log: Log
  readonly metrics: Metrics
}

/** Options that take effect at once, with all that is below them; any other one waits for a restart. */
export const liveOptions: readonly string[] = [
  'pools',
  'apiKeys',
  'admission',
  'workerUrls',
  'modelPath',
  'profile',
  'plugins',
  'pluginLimits',
  'health',
  'load',
  'approximate',
  'coming',
  'timeouts.connectMs',
  'timeouts.firstTokenMs',
  'timeouts.idleMs',
  'timeouts.totalMs',
  'timeouts.streamTotalMs',
  'timeouts.clientStallMs',
  'limits.heldEventBytes',
  'limits.heldAnswerBytes',
  'limits.answerHeaderBytes',
  'limits.connectionsPerWorker',
  'tokenizer.probeIntervalMs',
  'shutdown',
  'readiness',
  'expose',
  'forwarded',
  'admin.keyHash',
  'log',
]

/** Takes over a changed config without a restart; whatever is wrong with it, the one that runs goes on. */
export class Reloader {
  readonly #o: ReloaderOptions
  #config: Config
  #last: Promise<ReloadResult> = Promise.resolve('unchanged')
  #waiting: Promise<ReloadResult> | null = null
  #succeeded = true

  constructor(options: ReloaderOptions) {
    this.#o = options
    this.#config = options.config
    options.metrics.read('config_last_reload_success', () => [[[], this.#succeeded ? 1 : 0]])
  }

  /** One at a time; who asks while one waits already gets its result. Never rejects. */
  reload(): Promise<ReloadResult> {
    this.#waiting ??= this.#last.then(() => {
      this.#waiting = null
      this.#last = this.#reload()
      return this.#last
    })
    return this.#waiting
  }

  async #reload(): Promise<ReloadResult> {
    const { log, metrics } = this.#o
    let result: ReloadResult
    try {
      result = await this.#take(this.#o.load())
    } catch (error) {
      result = 'failed'
      log.error({ fault: told(error) }, 'config not reloaded: the one before goes on')
    }
    this.#succeeded = result !== 'failed'
    metrics.configReloads.add(1, result)
    return result
  }

  async #take(given: Config): Promise<ReloadResult> {
    const { log, parts } = this.#o
    const changed = changedOptions(this.#config, given)
    const waiting = changed.filter((path) => !isLive(path))
    const next = waiting.reduce((config, path) => withOption(config, path, optionOf(this.#config, path)), given)
    if (waiting.length > 0) log.warn({ options: waiting }, 'changed options wait for a restart')
    // Parts are asked also where nothing changed: certificates are renewed under the same names.
    const changes: Change[] = []
    for (const part of parts) changes.push(await part(next, this.#config))
    for (const change of changes) change()
    this.#config = next
    const live = changed.filter(isLive)
    if (live.length === 0) return 'unchanged'
    log.info({ options: live }, 'config reloaded')
    return 'applied'
  }
}

/** Faults that a user can mend are told in words, others with their place in the code. */
function told(error: unknown): string {
  if (error instanceof RouterError) return error.message
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

function isLive(path: string): boolean {
  return liveOptions.some((live) => path === live || path.startsWith(`${live}.`))
}

/** Paths of the options that differ; a list counts as one option. */
export function changedOptions(one: unknown, other: unknown, path = ''): string[] {
  if (isDeepStrictEqual(one, other)) return []
  if (!isMapping(one) || !isMapping(other)) return [path]
  return [...new Set([...Object.keys(one), ...Object.keys(other)])].flatMap((name) =>
    changedOptions(one[name], other[name], path === '' ? name : `${path}.${name}`),
  )
}

function optionOf(config: Config, path: string): unknown {
  return path.split('.').reduce<unknown>((at, name) => (isMapping(at) ? at[name] : undefined), config)
}

/** A copy with another value at the path; `undefined` takes the option out. */
function withOption(config: Config, path: string, value: unknown): Config {
  const put = (at: unknown, [name = '', ...rest]: readonly string[]): unknown => {
    const { [name]: old, ...others } = isMapping(at) ? at : {}
    const inner = rest.length === 0 ? value : put(old, rest)
    return inner === undefined ? others : { ...others, [name]: inner }
  }
  return put(config, path.split('.')) as Config
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

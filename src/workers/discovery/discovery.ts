import type { Log } from '../../telemetry/log.ts'

/** Looks for the engines of one pool, again and again, from `start` to `stop`. */
export interface Discovery {
  start(): void
  stop(): void
}

/** What a discovery tells: every answer is the whole list. */
export interface Findings<Given> {
  found(engines: readonly Given[]): void
  /** What was told last still holds. */
  confirmed(): void
  /** Nothing could be learned, and why: a fault, or an answer too empty to be believed. */
  failed(reason: string): void
}

export interface LastGoodOptions<Given> {
  readonly pool: string
  readonly clock: () => number
  readonly log: Log
  readonly onFound: (engines: readonly Given[]) => void
  readonly onFailed: () => void
}

/**
 * The last good list of a pool's engines. Whatever goes wrong with a discovery, those that it found before stay; each
 * change from good to bad and back is one line in the log.
 */
export class LastGood<Given> implements Findings<Given> {
  readonly #o: LastGoodOptions<Given>
  readonly #startedMs: number
  #atMs: number | null = null
  #shown = ''
  #failing = false

  constructor(options: LastGoodOptions<Given>) {
    this.#o = options
    this.#startedMs = options.clock()
  }

  /** Time since the list was last confirmed, or since the start. */
  get ageMs(): number {
    return this.#o.clock() - (this.#atMs ?? this.#startedMs)
  }

  found(engines: readonly Given[]): void {
    const { pool, log } = this.#o
    this.#atMs = this.#o.clock()
    if (this.#failing) log.info({ pool }, 'discovery works again')
    this.#failing = false
    const shown = JSON.stringify(engines)
    if (shown === this.#shown) return
    this.#shown = shown
    log.info({ pool, engines: engines.length }, 'discovery found other engines')
    this.#o.onFound(engines)
  }

  confirmed(): void {
    if (!this.#failing) this.#atMs = this.#o.clock()
  }

  failed(reason: string): void {
    const { pool, log } = this.#o
    this.#o.onFailed()
    if (this.#failing) return
    this.#failing = true
    log.warn({ pool, reason }, 'discovery failed: the engines found last are kept')
  }
}

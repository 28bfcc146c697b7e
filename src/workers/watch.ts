import type { Engine, EngineFacts, RankLoad } from './engine.ts'
import type { EngineHttp } from './engine-http.ts'

export interface HealthTiming {
  readonly intervalMs: number
  readonly timeoutMs: number
  readonly path: string
  readonly failures: number
}

export interface LoadTiming {
  readonly intervalMs: number
}

export interface WatchOptions {
  /** Origin and base path. */
  readonly baseUrl: string
  readonly headers: Readonly<Record<string, string>>
  readonly engine: Engine
  readonly http: EngineHttp
  /** Read anew for each check. */
  readonly timing: { readonly health: HealthTiming; readonly load: LoadTiming }
  /**
   * The engine answers its health check: what it tells about itself, null where it should and does not. False: it may not
   * serve, and is asked again.
   */
  readonly onUp: (facts: EngineFacts | null) => Promise<boolean>
  readonly onDown: () => void
  /** The engine's process is another one than before, although no check failed in between. The same answers. */
  readonly onRestart: (facts: EngineFacts) => Promise<boolean>
  readonly onLoad: (load: ReadonlyMap<number, RankLoad>) => void
}

/** Health intervals between two questions to an engine that answers but may not serve: they cost it more than a check. */
const refusedIntervals = 4

/** Watches one engine endpoint: health, facts, load. Nothing here waits on anything but the engine itself. */
export class EndpointWatch {
  /** Fulfilled when the endpoint has answered or failed once. */
  readonly firstCheck: Promise<void>
  readonly #o: WatchOptions
  #settleFirst: () => void = () => undefined
  #up = false
  #failed = 0
  #startedAt: number | null = null
  /** Model names that the engine told last. */
  #models = ''
  #stopped = false
  #checking = false
  /** A request broke off: the process behind the address may be another one. */
  #suspect = false
  #healthTimer: NodeJS.Timeout | null = null
  #loadTimer: NodeJS.Timeout | null = null

  constructor(options: WatchOptions) {
    this.#o = options
    this.firstCheck = new Promise((resolve) => (this.#settleFirst = resolve))
  }

  start(): void {
    void this.#check()
    this.#loadTimer = setTimeout(() => void this.#readLoad(), this.#o.timing.load.intervalMs)
  }

  stop(): void {
    this.#stopped = true
    if (this.#healthTimer !== null) clearTimeout(this.#healthTimer)
    if (this.#loadTimer !== null) clearTimeout(this.#loadTimer)
    this.#settleFirst()
  }

  /**
   * A request was broken off: the endpoint is checked at once. Where it refused the connection it is down until that
   * check says otherwise; a connection that merely broke may have been an idle one that the engine closed.
   */
  reportUnreachable(refused: boolean): void {
    if (!this.#up || this.#stopped) return
    if (refused) this.#down()
    this.#suspect = true
    if (!this.#checking) {
      if (this.#healthTimer !== null) clearTimeout(this.#healthTimer)
      void this.#check()
    }
  }

  async #check(): Promise<void> {
    const { baseUrl, headers, http, timing } = this.#o
    this.#checking = true
    const seen = { refused: false }
    const answer = await http.ask(baseUrl + timing.health.path, {
      headers,
      timeoutMs: timing.health.timeoutMs,
      limitBytes: 65_536,
      onRefused: () => (seen.refused = true),
    })
    // An answer that comes after the end must start nothing anew.
    if (this.#isStopped()) return
    let intervals = 1
    if (answer?.status === 200) {
      this.#failed = 0
      if (!this.#up || this.#suspect) await this.#ask()
      if (!this.#isUp()) intervals = refusedIntervals
    } else if ((++this.#failed >= timing.health.failures || seen.refused) && this.#isUp()) this.#down()
    this.#checking = false
    this.#settleFirst()
    if (!this.#isStopped())
      this.#healthTimer = setTimeout(() => void this.#check(), timing.health.intervalMs * intervals)
  }

  /** Asks the engine about itself: when it comes up, and when its process may have become another one. */
  async #ask(): Promise<void> {
    const { baseUrl, headers, engine, http } = this.#o
    this.#suspect = false
    const facts = await engine.facts(http, baseUrl, headers)
    if (this.#isStopped()) return
    if (!this.#up) {
      this.#note(facts)
      this.#up = true
      this.#up = (await this.#o.onUp(facts)) && this.#isUp()
    } else if (facts !== null && (facts.startedAt !== this.#startedAt || namesOf(facts) !== this.#models))
      await this.#restarted(facts)
  }

  #down(): void {
    this.#up = false
    this.#o.onDown()
  }

  async #readLoad(): Promise<void> {
    const { baseUrl, headers, engine, http, timing } = this.#o
    if (this.#up) {
      const read = await engine.load(http, baseUrl, headers, timing.load.intervalMs * 2)
      if (read !== null && this.#isUp() && !this.#isStopped()) {
        this.#o.onLoad(read.byRank)
        if (read.startedAt !== null && this.#startedAt !== null && read.startedAt !== this.#startedAt) {
          const facts = await engine.facts(http, baseUrl, headers)
          if (facts !== null && !this.#isStopped()) await this.#restarted(facts)
        }
      }
    }
    if (!this.#isStopped()) this.#loadTimer = setTimeout(() => void this.#readLoad(), timing.load.intervalMs)
  }

  async #restarted(facts: EngineFacts): Promise<void> {
    this.#note(facts)
    if (!(await this.#o.onRestart(facts))) this.#up = false
  }

  #note(facts: EngineFacts | null): void {
    this.#startedAt = facts?.startedAt ?? null
    this.#models = facts === null ? '' : namesOf(facts)
  }

  /** Read through a call, since it may change while an `await` waits. */
  #isUp(): boolean {
    return this.#up
  }

  #isStopped(): boolean {
    return this.#stopped
  }
}

function namesOf({ models }: EngineFacts): string {
  return JSON.stringify(models.map(({ id }) => id))
}

import type { Engine, EngineFacts, RankLoad } from './engine.ts'
import type { EngineHttp } from './engine-http.ts'
import type { PrefixCounters } from './load.ts'

export interface HealthTiming {
  readonly intervalMs: number
  readonly timeoutMs: number
  /** Left out: the engine's own. */
  readonly path?: string
  readonly failures: number
}

export interface LoadTiming {
  readonly intervalMs: number
}

export interface WatchOptions {
  /** Origin and base path. */
  readonly baseUrl: string
  readonly headers: Readonly<Record<string, string>>
  /** What kind of engine it is; null where it cannot be reached in time, or cannot be told yet. */
  readonly recognize: (timeoutMs: number) => Promise<Engine | null>
  readonly http: EngineHttp
  /** Read anew for each check. */
  readonly timing: { readonly health: HealthTiming; readonly load: LoadTiming }
  /**
   * The engine answers its health check: what it tells about itself, null where it should and does not. False: it may not
   * serve, and is asked again.
   */
  readonly onUp: (engine: Engine, facts: EngineFacts | null) => Promise<boolean>
  readonly onDown: () => void
  /** The engine's process is another one than before, although no check failed in between. The same answers. */
  readonly onRestart: (engine: Engine, facts: EngineFacts | null) => Promise<boolean>
  /** Whether the load has to be asked for: an engine may publish it. */
  readonly wantsLoad: () => boolean
  /** The engine is about to be asked for its load. */
  readonly onLoadAsked: () => void
  readonly onLoad: (load: ReadonlyMap<number, RankLoad>) => void
  /** Whether hit counters that do not come with the load are worth a question of their own. */
  readonly wantsHits: () => boolean
  readonly onHits: (counters: PrefixCounters) => void
}

/** Health intervals between two questions to an engine that answers but may not serve: they cost it more than a check. */
const refusedIntervals = 4

/** Watches one engine endpoint: health, facts, load. Nothing here waits on anything but the engine itself. */
export class EndpointWatch {
  /** Fulfilled when the endpoint has answered or failed once. */
  readonly firstCheck: Promise<void>
  readonly #o: WatchOptions
  #settleFirst: () => void = () => undefined
  #engine: Engine | null = null
  #up = false
  #failed = 0
  #startedAt: number | null = null
  /** Model names that the engine told last. */
  #models = ''
  #stopped = false
  #checking = false
  /** A request broke off: the process behind the address may be another one. */
  #suspect = false
  /** The engine's load could be read when it was asked last. */
  #readsLoad = false
  #countsHits = false
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
    const { timing } = this.#o
    this.#checking = true
    const seen = { refused: false }
    const engine = this.#engine ?? (await this.#o.recognize(timing.health.timeoutMs))
    const healthy = engine !== null && !this.#isStopped() && (await this.#isHealthy(engine, seen))
    // An answer that comes after the end must start nothing anew.
    if (this.#isStopped()) return
    let intervals = 1
    if (healthy) {
      this.#failed = 0
      if (!this.#up) await this.#meet(engine)
      else if (this.#suspect) await this.#askAgain()
      if (!this.#isUp()) intervals = refusedIntervals
    } else if ((++this.#failed >= timing.health.failures || seen.refused) && this.#isUp()) this.#down()
    this.#checking = false
    this.#settleFirst()
    if (!this.#isStopped())
      this.#healthTimer = setTimeout(() => void this.#check(), timing.health.intervalMs * intervals)
  }

  async #isHealthy(engine: Engine, seen: { refused: boolean }): Promise<boolean> {
    const { baseUrl, headers, http, timing } = this.#o
    const answer = await http.ask(baseUrl + (timing.health.path ?? engine.healthPath ?? '/health'), {
      headers,
      timeoutMs: timing.health.timeoutMs,
      limitBytes: 65_536,
      onRefused: () => (seen.refused = true),
    })
    return answer?.status === 200
  }

  /** The engine has come up: asks it about itself. */
  async #meet(engine: Engine): Promise<void> {
    this.#suspect = false
    const facts = await this.#facts(engine)
    if (this.#isStopped()) return
    this.#note(engine, facts)
    this.#up = true
    this.#up = (await this.#o.onUp(engine, facts)) && this.#isUp()
    // One that was refused may be another one when it is asked again.
    if (!this.#up) this.#engine = null
  }

  /** The engine's process may have become another one, even one of another kind. */
  async #askAgain(): Promise<void> {
    this.#suspect = false
    const before = this.#engine
    let facts = before === null ? null : await this.#facts(before)
    if (facts !== null && facts.startedAt === this.#startedAt && namesOf(facts) === this.#models) return
    const engine = this.#isStopped() ? null : await this.#o.recognize(this.#o.timing.health.timeoutMs)
    if (engine !== null && engine !== before) facts = await this.#facts(engine)
    if (this.#isStopped() || !this.#isUp()) return
    // Asked again with the next check.
    if (engine === null) this.#suspect = true
    else if (facts !== null || engine !== before) await this.#restarted(engine, facts)
  }

  #facts(engine: Engine): Promise<EngineFacts | null> {
    const { baseUrl, headers, http } = this.#o
    return engine.facts(http, baseUrl, headers)
  }

  #down(): void {
    this.#up = false
    this.#engine = null
    this.#o.onDown()
  }

  async #readLoad(): Promise<void> {
    const { timing } = this.#o
    if (this.#up && this.#engine !== null && this.#o.wantsLoad()) await this.#askLoad(this.#engine)
    if (this.#up && this.#engine !== null && this.#countsHits && this.#o.wantsHits()) await this.#askHits(this.#engine)
    if (!this.#isStopped()) this.#loadTimer = setTimeout(() => void this.#readLoad(), timing.load.intervalMs)
  }

  async #askLoad(engine: Engine): Promise<void> {
    const { baseUrl, headers, http, timing } = this.#o
    this.#o.onLoadAsked()
    const read = await engine.load(http, baseUrl, headers, timing.load.intervalMs * 2)
    // Between two checks another engine may have taken the place, of which these questions make nothing.
    if (read === null && this.#readsLoad) this.#suspect = true
    this.#readsLoad = read !== null
    if (read === null || !this.#isUp() || this.#isStopped()) return
    this.#o.onLoad(read.byRank)
    const { startedAt } = read
    if (startedAt !== null && this.#startedAt !== null && startedAt !== this.#startedAt) await this.#askAgain()
  }

  async #askHits(engine: Engine): Promise<void> {
    const { baseUrl, headers, http, timing } = this.#o
    const counters = await engine.hitCounters?.(http, baseUrl, headers, timing.load.intervalMs * 2)
    if (counters === undefined || counters === null || this.#engine !== engine) return
    if (this.#isUp() && !this.#isStopped()) this.#o.onHits(counters)
  }

  async #restarted(engine: Engine, facts: EngineFacts | null): Promise<void> {
    this.#note(engine, facts)
    if (await this.#o.onRestart(engine, facts)) return
    this.#up = false
    this.#engine = null
  }

  #note(engine: Engine, facts: EngineFacts | null): void {
    this.#engine = engine
    this.#startedAt = facts?.startedAt ?? null
    this.#countsHits = facts?.countsHits ?? false
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

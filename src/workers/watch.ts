import type { Engine, EngineFacts, RankLoad } from './engine.ts'
import type { EngineHttp } from './engine-http.ts'

export interface WatchOptions {
  /** Origin and base path. */
  readonly baseUrl: string
  readonly headers: Readonly<Record<string, string>>
  readonly engine: Engine
  readonly http: EngineHttp
  readonly health: {
    readonly intervalMs: number
    readonly timeoutMs: number
    readonly path: string
    readonly failures: number
  }
  readonly load: { readonly intervalMs: number }
  /** The engine answers its health check: what it tells about itself (null where it tells nothing). */
  readonly onUp: (facts: EngineFacts | null) => Promise<void>
  readonly onDown: () => void
  /** The engine's process is another one than before, although no check failed in between. */
  readonly onRestart: (facts: EngineFacts) => void
  readonly onLoad: (load: ReadonlyMap<number, RankLoad>) => void
}

/** Watches one engine endpoint: health, facts, load. Nothing here waits on anything but the engine itself. */
export class EndpointWatch {
  /** Fulfilled when the endpoint has answered or failed once. */
  readonly firstCheck: Promise<void>
  readonly #o: WatchOptions
  #settleFirst: () => void = () => undefined
  #up = false
  #failed = 0
  #startedAt: number | null = null
  #stopped = false
  #checking = false
  #healthTimer: NodeJS.Timeout | null = null
  #loadTimer: NodeJS.Timeout | null = null

  constructor(options: WatchOptions) {
    this.#o = options
    this.firstCheck = new Promise((resolve) => (this.#settleFirst = resolve))
  }

  start(): void {
    void this.#check()
    this.#loadTimer = setTimeout(() => void this.#readLoad(), this.#o.load.intervalMs)
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
    if (!this.#checking) {
      if (this.#healthTimer !== null) clearTimeout(this.#healthTimer)
      void this.#check()
    }
  }

  async #check(): Promise<void> {
    const { baseUrl, headers, engine, http, health } = this.#o
    this.#checking = true
    const seen = { refused: false }
    const answer = await http.ask(baseUrl + health.path, {
      headers,
      timeoutMs: health.timeoutMs,
      limitBytes: 65_536,
      onRefused: () => (seen.refused = true),
    })
    // An answer that comes after the end must start nothing anew.
    if (this.#isStopped()) return
    if (answer?.status === 200) {
      this.#failed = 0
      if (!this.#up) {
        const facts = await engine.facts(http, baseUrl, headers)
        if (!this.#isStopped()) {
          this.#up = true
          this.#startedAt = facts?.startedAt ?? null
          await this.#o.onUp(facts)
        }
      }
    } else if ((++this.#failed >= health.failures || seen.refused) && this.#isUp()) this.#down()
    this.#checking = false
    this.#settleFirst()
    if (!this.#isStopped()) this.#healthTimer = setTimeout(() => void this.#check(), health.intervalMs)
  }

  #down(): void {
    this.#up = false
    this.#o.onDown()
  }

  async #readLoad(): Promise<void> {
    const { baseUrl, headers, engine, http, load } = this.#o
    if (this.#up) {
      const read = await engine.load(http, baseUrl, headers, load.intervalMs * 2)
      if (read !== null && this.#isUp() && !this.#isStopped()) {
        this.#o.onLoad(read.byRank)
        if (read.startedAt !== null && this.#startedAt !== null && read.startedAt !== this.#startedAt)
          await this.#restarted()
      }
    }
    if (!this.#isStopped()) this.#loadTimer = setTimeout(() => void this.#readLoad(), load.intervalMs)
  }

  async #restarted(): Promise<void> {
    const facts = await this.#o.engine.facts(this.#o.http, this.#o.baseUrl, this.#o.headers)
    if (facts === null || this.#isStopped()) return
    this.#startedAt = facts.startedAt
    this.#o.onRestart(facts)
  }

  /** Read through a call, since it may change while an `await` waits. */
  #isUp(): boolean {
    return this.#up
  }

  #isStopped(): boolean {
    return this.#stopped
  }
}

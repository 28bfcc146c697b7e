import { Arrivals, thinkMsOf, type LoadOptions, type Visit } from '../arrivals.ts'
import type { Progress, ReplayRow } from '../replay.ts'
import type { Trace } from '../traces/trace.ts'
import type { Endpoint } from './endpoint.ts'
import type { Answer } from './exchange.ts'
import type { Pace } from './pace.ts'
import { TokenPrompts } from './token-prompts.ts'
import type { Troubles } from './troubles.ts'

export interface PlayOptions {
  readonly trace: Trace
  readonly load: LoadOptions
  readonly seed: number
  /** In the trace's time, as all times here. */
  readonly timeoutMs: number
  readonly endpoint: Pick<Endpoint, 'ask' | 'tokensOf'>
  /** Names of the workers in their order; others follow as they are heard of. */
  readonly workers: readonly string[]
  readonly pace: Pace
  readonly troubles: Troubles
  /** Ends the run with what is done so far. */
  readonly signal: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

export interface Played {
  /** In the order of their ends. */
  readonly rows: readonly ReplayRow[]
  readonly complete: boolean
  readonly endedMs: number
}

/** Plays a trace against an endpoint, each user as a client of its own: asks, reads to the end, thinks, asks on. */
export async function play(options: PlayOptions): Promise<Played> {
  const run = new Play(options)
  await run.toTheEnd()
  return { rows: run.rows, complete: !options.signal.aborted, endedMs: options.pace.nowMs }
}

class Play {
  readonly rows: ReplayRow[] = []
  readonly #options: PlayOptions
  readonly #arrivals: Arrivals
  readonly #workers: Map<string, number>
  #serial = 0

  constructor(options: PlayOptions) {
    this.#options = options
    this.#arrivals = new Arrivals(options.trace, options.load, options.seed)
    this.#workers = new Map(options.workers.map((name, index) => [name, index]))
  }

  async toTheEnd(): Promise<void> {
    await Promise.all(this.#arrivals.first.map((visit) => this.#place(visit)))
  }

  /** One user, and whoever follows where that one leaves. */
  async #place(first: Visit): Promise<void> {
    const { pace, signal } = this.#options
    for (let visit: Visit | null = first; visit !== null && !signal.aborted;) {
      await pace.until(visit.startMs, signal)
      await this.#stay(visit)
      visit = visit.session.startMs === null ? this.#arrivals.after(pace.nowMs) : null
    }
  }

  async #stay(visit: Visit): Promise<void> {
    const { trace, load, pace, signal } = this.#options
    const prompts = new TokenPrompts(visit.session, visit.copy, trace)
    for (let turn = visit.turn; !signal.aborted; turn++) {
      const request = visit.session.requests[turn]
      if (request === undefined || pace.nowMs >= (load.durationMs ?? Infinity)) return
      const endedMs = await this.#ask(visit, turn, prompts)
      const next = visit.session.requests[turn + 1]
      if (next !== undefined) await pace.until(endedMs + thinkMsOf(next, load), signal)
    }
  }

  /** The answer is when it was over. */
  async #ask(visit: Visit, turn: number, prompts: TokenPrompts): Promise<number> {
    const { endpoint, pace, timeoutMs, signal, onProgress } = this.#options
    const { session, copy } = visit
    const prompt = prompts.of(turn, this.#serial++)
    const question = {
      ...{ prompt, outputTokens: session.requests[turn]?.outputTokens ?? 1, timeoutMs: timeoutMs / pace.speed },
      session: session.startMs === null ? `${session.id}/${copy}` : null,
    }
    const answer = await endpoint.ask(question, signal)
    if (answer.kind !== 'stopped') {
      this.rows.push(this.#row({ visit, turn, promptTokens: prompt.length }, answer))
      onProgress?.({ nowMs: pace.nowMs, answered: this.rows.length })
    }
    if (answer.kind === 'answered' && prompts.goesOn) await this.#learn(answer.text, prompts)
    return pace.at(answer.endedMs)
  }

  /** What was generated is part of the next prompt. */
  async #learn(text: string, prompts: TokenPrompts): Promise<void> {
    const { endpoint, signal, troubles } = this.#options
    const tokens = await endpoint.tokensOf(text, signal)
    if (tokens !== null) prompts.answered(tokens)
    else if (!signal.aborted)
      troubles.add('an answer could not be made tokens by /tokenize; the next prompt holds others')
  }

  #row(sent: Pick<ReplayRow, 'visit' | 'turn' | 'promptTokens'>, answer: Heard): ReplayRow {
    const { pace, troubles, timeoutMs } = this.#options
    const outputTokens = sent.visit.session.requests[sent.turn]?.outputTokens ?? 1
    const times = { sentMs: pace.at(answer.sentMs), endedMs: pace.at(answer.endedMs) }
    const nothing = { worker: -1, itlMs: 0, predictedCachedTokens: 0, comingTokens: 0, cachedTokens: 0 }
    if (answer.kind !== 'answered') {
      if (answer.kind !== 'timed out') troubles.add(answer.why)
      const ttftMs = answer.kind === 'timed out' ? timeoutMs : 0
      return { ...sent, ...times, ...nothing, outputTokens, ttftMs, outcome: answer.kind }
    }
    if (answer.cachedTokens === null) troubles.add('an answer’s usage told no cached tokens')
    const { firstTokenMs, lastTokenMs } = answer
    const gaps = answer.outputTokens - 1
    return {
      ...{ ...sent, ...times, worker: this.#indexOf(answer.worker), outputTokens: answer.outputTokens },
      ttftMs: pace.at(firstTokenMs) - times.sentMs,
      itlMs: gaps > 0 ? (pace.at(lastTokenMs) - pace.at(firstTokenMs)) / gaps : 0,
      ...{ predictedCachedTokens: answer.predictedCachedTokens ?? 0, comingTokens: 0 },
      ...{ cachedTokens: answer.cachedTokens ?? 0, outcome: 'answered' },
    }
  }

  #indexOf(worker: string | null): number {
    if (worker === null) return -1
    const known = this.#workers.get(worker) ?? this.#workers.size
    this.#workers.set(worker, known)
    return known
  }
}

type Heard = Exclude<Answer, { kind: 'stopped' }>

import { eventually, generate, type Generation } from '../engines/client.ts'
import { blockSize, type Engine } from './engine.ts'
import { Held } from './held.ts'
import type { Report } from '../engines/report.ts'
import type { Router } from '../engines/router.ts'

const settleMs = 5_000

/** Requests that the router answered from one engine, to be compared with /admin/workers at the end. */
export interface Tally {
  requests: number
  difference: number
}

export interface SentChat extends Generation {
  readonly engine: Engine
}

/** A request whose engine has lost its cache in a way that it does not tell at once. */
type Expected = 'held' | 'lost unnoticed'

/** Two engines, the router before them, and what each must hold. */
export class Lab {
  readonly report: Report
  readonly router: Router
  readonly engines: readonly Engine[]
  readonly tallies = new Map<Engine, Tally>()
  readonly differences: string[] = []
  readonly #held = new Map<Engine, Held>()

  constructor(report: Report, router: Router, engines: readonly Engine[]) {
    this.report = report
    this.router = router
    this.engines = engines
    for (const engine of engines) {
      this.#held.set(engine, new Held())
      this.tallies.set(engine, { requests: 0, difference: 0 })
    }
  }

  held(engine: Engine): Held {
    const held = this.#held.get(engine)
    if (held === undefined) throw new RangeError(`engine ${engine.name}`)
    return held
  }

  /** The engine that must hold the most of the prompt, if any holds something. */
  warmest(promptIds: readonly number[], salt: string | null): { engines: Engine[]; tokens: number } {
    const found = this.engines.map((engine) => ({ engine, tokens: this.held(engine).cachedTokens(promptIds, salt) }))
    const tokens = Math.max(...found.map((entry) => entry.tokens))
    return { tokens, engines: found.filter((entry) => entry.tokens === tokens).map(({ engine }) => engine) }
  }

  /**
   * Sends a chat or completion through the router and checks everything that is known of its answer: our token ids are
   * the engine's, it went where most of it is held, and prediction, report and the test's own books agree. Returns once
   * the map holds what the request has left on the engine.
   */
  async send(title: string, body: Record<string, unknown>, expected: Expected = 'held'): Promise<SentChat> {
    const sent = await this.post(body)
    await this.verify(title, body, sent, expected)
    return sent
  }

  async post(body: Record<string, unknown>): Promise<SentChat> {
    const path = 'messages' in body ? '/v1/chat/completions' : '/v1/completions'
    const stream = body['stream'] === true ? { stream_options: { include_usage: true } } : {}
    const answer = await generate(this.router.url + path, { model: 'model', ...stream, ...body })
    const engine = this.engines.find(({ url }) => url === answer.worker)
    if (engine === undefined) throw new Error(`x-warmroute-worker names no engine: ${answer.worker}`)
    return { ...answer, engine }
  }

  async verify(
    title: string,
    body: Record<string, unknown>,
    sent: SentChat,
    expected: Expected = 'held',
  ): Promise<void> {
    const { engine, promptIds, generatedIds, cachedTokens, predictedCachedTokens } = sent
    const salt = saltOf(body)
    const ours = await this.ourIds(body)
    const sameTokens = ours.length === promptIds.length && ours.every((token, at) => token === promptIds[at])
    const warmest = this.warmest(promptIds, salt)
    const onWarmest = warmest.tokens === 0 || warmest.engines.includes(engine)
    const booked = this.held(engine).cachedTokens(promptIds, salt)
    const predicted = predictedCachedTokens ?? -1
    const actual = cachedTokens ?? -1
    const agree = expected === 'held' ? predicted === actual && actual === booked : predicted === booked && actual === 0
    this.#count(sent, title)
    if (expected === 'lost unnoticed') this.held(engine).clear()
    const settled = await this.settle(engine, this.held(engine).add(promptIds, generatedIds, salt), salt)
    this.report.check(
      title,
      sameTokens && onWarmest && agree && settled && promptIds.length > 0,
      [
        `${promptIds.length} tokens ${sameTokens ? 'equal' : 'DIFFER'}`,
        `on ${engine.name}${onWarmest ? '' : `, WARMER on ${warmest.engines.map(({ name }) => name).join()}`}`,
        `cached: predicted ${predicted}, engine ${actual}, books ${booked}`,
        ...(settled ? [] : ['the map does NOT hold it']),
        ...(onWarmest ? [] : [await this.#why(sent)]),
      ].join('; '),
    )
  }

  /** The router's own reasons. */
  async #why({ reply }: SentChat): Promise<string> {
    const { candidates, reason } = await this.router.decision(String(reply.headers['x-request-id']))
    const seen = candidates.map(
      ({ worker, matchedBlocks, total, load }) =>
        `${worker} ${matchedBlocks.gpu} blocks, total ${total}, ${load.prefillTokens} ahead`,
    )
    return `${reason}: ${seen.join(' | ')}`
  }

  /** Sends to an engine past the router, which learns of it by events alone. */
  async sendTo(engine: Engine, body: Record<string, unknown>): Promise<Generation> {
    const path = 'messages' in body ? '/v1/chat/completions' : '/v1/completions'
    const answer = await generate(engine.url + path, { model: 'model', ...body })
    const salt = saltOf(body)
    const settled = await this.settle(engine, this.held(engine).add(answer.promptIds, answer.generatedIds, salt), salt)
    if (!settled) this.report.check(`the map learns of a request that went straight to ${engine.name}`, false)
    return answer
  }

  /** The token ids that the router makes of the body. */
  ourIds(body: Record<string, unknown>): Promise<number[]> {
    const { messages, prompt, tools, chat_template_kwargs: kwargs } = body
    if (Array.isArray(prompt)) return Promise.resolve(prompt as number[])
    if (typeof prompt === 'string') return this.router.tokenize({ prompt })
    return this.router.tokenize({
      messages,
      ...(tools === undefined ? {} : { tools }),
      ...(kwargs === undefined ? {} : { chat_template_kwargs: kwargs }),
    })
  }

  /** Waits until the map holds all whole blocks of the tokens on the engine. */
  async settle(engine: Engine, tokens: readonly number[], salt: string | null): Promise<boolean> {
    const blocks = Math.floor(tokens.length / blockSize)
    const held = await eventually(
      // One token more, since the last token of a prompt is in no block that counts.
      async () => ((await this.router.heldBlocks(engine.url, [...tokens, 0], salt)) === blocks ? true : null),
      settleMs,
    )
    return held === true
  }

  /** Notes a request that the router, too, has compared with the engine's report. */
  #count({ engine, predictedCachedTokens, cachedTokens }: SentChat, title: string): void {
    const predicted = predictedCachedTokens ?? 0
    const actual = cachedTokens ?? 0
    const tally = this.tallies.get(engine)
    if (tally === undefined) return
    tally.requests++
    tally.difference += Math.abs(predicted - actual)
    if (predicted !== actual)
      this.differences.push(`${engine.name}: ${title}: predicted ${predicted}, engine ${actual}`)
  }
}

function saltOf(body: Record<string, unknown>): string | null {
  const salt = body['cache_salt']
  return typeof salt === 'string' ? salt : null
}

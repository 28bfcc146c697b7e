import type { ClientRequest, IncomingMessage } from 'node:http'
import { AnswerStream } from './answer-stream.ts'

/** What became of a question; times are the clock's. */
export type Answer = { readonly sentMs: number; readonly endedMs: number } & (
  | {
      readonly kind: 'answered'
      readonly firstTokenMs: number
      readonly lastTokenMs: number
      readonly text: string
      readonly outputTokens: number
      /** Null where the endpoint does not tell. */
      readonly cachedTokens: number | null
      readonly worker: string | null
      readonly predictedCachedTokens: number | null
    }
  | { readonly kind: 'timed out' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'refused' | 'failed'; readonly why: string }
)

type Without<Value, Keys extends PropertyKey> = Value extends unknown ? Omit<Value, Keys> : never
type Ending = Without<Answer, 'sentMs' | 'endedMs'>

/** The statuses of an endpoint that has no room. */
const refusals: readonly number[] = [429, 503, 529]
/** Of an answer that says why not. */
const mostRefusalLetters = 4_096
const mostReasonLetters = 160

/** One request and what comes back. */
export class Exchange {
  readonly #clock: () => number
  readonly #resolve: (answer: Answer) => void
  readonly #sentMs: number
  readonly #stream = new AnswerStream()
  readonly #silence: NodeJS.Timeout
  #outgoing: ClientRequest | null = null
  #isOver = false

  constructor(clock: () => number, timeoutMs: number, resolve: (answer: Answer) => void) {
    this.#clock = clock
    this.#resolve = resolve
    this.#sentMs = clock()
    this.#silence = setTimeout(() => this.#waitedTooLong(), timeoutMs)
  }

  follow(outgoing: ClientRequest): void {
    this.#outgoing = outgoing
    outgoing.on('response', (answer) => (answer.statusCode === 200 ? this.#read(answer) : this.#refused(answer)))
    outgoing.on('error', (error: NodeJS.ErrnoException) => this.#failed(error.code ?? error.message))
  }

  stop(): void {
    this.#end({ kind: 'stopped' })
  }

  #read(answer: IncomingMessage): void {
    answer.setEncoding('utf8')
    answer.on('data', (text: string) => {
      const before = this.#stream.tokens
      this.#stream.add(text, this.#clock())
      if (this.#stream.tokens > before) this.#silence.refresh()
    })
    answer.on('end', () => this.#done(answer))
    answer.on('error', (error: NodeJS.ErrnoException) => this.#failed(`broken off: ${error.code ?? error.message}`))
  }

  #done({ headers }: IncomingMessage): void {
    const { fault, isComplete, tokens, firstTokenMs, lastTokenMs, text, usage } = this.#stream
    if (fault !== null) this.#failed(fault)
    else if (!isComplete || tokens === 0) this.#failed('the stream ended before the answer did')
    else
      this.#end({
        ...{ kind: 'answered', firstTokenMs, lastTokenMs, text },
        outputTokens: usage?.completion_tokens ?? tokens,
        cachedTokens: usage?.prompt_tokens_details?.cached_tokens ?? null,
        worker: textOf(headers['x-warmroute-worker']),
        predictedCachedTokens: numberOf(headers['x-warmroute-cached-tokens']),
      })
  }

  #refused(answer: IncomingMessage): void {
    const { statusCode = 0 } = answer
    let text = ''
    const told = (): void => {
      const why = `HTTP ${statusCode}: ${reasonIn(text)}`.slice(0, mostReasonLetters)
      this.#end({ kind: refusals.includes(statusCode) ? 'refused' : 'failed', why })
    }
    answer.setEncoding('utf8')
    answer.on('data', (part: string) => {
      text += part
      if (text.length > mostRefusalLetters) told()
    })
    answer.on('end', told)
    answer.on('error', told)
  }

  #waitedTooLong(): void {
    if (this.#stream.tokens === 0) this.#end({ kind: 'timed out' })
    else this.#failed('no further token came in time')
  }

  #failed(why: string): void {
    this.#end({ kind: 'failed', why: why.slice(0, mostReasonLetters) })
  }

  #end(answer: Ending): void {
    if (this.#isOver) return
    this.#isOver = true
    clearTimeout(this.#silence)
    if (answer.kind !== 'answered') this.#outgoing?.destroy()
    this.#resolve({ ...answer, sentMs: this.#sentMs, endedMs: this.#clock() })
  }
}

function textOf(header: string | string[] | undefined): string | null {
  return typeof header === 'string' ? header : null
}

function numberOf(header: string | string[] | undefined): number | null {
  const number = Number(textOf(header) ?? NaN)
  return Number.isFinite(number) ? number : null
}

/** The message of an error in OpenAI's form, or how the body begins. */
function reasonIn(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: unknown } }
    if (typeof error?.message === 'string') return error.message
  } catch {
    // Proxies answer in forms of their own.
  }
  return body
}

import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'

export interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

export interface CallOptions {
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
  /** Told of every piece of the answer as it comes. */
  readonly onText?: (text: string) => void
}

const callTimeoutMs = 120_000

/** One HTTP call; POST where there is a body. Rejects if there is no whole answer. */
export function call(url: string, { body, headers = {}, signal, onText }: CallOptions = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      url,
      {
        method: body === undefined ? 'GET' : 'POST',
        agent: false,
        headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        signal: AbortSignal.any([AbortSignal.timeout(callTimeoutMs), ...(signal === undefined ? [] : [signal])]),
      },
      (answer: IncomingMessage) => {
        let text = ''
        answer.setEncoding('utf8')
        answer.on('data', (piece: string) => {
          text += piece
          onText?.(piece)
        })
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }))
        answer.on('error', reject)
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export async function json<Value>(url: string, body?: unknown): Promise<Value> {
  const { status, text } = await call(url, body === undefined ? {} : { body })
  if (status !== 200) throw new Error(`${url} answered ${status}: ${text.slice(0, 500)}`)
  return JSON.parse(text) as Value
}

/** What an engine says of a generation, streamed or not. */
export interface Generation {
  readonly reply: Reply
  readonly promptIds: number[]
  readonly generatedIds: number[]
  readonly content: string
  /** Null where the engine did not report it. */
  readonly cachedTokens: number | null
  /** From the router's headers; null in an engine's own answer. */
  readonly worker: string | null
  readonly predictedCachedTokens: number | null
}

interface AnswerPart {
  readonly prompt_token_ids?: number[] | null
  readonly choices?: readonly {
    readonly text?: string
    readonly token_ids?: number[] | null
    readonly prompt_token_ids?: number[] | null
    readonly message?: { readonly content: string | null }
    readonly delta?: { readonly content?: string | null }
  }[]
  readonly usage?: { readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null } | null
}

/** Sends a generation and reads what the engine tells with `return_token_ids`. */
export async function generate(
  url: string,
  body: Record<string, unknown>,
  headers: Record<string, string> = {},
): Promise<Generation> {
  const reply = await call(url, { body: { return_token_ids: true, ...body }, headers })
  if (reply.status !== 200) throw new Error(`${url} answered ${reply.status}: ${reply.text.slice(0, 500)}`)
  const promptIds: number[] = []
  const generatedIds: number[] = []
  let content = ''
  let cachedTokens: number | null = null
  for (const part of partsOf(reply.text, body['stream'] === true)) {
    const [choice] = part.choices ?? []
    promptIds.push(...(part.prompt_token_ids ?? choice?.prompt_token_ids ?? []))
    generatedIds.push(...(choice?.token_ids ?? []))
    content += choice?.message?.content ?? choice?.delta?.content ?? choice?.text ?? ''
    cachedTokens = part.usage?.prompt_tokens_details?.cached_tokens ?? cachedTokens
  }
  const predicted = reply.headers['x-warmroute-cached-tokens']
  const worker = reply.headers['x-warmroute-worker']
  return {
    reply,
    promptIds,
    generatedIds,
    content,
    cachedTokens,
    worker: typeof worker === 'string' ? worker : null,
    predictedCachedTokens: typeof predicted === 'string' ? Number(predicted) : null,
  }
}

function partsOf(text: string, stream: boolean): AnswerPart[] {
  if (!stream) return [JSON.parse(text) as AnswerPart]
  return text
    .split('\n\n')
    .filter((event) => event.startsWith('data: ') && event !== 'data: [DONE]')
    .map((event) => JSON.parse(event.slice('data: '.length)) as AnswerPart)
}

/** Asks until the answer is one, and returns it; null when the deadline has passed. */
export async function eventually<Value>(
  ask: () => Promise<Value | null>,
  deadlineMs: number,
  everyMs = 20,
): Promise<Value | null> {
  const endMs = performance.now() + deadlineMs
  for (;;) {
    const value = await ask().catch(() => null)
    if (value !== null) return value
    if (performance.now() > endMs) return null
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
}

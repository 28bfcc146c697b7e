import { Agent as HttpAgent, request as httpRequest, type ClientRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { RouterError } from '../../errors.ts'
import { Exchange, type Answer } from './exchange.ts'

export interface EndpointOptions {
  /** Where /v1/completions is: a router, or anything that speaks OpenAI's API. */
  readonly url: string
  readonly model: string
  readonly apiKey?: string
  /** The clock of the times that are told. */
  readonly clock: () => number
}

export interface Question {
  readonly prompt: Uint32Array
  readonly outputTokens: number
  /** Name of the client's session, where there is one. */
  readonly session: string | null
  /** Given up without a first token after so long, and where no further one comes for so long. */
  readonly timeoutMs: number
}

/** Idle connections are let go before a server does: one that reuses a connection at that moment fails. */
const idleConnectionMs = 4_000
const tokenizeTimeoutMs = 10_000
const modelsTimeoutMs = 10_000
/** A client of one OpenAI-compatible endpoint, which tells when the tokens came. */
export class Endpoint {
  readonly #options: EndpointOptions
  readonly #agent: HttpAgent

  constructor(options: EndpointOptions) {
    this.#options = options
    const kept = { keepAlive: true, timeout: idleConnectionMs }
    this.#agent = options.url.startsWith('https:') ? new HttpsAgent(kept) : new HttpAgent(kept)
  }

  /** Streams a completion. Never rejects: what goes wrong is an answer, too. */
  ask(question: Question, signal: AbortSignal): Promise<Answer> {
    const { model, clock } = this.#options
    const body = JSON.stringify({
      ...{ model, prompt: Array.from(question.prompt), max_tokens: question.outputTokens, ignore_eos: true },
      ...{ temperature: 0, stream: true, stream_options: { include_usage: true } },
    })
    const session = question.session === null ? {} : { 'x-session-id': encodeURIComponent(question.session) }
    return new Promise((resolve) => {
      const exchange = new Exchange(clock, question.timeoutMs, resolve)
      if (signal.aborted) {
        exchange.stop()
        return
      }
      const outgoing = this.#post('/v1/completions', body, session)
      const stop = (): void => exchange.stop()
      signal.addEventListener('abort', stop, { once: true })
      outgoing.once('close', () => signal.removeEventListener('abort', stop))
      exchange.follow(outgoing)
    })
  }

  /** The text as the endpoint tokenizes it; null where it does not say. */
  async tokensOf(text: string, signal: AbortSignal): Promise<readonly number[] | null> {
    const { model } = this.#options
    const body = JSON.stringify({ model, prompt: text, add_special_tokens: false })
    const within = AbortSignal.any([signal, AbortSignal.timeout(tokenizeTimeoutMs)])
    try {
      const answer = await fetch(`${this.#options.url}/tokenize`, {
        ...{ method: 'POST', body, signal: within },
        headers: { 'content-type': 'application/json', ...this.#authorization },
      })
      const { tokens } = (await answer.json()) as { tokens?: unknown }
      return answer.ok && Array.isArray(tokens) ? (tokens as number[]) : null
    } catch {
      return null
    }
  }

  close(): void {
    this.#agent.destroy()
  }

  #post(path: string, body: string, headers: Readonly<Record<string, string>>): ClientRequest {
    const url = this.#options.url + path
    const request = url.startsWith('https:') ? httpsRequest : httpRequest
    const outgoing = request(url, {
      ...{ method: 'POST', agent: this.#agent },
      headers: {
        ...{ 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        ...this.#authorization,
        ...headers,
      },
    })
    outgoing.end(body)
    return outgoing
  }

  get #authorization(): Readonly<Record<string, string>> {
    const { apiKey } = this.#options
    return apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }
  }
}

export interface ServedModel {
  readonly id: string
  /** Most tokens of prompt and answer; null where the endpoint does not say. */
  readonly maxModelLength: number | null
}

/** The model that an endpoint lists under this name, or first. Throws RouterError UPSTREAM_UNREACHABLE, UPSTREAM_INVALID, MODEL_NOT_FOUND. */
export async function servedModel(url: string, name?: string, apiKey?: string): Promise<ServedModel> {
  const rows = await modelRows(url, apiKey)
  const row = name === undefined ? rows[0] : rows.find(({ id }) => id === name)
  if (typeof row?.id !== 'string') {
    const known = rows.map(({ id }) => String(id)).join(', ')
    const wanted = name === undefined ? 'no model' : `no model "${name}"`
    throw new RouterError('MODEL_NOT_FOUND', `${url} serves ${wanted}; it lists: ${known === '' ? 'none' : known}`)
  }
  const { id, max_model_len: length } = row
  return { id, maxModelLength: typeof length === 'number' ? length : null }
}

interface ModelRow {
  readonly id?: unknown
  readonly max_model_len?: unknown
}

async function modelRows(url: string, apiKey?: string): Promise<readonly ModelRow[]> {
  const headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }
  let answer: Response
  try {
    answer = await fetch(`${url}/v1/models`, { headers, signal: AbortSignal.timeout(modelsTimeoutMs) })
  } catch (cause) {
    throw new RouterError('UPSTREAM_UNREACHABLE', `Nothing answers at ${url}/v1/models`, { cause })
  }
  const { data } = (await answer.json().catch(() => ({}))) as { data?: unknown }
  if (!answer.ok || !Array.isArray(data))
    throw new RouterError('UPSTREAM_INVALID', `${url}/v1/models answers ${answer.status} and lists no models`)
  return data as ModelRow[]
}

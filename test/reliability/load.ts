import { setTimeout as after } from 'node:timers/promises'
import { Agent } from 'undici'
import { model, prose } from '../support/fleet.ts'

/** How one request went, as its client saw it. */
export interface Sent {
  readonly requestId: string
  /** 0 where no answer came. */
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** From sending to the first byte of the body; null where none came. */
  readonly firstByteMs: number | null
  readonly totalMs: number
  /** On the clock of `performance.now()`. */
  readonly endedAtMs: number
  readonly body: string
  /** The connection broke before the answer's end. */
  readonly broken: boolean
}

export interface Ask {
  readonly content?: string
  readonly stream?: boolean
  readonly maxTokens?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
  /** Told when the first byte of the body has come. */
  readonly onFirstByte?: () => void
}

/** A client of the router with connections of its own. */
export class LoadClient {
  readonly #url: string
  readonly #agent: Agent
  #count = 0

  constructor(url: string, connections = 1024) {
    this.#url = url
    this.#agent = new Agent({ connections, headersTimeout: 0, bodyTimeout: 0 })
  }

  async chat({ content, stream = false, maxTokens = 4, headers = {}, signal, onFirstByte }: Ask = {}): Promise<Sent> {
    const requestId = `r${this.#count++}`
    const body = {
      model,
      messages: [{ role: 'user', content: content ?? prose(requestId, 20) }],
      max_tokens: maxTokens,
      stream,
    }
    return this.post('/v1/chat/completions', JSON.stringify(body), {
      headers: { 'x-request-id': requestId, ...headers },
      ...(signal === undefined ? {} : { signal }),
      ...(onFirstByte === undefined ? {} : { onFirstByte }),
    })
  }

  /** Never throws: a connection that breaks is part of what is measured. */
  async post(
    path: string,
    body: string | Buffer,
    { headers = {}, signal, onFirstByte }: Pick<Ask, 'headers' | 'signal' | 'onFirstByte'> = {},
  ): Promise<Sent> {
    const startMs = performance.now()
    let status = 0
    let answerHeaders: Sent['headers'] = {}
    let firstByteMs: number | null = null
    const chunks: Buffer[] = []
    let broken = false
    try {
      const answer = await this.#agent.request({
        origin: this.#url,
        path,
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body,
        signal: signal ?? null,
      })
      status = answer.statusCode
      answerHeaders = answer.headers
      for await (const chunk of answer.body) {
        if (firstByteMs === null) {
          firstByteMs = performance.now() - startMs
          onFirstByte?.()
        }
        chunks.push(chunk as Buffer)
      }
    } catch {
      broken = true
    }
    const endedAtMs = performance.now()
    return {
      requestId: headers['x-request-id'] ?? '',
      status,
      headers: answerHeaders,
      firstByteMs,
      totalMs: endedAtMs - startMs,
      endedAtMs,
      body: Buffer.concat(chunks).toString(),
      broken,
    }
  }

  /** So many clients, each sending its next request when the last one is answered, until `isOver`. */
  async closedLoop(clients: number, isOver: () => boolean, ask: (index: number) => Ask = () => ({})): Promise<Sent[]> {
    const sent: Sent[] = []
    let index = 0
    await Promise.all(
      Array.from({ length: clients }, async () => {
        while (!isOver()) sent.push(await this.chat(ask(index++)))
      }),
    )
    return sent
  }

  /** So many requests a second, sent when they are due however the others fare. */
  async paced(
    perSecond: number,
    durationMs: number,
    ask: (index: number) => Ask = () => ({}),
  ): Promise<(Sent & { readonly sentAtMs: number })[]> {
    const startMs = performance.now()
    const total = Math.floor((perSecond * durationMs) / 1000)
    const sent: Promise<Sent & { readonly sentAtMs: number }>[] = []
    for (let index = 0; index < total; index++) {
      const dueMs = startMs + (index * 1000) / perSecond
      const nowMs = performance.now()
      if (dueMs > nowMs) await after(dueMs - nowMs)
      const sentAtMs = performance.now()
      sent.push(this.chat(ask(index)).then((outcome) => ({ ...outcome, sentAtMs })))
    }
    return Promise.all(sent)
  }

  /** All at once. */
  burst(count: number, ask: (index: number) => Ask = () => ({})): Promise<Sent[]> {
    return Promise.all(Array.from({ length: count }, (_, index) => this.chat(ask(index))))
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }
}

/** A stop signal for `closedLoop`: true once so much time has passed. */
export function elapsed(durationMs: number): () => boolean {
  const endMs = performance.now() + durationMs
  return () => performance.now() >= endMs
}

/** How a stream ended for its client. */
export function streamEnding({ status, body, broken }: Sent): 'whole' | 'error event' | 'reset' | 'refused' | 'cut' {
  if (status >= 400) return 'refused'
  if (broken) return 'reset'
  if (body.includes('data: {"error"') && body.endsWith('data: [DONE]\n\n')) return 'error event'
  return body.endsWith('data: [DONE]\n\n') ? 'whole' : 'cut'
}

import { Agent, Pool, request } from 'undici'
import type { WorkerConnections } from './connect.ts'

/** Small answers of an engine to the router's own questions (facts, health, load); never a client's request. */
export interface EngineHttp {
  /** GET or POST with a time limit; null when the engine cannot be reached in time or sends more than `limitBytes`. */
  ask(url: string, options?: AskOptions): Promise<EngineAnswer | null>
  close(): Promise<void>
}

export interface AskOptions {
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly timeoutMs?: number
  readonly limitBytes?: number
  /** Told that the engine did not take the connection: there is no process, as opposed to one that is late. */
  readonly onRefused?: () => void
}

export interface EngineAnswer {
  readonly status: number
  readonly text: string
}

/** Requests whose end matters, since they change something at the engine. */
export interface EngineExchange {
  /** Never rejects. */
  exchange(url: string, options: ExchangeOptions): Promise<ExchangeOutcome>
}

export interface ExchangeOptions {
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly limitBytes: number
  readonly signal: AbortSignal
}

export type ExchangeOutcome =
  | { readonly kind: 'answer'; readonly status: number; readonly bytes: Uint8Array }
  /** The request was not sent; `refused`: no process takes connections. */
  | { readonly kind: 'unreached'; readonly refused: boolean }
  /** The request was sent, or may have been, and the answer did not come whole. */
  | { readonly kind: 'lost'; readonly reason: string }

const defaultTimeoutMs = 5000
const connectMs = 5000
/** To one engine: questions about facts, health and load, and one that waits for events. */
const maxConnections = 3
const defaultLimitBytes = 8 * 1024 * 1024

export function createEngineHttp(connections: WorkerConnections): EngineHttp & EngineExchange {
  const agent = new Agent({
    factory: (origin) =>
      new Pool(origin, {
        connections: maxConnections,
        keepAliveTimeout: 10_000,
        allowH2: false,
        connect: connections.connector(String(origin), connectMs),
      }),
  })
  return {
    async ask(url, options = {}) {
      try {
        const answer = await request(url, {
          dispatcher: agent,
          method: options.body === undefined ? 'GET' : 'POST',
          headers: {
            ...options.headers,
            ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
          },
          ...(options.body === undefined ? {} : { body: options.body }),
          signal: AbortSignal.timeout(options.timeoutMs ?? defaultTimeoutMs),
        })
        const chunks: Buffer[] = []
        let length = 0
        for await (const chunk of answer.body) {
          const bytes = chunk as Buffer
          length += bytes.length
          if (length > (options.limitBytes ?? defaultLimitBytes)) return null
          chunks.push(bytes)
        }
        return { status: answer.statusCode, text: Buffer.concat(chunks).toString('utf8') }
      } catch (error) {
        if ((error as { code?: string }).code === 'ECONNREFUSED') options.onRefused?.()
        return null
      }
    },
    async exchange(url, { method, headers, timeoutMs, limitBytes, signal }) {
      const limit = new AbortController()
      const timer = setTimeout(() => limit.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
      try {
        const answer = await request(url, {
          dispatcher: agent,
          method,
          headers,
          // An answer may come long after its request.
          headersTimeout: 0,
          bodyTimeout: 0,
          signal: AbortSignal.any([signal, limit.signal]),
        })
        const chunks: Buffer[] = []
        let length = 0
        for await (const chunk of answer.body) {
          const bytes = chunk as Buffer
          length += bytes.length
          if (length > limitBytes) return { kind: 'lost', reason: `an answer of more than ${limitBytes} bytes` }
          chunks.push(bytes)
        }
        return { kind: 'answer', status: answer.statusCode, bytes: Buffer.concat(chunks) }
      } catch (error) {
        const { code, syscall, message } = error as { code?: string; syscall?: string; message?: string }
        const unsent = code === 'UND_ERR_CONNECT_TIMEOUT' || syscall === 'connect' || syscall === 'getaddrinfo'
        if (unsent) return { kind: 'unreached', refused: code === 'ECONNREFUSED' }
        return { kind: 'lost', reason: code ?? message ?? 'broken' }
      } finally {
        clearTimeout(timer)
      }
    },
    close: () => agent.destroy(),
  }
}

/** The JSON value of a 200 answer, else null. */
export function jsonOf(answer: EngineAnswer | null): unknown {
  if (answer?.status !== 200) return null
  try {
    return JSON.parse(answer.text) as unknown
  } catch {
    return null
  }
}

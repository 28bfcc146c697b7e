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

const defaultTimeoutMs = 5000
const connectMs = 5000
const defaultLimitBytes = 8 * 1024 * 1024

export function createEngineHttp(connections: WorkerConnections): EngineHttp {
  const agent = new Agent({
    factory: (origin) =>
      new Pool(origin, {
        connections: 2,
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

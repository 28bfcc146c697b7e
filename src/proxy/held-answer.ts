import type { ServerResponse } from 'node:http'
import type { Protocol } from '../protocol/protocol.ts'
import { rewrittenError } from '../protocol/upstream-error.ts'

/** Seconds until another try makes sense where the worker that was too busy did not say. */
const defaultRetryAfterSeconds = 1

/** Statuses by which an engine says that it is too busy: back-pressure, not a fault. */
export function isBackPressure(status: number): boolean {
  return status === 429 || status === 503 || status === 529
}

/** A worker's error answer, held back while another worker may still answer; sent on in the client's form. */
export class HeldAnswer {
  readonly status: number
  readonly #head: readonly string[]
  readonly #body: Buffer
  /** False where the body was longer than what is held, or broke off. */
  readonly #whole: boolean
  readonly #protocol: Protocol

  /** @param head flat list of names and values */
  constructor(status: number, head: readonly string[], body: Buffer, whole: boolean, protocol: Protocol) {
    this.status = status
    this.#head = head
    this.#body = body
    this.#whole = whole
    this.#protocol = protocol
  }

  /** What the worker's `retry-after` says; null where it says nothing that is a number of seconds. */
  get retryAfterSeconds(): number | null {
    const text = this.#header('retry-after')
    return text !== null && /^\d{1,6}$/.test(text) ? Number(text) : null
  }

  send(response: ServerResponse): void {
    const rewritten = rewrittenError(this.#protocol, this.status, this.#body, this.#whole)
    const body = rewritten === null ? this.#body : Buffer.from(rewritten)
    const head: string[] = []
    for (let i = 0; i + 1 < this.#head.length; i += 2) {
      const name = (this.#head[i] as string).toLowerCase()
      if (name === 'content-length' || (rewritten !== null && bodyHeaders.has(name))) continue
      head.push(this.#head[i] as string, this.#head[i + 1] as string)
    }
    if (rewritten !== null) head.push('content-type', 'application/json')
    if (isBackPressure(this.status) && this.#header('retry-after') === null)
      head.push('retry-after', String(defaultRetryAfterSeconds))
    response.writeHead(this.status, [...head, 'content-length', String(body.length)])
    response.end(body)
  }

  #header(wanted: string): string | null {
    for (let i = 0; i + 1 < this.#head.length; i += 2)
      if (this.#head[i]?.toLowerCase() === wanted) return this.#head[i + 1] ?? null
    return null
  }
}

/** Headers that describe the bytes which a rewritten body replaces. */
const bodyHeaders: ReadonlySet<string> = new Set(['content-type', 'content-encoding', 'etag', 'content-md5', 'digest'])

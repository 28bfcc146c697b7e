import type { IncomingMessage, ServerResponse } from 'node:http'
import { RouterError } from '../errors.ts'

/** One memory budget for the request bodies of all running requests. */
export class BodyBudget {
  readonly limitBytes: number
  #heldBytes = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  take(bytes: number): boolean {
    if (this.#heldBytes + bytes > this.limitBytes) return false
    this.#heldBytes += bytes
    return true
  }

  release(bytes: number): void {
    this.#heldBytes -= bytes
  }
}

export interface BodyLimits {
  readonly bodyBytes: number
  readonly budget: BodyBudget
}

/**
 * Gathers a body's bytes as they came and holds them against the budget until the answer's end: what arrived counts, not
 * what a head promises, so that a client that only promises takes nothing from the others.
 *
 * `done` gets the body, or RouterError BODY_TOO_LARGE, BODIES_OVER_BUDGET or BODY_INVALID (the connection ended before it).
 */
export function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  limits: BodyLimits,
  done: (error: RouterError | null, body?: Buffer) => void,
): void {
  const { budget } = limits
  let chunks: Buffer[] = []
  let heldBytes = 0
  let settled = false
  response.on('close', () => {
    budget.release(heldBytes)
    heldBytes = 0
  })

  const settle = (error: RouterError | null, body?: Buffer): void => {
    settled = true
    chunks = []
    if (error !== null) {
      budget.release(heldBytes)
      heldBytes = 0
    }
    done(error, body)
  }
  request.on('data', (chunk: Buffer) => {
    if (settled) return
    if (heldBytes + chunk.length > limits.bodyBytes) {
      settle(bodyTooLarge())
      return
    }
    if (response.destroyed || !budget.take(chunk.length)) {
      settle(overBudget())
      return
    }
    heldBytes += chunk.length
    chunks.push(chunk)
  })
  request.on('end', () => {
    if (!settled) settle(null, chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, heldBytes))
  })
  const broken = (): void => {
    if (!settled) settle(new RouterError('BODY_INVALID', 'The connection ended before the whole body had come'))
  }
  request.on('error', broken)
  request.on('close', broken)
}

export function bodyTooLarge(): RouterError {
  return new RouterError('BODY_TOO_LARGE', 'The request body is larger than the configured limit (limits.bodyBytes)')
}

function overBudget(): RouterError {
  return new RouterError(
    'BODIES_OVER_BUDGET',
    'The bodies of running requests fill the memory set aside for them (limits.bodiesBytes); try again soon',
    { retryAfterSeconds: 1 },
  )
}

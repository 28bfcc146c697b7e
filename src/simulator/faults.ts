import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../zmtp/clock.ts'
import { ApiError, invalid } from './api-error.ts'
import { bodyOf, flagOf, recordOf, textOf, wholeOf, type Body } from './body.ts'
import type { Counters } from './counters.ts'

/** What goes wrong with the requests that a fault meets. */
export type FaultEffect =
  | { readonly kind: 'none' }
  /** Answers this status; a body that is not a text is sent as JSON. */
  | {
      readonly kind: 'status'
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: unknown
    }
  /** Takes the request and never answers. */
  | { readonly kind: 'hang' }
  /**
   * Breaks off a stream after so many events, any other answer after so many tokens; 0: before the first byte.
   * `clean` ends a begun stream as if it were complete.
   */
  | { readonly kind: 'cut'; readonly afterEvents: number; readonly clean?: boolean }
  /** Waits before it does anything. */
  | { readonly kind: 'latency'; readonly ms: number }

export type Fault = FaultEffect & {
  /** How many requests it meets; left out: all. */
  readonly count?: number
  /** The paths that it meets, by any method; left out: every POST. */
  readonly paths?: readonly string[]
}

export interface Cut {
  readonly afterEvents: number
  readonly clean: boolean
}

/** The one fault that a simulated worker has at a time, and the requests that it meets. */
export class Faults {
  readonly #clock: Clock
  readonly #cuts = new WeakMap<FastifyRequest, Cut>()
  #fault: Fault = { kind: 'none' }
  #left = Infinity

  constructor(clock: Clock) {
    this.#clock = clock
  }

  set(fault: Fault): void {
    this.#fault = fault
    this.#left = fault.count ?? Infinity
  }

  /** Does what the fault says; true where it has answered in the server's stead. */
  async meet(request: FastifyRequest, reply: FastifyReply, counters: Counters): Promise<boolean> {
    const fault = this.#fault
    const path = request.url.split('?')[0] ?? ''
    const met = fault.paths === undefined ? request.method === 'POST' : fault.paths.includes(path)
    if (fault.kind === 'none' || !met || this.#left === 0) return false
    this.#left--
    switch (fault.kind) {
      case 'status': {
        const { status, headers = {}, body = new ApiError(status, 'A fault that was asked for').body } = fault
        await reply.code(status).headers(headers).send(body)
        return true
      }
      case 'hang':
        await new Promise((resolve) => reply.raw.once('close', resolve))
        reply.hijack()
        return true
      case 'cut':
        this.#cuts.set(request, { afterEvents: fault.afterEvents, clean: fault.clean ?? false })
        if (fault.afterEvents > 0) return false
        reply.hijack()
        counters.sever(reply.raw)
        return true
      case 'latency':
        await new Promise<void>((resolve) => this.#clock.after(fault.ms, resolve))
        return false
      default:
        return fault satisfies never
    }
  }

  /** Where the answer to this request is to break off; null: nowhere. */
  cutOf(request: FastifyRequest): Cut | null {
    return this.#cuts.get(request) ?? null
  }
}

/** Reads the body of POST /simulator/fault. */
export function faultOf(value: unknown): Fault {
  const body = bodyOf(value)
  const { paths } = body
  if (paths !== undefined && !(Array.isArray(paths) && paths.every((path) => typeof path === 'string'))) {
    throw invalid({ field: 'paths', kind: 'list_type', message: 'Input should be a list of paths', value: paths })
  }
  const count = wholeOf(body, 'count', 1)
  return { ...effectOf(body), ...(count === null ? {} : { count }), ...(paths === undefined ? {} : { paths }) }
}

function effectOf(body: Body): FaultEffect {
  const kind = textOf(body, 'kind')
  switch (kind) {
    case 'none':
    case 'hang':
      return { kind }
    case 'status': {
      const headers = Object.entries(recordOf(body, 'headers') ?? {}).map(([name, text]) => [name, String(text)])
      return {
        kind,
        status: wholeOf(body, 'status', 200) ?? 500,
        headers: Object.fromEntries(headers) as Record<string, string>,
        ...(body['body'] === undefined ? {} : { body: body['body'] }),
      }
    }
    case 'cut':
      return { kind, afterEvents: wholeOf(body, 'afterEvents', 0) ?? 0, clean: flagOf(body, 'clean') }
    case 'latency':
      return { kind, ms: wholeOf(body, 'ms', 0) ?? 0 }
    default: {
      const message = 'Input should be none, status, hang, cut or latency'
      throw invalid({ field: 'kind', kind: 'literal_error', message, value: kind })
    }
  }
}

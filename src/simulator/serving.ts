import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../zmtp/clock.ts'
import { ApiError } from './api-error.ts'
import { BreakOff } from './break-off.ts'
import type { Counters } from './counters.ts'
import type { CallContext, EngineCall } from './engine-call.ts'
import type { EngineDrive } from './engine-drive.ts'
import type { Faults } from './faults.ts'
import { Generation } from './generation.ts'
import type { OutputVocabulary } from './tokenizer.ts'
import type { Choice, Wording } from './wording.ts'

export interface ServingOptions extends CallContext {
  /** The engine of each data-parallel rank. */
  readonly ranks: readonly EngineDrive[]
  readonly vocabulary: OutputVocabulary
  readonly clock: Clock
  readonly wallSeconds: () => number
  /** Begins every id that clients did not choose; differs between processes. */
  readonly idSeed: string
  readonly promptTokensDetails: boolean
  /** vLLM's --enable-request-id-headers. */
  readonly requestIdHeaders: boolean
  /** A connection is destroyed after this many tokens of its answer; null: never. Asked anew for each token. */
  readonly dieAfterTokens: () => number | null
  readonly faults: Faults
  readonly counters: Counters
}

/** A request that is being answered. */
export interface Exchange {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly number: number
  /** The client's own id of the request, else one of ours. */
  readonly requestId: string
  readonly sessionHeader: string | null
  readonly createdSeconds: number
}

/** Runs calls on the engine's ranks and sends what comes of them: what all generating endpoints have in common. */
export class Serving {
  readonly options: ServingOptions
  #served = 0
  #inFlight = 0

  constructor(options: ServingOptions) {
    this.options = options
  }

  get inFlight(): number {
    return this.#inFlight
  }

  begin(request: FastifyRequest, reply: FastifyReply): Exchange {
    const number = this.#served++
    const requestId = headerOf(request, 'x-request-id') ?? this.id(`${number}`)
    if (this.options.requestIdHeaders) reply.header('x-request-id', requestId)
    const createdSeconds = Math.floor(this.options.wallSeconds())
    return { request, reply, number, requestId, createdSeconds, sessionHeader: headerOf(request, 'x-session-id') }
  }

  /** 16 hex digits that no other name of this process has. */
  id(name: string): string {
    return createHash('sha256').update(`${this.options.idSeed} ${name}`).digest('hex').slice(0, 16)
  }

  generation({ request, number }: Exchange, call: EngineCall): Generation {
    return new Generation(`${number}`, call, rankOf(request, this.options.ranks))
  }

  /** Runs a call and answers in the endpoint's words; a client that leaves frees all that the call holds at once. */
  answer(
    exchange: Exchange,
    call: EngineCall,
    wordingOf: (choices: readonly Choice[]) => Wording,
  ): Promise<object> | FastifyReply {
    const { reply } = exchange
    const { raw } = reply
    const generation = this.generation(exchange, call)
    // The client may have left while its prompt was being tokenized.
    if (raw.destroyed) return reply.hijack()
    this.#inFlight++
    const wording = wordingOf(generation.choices)
    const { events } = wording
    return new Promise<object>((resolve) => {
      let done = false
      const { counters, dieAfterTokens, faults, vocabulary } = this.options
      const breakOff = new BreakOff(raw, counters, faults.cutOf(exchange.request), dieAfterTokens)
      const write = (text: string): boolean => {
        if (text !== '') raw.write(breakOff.admit(text))
        if (breakOff.breakIfDue()) done = true
        return !done
      }
      raw.once('close', () => {
        this.#inFlight--
        generation.abort()
        done = true
        if (events === null && !raw.writableEnded) resolve(reply.hijack())
      })
      if (events !== null) {
        resolve(reply.hijack())
        beginStream(reply)
      }
      if (!write(events?.opening() ?? '')) return
      generation.start(vocabulary, {
        onToken: (choice, token, text) => {
          if (done) return
          breakOff.countToken()
          write(events?.token(choice, token, text) ?? '')
        },
        onEnd: () => {
          if (done || !write(events?.end() ?? '')) return
          done = true
          if (events === null) resolve(wording.whole())
          else raw.end()
        },
      })
    })
  }
}

export function headerOf(request: FastifyRequest, name: string): string | null {
  const value = request.headers[name]
  return typeof value === 'string' && value !== '' ? value : null
}

/** Sends the head at once, as uvicorn does: a status of 200 says nothing about when, or whether, a token comes. */
function beginStream(reply: FastifyReply): void {
  const { raw } = reply
  raw.socket?.setNoDelay(true)
  const requestId = reply.getHeader('x-request-id')
  raw.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    ...(requestId === undefined ? {} : { 'x-request-id': String(requestId) }),
  })
  raw.flushHeaders()
}

/** The rank that the client pinned, else the one with the least load, waiting requests weighing four times (vLLM's rule). */
function rankOf(request: FastifyRequest, ranks: readonly EngineDrive[]): EngineDrive {
  const pinned = headerOf(request, 'x-data-parallel-rank')
  const load = ({ stats }: EngineDrive): number => 4 * stats.waiting + stats.running
  const rank =
    pinned === null
      ? ranks.reduce((least, other) => (load(other) < load(least) ? other : least))
      : /^\d+$/.test(pinned)
        ? ranks[Number(pinned)]
        : undefined
  if (rank === undefined) throw new ApiError(400, `There is no data parallel rank ${pinned ?? ''}.`)
  return rank
}

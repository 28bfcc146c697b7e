import type { ServerResponse } from 'node:http'
import { Pool, type Dispatcher } from 'undici'
import { RouterError } from '../errors.ts'
import { Bag, type Placed } from '../workers/bag.ts'
import type { Worker } from '../workers/worker.ts'
import { answerHeaders } from './headers.ts'
import { countEvents, EventBoundary } from './sse.ts'
import { UsageReader } from './usage.ts'

export interface ForwardLimits {
  readonly connectMs: number
  readonly firstTokenMs: number
  readonly idleMs: number
  readonly totalMs: number
  readonly heldEventBytes: number
  readonly connectionsPerWorker: number
}

export interface ForwardRequest {
  readonly worker: Worker
  readonly method: 'GET' | 'POST'
  /** Path and query as the client sent them. */
  readonly path: string
  /** Flat list of lower-case names and values. */
  readonly headers: string[]
  readonly body: Buffer | null
  readonly stream: boolean
  /** Headers added to the answer, as a flat list. */
  readonly answerHeaders: readonly string[]
  /** Bytes that tell a client of a stream that the worker died: an error event and the end marker of its protocol. */
  readonly deathNote: (message: string) => string
  /** First body byte of a 2xx answer. */
  readonly onFirstByte?: () => void
  /** Complete events of a stream that went by. */
  readonly onEvents?: (count: number) => void
}

export type ForwardOutcome =
  | {
      readonly kind: 'answered'
      readonly status: number
      readonly cachedTokens: number | null
    }
  /** Nothing was written to the client, and the request may be sent to another worker. */
  | {
      readonly kind: 'failed'
      readonly error: RouterError
      readonly mayRetry: boolean
      /** The worker did not even take the connection. */
      readonly refused: boolean
    }
  /** The answer had begun when the worker died; the client has been told. */
  | { readonly kind: 'died'; readonly status: number; readonly reason: string }
  | { readonly kind: 'clientGone'; readonly status: number }

/** Sends requests to workers and their answers back, byte for byte. */
export class Forwarder {
  #limits: ForwardLimits
  readonly #pools = new Map<string, Pool>()
  readonly #active = new Bag<Exchange>()
  readonly #clock: () => number
  readonly #sweep: NodeJS.Timeout

  constructor(limits: ForwardLimits, clock: () => number) {
    this.#limits = limits
    this.#clock = clock
    // One timer watches every exchange: a timer each would be set and cleared for every chunk of every stream.
    this.#sweep = setInterval(() => this.#expire(), 100)
    this.#sweep.unref()
  }

  /** Never throws: what goes wrong is in the outcome. */
  send(request: ForwardRequest, response: ServerResponse): Promise<ForwardOutcome> {
    return new Promise((resolve) => {
      const exchange = new Exchange(request, response, this.#limits, this.#clock, (outcome) => {
        this.#active.remove(exchange)
        resolve(outcome)
      })
      if (exchange.settled) return
      this.#active.add(exchange)
      this.#pool(request.worker.origin).dispatch(
        {
          path: request.worker.basePath + request.path,
          method: request.method,
          headers: request.headers,
          body: request.body,
        },
        exchange,
      )
    })
  }

  /** Breaks off what still runs on a worker that is taken out for good; nothing of another worker's. */
  cut(worker: Worker): void {
    for (let i = this.#active.items.length - 1; i >= 0; i--) this.#active.items[i]?.cut(worker)
  }

  /** Limits for requests from now on; those that are a connection's go to new connections. */
  reconfigure(limits: ForwardLimits): void {
    const { connectMs, connectionsPerWorker } = this.#limits
    this.#limits = limits
    if (connectMs === limits.connectMs && connectionsPerWorker === limits.connectionsPerWorker) return
    for (const origin of [...this.#pools.keys()]) this.forget(origin)
  }

  /** Closes the connections to a worker that is gone. */
  forget(origin: string): void {
    const pool = this.#pools.get(origin)
    this.#pools.delete(origin)
    pool?.close().catch(() => undefined)
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep)
    await Promise.all([...this.#pools.values()].map((pool) => pool.destroy()))
    this.#pools.clear()
  }

  #pool(origin: string): Pool {
    let pool = this.#pools.get(origin)
    if (pool === undefined) {
      pool = new Pool(origin, {
        connections: this.#limits.connectionsPerWorker,
        pipelining: 1,
        connect: { timeout: this.#limits.connectMs },
        headersTimeout: 0,
        bodyTimeout: 0,
        keepAliveTimeout: 4000,
        allowH2: false,
      })
      this.#pools.set(origin, pool)
    }
    return pool
  }

  #expire(): void {
    const nowMs = this.#clock()
    // An exchange that ends here leaves the bag, so that the walk goes backwards.
    for (let i = this.#active.items.length - 1; i >= 0; i--) this.#active.items[i]?.expire(nowMs)
  }
}

/** One request on one worker: undici's handler on one side, the client's response on the other. */
class Exchange implements Dispatcher.DispatchHandler, Placed {
  settled = false
  place = -1
  readonly #request: ForwardRequest
  readonly #response: ServerResponse
  readonly #limits: ForwardLimits
  readonly #clock: () => number
  readonly #settle: (outcome: ForwardOutcome) => void
  readonly #startedMs: number
  readonly #usage = new UsageReader()
  #controller: Dispatcher.DispatchController | null = null
  #boundary: EventBoundary | null = null
  #status = 0
  #head: string[] | null = null
  #headSent = false
  #lastByteMs: number
  #timedOut: string | null = null

  constructor(
    request: ForwardRequest,
    response: ServerResponse,
    limits: ForwardLimits,
    clock: () => number,
    settle: (outcome: ForwardOutcome) => void,
  ) {
    this.#request = request
    this.#response = response
    this.#limits = limits
    this.#clock = clock
    this.#settle = settle
    this.#startedMs = clock()
    this.#lastByteMs = this.#startedMs
    if (response.destroyed || response.socket?.destroyed === true) this.#finish({ kind: 'clientGone', status: 0 })
    else response.on('close', this.#onClientClose)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.settled) controller.abort(new Error('the client left'))
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    // 1xx answers are steps on the way; undici reports them before the real one.
    if (status < 200 || this.settled) return
    if (status >= 300 && status < 400) {
      // A redirect would make clients send the prompt elsewhere.
      this.#fail(new RouterError('UPSTREAM_INVALID', `The worker answered with a redirect (status ${status})`), false)
      controller.abort(new Error('redirect'))
      return
    }
    this.#status = status
    const raw = controller.rawHeaders
    this.#head = [...(Array.isArray(raw) ? answerHeaders(raw) : []), ...this.#request.answerHeaders]
    const type = headers['content-type']
    if (typeof type === 'string' && type.startsWith('text/event-stream'))
      this.#boundary = new EventBoundary(this.#limits.heldEventBytes)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.settled) return
    this.#lastByteMs = this.#clock()
    this.#usage.push(chunk)
    const bytes = this.#boundary === null ? chunk : this.#boundary.push(chunk)
    if (bytes.length === 0) return
    if (!this.#headSent) {
      this.#sendHead()
      if (this.#status < 300) this.#request.onFirstByte?.()
    }
    if (this.#boundary !== null) this.#request.onEvents?.(countEvents(bytes))
    if (!this.#response.write(bytes)) {
      controller.pause()
      this.#response.once('drain', () => controller.resume())
    }
  }

  onResponseEnd(): void {
    if (this.settled) return
    if (!this.#headSent) this.#sendHead()
    const held = this.#boundary?.flush()
    if (held !== undefined && held.length > 0) this.#response.end(held)
    else this.#response.end()
    this.#finish({
      kind: 'answered',
      status: this.#status,
      cachedTokens: this.#usage.cachedTokens,
    })
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.settled) return
    if (!this.#headSent) {
      if (this.#timedOut !== null) {
        // The worker may still be computing: a second copy of the request would double the load that made it late.
        this.#fail(new RouterError('UPSTREAM_TIMEOUT', this.#timedOut, { cause: error }), this.#request.stream)
      } else {
        const message = 'The worker could not be reached or closed the connection before answering'
        this.#fail(
          new RouterError('UPSTREAM_UNREACHABLE', message, { cause: error, retryAfterSeconds: 1 }),
          true,
          this.#controller === null,
        )
      }
      return
    }
    this.#tellOfDeath(this.#timedOut ?? 'The worker died while answering')
  }

  /** Ends the exchange when it has outlived its time. */
  expire(nowMs: number): void {
    const { firstTokenMs, idleMs, totalMs } = this.#limits
    const overdue = !this.#request.stream
      ? nowMs - this.#startedMs > totalMs && `No whole answer from the worker within ${totalMs} ms`
      : !this.#headSent
        ? nowMs - this.#startedMs > firstTokenMs && `No first token from the worker within ${firstTokenMs} ms`
        : !this.#response.writableNeedDrain &&
          nowMs - this.#lastByteMs > idleMs &&
          `Nothing from the worker for ${idleMs} ms`
    if (overdue === false || this.#timedOut !== null) return
    this.#timedOut = overdue
    if (this.#controller === null) this.#fail(new RouterError('UPSTREAM_TIMEOUT', overdue), false)
    else this.#controller.abort(new Error(overdue))
  }

  /** Ends the exchange if it is this worker's: an answer not begun may be had from another one. */
  cut(worker: Worker): void {
    if (this.#request.worker !== worker || this.settled) return
    const reason = 'The worker was taken out of service'
    if (this.#controller === null) this.#fail(new RouterError('UPSTREAM_UNREACHABLE', reason), true)
    else this.#controller.abort(new Error(reason))
  }

  readonly #onClientClose = (): void => {
    if (this.settled) return
    // In this order: aborting reports an error at once, which must not pass for one of the worker's.
    this.#finish({ kind: 'clientGone', status: this.#status })
    this.#controller?.abort(new Error('the client left'))
  }

  #sendHead(): void {
    this.#headSent = true
    this.#response.writeHead(this.#status, this.#head ?? [])
  }

  #tellOfDeath(message: string): void {
    if (this.#boundary === null) this.#response.destroy()
    else this.#response.end(this.#request.deathNote(message))
    this.#finish({ kind: 'died', status: this.#status, reason: message })
  }

  #fail(error: RouterError, mayRetry: boolean, refused = false): void {
    this.#finish({ kind: 'failed', error, mayRetry, refused })
  }

  #finish(outcome: ForwardOutcome): void {
    if (this.settled) return
    this.settled = true
    this.#response.off('close', this.#onClientClose)
    this.#settle(outcome)
  }
}

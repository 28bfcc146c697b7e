import type { ServerResponse } from 'node:http'
import type { Dispatcher } from 'undici'
import { RouterError } from '../errors.ts'
import { statusOfErrorBody } from '../protocol/upstream-error.ts'
import type { Placed } from '../workers/bag.ts'
import type { Worker } from '../workers/worker.ts'
import { AnswerReader } from './answer-reader.ts'
import type { ForwardLimits, ForwardOutcome, ForwardRequest } from './outcome.ts'
import { HeldAnswer } from './held-answer.ts'
import { answerHeaders } from './headers.ts'
import { countEvents, EventBoundary, streamEnd } from './sse.ts'

export interface ExchangeParts {
  readonly limits: ForwardLimits
  readonly clock: () => number
  /** Called once, when it is known how the request ended for the client. */
  readonly onOutcome: (outcome: ForwardOutcome) => void
  /** Called once, when nothing more will come from the worker. */
  readonly onClosed: () => void
}

/** How long a worker may keep a stream open after the event that ended it. */
const afterEndMs = 1000
const largestStatus = 599

/**
 * One request on one worker: undici's handler on one side, the client's response on the other.
 *
 *     waiting ── 2xx ──► passing ── last event ──► ended      bytes go on as they come
 *        │  └── ≥ 400 ─► holding ── end ─────────► ended      an error is kept: another worker may do better
 *        └── no answer ──────────────────────────► ended
 */
export class Exchange implements Dispatcher.DispatchHandler, Placed {
  settled = false
  place = -1
  readonly #request: ForwardRequest
  readonly #response: ServerResponse
  readonly #o: ExchangeParts
  readonly #startedMs: number
  readonly #answer: AnswerReader
  #controller: Dispatcher.DispatchController | null = null
  #boundary: EventBoundary | null = null
  #held: Buffer[] | null = null
  #heldBytes = 0
  /** Bytes that the whole answer has; −1 where its head does not tell. */
  #lengthBytes = -1
  /** The whole answer, where it came in one piece: it goes on with its head, in one write. */
  #whole: Buffer | null = null
  #status = 0
  #events = 0
  #head: string[] = []
  #headSent = false
  #tokenSeen = false
  #lastByteMs: number
  #stalledSinceMs: number | null = null
  #settledMs = 0
  #timedOut: string | null = null

  constructor(request: ForwardRequest, response: ServerResponse, parts: ExchangeParts) {
    this.#request = request
    this.#response = response
    this.#o = parts
    this.#answer = new AnswerReader(request.protocol.name === 'responses')
    this.#startedMs = parts.clock()
    this.#lastByteMs = this.#startedMs
    if (response.destroyed || response.socket?.destroyed === true)
      this.#settle({ kind: 'clientGone', status: 0, generatedTokens: 0 })
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
      this.#fail(new RouterError('UPSTREAM_INVALID', `The worker answered with a redirect (status ${status})`), true)
      controller.abort(new Error('redirect'))
      return
    }
    if (status > largestStatus) {
      this.#fail(new RouterError('UPSTREAM_INVALID', `The worker answered with the unknown status ${status}`), true)
      controller.abort(new Error('unknown status'))
      return
    }
    this.#status = status
    const raw = controller.rawHeaders
    this.#head = answerHeaders(Array.isArray(raw) ? raw : [], this.#request.answerHeaders)
    if (status >= 400) {
      this.#held = []
      return
    }
    const type = headers['content-type']
    if (typeof type === 'string' && type.startsWith('text/event-stream'))
      this.#boundary = new EventBoundary(this.#o.limits.heldEventBytes)
    else if (typeof headers['content-length'] === 'string') this.#lengthBytes = Number(headers['content-length'])
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.settled) return
    this.#lastByteMs = this.#o.clock()
    if (this.#held === null && !this.#headSent && this.#boundary === null && looksLikeError(chunk)) this.#held = []
    if (this.#held !== null) {
      this.#hold(controller, chunk)
      return
    }
    if (chunk.length === this.#lengthBytes) {
      this.#whole = chunk
      return
    }
    this.#answer.push(chunk)
    if (this.#boundary === null) this.#pass(controller, chunk)
    else this.#passEvents(controller, this.#boundary.push(chunk))
  }

  onResponseEnd(): void {
    this.#o.onClosed()
    if (this.settled) return
    if (this.#held !== null) {
      this.#endHeld(this.#held)
      return
    }
    if (this.#whole !== null) {
      this.#endWhole(this.#whole)
      return
    }
    const rest = this.#boundary?.take()
    // A stream without its last event was cut, however politely its connection was closed.
    if (this.#boundary !== null && this.#request.protocol.lastEvents.length > 0) {
      if (!this.#headSent) {
        this.#fail(new RouterError('UPSTREAM_INVALID', 'The worker ended its stream before the first event'), true)
        return
      }
      this.#tellOfDeath('The worker ended its answer before it was complete')
      return
    }
    if (!this.#headSent) this.#sendHead()
    if (rest !== undefined && rest.length > 0) this.#response.write(rest)
    this.#answered()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#o.onClosed()
    if (this.settled) return
    if (this.#headSent) {
      this.#tellOfDeath(this.#timedOut ?? 'The worker died while answering')
    } else if (this.#timedOut !== null) {
      // The worker may still be computing: a second copy of the request would double the load that made it late.
      this.#fail(new RouterError('UPSTREAM_TIMEOUT', this.#timedOut, { cause: error }), this.#request.stream)
    } else if (this.#held !== null && this.#status >= 400) {
      this.#settleHeld(this.#status, Buffer.concat(this.#held), false)
    } else {
      const message = isHeaderOverflow(error)
        ? 'The worker answered with a larger head than is taken (limits.answerHeaderBytes)'
        : 'The worker could not be reached or closed the connection before answering'
      this.#fail(
        new RouterError(isHeaderOverflow(error) ? 'UPSTREAM_INVALID' : 'UPSTREAM_UNREACHABLE', message, {
          cause: error,
          retryAfterSeconds: 1,
        }),
        true,
        this.#controller === null,
      )
    }
  }

  /** Ends the exchange when it has outlived its time. */
  expire(nowMs: number): void {
    if (this.settled) {
      if (nowMs - this.#settledMs > afterEndMs) this.#controller?.abort(new Error('the answer is complete'))
      return
    }
    if (this.#clientStalled(nowMs)) {
      this.#response.destroy()
      return
    }
    const overdue = this.#overdue(nowMs)
    if (overdue === null || this.#timedOut !== null) return
    this.#timedOut = overdue
    if (this.#controller !== null) {
      this.#controller.abort(new Error(overdue))
      return
    }
    this.#o.onClosed()
    this.#fail(new RouterError('UPSTREAM_TIMEOUT', overdue), false)
  }

  /** Ends the exchange if it is this worker's: an answer not begun may be had from another one. */
  cut(worker: Worker): void {
    if (this.#request.worker !== worker || this.settled) return
    const reason = 'The worker was taken out of service'
    if (this.#controller !== null) {
      this.#controller.abort(new Error(reason))
      return
    }
    this.#o.onClosed()
    this.#fail(new RouterError('UPSTREAM_UNREACHABLE', reason), true)
  }

  /** What took too long; null while everything is in time. */
  #overdue(nowMs: number): string | null {
    const { firstTokenMs, idleMs, totalMs, streamTotalMs } = this.#o.limits
    const ageMs = nowMs - this.#startedMs
    if (!this.#request.stream) return ageMs > totalMs ? `No whole answer from the worker within ${totalMs} ms` : null
    if (ageMs > streamTotalMs) return `The answer did not end within ${streamTotalMs} ms`
    if (!this.#headSent) return ageMs > firstTokenMs ? `No first token from the worker within ${firstTokenMs} ms` : null
    return this.#stalledSinceMs === null && nowMs - this.#lastByteMs > idleMs
      ? `Nothing from the worker for ${idleMs} ms`
      : null
  }

  /** Whether the client has stopped reading for so long that it keeps a place on the worker for nothing. */
  #clientStalled(nowMs: number): boolean {
    if (!this.#response.writableNeedDrain) this.#stalledSinceMs = null
    else this.#stalledSinceMs ??= nowMs
    return this.#stalledSinceMs !== null && nowMs - this.#stalledSinceMs > this.#o.limits.clientStallMs
  }

  #passEvents(controller: Dispatcher.DispatchController, bytes: Buffer): void {
    if (bytes.length === 0) return
    const end = streamEnd(bytes, this.#request.protocol.lastEvents)
    const events = end === -1 ? bytes : bytes.subarray(0, end)
    this.#pass(controller, events)
    const count = countEvents(events)
    this.#events += count
    this.#request.onEvents?.(count)
    // What follows is dropped, and clients that wait for the connection's end need not wait for the worker's.
    if (end !== -1) this.#answered()
  }

  #pass(controller: Dispatcher.DispatchController, bytes: Buffer): void {
    if (!this.#headSent) this.#sendHead()
    if (!this.#tokenSeen) this.#noteToken(bytes)
    if (!this.#response.write(bytes)) {
      controller.pause()
      this.#response.once('drain', () => {
        this.#stalledSinceMs = null
        this.#lastByteMs = this.#o.clock()
        controller.resume()
      })
    }
  }

  #noteToken(bytes: Buffer): void {
    const { firstToken } = this.#request.protocol
    if (firstToken !== null && this.#boundary !== null && !bytes.includes(firstToken)) return
    this.#tokenSeen = true
    this.#request.onFirstToken?.()
  }

  #hold(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#held?.push(chunk)
    this.#heldBytes += chunk.length
    if (this.#heldBytes <= this.#o.limits.heldAnswerBytes) return
    // An error as long as this one is nothing that a client could read.
    this.#settleHeld(this.#status < 400 ? 502 : this.#status, Buffer.concat(this.#held ?? []), false)
    controller.abort(new Error('the error is too long'))
  }

  /** Latin-1 makes a character of every byte, and node writes a head and a text as one string. */
  #endWhole(body: Buffer): void {
    const text = body.toString('latin1')
    this.#answer.pushWhole(text)
    this.#noteToken(body)
    this.#sendHead()
    this.#response.end(text, 'latin1')
    this.#settleAnswered()
  }

  #endHeld(held: readonly Buffer[]): void {
    const body = Buffer.concat(held)
    const status = this.#status >= 400 ? this.#status : statusOfErrorBody(body)
    if (status !== null) {
      this.#settleHeld(status, body, true)
      return
    }
    // It only began like an error.
    this.#answer.push(body)
    this.#sendHead()
    this.#noteToken(body)
    this.#response.write(body)
    this.#answered()
  }

  #settleHeld(status: number, body: Buffer, whole: boolean): void {
    this.#settle({
      kind: 'errored',
      status,
      answer: new HeldAnswer(status, this.#head, body, whole, this.#request.protocol),
    })
  }

  readonly #onClientClose = (): void => {
    if (this.settled) return
    // In this order: aborting reports an error at once, which must not pass for one of the worker's.
    this.#settle({ kind: 'clientGone', status: this.#status, generatedTokens: this.#events })
    this.#controller?.abort(new Error('the client left'))
  }

  #sendHead(): void {
    this.#headSent = true
    this.#response.writeHead(this.#status, this.#head)
  }

  #answered(): void {
    this.#response.end()
    this.#settleAnswered()
  }

  #settleAnswered(): void {
    const { responseId, tellsCompletion } = this.#answer
    const silence = tellsCompletion && this.#request.worker.omitsMisses === true ? 0 : null
    const cachedTokens = this.#answer.cachedTokens ?? silence
    const generatedTokens = this.#answer.generatedTokens ?? this.#events
    this.#settle({ kind: 'answered', status: this.#status, facts: { cachedTokens, generatedTokens, responseId } })
  }

  #tellOfDeath(message: string): void {
    if (this.#boundary === null) this.#response.destroy()
    else this.#response.end(this.#request.protocol.deathNote(new RouterError('UPSTREAM_DIED', message)))
    this.#settle({ kind: 'died', status: this.#status, reason: message, generatedTokens: this.#events })
  }

  #fail(error: RouterError, mayRetry: boolean, refused = false): void {
    this.#settle({ kind: 'failed', error, mayRetry, refused })
  }

  #settle(outcome: ForwardOutcome): void {
    if (this.settled) return
    this.settled = true
    this.#settledMs = this.#o.clock()
    this.#response.off('close', this.#onClientClose)
    this.#o.onOutcome(outcome)
  }
}

const quote = 0x22
const letterE = 0x65
const letterO = 0x6f

/** The beginning of an error that an engine sent with status 200; clients would take it for an answer. */
function looksLikeError(chunk: Buffer): boolean {
  const first = chunk.indexOf(quote)
  const letter = chunk[first + 1]
  if (first === -1 || first > 16 || (letter !== letterE && letter !== letterO)) return false
  const start = chunk.subarray(0, 24).toString('latin1')
  return /^\s*\{\s*"(error"\s*:|object"\s*:\s*"e)/.test(start)
}

function isHeaderOverflow(error: Error): boolean {
  return (error as { code?: string }).code === 'UND_ERR_HEADERS_OVERFLOW'
}

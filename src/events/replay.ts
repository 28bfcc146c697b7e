import type { Cancel, Clock } from '../zmtp/clock.ts'
import { DealerSocket } from '../zmtp/dealer-socket.ts'
import { readTimestamp } from './decode.ts'
import { isEndMark, readSequence, writeSequence } from './sequence-number.ts'

export interface ReplayLimits {
  /** For one replay with all its tries. */
  readonly totalMs: number
  /** Without a message, after which the engine is asked once more. */
  readonly idleMs: number
  /** Tries in a row that bring nothing. */
  readonly maxTries: number
  readonly maxMessageBytes: number
}

export const replayLimits: ReplayLimits = {
  totalMs: 120_000,
  idleMs: 2_000,
  maxTries: 3,
  maxMessageBytes: 16 * 1024 * 1024,
}

/** How many engines may replay to us at once; the rest wait their turn. */
export class ReplayGate {
  readonly #maxAtOnce: number
  readonly #waiting = new Set<() => void>()
  #inside = 0

  constructor(maxAtOnce = 8) {
    this.#maxAtOnce = maxAtOnce
  }

  /** Runs the callback when there is room, at once or later; the answer leaves, or gives up waiting. */
  enter(run: () => void): Cancel {
    let inside = false
    const start = (): void => {
      this.#waiting.delete(start)
      this.#inside++
      inside = true
      run()
    }
    if (this.#inside < this.#maxAtOnce) start()
    else this.#waiting.add(start)
    return () => {
      this.#waiting.delete(start)
      if (!inside) return
      inside = false
      this.#inside--
      const [next] = this.#waiting
      if (next !== undefined) next()
    }
  }
}

export interface ReplayOptions {
  readonly endpoint: string
  readonly clock: Clock
  readonly random: () => number
  readonly gate: ReplayGate
  readonly limits: ReplayLimits
  readonly onBatch: (sequence: number, payload: Buffer) => void
  readonly onEnd: () => void
  readonly onFailed: (reason: string) => void
}

/** One replay under way: from #next on, after the batch that came last. */
interface Run {
  next: number
  last: { readonly sequence: number; readonly timestamp: number } | null
  triesInVain: number
  dealer: DealerSocket | null
  cancelIdle: Cancel
  cancelTotal: Cancel
  leave: Cancel
}

const nothing: Cancel = () => undefined

/**
 * Asks an engine's replay socket for past batches: a DEALER sends `['', start]`, the engine answers one message a batch
 * and an end mark. Two layouts exist, `['', topic, sequence, payload]` and the same without the topic, so the frames are
 * read from the end. Each try has its own connection, on which no late answer to an earlier one can come.
 */
export class Replay {
  readonly #options: ReplayOptions
  #run: Run | null = null

  constructor(options: ReplayOptions) {
    this.#options = options
  }

  /** Ends the replay under way and starts one from this sequence on. */
  start(from: number): void {
    this.cancel()
    const run: Run = {
      next: from,
      last: null,
      triesInVain: 0,
      dealer: null,
      cancelIdle: nothing,
      cancelTotal: nothing,
      leave: nothing,
    }
    this.#run = run
    const { clock, gate, limits } = this.#options
    const leave = gate.enter(() => {
      run.cancelTotal = clock.after(limits.totalMs, () => this.#fail(run, `it took longer than ${limits.totalMs} ms`))
      this.#try(run)
    })
    if (this.#run === run) run.leave = leave
    else leave()
  }

  cancel(): void {
    if (this.#run !== null) this.#end(this.#run)
  }

  #try(run: Run): void {
    const { clock, endpoint, limits, random } = this.#options
    run.triesInVain++
    if (run.triesInVain > limits.maxTries) {
      this.#fail(run, `${limits.maxTries} tries brought nothing`)
      return
    }
    const dealer = new DealerSocket({
      clock,
      random,
      limits: { maxMessageBytes: limits.maxMessageBytes },
      onConnected: () => {
        if (run.dealer === dealer) dealer.send([Buffer.alloc(0), writeSequence(run.last?.sequence ?? run.next)])
      },
      onMessage: (frames) => {
        if (run.dealer === dealer) this.#message(run, frames)
      },
      onDisconnected: () => {
        if (run.dealer === dealer) this.#tryAgain(run)
      },
    })
    run.dealer = dealer
    this.#awaitMore(run)
    dealer.connect(endpoint)
  }

  #tryAgain(run: Run): void {
    const { dealer } = run
    run.dealer = null
    run.cancelIdle()
    void dealer?.close()
    this.#try(run)
  }

  #awaitMore(run: Run): void {
    run.cancelIdle()
    run.cancelIdle = this.#options.clock.after(this.#options.limits.idleMs, () => this.#tryAgain(run))
  }

  #message(run: Run, frames: readonly Buffer[]): void {
    const payload = frames.at(-1)
    const number = frames.at(-2)
    if (payload === undefined || number === undefined) return
    if (isEndMark(number)) {
      this.#end(run)
      this.#options.onEnd()
      return
    }
    const sequence = readSequence(number)
    if (sequence === null) return
    this.#awaitMore(run)
    const { last } = run
    if (last !== null && sequence <= last.sequence) {
      // After a break the engine is asked for the last batch once more: another process would have another one.
      if (sequence === last.sequence && !Object.is(readTimestamp(payload), last.timestamp)) {
        this.#fail(run, 'another process went on answering')
      }
      return
    }
    run.triesInVain = 0
    run.last = { sequence, timestamp: readTimestamp(payload) }
    this.#options.onBatch(sequence, payload)
  }

  #fail(run: Run, reason: string): void {
    this.#end(run)
    this.#options.onFailed(reason)
  }

  #end(run: Run): void {
    if (this.#run === run) this.#run = null
    const { dealer } = run
    run.dealer = null
    run.cancelIdle()
    run.cancelTotal()
    void dealer?.close()
    run.leave()
  }
}

import Type from 'typebox'
import { definePolicy, type Dispatch, type PolicyFleet } from '../policy.ts'

/** What is learned about one worker. */
interface Learned {
  readonly speed: SpeedFactor
  /** Streamed requests sent and without a first byte yet, oldest first: engines prefill first come, first served. */
  readonly waiting: Set<Dispatch>
  /** When the oldest of them can have begun: its dispatch or the first byte of the one before it. */
  headSinceMs: number
}

/** A prompt that is on its way to a worker but for so many blocks is taken for the same prompt. */
const twinBlocks = 2

/** The head of the queue is never taken for wholly done before its first byte says so. */
const mostProgress = 0.9

/**
 * Minus the predicted time to first token, in ms: the prefill queued on the worker (less what it must have done since),
 * the request's own uncached tokens, and what running requests add to each step. Cost of outstanding plus own uncached
 * tokens came nearest to an oracle in every measured trace (docs/benchmarks.md). Blocks in slower tiers count as computed in
 * part: what loading them takes is a part of the prediction. Requests of others that wait in the engine count as many tokens
 * as this pool's compute on average.
 *
 * Blocks that are on their way to a worker are computed there before this request begins, so that it waits for them within
 * the queue and computes only what follows. Where that takes work from nobody, a second copy elsewhere is worth having all
 * the same, since others will go on differently from what they share; so only as many of their tokens are taken off as the
 * shortest queue has. A twin, which goes on in no other way, has no use for a second copy (decision 045).
 */
export const predictedTtft = definePolicy({
  kind: 'scorer',
  type: 'predicted-ttft',
  description: 'Least predicted time to first token, from outstanding and own uncached tokens and learned rates.',
  parameters: Type.Object(
    {
      prefillTokensPerSecond: Type.Number({
        description: 'Prefill rate assumed until a worker’s own is learned.',
        exclusiveMinimum: 0,
        default: 8000,
      }),
      runningRequestTokens: Type.Number({
        description: 'What one running request adds, in prefill tokens.',
        minimum: 0,
        default: 16,
      }),
      ownWeight: Type.Number({
        description:
          'Weight of the request’s own uncached tokens; above 1 it favours a warm worker over a short queue.',
        minimum: 0,
        default: 1,
      }),
      twinCredit: Type.Number({
        description:
          'What a token counts that an equal prompt on its way to the worker will have computed; above 1, equal prompts keep together.',
        minimum: 0,
        default: 1.25,
      }),
      learnedSamples: Type.Number({
        description: 'Answers over which a learned rate is averaged.',
        minimum: 1,
        default: 64,
      }),
    },
    { additionalProperties: false },
  ),
  create({ prefillTokensPerSecond, runningRequestTokens, ownWeight, twinCredit, learnedSamples }, { clock }) {
    // One line for the whole pool: were each worker's learned alone, whichever is tried first would look unlike the rest
    // for no better reason than having been tried.
    const line = new PrefillLine(prefillTokensPerSecond, learnedSamples)
    /** Tokens that a request of this pool computes, on average: what one of others is taken for. */
    let usualTokens = 0
    let dispatched = 0
    let misfit = 0
    let observed = 0
    const learned = new Map<number, Learned>()

    const of = (serial: number): Learned => {
      let entry = learned.get(serial)
      if (entry === undefined) {
        entry = { speed: new SpeedFactor(learnedSamples), waiting: new Set(), headSinceMs: 0 }
        learned.set(serial, entry)
      }
      return entry
    }

    const queuedTokens = (entry: Learned, outstanding: number, msPerToken: number, nowMs: number): number => {
      const head = entry.waiting.values().next().value
      if (head === undefined) return outstanding
      const done = Math.min(mostProgress * head.uncachedTokens, (nowMs - entry.headSinceMs) / msPerToken)
      return Math.max(0, outstanding - Math.max(0, done))
    }

    const msPerTokenOf = (entry: Learned): number => line.msPerToken * entry.speed.factor

    /** Tokens queued on the worker that has the fewest. */
    const shortestQueue = (fleet: PolicyFleet, nowMs: number): number => {
      let shortest = Infinity
      for (let i = 0; i < fleet.count; i++) {
        const entry = of(fleet.serials[i] as number)
        shortest = Math.min(shortest, queuedTokens(entry, fleet.prefillTokens[i] as number, msPerTokenOf(entry), nowMs))
      }
      return shortest
    }

    /** Forgets workers that are gone, so that the map follows the fleet. */
    const prune = (fleet: PolicyFleet): void => {
      if (learned.size <= 4 * fleet.count + 64) return
      const present = new Set(fleet.serials.subarray(0, fleet.count))
      for (const serial of learned.keys()) if (!present.has(serial)) learned.delete(serial)
    }

    const leave = (dispatch: Dispatch): void => {
      const entry = of(dispatch.serial)
      if (entry.waiting.delete(dispatch)) entry.headSinceMs = clock()
    }

    return {
      score(request, fleet, match, out) {
        const nowMs = clock()
        let shortest = -1
        for (let i = 0; i < fleet.count; i++) {
          const entry = of(fleet.serials[i] as number)
          const msPerToken = msPerTokenOf(entry)
          let uncached = Math.max(0, request.promptTokensEstimate - match.creditTokens(i, msPerToken))
          const coming = match.comingTokens[i] as number
          if (coming > 0) {
            if (shortest < 0) shortest = shortestQueue(fleet, nowMs)
            const further = request.promptTokensEstimate - (match.cachedTokens[i] as number) - coming
            const isTwin = further <= twinBlocks * (fleet.blockSize[i] as number)
            uncached -= isTwin ? twinCredit * coming : Math.min(coming, shortest)
          }
          const foreignWaiting = fleet.foreignWaiting[i] as number
          const own = queuedTokens(entry, fleet.prefillTokens[i] as number, msPerToken, nowMs)
          const queued = own + foreignWaiting * usualTokens
          const running = (fleet.requests[i] as number) + (fleet.foreignRequests[i] as number) - foreignWaiting
          out[i] = -(line.baseMs + (queued + ownWeight * uncached + runningRequestTokens * running) * msPerToken)
        }
        prune(fleet)
      },
      onDispatched(dispatch) {
        usualTokens += (dispatch.uncachedTokens - usualTokens) / Math.min(learnedSamples, ++dispatched)
        if (!dispatch.stream) return
        const entry = of(dispatch.serial)
        if (entry.waiting.size === 0) entry.headSinceMs = dispatch.atMs
        entry.waiting.add(dispatch)
      },
      onFirstByte(dispatch, ttftMs) {
        const own = dispatch.uncachedTokens + (dispatch.loadTokens ?? 0)
        const tokens = own + dispatch.prefillTokensAhead
        const predictedMs = line.baseMs + tokens * line.msPerToken
        if (ttftMs > 0 && predictedMs > 0) {
          // What the line gets wrong for everyone says nothing about this worker.
          const off = Math.log(ttftMs / predictedMs)
          misfit += (off - misfit) / Math.min(learnedSamples, ++observed)
          of(dispatch.serial).speed.observe(off - misfit)
        }
        line.observe(own, dispatch.prefillTokensAhead, ttftMs)
        leave(dispatch)
      },
      onFinished: leave,
    }
  },
})

/**
 * Time to first token as a straight line over the tokens before it, fitted by least squares with exponential forgetting,
 * from a prior that two made-up samples hold until real ones outweigh them.
 */
class PrefillLine {
  msPerToken: number
  baseMs = 0
  readonly #keep: number
  readonly #least: number
  readonly #most: number
  #weight = 0
  #x = 0
  #y = 0
  #xx = 0
  #xy = 0

  constructor(tokensPerSecond: number, samples: number) {
    this.#keep = 1 - 1 / samples
    this.msPerToken = 1000 / tokensPerSecond
    // A line learned from odd samples must not make a worker look free or lost.
    this.#least = this.msPerToken / 20
    this.#most = this.msPerToken * 1000
    // Light and close together, so that real samples bend the line soon wherever they lie.
    const slope = this.msPerToken
    this.#add(0, 0, 0.25)
    this.#add(1024, 1024 * slope, 0.25)
  }

  /** A sample with much queued before it says little, since how far that had come is a guess: it weighs its own share. */
  observe(ownTokens: number, tokensAhead: number, ms: number): void {
    const tokens = ownTokens + tokensAhead
    if (!(ms > 0) || !Number.isFinite(ms)) return
    this.#add(tokens, ms, tokensAhead === 0 ? 1 : ownTokens / tokens)
  }

  #add(tokens: number, ms: number, weight: number): void {
    const keep = 1 - (1 - this.#keep) * weight
    this.#weight = this.#weight * keep + weight
    this.#x = this.#x * keep + weight * tokens
    this.#y = this.#y * keep + weight * ms
    this.#xx = this.#xx * keep + weight * tokens * tokens
    this.#xy = this.#xy * keep + weight * tokens * ms
    const spread = this.#weight * this.#xx - this.#x * this.#x
    if (spread <= 0) return
    const slope = (this.#weight * this.#xy - this.#x * this.#y) / spread
    this.msPerToken = Math.min(this.#most, Math.max(this.#least, slope))
    this.baseMs = Math.max(0, (this.#y - this.msPerToken * this.#x) / this.#weight)
  }
}

/** Below this a difference in speed is not worth acting on: it is noise among equal machines. */
const leastDifference = Math.log(1.25)
const leastSamples = 12

/**
 * How much slower (above 1) or faster than the pool's line a worker is: the mean logarithm of observed over predicted
 * time with exponential forgetting, and 1 until the difference is both large and certain (two standard errors).
 */
class SpeedFactor {
  factor = 1
  readonly #keep: number
  #weight = 0
  #mean = 0
  #squares = 0

  constructor(samples: number) {
    this.#keep = 1 - 1 / samples
  }

  /** `ratio`: logarithm of observed over predicted time. */
  observe(ratio: number): void {
    this.#weight = this.#weight * this.#keep + 1
    const step = (ratio - this.#mean) / this.#weight
    this.#squares = this.#squares * this.#keep + (ratio - this.#mean) * (ratio - this.#mean - step)
    this.#mean += step
    const error = Math.sqrt(this.#squares) / this.#weight
    const certain = this.#weight >= leastSamples && Math.abs(this.#mean) > Math.max(leastDifference, 2 * error)
    this.factor = certain ? Math.exp(this.#mean) : 1
  }
}

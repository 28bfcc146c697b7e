import Type from 'typebox'
import { Demand } from '../learned/demand.ts'
import { KvRoom } from '../learned/kv-room.ts'
import { PrefillLine } from '../learned/prefill-line.ts'
import { PromptsUnderWay } from '../learned/prompts-under-way.ts'
import { SpeedFactor } from '../learned/speed-factor.ts'
import { definePolicy, type Dispatch, type PolicyFleet, type PolicyRequest } from '../policy.ts'

/** What is learned about one worker. */
interface Learned {
  readonly speed: SpeedFactor
  /** Streamed requests sent and without a first byte yet, oldest first: engines prefill first come, first served. */
  readonly waiting: Set<Dispatch>
  readonly underWay: PromptsUnderWay
  readonly demand: Demand
  /** When the oldest of them can have begun: its dispatch or the first byte of the one before it. */
  headSinceMs: number
}

/** A prompt that is on its way to a worker but for so many blocks is taken for the same prompt. */
const twinBlocks = 2

/** From the first token of an answer to its end, until it is learned. */
const assumedAnswerMs = 5_000

/** The head of the queue is never taken for wholly done before its first byte says so. */
const mostProgress = 0.9

/**
 * Minus what a request costs, in ms. Its own time to first token: the prefill queued on the worker (less what it must have
 * done since), its own uncached tokens, what running requests add to each step, and the wait for room in the KV cache, which
 * is what long prompts wait for. And part of what it costs others, which a greedy choice does not see and pays for later: whoever
 * comes during its prefill waits for the rest of it, or goes elsewhere, and what does not fit beside it is driven out of the cache
 * and computed again. Cost of outstanding plus own uncached tokens came nearest to an oracle in every measured trace, and with
 * the rest at or below it (docs/benchmarks.md). Blocks in slower tiers count as computed in part: what loading them takes is a
 * part of the prediction. Requests of others that wait in the engine count as many tokens as this pool's compute on average.
 *
 * A cached prefix is credited as far as it fits beside what requests under way hold: beyond that it will be gone before the
 * engine comes to it. Two conversations that are too long for one cache would else take turns in driving each other out.
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
        default: 4,
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
      othersWeight: Type.Number({
        description:
          'Weight of the time that later requests wait for this one’s prefill; above 0 a long prompt goes more readily where its prefix is.',
        minimum: 0,
        default: 0.5,
      }),
      demandWindowMs: Type.Number({
        description: 'How long what a worker was asked for counts among what it will be asked for.',
        exclusiveMinimum: 0,
        default: 30_000,
      }),
      learnedSamples: Type.Number({
        description: 'Answers over which a learned rate is averaged.',
        minimum: 1,
        default: 64,
      }),
    },
    { additionalProperties: false },
  ),
  create(
    {
      prefillTokensPerSecond,
      runningRequestTokens,
      ownWeight,
      twinCredit,
      othersWeight,
      demandWindowMs,
      learnedSamples,
    },
    { clock },
  ) {
    // One line for the whole pool: were each worker's learned alone, whichever is tried first would look unlike the rest
    // for no better reason than having been tried.
    const line = new PrefillLine(prefillTokensPerSecond, learnedSamples)
    /** Tokens that a request of this pool computes, on average: what one of others is taken for. */
    let usualTokens = 0
    /** Tokens of a whole prompt, on average. */
    let usualPrompt = 0
    let dispatched = 0
    let misfit = 0
    let observed = 0
    /** By candidate of the last call. */
    let predicted = new Float64Array(16)
    const room = new KvRoom(assumedAnswerMs, learnedSamples)
    const learned = new Map<number, Learned>()

    const of = (serial: number): Learned => {
      let entry = learned.get(serial)
      if (entry === undefined) {
        entry = {
          speed: new SpeedFactor(learnedSamples),
          waiting: new Set(),
          underWay: new PromptsUnderWay(),
          demand: new Demand(demandWindowMs),
          headSinceMs: 0,
        }
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

    /** How the prompt fits beside what requests under way hold, on the worker that was looked at last. */
    const space = { waitMs: 0, keptTokens: Infinity, drivenOutTokens: 0 }
    /** What others have in the cache counts as well, where the engine tells of it. */
    const lookForSpace = (request: PolicyRequest, fleet: PolicyFleet, i: number, { underWay }: Learned): void => {
      space.waitMs = 0
      space.keptTokens = Infinity
      space.drivenOutTokens = 0
      const blockSize = fleet.blockSize[i] as number
      const capacityBlocks = fleet.capacityBlocks[i] as number
      if (blockSize === 0 || capacityBlocks === 0) return
      const foreign = fleet.foreignRequests[i] as number
      const usage = fleet.kvUsage[i] as number
      const told = foreign > 0 && !Number.isNaN(usage) ? usage * capacityBlocks : 0
      const counted = fleet.decodeBlocks[i] as number
      const blocks = request.promptTokensEstimate / blockSize
      const usedBlocks = Math.max(counted, told)
      if (usedBlocks + blocks <= capacityBlocks) return
      const requests = (fleet.requests[i] as number) + foreign
      space.waitMs = room.waitMs(capacityBlocks, usedBlocks, requests, blocks)
      const heldBlocks = Math.max(counted * underWay.distinctShare, told)
      const common = underWay.commonBlocks(request.keys(blockSize))
      space.keptTokens = (common + Math.max(0, capacityBlocks - heldBlocks)) * blockSize
      space.drivenOutTokens = Math.max(0, blocks - common + heldBlocks - capacityBlocks) * blockSize
    }

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
        if (predicted.length < fleet.count) predicted = new Float64Array(2 * fleet.count)
        let shortest = -1
        for (let i = 0; i < fleet.count; i++) {
          const entry = of(fleet.serials[i] as number)
          const msPerToken = msPerTokenOf(entry)
          lookForSpace(request, fleet, i, entry)
          const credit = Math.min(match.creditTokens(i, msPerToken), space.keptTokens)
          let uncached = Math.max(0, request.promptTokensEstimate - credit)
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
          const tokens = queued + ownWeight * uncached + runningRequestTokens * running
          const ms = line.baseMs + space.waitMs + tokens * msPerToken
          const arrivals = usualPrompt === 0 ? 0 : entry.demand.tokensPerMs(nowMs) / usualPrompt
          const waitingMs = arrivals * waitedMs(Math.max(0, uncached) * msPerToken, usualPrompt * msPerToken)
          predicted[i] = ms
          out[i] = -(ms + othersWeight * (waitingMs + space.drivenOutTokens * msPerToken))
        }
        prune(fleet)
      },
      predictedMs: (candidate) => predicted[candidate] ?? NaN,
      onDispatched(dispatch) {
        const samples = Math.min(learnedSamples, ++dispatched)
        usualTokens += (dispatch.uncachedTokens - usualTokens) / samples
        usualPrompt += (dispatch.promptTokens - usualPrompt) / samples
        const entry = of(dispatch.serial)
        entry.underWay.began(dispatch)
        entry.demand.add(dispatch.promptTokens, dispatch.atMs)
        if (!dispatch.stream) return
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
        room.began(dispatch, clock())
      },
      onFinished(dispatch) {
        of(dispatch.serial).underWay.ended(dispatch)
        leave(dispatch)
        room.ended(dispatch, clock())
      },
    }
  },
})

/**
 * How long all those wait together, at one a millisecond, that come during a prefill of so long: each for what is left of it, but not
 * longer than it would take to compute a usual prompt elsewhere.
 */
function waitedMs(prefillMs: number, elsewhereMs: number): number {
  const all = prefillMs * prefillMs
  const spared = Math.max(0, prefillMs - elsewhereMs)
  return (all - spared * spared) / 2
}

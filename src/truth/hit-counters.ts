import { agree } from '../workers/agreement.ts'
import type { PrefixCounters } from '../workers/load.ts'
import type { Worker } from '../workers/worker.ts'
import type { Share } from './share.ts'

/** What is counted of a request. */
interface Prompt {
  readonly tokens: Uint32Array
  readonly runBlocks: number
  readonly blocks: number
  readonly blockSize: number
  /** Whether the cached tokens that it reports are those of this one prompt. */
  readonly reports: boolean
}

/** What is known of the worker, and where the judgement goes. */
interface Judged {
  readonly worker: Worker
  readonly storedBlocks: number
  readonly removedBlocks: number
  readonly clears: number
  readonly cached: Share
  lean: number
}

/** Sums over the requests of one worker since the router knows it, in tokens. */
interface Sums {
  /** Prompts that were sent and not answered yet. */
  onTheirWay: number
  /** Prompts that ended in a way that leaves open what the engine counted: failed, left, several in one. */
  unclear: number
  answered: number
  predicted: number
  /** Of those whose answer reported it: what was predicted and what was found. */
  reportedPredicted: number
  reportedFound: number
  /** Answers that neither reported what they found nor were looked up. */
  unverified: number
}

interface Window extends Sums {
  readonly counters: PrefixCounters
  readonly storedBlocks: number
  readonly removedBlocks: number
  readonly clears: number
}

/** A window is compared once what is uncertain at its edges is so small a part of it. */
const edgeShare = 0.1
/** Least requests without a report in a window that is worth comparing. */
const leastUnverified = 20
/** A window counts as much as so many requests at most: it is one observation, however long. */
const mostWeight = 30

/**
 * Compares what was predicted with the engine's own hit counters, for answers that do not tell what they found. Sums over a
 * window between two readings of the load, and only where the engine counts as many prompt tokens as we have sent: then
 * all of its traffic is ours.
 */
export class HitCounters {
  readonly #sums: Sums = {
    onTheirWay: 0,
    unclear: 0,
    answered: 0,
    predicted: 0,
    reportedPredicted: 0,
    reportedFound: 0,
    unverified: 0,
  }
  #window: Window | null = null

  /** Whether a reading would begin a window, or may end one. */
  get isDue(): boolean {
    return this.#window === null || this.#sums.unverified - this.#window.unverified >= leastUnverified
  }

  sent({ tokens }: Prompt): void {
    this.#sums.onTheirWay += tokens.length
  }

  /** Nothing more will come of a request: answered, or not. */
  ended({ tokens, reports }: Prompt, answered: boolean): void {
    this.#sums.onTheirWay -= tokens.length
    if (!answered || !reports) this.#sums.unclear += tokens.length
  }

  answered(prompt: Prompt, foundTokens: number | null, isVerified: boolean): void {
    if (!prompt.reports) return
    const { tokens, runBlocks, blocks, blockSize } = prompt
    const predicted = Math.min(runBlocks, blocks) * blockSize
    this.#sums.answered += tokens.length
    this.#sums.predicted += predicted
    if (foundTokens !== null) {
      this.#sums.reportedPredicted += predicted
      this.#sums.reportedFound += foundTokens
    } else if (!isVerified) this.#sums.unverified++
  }

  /**
   * The engine's counters were read. Answers whether a window was judged.
   *
   * @param isWhole whether the map knows all that the worker holds
   */
  read(record: Judged, counters: PrefixCounters, blockSize: number, isWhole: () => boolean): boolean {
    const window = this.#window
    const restarted = window !== null && counters.queriedTokens < window.counters.queriedTokens
    if (window === null || restarted || window.clears !== record.clears) {
      this.#open(record, counters)
      return false
    }
    const sums = this.#sums
    const answered = sums.answered - window.answered
    const edge = window.onTheirWay + sums.onTheirWay + (sums.unclear - window.unclear)
    const unverified = sums.unverified - window.unverified
    if (unverified < leastUnverified || edge > answered * edgeShare) {
      // What is uncertain only grows: a window that began badly never gets better.
      if (edge > answered * edgeShare && sums.onTheirWay === 0) this.#open(record, counters)
      return false
    }
    this.#open(record, counters)
    const queried = counters.queriedTokens - window.counters.queriedTokens
    // Others send to this engine as well: nothing can be said of our part.
    if (Math.abs(queried - answered) > edge) return false
    const predicted = sums.predicted - window.predicted - (sums.reportedPredicted - window.reportedPredicted)
    const found = counters.hitTokens - window.counters.hitTokens - (sums.reportedFound - window.reportedFound)
    const removed = (record.removedBlocks - window.removedBlocks) * blockSize
    const stored = (record.storedBlocks - window.storedBlocks) * blockSize
    const over = predicted - found - removed - edge
    const under = found - predicted - stored - edge
    const wrong = Math.max(0, over, under > 0 && isWhole() ? under : 0)
    agree(record.worker.agreement, predicted, Math.max(0, found))
    record.worker.agreement.verified += unverified
    const larger = Math.max(predicted, found)
    if (larger > 0) this.#weigh(record, larger / blockSize, wrong / blockSize, unverified)
    record.lean = record.lean * 0.9 + Math.sign(predicted - found) * (wrong / blockSize)
    return true
  }

  /** As much as that many requests of its average. */
  #weigh(record: Judged, blocks: number, wrongBlocks: number, requests: number): void {
    const times = Math.min(requests, mostWeight)
    for (let i = 0; i < times; i++) record.cached.add(blocks / times, wrongBlocks / times)
  }

  #open(record: Judged, counters: PrefixCounters): void {
    const { storedBlocks, removedBlocks, clears } = record
    this.#window = { ...this.#sums, counters, storedBlocks, removedBlocks, clears }
  }
}

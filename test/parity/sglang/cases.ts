import type { ProfileChoice } from '../../../src/routing/catalogue.ts'
import { requestLog, type LogStep } from './request-log.ts'
import type { SglangOptions } from './router.ts'

/** One log that both programs are shown, and how each is set up for it. */
export interface SglangCase {
  readonly title: string
  readonly workers: number
  readonly theirs: SglangOptions
  readonly ours: string | ProfileChoice
  /**
   * So many ways of ours to begin are tried. Where the tree is cut down, it matters which matches count as uses, and the count
   * stands anywhere there when the first prompt comes: workers register at the same time, each again with those before it.
   * Two workers only: where the first owner of a run is cut off, the one next answered for is one that a hash table names,
   * another at each start.
   */
  readonly countStarts?: number
  readonly steps: readonly LogStep[]
}

interface Thresholds {
  readonly cache_threshold?: number
  readonly balance_abs_threshold?: number
  readonly balance_rel_threshold?: number
  readonly max_tree_size?: number
}

/** Long enough that no log is still being played when the next one comes. */
const evictionIntervalSecs = 4

function cacheAware(thresholds: Thresholds): Pick<SglangCase, 'theirs' | 'ours'> {
  const { cache_threshold, balance_abs_threshold, balance_rel_threshold, max_tree_size } = thresholds
  const parameters = {
    ...(cache_threshold === undefined ? {} : { cacheThreshold: cache_threshold }),
    ...(balance_abs_threshold === undefined ? {} : { balanceAbsThreshold: balance_abs_threshold }),
    ...(balance_rel_threshold === undefined ? {} : { balanceRelThreshold: balance_rel_threshold }),
    ...(max_tree_size === undefined ? {} : { maxTreeSize: max_tree_size }),
    charactersPerToken: 1,
  }
  const intervals = max_tree_size === undefined ? {} : { eviction_interval_secs: evictionIntervalSecs }
  return {
    theirs: { policy: 'cache_aware', ...intervals, ...thresholds },
    ours: { name: 'sglang', picker: { type: 'sglang-cache-aware', parameters } },
  }
}

/** Logs whose sequence of workers has to be the same. */
export function sequenceCases(seed: number): SglangCase[] {
  const log = { seed, requests: 400, inFlight: 8, reuse: 0.6, evictEvery: 0 }
  return [
    { title: 'cache_aware, defaults', workers: 4, ...cacheAware({}), steps: requestLog(log) },
    {
      title: 'cache_aware, defaults, one prompt for everybody',
      workers: 3,
      ...cacheAware({}),
      steps: requestLog({ ...log, seed: seed + 1, requests: 300, inFlight: 150, reuse: 1 }),
    },
    {
      title: 'cache_aware, load soon uneven',
      workers: 4,
      ...cacheAware({ balance_abs_threshold: 3, balance_rel_threshold: 1.2 }),
      steps: requestLog({ ...log, seed: seed + 2, inFlight: 20, reuse: 0.8 }),
    },
    {
      title: 'cache_aware, only long matches',
      workers: 8,
      ...cacheAware({ cache_threshold: 0.7, balance_abs_threshold: 6 }),
      steps: requestLog({ ...log, seed: seed + 3, inFlight: 30 }),
    },
    {
      title: 'cache_aware, every match',
      workers: 5,
      ...cacheAware({ cache_threshold: 0, balance_abs_threshold: 4, balance_rel_threshold: 1 }),
      steps: requestLog({ ...log, seed: seed + 4, inFlight: 15, reuse: 0.9 }),
    },
    {
      title: 'cache_aware, a tree of 500 characters',
      workers: 2,
      ...cacheAware({ max_tree_size: 500, balance_abs_threshold: 3, balance_rel_threshold: 1.2 }),
      countStarts: 8,
      steps: requestLog({ ...log, seed: seed + 5, requests: 300, reuse: 0.7, evictEvery: 40 }),
    },
    {
      title: 'round_robin',
      workers: 5,
      theirs: { policy: 'round_robin' },
      ours: 'round-robin',
      steps: requestLog({ ...log, seed: seed + 6, requests: 200 }),
    },
  ]
}

export interface KeyCase extends Omit<SglangCase, 'countStarts'> {
  /** Whether a new key has to go to a worker with the fewest keys in flight. */
  readonly byGroups: boolean
}

/** Policies that keep to routing keys: what has to hold for each choice is checked, in theirs and in ours. */
export function keyCases(seed: number): KeyCase[] {
  const steps = requestLog({ seed: seed + 7, requests: 400, inFlight: 12, reuse: 0, evictEvery: 0, routingKeys: 60 })
  const manual = (title: string, assignmentMode: string): KeyCase => ({
    title,
    workers: 4,
    theirs: { policy: 'manual', assignment_mode: assignmentMode },
    ours: { picker: { type: 'sglang-manual', parameters: { assignmentMode } } },
    byGroups: assignmentMode === 'min_group',
    steps,
  })
  return [manual('manual', 'random'), manual('manual, fewest keys', 'min_group')]
}

/** Policies that draw lots: the shares of the workers have to be those that the rule gives, in theirs and in ours. */
export interface ShareCase extends Omit<SglangCase, 'countStarts'> {
  /** What each engine says that it holds in its KV cache; none: they do not tell. */
  readonly heldTokens: readonly number[]
  readonly shares: readonly number[]
}

export function shareCases(seed: number): ShareCase[] {
  const steps = requestLog({ seed, requests: 3_000, inFlight: 1, reuse: 0, evictEvery: 0 })
  const quarter = [0.25, 0.25, 0.25, 0.25]
  return [
    {
      title: 'random',
      workers: 4,
      theirs: { policy: 'random' },
      ours: 'random',
      heldTokens: [],
      shares: quarter,
      steps,
    },
    {
      title: 'power_of_two',
      workers: 4,
      theirs: { policy: 'power_of_two' },
      ours: 'sglang-power-of-two',
      heldTokens: [50_000, 1_000, 20_000, 90_000],
      // Of the six pairs the second worker wins three, the third two and the first one.
      shares: [1 / 6, 1 / 2, 1 / 3, 0],
      steps,
    },
  ]
}

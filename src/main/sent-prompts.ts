import type { Config } from '../config/schema.ts'
import type { WorkerSlot } from '../kv/batch.ts'
import { Approximate } from '../map/approximate.ts'
import { Coming } from '../map/coming.ts'
import type { FlatMap } from '../map/flat-map.ts'
import { SentPrompts, type SentPromptsListener } from '../map/sent-prompts.ts'

export interface SentPromptsOptions {
  /** Read anew each time: a reload may change it. */
  readonly config: () => Pick<Config, 'approximate' | 'coming'>
  readonly map: FlatMap
  readonly isAnnounced: (slot: WorkerSlot) => boolean
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Hears of the prompts that are sent; absent where nobody else need know. */
  readonly listener?: SentPromptsListener
}

const expireMs = 250

/** What the router concludes from the prompts that it sends, joined to the map. */
export function createSentPrompts({ config, map, isAnnounced, clock, listener }: SentPromptsOptions) {
  const coming = new Coming({
    get requests() {
      return config().coming.requests
    },
  })
  const approximate = new Approximate({
    map,
    limits: {
      get capacityBlocks() {
        return config().approximate.capacityBlocks
      },
      get ttlMs() {
        return config().approximate.ttlSeconds * 1000
      },
    },
    isAnnounced: (slot) => !config().approximate.enabled || isAnnounced(slot),
  })
  const expiring = setInterval(() => approximate.expire(clock()), expireMs)
  expiring.unref()
  return {
    coming,
    approximate,
    sentPrompts: new SentPrompts({ coming, approximate, ...(listener === undefined ? {} : { listener }) }),
    /** Prompts that other replicas send. */
    foreignPrompts: new SentPrompts({ coming, approximate }),
    stop: () => clearInterval(expiring),
  }
}

import { LoadFeed } from '../events/load-feed.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { LoadFeedPlace, RankLoad } from '../workers/engine.ts'
import type { Worker } from '../workers/worker.ts'
import { systemClock } from '../zmtp/clock.ts'

/** The load that an engine publishes of one worker, as its endpoint starts, questions and stops it. */
export interface WorkerLoadFeed {
  readonly place: LoadFeedPlace
  /** Whether it is heard at present, so that nobody need ask for the load. */
  isLive(): boolean
  stop(): Promise<void>
}

export interface LoadFeedParts {
  readonly metrics: Metrics
  readonly random: () => number
}

export function startLoadFeed(
  worker: Worker,
  place: LoadFeedPlace,
  onLoad: (load: RankLoad) => void,
  { metrics, random }: LoadFeedParts,
): WorkerLoadFeed {
  const feed = new LoadFeed({
    ...place,
    rank: worker.rank ?? 0,
    clock: systemClock,
    random,
    onLoad: (load) => {
      metrics.loadFeedMessages.add(1, worker.id, 'used')
      onLoad(load)
    },
    onRefused: (reason) => metrics.loadFeedMessages.add(1, worker.id, reason),
  })
  return { place, isLive: () => feed.isLive(), stop: () => feed.stop() }
}

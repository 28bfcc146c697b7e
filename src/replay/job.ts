import type { PolicyPlugin } from '../routing/policy.ts'
import { hitBounds } from './bounds.ts'
import { engineOf, type Calibration } from './calibration.ts'
import { replay, type Progress, type ReplayOptions } from './replay.ts'
import { summary, type ReplayResult, type Slo } from './summary.ts'
import { Tiers, type TierOptions } from './tiers.ts'
import type { Trace } from './traces/trace.ts'

/** One run as plain data, which a thread can be handed. */
export interface ReplayJob extends Pick<
  ReplayOptions,
  'policy' | 'workers' | 'load' | 'speeds' | 'router' | 'faults' | 'timeoutMs' | 'seed'
> {
  readonly calibration: Calibration
  /** Of one worker's cache on the GPU. */
  readonly capacityBlocks: number
  readonly tiers?: TierOptions
  readonly slo?: Slo
  /** Whether to tell what single caches would have found. */
  readonly tellsBounds?: boolean
}

export interface JobContext {
  readonly trace: Trace
  readonly plugins?: readonly PolicyPlugin[]
  readonly onProgress?: (progress: Progress) => boolean
}

export async function runJob(job: ReplayJob, { trace, plugins, onProgress }: JobContext): Promise<ReplayResult> {
  const { calibration, capacityBlocks, slo, load = {}, tiers: tierOptions, tellsBounds = false, ...options } = job
  const tiers = tierOptions === undefined ? undefined : new Tiers(tierOptions, calibration)
  // What no cache can hold can be served by no engine.
  const mostTokens = Math.min(load.mostTokens ?? Infinity, capacityBlocks * calibration.blockSize)
  const run = await replay({
    ...options,
    ...{ trace, engine: engineOf(calibration, capacityBlocks), load: { ...load, mostTokens } },
    ...(tiers === undefined ? {} : { tiers }),
    ...(plugins === undefined ? {} : { plugins }),
    ...(onProgress === undefined ? {} : { onProgress }),
  })
  const capacityTokens = capacityBlocks * calibration.blockSize * options.workers
  return summary(run, {
    ...(tellsBounds ? { bounds: hitBounds(run.rows, trace, capacityTokens) } : {}),
    ...(tiers === undefined ? {} : { moved: tiers.moved }),
    ...(slo === undefined ? {} : { slo }),
    ...(load.warmUpMs === undefined ? {} : { warmUpMs: load.warmUpMs }),
  })
}

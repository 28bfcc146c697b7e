import type { PolicyPlugin } from '../routing/policy.ts'
import type { LoadOptions } from './arrivals.ts'
import { hitBounds } from './bounds.ts'
import { engineOf, type Calibration } from './calibration.ts'
import { replay, type Progress, type ReplayOptions, type ReplayRun } from './replay.ts'
import { summary, type ReplayResult, type Slo } from './summary.ts'
import { Tiers, type BytesMoved, type TierOptions } from './tiers.ts'
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

/** What plays jobs, in the order in which they come. */
export interface Player {
  run(job: ReplayJob): Promise<ReplayResult>
  /** Runs under way end with what they have; those that wait end before they have anything. */
  stop(): void
  close(): Promise<void>
  /** What is to be said beside the results. */
  readonly notes?: readonly string[]
}

export async function runJob(job: ReplayJob, { trace, plugins, onProgress }: JobContext): Promise<ReplayResult> {
  const { calibration, capacityBlocks, tiers: tierOptions, ...options } = job
  const tiers = tierOptions === undefined ? undefined : new Tiers(tierOptions, calibration)
  const run = await replay({
    ...options,
    ...{ trace, engine: engineOf(calibration, capacityBlocks), load: loadOf(job) },
    ...(tiers === undefined ? {} : { tiers }),
    ...(plugins === undefined ? {} : { plugins }),
    ...(onProgress === undefined ? {} : { onProgress }),
  })
  return resultOf(job, run, trace, tiers?.moved)
}

/** What no cache can hold can be served by no engine. */
export function loadOf({
  load = {},
  capacityBlocks,
  calibration,
}: Pick<ReplayJob, 'load' | 'capacityBlocks' | 'calibration'>): LoadOptions & { readonly mostTokens: number } {
  return { ...load, mostTokens: Math.min(load.mostTokens ?? Infinity, capacityBlocks * calibration.blockSize) }
}

export function resultOf(job: ReplayJob, run: ReplayRun, trace: Trace, moved?: BytesMoved): ReplayResult {
  const { calibration, capacityBlocks, workers, slo, load = {}, tellsBounds = false } = job
  const capacityTokens = capacityBlocks * calibration.blockSize * workers
  return summary(run, {
    ...(tellsBounds ? { bounds: hitBounds(run.rows, trace, capacityTokens) } : {}),
    ...(moved === undefined ? {} : { moved }),
    ...(slo === undefined ? {} : { slo }),
    ...(load.warmUpMs === undefined ? {} : { warmUpMs: load.warmUpMs }),
  })
}
